"""Forms of ONNX operators at opsets 13 to 17: each computes what torch does, or names the opset that can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxport
import pytest
import torch
import torch.nn.functional as F
from onnxport import kit
from onnxport.vocabulary.opsets import MIN_OPSET
from support import as_module, expect_equal, flat_tensors

OLDER = range(MIN_OPSET, 18)
X = torch.randn(2, 3, 4, 6)
WHOLE = torch.tensor([[5, -9, 0, 2**62], [-1, 7, -(2**63), 3]])
INDEX = torch.tensor([0, 2, -1, 0])


def _stale_rows(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(5, 6).scatter_add(0, torch.tensor([[0, 1, 4, 0], [3, 1, 2, 2]]), x[0, 0, :2, :4])


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "reduce one axis": (lambda x: (x.mean(1), x.amax(-1), x.amin((0, 2)), x.prod(2, keepdim=True)), (X,)),
    "reduce all": (lambda x: (x.mean(), x.amax(), x.logsumexp((0, 1, 2, 3)), x.norm(1), x.norm()), (X,)),
    "reduce 0-d": (lambda x: (x[0, 0, 0, 0].mean(), x[0, 0, 0, 0].amax(0)), (X,)),
    "chunks": (lambda x: (x.chunk(4, 3), x.chunk(2, 1), F.glu(x, 2)), (X,)),
    "pad": (lambda x: (F.pad(x, (1, 2)), F.pad(x, (0, 0, 1, 0), value=3.0), F.pad(x, (-1, 1))), (X,)),
    "pad by mode": (lambda x: (F.pad(x, (1, 2, 0, 1), mode="reflect"), F.pad(x, (1, 0, 2, 1), mode="replicate")), (X,)),
    "resize": (lambda x: (F.interpolate(x, scale_factor=2.0), F.interpolate(x, (7, 5), mode="bilinear")), (X,)),
    "layer norm": (lambda x: (F.layer_norm(x, (6,)), F.layer_norm(x, (4, 6), torch.ones(4, 6) * 2)), (X,)),
    "layer norm by hand": (
        lambda x: (x - x.mean(-1, True)) / (x.var(-1, False, True) + 1e-5).sqrt() * X[0, 0, 0],
        (X,),
    ),
    "triangles": (lambda x: (x.triu(), x.tril(-1), x.triu(2), torch.triu_indices(3, 4)), (X,)),
    "triangle of bools": (lambda x: (x > 0).tril(), (X,)),
    "bits": (lambda a, b: (a & b, a | b, a ^ b, ~a), (WHOLE, WHOLE.flip(0))),
    "bits of bytes": (
        lambda a, b: (a & b, a | b, a ^ b, ~a),
        (torch.arange(6).byte() * 50, torch.arange(6).byte() + 9),
    ),
    "bits of 32": (lambda a, b: (a & b, a | b, a ^ b, ~a), (WHOLE.int(), WHOLE.int().flip(0))),
    "activations": (lambda x: (F.mish(x), F.hardswish(x), F.relu((x * 5).int()), F.relu6(x)), (X,)),
    "empty": (lambda x: x[:, :0].reshape(2, 0, 8), (X,)),
    "scatter add": (lambda x: x[0, 0].scatter_add(1, torch.tensor([[0, 0, 5], [1, 2, 3]]), x[0, 1, :2, :3]), (X,)),
    "scatter add of a part": (_stale_rows, (X,)),
    "scatter of integers": (lambda x: x.scatter_add(1, torch.tensor([[0, 0, 1, 0], [1, 3, 3, 3]]), x), (WHOLE,)),
    "scatter of bools": (lambda x: (x > 0).index_put((INDEX[:2] // 2,), (x > 1)), (X[:, 0, 0, :].repeat(2, 1)[:2],)),
    "scatter extremes": (
        lambda x: [
            x[0, 0].scatter_reduce(0, torch.tensor([[0, 1, 0]]), x[0, 1, :1, :3], how) for how in ("amax", "prod")
        ],
        (X,),
    ),
    "index add": (lambda x: (x.index_add(3, INDEX[:2], x[..., :2]), x.index_add(0, INDEX[:1], x[:1])), (X,)),
    "accumulate": (lambda x: x.index_put((INDEX[:2] // 2, INDEX[:2]), x[0, :2].flip(0), accumulate=True), (X,)),
    "accumulate elements": (lambda x: x.index_put((INDEX[:1], INDEX[:1], INDEX, INDEX), X[0, 0, 0, :4], True), (X,)),
    "fold": (lambda x: F.fold(F.unfold(x, 3, 2, 1, 2), (4, 6), 3, 2, 1, 2), (X,)),
    "fold that leaves a rest": (lambda x: F.fold(F.unfold(x, 2, stride=3), (4, 6), 2, stride=3), (X,)),
    "batch norm": (lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), torch.ones(3) * 2), (X,)),
    "counts": (lambda x: (torch.histc(x, 5, -1, 1), torch.bincount((x[0, 0, 0] * 2).abs().long(), minlength=9)), (X,)),
    "halves": (lambda x: (F.layer_norm(x, (6,)), x.mean(1), x.cumsum(1)), (X.half(),)),
    "quantized": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255), (X,)),
}


@pytest.mark.parametrize("name", CASES)
def test_older_forms_compute_what_torch_does(name: str) -> None:
    function, args = CASES[name]
    module = as_module(function).eval()
    exported = torch.export.export(module, args)
    for opset in (13, 15, 17):
        program = onnxport.export(exported, opset_version=opset)
        assert program.model.opset_imports[""] == opset
        onnx.checker.check_model(program.model_proto, full_check=True)
        for got, want in zip(program(*args), flat_tensors(module(*args)), strict=True):
            expect_equal(got, want, 1e-3, 1e-4)


def test_dynamic_sizes_at_an_older_opset() -> None:
    def function(x: torch.Tensor) -> Any:
        flat = F.pad(x, (1, 1)).reshape(x.shape[0], -1)
        return x.chunk(2, -1), flat.mean(1), x.tril(), F.interpolate(x, scale_factor=2.0), x.shape[2]

    program = onnxport.export(as_module(function), (X,), dynamic_shapes=({0: "n", 2: "h", 3: "w"},), opset_version=13)
    for shape in ((3, 3, 5, 7), (1, 3, 4, 4)):
        x = torch.randn(shape)
        for got, want in zip(program(x), flat_tensors(function(x)), strict=True):
            expect_equal(got, torch.as_tensor(want), 1e-4, 1e-5)


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (14, 7), (15, 8), (17, 8), (18, 10)])
def test_files_have_the_ir_version_of_their_time(opset: int, ir: int) -> None:
    program = onnxport.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), opset_version=opset)
    assert program.model_proto.ir_version == ir


def test_functions_need_ir_version_8() -> None:
    program = onnxport.export(
        torch.nn.Sequential(torch.nn.Linear(2, 2)), (torch.ones(1, 2),), opset_version=13, functions=[torch.nn.Linear]
    )
    assert program.model_proto.ir_version == 8
    assert program(torch.ones(1, 2))[0].shape == (1, 2)


def test_what_an_older_opset_lacks_is_refused_with_the_opset_that_has_it() -> None:
    def grown(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, (2, 2), mode="bilinear", antialias=True)

    with pytest.raises(onnxport.UnsupportedOperatorsError, match="needs opset 18: Resize with antialias=1"):
        onnxport.export(as_module(grown), (X,), opset_version=17)


def test_a_large_scatter_is_refused_rather_than_slow() -> None:
    class Counts(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(100_000).index_add(0, x, torch.ones(100_000))

    with pytest.raises(
        onnxport.UnsupportedOperatorsError,
        match="needs opset 16: ScatterND with a reduction; older opsets would compare",
    ):
        onnxport.export(Counts(), (torch.zeros(100_000, dtype=torch.int64),), opset_version=15)


class MoreForms:
    """A pack that writes an operator its own way at older opsets."""

    @onnxport.hookimpl
    def onnxport_emission(self) -> list[kit.Form]:
        def hard_swish(op: Any, native: Any, x: Any, outputs: int | None = None) -> Any:
            assert native is None
            return op.Mul(x, op.Clip(op.Add(op.Div(x, 6.0), 0.5), 0.0, 1.0))

        return [kit.Form("HardSwish", 14, hard_swish)]


@pytest.mark.parametrize(("opset", "operator"), [(13, "Clip"), (14, "HardSwish")])
def test_packs_may_bring_forms(opset: int, operator: str) -> None:
    """Theirs go before the built-in ones."""
    program = onnxport.export(as_module(F.hardswish), (X,), opset_version=opset, plugins=[MoreForms()])
    assert operator in {node.op_type for node in program.model.graph}
    expect_equal(program(X)[0], F.hardswish(X), 1e-4, 1e-5)
