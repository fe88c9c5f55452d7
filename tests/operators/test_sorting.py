"""Sorting against eager torch: types, stability, NaN, k as a size, and a second size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

DYNAMIC = torch.export.Dim.DYNAMIC
TYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool]


def few_values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Many equal ones, so that stability shows."""
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_stable(dtype: torch.dtype) -> None:
    export_and_compare(
        lambda x: [
            torch.sort(x, stable=True),
            torch.sort(x, dim=0, descending=True, stable=True),
            torch.argsort(x, dim=1, stable=True),
            torch.argsort(x, dim=-2, descending=True, stable=True),
            torch.msort(x),
            torch.sort(x, descending=True).values,
        ],
        (few_values(dtype, 3, 9),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),),
        other_args=(few_values(dtype, 5, 20),),
    )


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_largest(descending: bool) -> None:
    x = torch.tensor([[1.0, math.nan, -math.inf, math.inf, math.nan, 0.0]])
    export_and_compare(lambda x: torch.sort(x, descending=descending, stable=True), (x,))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_topk(largest: bool, dim: int) -> None:
    x = torch.randperm(24, generator=torch.Generator().manual_seed(2)).reshape(4, 6)
    export_and_compare(lambda x: (x.topk(2, dim, largest), x.float().topk(3, dim, largest)), (x,))


def test_topk_unsorted_selects_the_same_values() -> None:
    x = torch.randperm(40).float()
    program = export_and_compare(lambda x: x.topk(7, sorted=False)[0].sort().values, (x,))
    assert op_types(program).count("TopK") == 2


def test_topk_of_a_symbolic_size() -> None:
    def function(x: torch.Tensor) -> Any:
        return x.topk(x.shape[0] // 2, dim=0)

    x, other = torch.randperm(12).float().reshape(6, 2), torch.randperm(30).float().reshape(15, 2)
    export_and_compare(function, (x,), dynamic_shapes=(({0: DYNAMIC},),), other_args=(other,))


def test_zero_dimensions_and_nothing() -> None:
    export_and_compare(
        lambda x, y: [torch.sort(x), torch.topk(x, 1), torch.argsort(x), torch.sort(y), torch.topk(y, 0)],
        (torch.tensor(3.0), torch.zeros(2, 0)),
    )


def test_one_node() -> None:
    assert op_types(export_and_compare(lambda x: torch.sort(x), (torch.rand(3, 4),))) == ["TopK"]
