"""The examples of torch's own documentation of control flow; complex numbers in it; what it leaves out of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from support import export_and_compare, op_types
from torch._higher_order_ops import map as torch_map
from torch._higher_order_ops import scan, while_loop

DYNAMIC = torch.export.Dim.DYNAMIC
ROWS = {0: DYNAMIC}


class Model(torch.nn.Module):
    """A function of the model and its inputs, with a layer and a buffer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("one", torch.tensor(1))
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def compare(function: Callable[..., Any], args: tuple[Any, ...], other: tuple[Any, ...], sizes: Any) -> Any:
    return export_and_compare(Model(function), args, dynamic_shapes=(sizes,), other_args=other)


X, Y = torch.randn(4, 3), torch.randn(7, 3)
C, D = torch.randn(4, 3, dtype=torch.complex64), torch.randn(7, 3, dtype=torch.complex64)


# ---- the documentation's


def test_cond_on_a_size_and_on_data() -> None:
    def on_size(m: Model, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.shape[0] > 4, lambda x: x.cos() + x.sin(), lambda x: x.sin(), (x,))

    def on_data(m: Model, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 4.0, lambda x: x.cos() + x.sin(), lambda x: x.sin(), (x,))

    for function in (on_size, on_data):
        compare(function, (X,), (torch.ones(7, 3),), (ROWS,))


def test_while_loop_of_the_documentation() -> None:
    def function(m: Model, iteration: torch.Tensor, x: torch.Tensor) -> Any:
        return while_loop(lambda i, x: i.sum() < 10, lambda i, x: (i + 1, x.sin()), (iteration, x))

    compare(function, (torch.zeros(1), X), (torch.full((1,), 8.0), Y), (None, ROWS))


def test_while_loop_with_a_layer_and_a_buffer() -> None:  # pytorch#192040
    def function(m: Model, iteration: torch.Tensor, x: torch.Tensor) -> Any:
        return while_loop(lambda i, x: i - m.one > 0, lambda i, x: (i - 1, m.linear(x)), (iteration, x))

    compare(function, (torch.tensor(4), X), (torch.tensor(1), Y), (None, ROWS))


def test_while_loop_in_a_while_loop() -> None:
    def function(m: Model, i: torch.Tensor, j: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
        def body(i: torch.Tensor, j: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
            def inner(i: torch.Tensor, j: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
                return i.clone(), j - 1, a + 3.14, b - 2.71

            i, j, a, b = while_loop(lambda i, j, a, b: j > 0, inner, (i, j, a, b))
            return i - 1, j.clone(), a * 2, b / 2

        return while_loop(lambda i, j, a, b: i > 0, body, (i, j, a, b))

    counts = torch.tensor(2), torch.tensor(3)
    compare(function, (*counts, X, X), (*counts[::-1], Y, Y), (None, None, ROWS, ROWS))


def test_scan_of_trees_backwards_along_another_dim() -> None:
    def step(carry: Any, x: Any) -> Any:
        return {"a": carry["a"] + x[0], "b": carry["b"] * x[1]}, (x[0] - carry["a"]).clone()

    def function(m: Model, x: torch.Tensor) -> Any:
        start = {"a": torch.zeros(x.shape[0]), "b": torch.ones(x.shape[0])}
        return scan(step, start, (x, x * 2), dim=1, reverse=True)

    compare(function, (X,), (Y,), (ROWS,))


def test_scan_along_a_last_dynamic_dim() -> None:
    def function(m: Model, x: torch.Tensor) -> Any:
        return scan(lambda c, x: (torch.tanh(m.linear(x) + c), c.sum(-1)), torch.zeros(2, 3), x, dim=2)

    compare(function, (torch.randn(2, 3, 5),), (torch.randn(2, 3, 1),), ({2: DYNAMIC},))


# ---- complex numbers


def test_complex_cond() -> None:
    def function(m: Model, x: torch.Tensor) -> Any:
        return torch.cond(x.real.sum() > 0, lambda x: (x * x, x.abs()), lambda x: (x.conj() + 1, x.imag * 2), (x,))

    compare(function, (C + 1,), (D - 1,), (ROWS,))


def test_complex_result_of_real_branches() -> None:
    def function(m: Model, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: torch.fft.fft(x), lambda x: torch.complex(x, x), (x,)).abs()

    compare(function, (X.abs(),), (-Y.abs(),), (ROWS,))


def test_complex_while_loop() -> None:
    def function(m: Model, x: torch.Tensor) -> Any:
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * x * 0.5), (torch.tensor(0), x))

    compare(function, (C,), (D,), (ROWS,))


def test_complex_scan_and_map() -> None:
    def function(m: Model, x: torch.Tensor) -> Any:
        return scan(lambda c, x: (c * x + 1, c + x), torch.ones(3, dtype=torch.complex64), x, dim=0)

    compare(function, (C,), (D,), (ROWS,))
    compare(lambda m, x: torch_map(lambda row: row * row.sum(), x), (C,), (D,), (ROWS,))


# ---- what isn't written


def test_results_that_nothing_reads_are_left_out() -> None:
    def conditional(m: Model, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: (x.sum(), x * 2, x - 1), lambda x: (x.mean(), x / 2, x + 1), (x,))[1]

    def scanned(m: Model, x: torch.Tensor) -> torch.Tensor:
        return scan(lambda c, x: (c + x, (c * x, c - x)), torch.zeros(3), x, dim=0)[1][1]

    for function, count in ((conditional, 1), (scanned, 2)):
        program = compare(function, (X,), (Y,), (ROWS,))
        (node,) = (node for node in program.model.graph if node.op_type in ("If", "Scan"))
        assert len(node.outputs) == count
        bodies = [attribute.as_graph() for attribute in node.attributes.values() if attribute.name != "num_scan_inputs"]
        assert all(len(body) <= 2 for body in bodies)


def test_checkpoints_in_branches() -> None:
    def checkpointed(m: Model, x: torch.Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(lambda y: m.linear(y).relu(), x, use_reentrant=False)

    def function(m: Model, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: checkpointed(m, x), lambda x: x - 1, (x,)) + checkpointed(m, x)

    program = compare(function, (X.abs(),), (-Y.abs(),), (ROWS,))
    assert op_types(program) == ["ReduceSum", "Greater", "If", "Gemm", "Relu", "Add"]
