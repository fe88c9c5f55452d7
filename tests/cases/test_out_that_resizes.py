"""`out=` that an operator resizes: the tensor has the result's shape from there on, as in eager."""

from __future__ import annotations

from collections.abc import Callable

import onnxport
import pytest
import torch
from support import export_and_compare

AXES = {0: torch.export.Dim("n", min=3, max=64)}
Tensor = torch.Tensor


def empty(a: Tensor) -> Tensor:
    return torch.empty(0)


def empty_view(a: Tensor) -> Tensor:
    return torch.zeros(a.numel() + 1)[1:0]


def empty_view_of_a_view(a: Tensor) -> Tensor:
    return torch.zeros(2, 3).mT[:0].flatten()


def larger(a: Tensor) -> Tensor:
    return torch.zeros(2, 3, 4, 5)


def double(a: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.float64)


OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, out: torch.add(a, 1, out=out),
    "mul": lambda a, out: torch.mul(a, a, out=out),
    "div": lambda a, out: torch.div(a, 2, out=out),
    "neg": lambda a, out: torch.neg(a, out=out),
    "eq": lambda a, out: torch.eq(a, 0, out=out),
    "clamp": lambda a, out: torch.clamp(a, 0, 1, out=out),
    "sum": lambda a, out: torch.sum(a, 1, out=out),
    "cumsum": lambda a, out: torch.cumsum(a, 0, out=out),
    "cat": lambda a, out: torch.cat([a, a], out=out),
    "stack": lambda a, out: torch.stack([a, a], out=out),
    "matmul": lambda a, out: torch.matmul(a, a.mT, out=out),
    "where": lambda a, out: torch.where(a > 0, a, a * 2, out=out),
}
DYNAMIC = [empty, empty_view, double]
OUTS = [empty, empty_view, empty_view_of_a_view, larger, double]


def takes(operator: Callable[[Tensor, Tensor], Tensor], out: Tensor) -> bool:
    """Whether eager writes the operator's result into a tensor of this dtype."""
    try:
        operator(torch.ones(6, 3), out)
    except RuntimeError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", OUTS, ids=lambda made: made.__name__)
def test_a_tensor_of_another_shape(made: Callable[[Tensor], Tensor]) -> None:
    operators = [operator for operator in OPERATORS.values() if takes(operator, made(torch.ones(6, 3)))]
    assert len(operators) > 5

    def forward(a: Tensor) -> list[Tensor]:
        results = []
        for operator in operators:
            out = made(a)
            operator(a, out)
            results += [out, out[1:] * 2]
        return results

    # torch.export asks whether a memory of static size is large enough, which bounds a dynamic size.
    axes, other = ({"args": (AXES,)}, (torch.randn(9, 3),)) if made in DYNAMIC else (None, None)
    # Eager sums in the dtype of out=.
    tolerance = 1e-5 if made is double else None
    export_and_compare(
        forward, (torch.randn(6, 3),), dynamic_shapes=axes, other_args=other, rtol=tolerance, atol=tolerance
    )


@pytest.mark.filterwarnings("ignore")
def test_what_shares_its_memory_and_is_used_later_is_refused() -> None:
    """Eager writes the result into the base from the view's place on."""

    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        base = torch.zeros(40)
        out = base[1:0]
        torch.mul(a, 2, out=out)
        return out, base

    with pytest.raises(onnxport.CaptureError, match=r"resizes a tensor that shares memory.*give out= a tensor"):
        export_and_compare(forward, (torch.randn(6, 3),))


@pytest.mark.filterwarnings("ignore")
def test_an_operator_that_resizes_what_it_reads_is_refused() -> None:
    """Eager resizes first, and then reads what is left."""

    def forward(a: Tensor) -> Tensor:
        b = a.clone()
        return torch.sum(b, 0, out=b)

    with pytest.raises(onnxport.CaptureError, match="resizes a tensor that shares memory"):
        export_and_compare(forward, (torch.randn(6, 3),))


@pytest.mark.parametrize("value", [0.5, True, 2])
def test_copies_of_numbers(value: float) -> None:
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        b = a.clone()
        b[1:].copy_(value)
        c = a.long()
        c.copy_(a.shape[0])
        return b, c

    export_and_compare(forward, (torch.randn(6, 3),), dynamic_shapes={"args": (AXES,)}, other_args=(torch.randn(9, 3),))


RANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "arange": lambda a, out: torch.arange(a.numel(), out=out),
    "linspace": lambda a, out: torch.linspace(0, 1, a.numel(), out=out),
    "a step": lambda a, out: torch.arange(0, 2 * a.numel(), 2, out=out),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_keeps_a_shape_of_as_many_elements(name: str) -> None:
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.zeros(a.shape, dtype=torch.float64)
        RANGES[name](a, whole)
        view = torch.zeros(a.shape[0], 2, 3)
        RANGES[name](a, view[:, 1])
        return whole, view

    export_and_compare(forward, (torch.randn(6, 3),), dynamic_shapes={"args": (AXES,)}, other_args=(torch.randn(9, 3),))
