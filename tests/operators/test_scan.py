"""Cumulative operations against eager torch: types, NaN, infinities, and a second size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

DYNAMIC = torch.export.Dim.DYNAMIC
TYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool]


def small(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> list[Any]:
        results = [x.cumsum(0), x.cumsum(-1, dtype=torch.float32), x.cumprod(1), x.cummax(0), x.cummin(1)]
        return [*results, x.logcumsumexp(0), x.logcumsumexp(1)] if x.dtype.is_floating_point else results

    export_and_compare(
        function,
        (small(dtype, 3, 4),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),),
        other_args=(small(dtype, 6, 9),),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_and_infinities(dtype: torch.dtype) -> None:
    inf, nan = math.inf, math.nan
    x = torch.tensor(
        [
            [1, nan, 3, nan, 5],
            [-inf, -inf, 2, inf, 1],
            [inf, -inf, 0, 1, 1],
            [3, 3, 1, 3, nan],
            [-inf, -inf, -inf, -inf, -inf],
            [-800, 0.5, 800, 799, -5],
        ],
        dtype=dtype,
    )
    export_and_compare(lambda x: [x.cummax(1), x.cummin(1), x.logcumsumexp(1), x.cumsum(1), x.cumprod(1)], (x,))


def test_zero_dimensions_and_nothing() -> None:
    def function(x: torch.Tensor, n: torch.Tensor, y: torch.Tensor) -> list[Any]:
        zero = [x.cumsum(0), n.cumsum(0), x.cumprod(0), x.cummax(0), x.logcumsumexp(0)]
        return [*zero, y.cumprod(1), y.cummin(0)]

    export_and_compare(function, (torch.tensor(3.0), torch.tensor(True), torch.zeros(2, 0)))


def test_nothing_left_at_run_time() -> None:
    def function(x: torch.Tensor) -> list[Any]:
        picked = x.masked_select(x > 0)
        return [picked.cumprod(0), picked.logcumsumexp(0), picked.cumsum(0)]

    for x in (torch.tensor([2.0, -1.0, 3.0]), -torch.ones(3)):
        export_and_compare(function, (x,))


def test_cumsum_is_one_node() -> None:
    assert op_types(export_and_compare(lambda x: x.cumsum(1), (torch.rand(3, 4),))) == ["CumSum"]
