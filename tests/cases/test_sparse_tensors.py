"""Sparse weights, constants and inputs are dense in the file; what needs the places of their elements knows them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal, flat_tensors
from torch import nn

MATRIX = torch.tensor([[0, 42.0, 0, 0], [0, 0, 0, 1.0], [3.0, 0, -1.0, 0], [0, 0, 0, 2.0]])


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's layouts by rows are in beta state
        yield


def _uncoalesced() -> torch.Tensor:
    return torch.sparse_coo_tensor([[0, 0, 2], [1, 1, 0]], [1.0, 2.0, 3.0], (4, 4))


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "coo": MATRIX.to_sparse,
    "uncoalesced": _uncoalesced,
    "csr": MATRIX.to_sparse_csr,
    "csc": MATRIX.to_sparse_csc,
    "bsr": lambda: MATRIX.to_sparse_bsr((2, 2)),
}

Function = Callable[..., Any]


def products(a: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    return [a @ x, torch.mm(a, x), torch.sparse.mm(a, x), torch.spmm(a, x), torch.addmm(x, a, x), torch.mv(a, x[:, 0])]


def others(a: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    return [
        a.to_dense() @ x,
        (a * 2).to_dense(),
        a.transpose(0, 1).to_dense() @ x,
        torch.sparse.addmm(x, a, x, beta=0.5, alpha=2.0),
        nn.functional.linear(x.T, a),
        torch.relu(a).to_dense(),
        a.to(torch.float64) @ x.double(),
    ]


def of_coordinates(a: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    return [
        a.coalesce().to_dense() @ x,
        torch.sparse.sum(a) * x,
        torch.sparse.sum(a, 1).to_dense()[:, None] * x,
        (a @ a).to_dense() @ x,
        (a * x[:, :1]).to_dense(),
        torch.smm(a, x).to_dense(),
        torch.cat([a, a]).to_dense() @ x,
        a.index_select(0, torch.tensor([0, 2])).to_dense() @ x,
    ]


def of_places(a: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    a = a.coalesce()
    return [
        torch.sparse.softmax(a, 1).to_dense() @ x,
        a.values().sum() * x + a.indices().sum() * a._nnz(),
        torch.sparse.softmax(a, 0).to_dense(),
    ]


class Constant(nn.Module):
    def __init__(self, matrix: torch.Tensor, function: Function) -> None:
        super().__init__()
        self.matrix, self.function = matrix, function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.matrix, x)


class Buffer(nn.Module):
    def __init__(self, matrix: torch.Tensor, function: Function) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.matrix, x)


class Input(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, matrix: torch.Tensor, x: torch.Tensor) -> Any:
        return self.function(matrix, x)


def dense(value: Any) -> list[torch.Tensor]:
    return [t.to_dense() if t.layout is not torch.strided else t for t in flat_tensors(value)]


def expect_same(program: onnxport.ONNXProgram, model: nn.Module, args: tuple[Any, ...]) -> None:
    for got, wanted in zip(program(*args), dense(model(*args)), strict=True):
        expect_equal(got, wanted.detach())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_constant_and_a_buffer(layout: str) -> None:
    functions = [products, others] + ([of_coordinates] if layout in ("coo", "uncoalesced") else [])
    for function in functions:
        matrix = LAYOUTS[layout]()
        for model in (Constant(matrix, function), Buffer(matrix, function)):
            program = onnxport.export(model, (torch.rand(4, 3),), dynamic_shapes=({1: "columns"},))
            expect_same(program, model, (torch.rand(4, 5),))
            assert model.matrix is matrix
            assert "matrix" in program.model.graph.initializers


@pytest.mark.parametrize("kind", [Constant, Buffer])
def test_places_of_a_constant_are_known(kind: Any) -> None:
    model = kind(MATRIX.to_sparse(), of_places)
    expect_same(onnxport.export(model, (torch.rand(4, 3),)), model, (torch.rand(4, 3),))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_input(layout: str) -> None:
    functions = [products, others] + ([of_coordinates] if layout in ("coo", "uncoalesced") else [])
    for function in functions:
        model, args = Input(function), (LAYOUTS[layout](), torch.rand(4, 3))
        program = onnxport.export(model, args)
        expect_same(program, model, args)
        for got, wanted in zip(program(args[0].to_dense(), args[1]), dense(model(*args)), strict=True):
            expect_equal(got, wanted)


def adjacency(nodes: int) -> torch.Tensor:
    return (torch.rand(nodes, nodes) > 0.5).float().to_sparse()


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        return torch.spmm(adjacency, self.layer(x)).relu()


@pytest.mark.parametrize("nodes", [1, 4])
def test_an_input_of_any_size(nodes: int) -> None:
    model = Convolution().eval()
    shapes = ({0: "nodes"}, {0: "nodes", 1: "nodes"})
    program = onnxport.export(model, (torch.rand(nodes, 3), adjacency(nodes)), dynamic_shapes=shapes)
    expect_same(program, model, (torch.rand(7, 3), adjacency(7)))
    assert onnxport.verify(program, model, (torch.rand(5, 3), adjacency(5)), other_inputs=[]).comparisons[0].passed


class Edges(nn.Module):
    def forward(self, edges: torch.Tensor, weights: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        matrix = torch.sparse_coo_tensor(edges, weights, (x.shape[0], x.shape[0]))
        degree = torch.sparse.sum(matrix, dim=1).to_dense()
        return torch.sparse.mm(matrix, x) / (degree[:, None] + 1), matrix.coalesce().to_dense()


class Rows(nn.Module):
    def forward(self, rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.sparse_csr_tensor(rows, columns, values, (x.shape[0], x.shape[0])) @ x


def _edges(nodes: int, count: int) -> tuple[torch.Tensor, ...]:
    return torch.randint(nodes, (2, count)), torch.rand(count), torch.rand(nodes, 3)


def _rows(nodes: int) -> tuple[torch.Tensor, ...]:
    matrix = adjacency(nodes).to_sparse_csr()
    return matrix.crow_indices(), matrix.col_indices(), matrix.values(), torch.rand(nodes, 2)


@pytest.mark.parametrize(
    ("model", "args", "other", "shapes"),
    [
        (Edges(), _edges(4, 6), _edges(9, 20), ({1: "edges"}, {0: "edges"}, {0: "nodes"})),
        (Rows(), _rows(4), _rows(7), ({0: "bounds"}, {0: "edges"}, {0: "edges"}, {0: "nodes"})),
    ],
)
def test_made_in_forward(model: nn.Module, args: Any, other: Any, shapes: Any) -> None:
    expect_same(onnxport.export(model, args, dynamic_shapes=shapes), model, other)


GLOBAL = MATRIX.to_sparse()


class Places(nn.Module):
    """Lists and dicts of sparse tensors, a parameter, a global of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.supports, self.named = [MATRIX.to_sparse(), MATRIX.T.to_sparse_csr()], {"a": MATRIX.to_sparse()}
        self.weight = nn.Parameter(MATRIX.to_sparse(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for support in self.supports:
            x = torch.sparse.mm(support, x)
        return x + self.named["a"] @ x + self.weight @ x + GLOBAL @ x + self.supports[0].coalesce().values().sum()


def test_wherever_a_model_keeps_them(tmp_path: Path) -> None:
    model = Places()
    kept = [*model.supports, *model.named.values(), model.weight, GLOBAL]
    program = onnxport.export(
        model, (torch.rand(4, 2),), dynamic_shapes=({1: "columns"},), report=True, artifacts_dir=tmp_path
    )
    expect_same(program, model, (torch.rand(4, 3),))
    assert all(
        a is b for a, b in zip(kept, [*model.supports, *model.named.values(), model.weight, GLOBAL], strict=True)
    )
    assert "coalesce" not in vars(torch.Tensor)
    (report,) = tmp_path.glob("*.md")
    assert "weight, a sparse tensor (COO, 5 entries, [4, 4]), is dense in the file" in report.read_text()


def test_other_weights_may_be_sparse() -> None:
    model, x = Buffer(MATRIX.to_sparse(), lambda a, x: a @ x), torch.rand(4, 2)
    program = onnxport.export(model, (x,))
    program.apply_weights({"matrix": (2 * MATRIX).to_sparse()})
    expect_equal(program(x)[0], 2 * MATRIX @ x)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda a, x: torch.sparse.softmax(a, 1).to_dense() @ x, r"torch\.sparse\.softmax"),
        (lambda a, x: a.coalesce().values().sum() * x, r"Tensor\.values\(\)"),
    ],
)
def test_places_of_an_input_are_not_known(function: Function, told: str) -> None:
    with pytest.raises(onnxport.CaptureError, match=rf"test_sparse_tensors\.py[\s\S]*{told}[\s\S]*to_dense\(\)"):
        onnxport.export(Input(function), (MATRIX.to_sparse(), torch.rand(4, 2)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.to_sparse().to_dense(),
        lambda x: torch.sparse.mm(x.relu().to_sparse_coo(), x),
        lambda x: x.to_sparse(layout=torch.sparse_csr) @ x,
    ],
)
def test_no_operator_gives_a_sparse_tensor(function: Function) -> None:
    with pytest.raises(onnxport.CaptureError, match=r"test_sparse_tensors\.py[\s\S]*to_sparse\(\)[\s\S]*Leave it out"):
        onnxport.export(Input(lambda x, _: function(x)), (torch.rand(4, 4), torch.rand(4)))


def test_conversions_of_weights_and_constants() -> None:
    model = Buffer(MATRIX.to_sparse_csr(), lambda a, x: a.to_sparse() @ x + a.to_sparse_coo().to_sparse_csr() @ x)
    args = (torch.rand(4, 3),)
    expect_same(onnxport.export(model, args), model, args)


def test_too_large_as_a_dense_one() -> None:
    huge = torch.sparse_coo_tensor([[0], [1]], [1.0], (10**6, 10**6))
    with pytest.raises(onnxport.CaptureError, match="3725 GiB"):
        onnxport.export(Buffer(huge, lambda a, x: a @ x), (torch.rand(10**6, 1),))


def test_a_captured_program_says_what_to_do() -> None:
    captured = torch.export.export(Buffer(MATRIX.to_sparse(), lambda a, x: a @ x), (torch.rand(4, 2),))
    with pytest.raises(onnxport.WeightError, match=r"to_dense\(\)"):
        onnxport.export(captured)
