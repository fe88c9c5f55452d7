"""Reductions against eager torch: element types, axes, NaN, infinities, nothing to reduce, and a second size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

NAN, INF = math.nan, math.inf
DYNAMIC = torch.export.Dim.DYNAMIC
FLOATS = [torch.float32, torch.float64, torch.float16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool]


def numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=generator) * 3
    return x > 0 if dtype is torch.bool else (x.abs() if dtype is torch.uint8 else x).to(dtype)


def compare_dynamic(function: Callable[..., Any], x: torch.Tensor, other: torch.Tensor, **options: Any) -> Any:
    shapes = (({0: DYNAMIC, 1: DYNAMIC},),)
    return export_and_compare(function, (x,), dynamic_shapes=shapes, other_args=(other,), **options)


def integer_reductions(x: torch.Tensor) -> list[Any]:
    return [
        x.sum(),
        x.sum(0),
        x.sum((0, -1), keepdim=True),
        x.sum(1, dtype=torch.float32),
        x.sum(0, dtype=torch.uint8),
        x.prod(1),
        x.amax(1),
        x.amin((0, 1)),
        x.max(),
        x.min(),
        x.argmax() if x.dtype is not torch.bool else x.sum(),
        x.any(),
        x.all(1),
        x.any(0, keepdim=True),
        torch.count_nonzero(x, 1),
        torch.aminmax(x, dim=0),
        x.max(1).values,
        x.min(0, keepdim=True).values,
        x.nansum(0) if x.dtype is not torch.bool else x.sum(0),
    ]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("opset", [18, 21])
def test_integers(dtype: torch.dtype, opset: int) -> None:
    compare_dynamic(integer_reductions, numbers(dtype, 3, 4), numbers(dtype, 5, 7), opset_version=opset)


def float_reductions(x: torch.Tensor) -> list[Any]:
    return [
        x.sum(1),
        x.mean(),
        x.mean((0, 1), keepdim=True),
        x.mean(0, dtype=torch.float64),
        x.prod(1, keepdim=True),
        x.amax((0, 1)),
        x.amin(-1),
        x.max(1),
        x.min(0),
        x.argmax(),
        x.argmax(keepdim=True),
        x.argmin(1, keepdim=True),
        x.var(),
        x.var(1, correction=0),
        x.std(0, unbiased=False, keepdim=True),
        torch.var_mean(x, 1),
        torch.std_mean(x, (0, 1), correction=2),
        x.logsumexp(1),
        x.nansum(1),
        x.nanmean(0),
        x.norm(),
        x.norm(p=1, dim=1),
        x.norm(p=math.inf, dim=0, keepdim=True),
        torch.linalg.vector_norm(x, 3, dim=1),
        torch.linalg.vector_norm(x, 0),
        torch.linalg.vector_norm(x, -math.inf, dim=1),
        torch.linalg.norm(x),
        torch.dist(x, x * 2, 2),
        torch.dist(x, x * 2, 1),
        x.median(),
        x.median(1).values,
        x.nanmedian(0).values,
        x.kthvalue(2, 1).values,
        x.any(1),
        x.all(),
        torch.count_nonzero(x),
    ]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats(dtype: torch.dtype) -> None:
    tolerance = {"rtol": 5e-2} if dtype is torch.float16 else {}
    compare_dynamic(float_reductions, numbers(dtype, 3, 4), numbers(dtype, 5, 7), **tolerance)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinities_reach_the_extrema(dtype: torch.dtype) -> None:
    x = torch.zeros(6, 40, dtype=dtype)
    x[0, 5], x[1, 39], x[2, 0], x[3, 7], x[4, 8], x[4, 20] = NAN, NAN, NAN, INF, INF, -INF
    export_and_compare(
        lambda x: [
            x.amax(1),
            x.amin(1),
            x.amax(),
            x.amin(),
            x[3:].amax((0, 1)),
            x[3:].amin((0, 1)),
            x.max(1),
            x.min(1),
            x.max(0),
            x.argmax(),
            x.argmin(),
            x.argmax(1),
            x.argmin(0),
            torch.aminmax(x),
            x.median(1),
            x.nanmedian(1).values,
            x.logsumexp(1),
            x.sum(1),
            x.mean(1),
            torch.linalg.vector_norm(x, math.inf, dim=1),
            x.any(1),
            x.all(1),
        ],
        (x,),
    )


def test_zero_dimensions() -> None:
    export_and_compare(
        lambda x, n: [
            x.sum(),
            x.sum(0),
            x.mean(-1),
            x.amax(()),
            x.max(0),
            x.argmin(),
            x.argmax(0),
            x.var(correction=0),
            x.std(),
            x.prod(),
            x.any(),
            x.all(0),
            n.max(),
            n.min(0),
            x.median(0),
            x.mode(0),
            x.kthvalue(1, 0),
            x.logsumexp(0),
            x.norm(),
            torch.aminmax(x),
            torch.count_nonzero(n),
        ],
        (torch.tensor(2.5), torch.tensor(3)),
    )


@pytest.mark.parametrize("opset", [18, 21])
def test_nothing_to_reduce(opset: int) -> None:
    export_and_compare(
        lambda x, b: [
            x.sum(1),
            x.prod(1),
            x.mean(1),
            x.mean(),
            x.var(1),
            x.norm(dim=1),
            b.any(1),
            b.all(1),
            b.any(),
            x.logsumexp(1),
            x.median(),
            torch.count_nonzero(x, 1),
            x.amax(0),
            x.sum(0),
        ],
        (torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)),
        opset_version=opset,
    )


def test_a_selection_may_be_empty() -> None:
    def function(x: torch.Tensor) -> list[Any]:
        kept = x[x > 0]
        return [kept.mean(), kept.sum(), kept.var(), (kept > 0).any(), (kept > 0).all()]

    export_and_compare(function, (torch.tensor([1.0, -1.0, 2.0]),), other_args=(torch.tensor([-1.0, -1.0, -2.0]),))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1)], ids=str)
def test_trace(shape: tuple[int, int]) -> None:
    inputs = numbers(torch.float32, *shape), numbers(torch.int32, *shape)
    export_and_compare(lambda x, n: (torch.trace(x), torch.trace(n)), inputs)


def test_trace_dynamic() -> None:
    compare_dynamic(torch.trace, numbers(torch.float32, 3, 5), numbers(torch.float32, 7, 4))


def test_mode_takes_the_smallest_of_the_most_frequent() -> None:
    x = torch.tensor([[3, 1, 3, 1, 2], [5, 5, 4, 4, 4], [1, 2, 3, 4, 5]])
    export_and_compare(lambda x: (torch.mode(x, 1), torch.mode(x, 0, keepdim=True)), (x,))


def test_sum_to_size() -> None:
    x = numbers(torch.float32, 3, 4)
    export_and_compare(lambda x: (x.sum_to_size(1, 4), x.sum_to_size(3, 1), x.sum_to_size(4)), (x,))


def test_composites() -> None:
    x = numbers(torch.float32, 4, 6)
    export_and_compare(
        lambda x: [
            torch.quantile(x, 0.3, dim=1),
            torch.trapezoid(x, dx=0.5),
            torch.cumulative_trapezoid(x),
            torch.diff(x, dim=0),
            torch.gradient(x)[0],
        ],
        (x,),
    )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.sum(1), ["ReduceSum"]),
        (lambda x: x.mean((0, 1), keepdim=True), ["ReduceMean"]),
        (lambda x: x.amax(1, keepdim=True), ["TopK"]),
        (lambda x: x.norm(dim=1), ["ReduceL2"]),
        (lambda x: x.logsumexp(1), ["ReduceLogSumExp"]),
        (lambda x: x.long().argmax(1), ["Cast", "ArgMax"]),
        (lambda x: x.var(1), ["ReduceMean", "Sub", "ReduceSumSquare", "Div"]),
    ],
)
def test_few_nodes(function: Callable[..., Any], expected: list[str]) -> None:
    assert op_types(export_and_compare(function, (numbers(torch.float32, 3, 4),))) == expected


def test_orders_of_float64_norms_are_exact() -> None:
    """An exponent that is a Python number was a float32 constant: Pow's exponent has a type of its own."""
    x = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    export_and_compare(
        lambda x: [
            torch.linalg.vector_norm(x, 6, 1),
            torch.linalg.vector_norm(x, 0.3),
            torch.nn.functional.pairwise_distance(x, x.flip(0), 3.3),
        ],
        (x,),
        rtol=1e-12,
    )
