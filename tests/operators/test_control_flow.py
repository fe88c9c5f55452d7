"""Higher order operators and item(): as If, Loop and Scan, at the traced and at another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types
from torch._higher_order_ops import map as torch_map
from torch._higher_order_ops import scan, while_loop

DYNAMIC = torch.export.Dim.DYNAMIC


class Weighted(torch.nn.Module):
    """A function of one tensor that may use a weight and a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, 1.5, -1.0]))
        self.layer = torch.nn.Linear(3, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def compare(function: Callable[..., Any], *inputs: torch.Tensor) -> list[str]:
    """Export with the first input and a dynamic axis 0, compare on all."""
    model = Weighted(function)
    program = None
    for other in inputs[1:]:
        program = export_and_compare(model, (inputs[0],), dynamic_shapes=({0: DYNAMIC},), other_args=(other,))
    return op_types(program)


POSITIVE, NEGATIVE = torch.rand(7, 3) + 0.1, -torch.rand(5, 3) - 0.1
X = torch.randn(4, 3)


def test_cond_captures_weights() -> None:
    ops = compare(
        lambda m, x: torch.cond(x.sum() > 0, lambda x: m.layer(x), lambda x: x * m.weight, (x,)), X, POSITIVE, NEGATIVE
    )
    assert ops == ["ReduceSum", "Greater", "If"]


def test_cond_nested_with_several_results() -> None:
    def inner(x: torch.Tensor) -> Any:
        return torch.cond(x.max() > 1, lambda x: (x + 1, x.sum(0)), lambda x: (x.clone(), x.mean(0)), (x,))

    def function(m: Weighted, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, inner, lambda x: (x * m.weight, x.amax(0)), (x,))

    compare(function, X, POSITIVE, POSITIVE * 3, NEGATIVE)


def test_cond_on_a_size() -> None:
    compare(lambda m, x: torch.cond(x.shape[0] > 4, lambda x: x + 1.0, lambda x: x - 1.0, (x,)), X, POSITIVE, X[:3])


def test_while_loop() -> None:
    def function(m: Weighted, x: torch.Tensor) -> Any:
        return while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x * m.weight), (torch.tensor(0), x))

    assert compare(function, X, POSITIVE) == ["Loop"]


def test_while_loop_that_may_not_run() -> None:
    def function(m: Weighted, x: torch.Tensor) -> Any:
        return while_loop(lambda x: x.sum() < 100, lambda x: (x * 2,), (x,))

    compare(function, X.abs(), POSITIVE, POSITIVE * 1000)


def test_while_loop_with_an_int() -> None:
    class Counter(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, x + i), (0, x))

    export_and_compare(Counter(), (X,))


def test_scan() -> None:
    def function(m: Weighted, x: torch.Tensor) -> Any:
        return scan(lambda carry, x: (carry + x * m.weight, (carry * x).clone()), torch.zeros(3), x, dim=0)

    assert compare(function, X, POSITIVE) == ["Scan"]


def test_scan_backwards_along_another_axis() -> None:
    class Backwards(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return scan(lambda carry, x: (carry + x, (carry * x).clone()), torch.zeros(4), x, dim=1, reverse=True)

    export_and_compare(Backwards(), (X,))


def test_scan_with_several_carries() -> None:
    def step(carry: Any, x: Any) -> Any:
        return (carry[0] + x[0], carry[1] * x[1]), (carry[0] * 1.0, x[1] - carry[1])

    compare(lambda m, x: scan(step, (torch.zeros(3), torch.ones(3)), (x, x * 2), dim=0), X, POSITIVE)


def test_map() -> None:
    assert "Scan" in compare(lambda m, x: torch_map(lambda row, w: row * w + 1, x, m.weight), X, POSITIVE)


def test_item_as_a_factor() -> None:
    assert "Mul" in compare(lambda m, x: x.max().item() * x, X, POSITIVE)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_item_as_a_size(dtype: torch.dtype) -> None:
    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
            n = count.item()
            torch._check(n >= 0)
            torch._check(n <= x.shape[0])
            return x[:n].sum(0)

    for n in (4, 0):
        export_and_compare(Head(), (X, torch.tensor(2, dtype=dtype)), other_args=(X, torch.tensor(n, dtype=dtype)))


def test_while_loop_that_counts_an_int_up_to_a_size() -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return while_loop(lambda i, y: i < x.shape[0], lambda i, y: (i + 1, y + x[i]), (0, torch.zeros(3)))

    program = export_and_compare(Sum(), (X,), dynamic_shapes=({0: DYNAMIC},), other_args=(POSITIVE,))
    assert op_types(program)[-1] == "Loop"


def test_cond_around_and_inside_a_loop() -> None:
    def inner(i: torch.Tensor, y: torch.Tensor) -> Any:
        return i + 1, torch.cond(y.sum() > 10, lambda y: y - 1, lambda y: y * 2, (y,))

    def function(m: Weighted, x: torch.Tensor) -> Any:
        def turn(x: torch.Tensor) -> torch.Tensor:
            return while_loop(lambda i, y: i < 4, inner, (torch.tensor(0), x))[1]

        return torch.cond(x.sum() > 0, turn, lambda x: x - 1.0, (x,))

    compare(function, X.abs(), POSITIVE, NEGATIVE)
