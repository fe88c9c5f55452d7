"""Pools at sizes that divide and that don't, with indices, in floats and integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

DYNAMIC = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(-99, 99, shape).to(dtype)


def compare(pool: Callable[..., Any], dtype: torch.dtype = torch.float32, dynamic: bool = False) -> None:
    x = values(2, 3, 10, 9, dtype=dtype)
    if not dynamic:
        export_and_compare(pool, (x,))
        return
    export_and_compare(pool, (x,), other_args=(values(3, 3, 11, 8, dtype=dtype),), dynamic_shapes=((DYNAMIC,),))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32])
def test_max_pool(dtype: torch.dtype, ceil_mode: bool, dynamic: bool) -> None:
    compare(lambda x: F.max_pool2d(x, 3, 2, 1, 1, ceil_mode), dtype, dynamic)
    if not (dynamic and ceil_mode):
        compare(lambda x: F.max_pool2d(x, 3, 2, 1, 2, ceil_mode, return_indices=True), dtype, dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("options", [(False, True), (True, True), (True, False), (False, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_avg_pool(dtype: torch.dtype, options: tuple[bool, bool], dynamic: bool) -> None:
    ceil_mode, include = options
    compare(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode, include), dtype, dynamic)
    compare(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode, include, 5), dtype, dynamic)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [1, (5, 3), (7, 5), (None, 4), (20, 20)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adaptive(dtype: torch.dtype, size: Any, dynamic: bool) -> None:
    dynamic = dynamic and size != (None, 4)  # torch.export fixes a size that it copies
    compare(lambda x: F.adaptive_avg_pool2d(x, size), dtype, dynamic)
    compare(lambda x: F.adaptive_max_pool2d(x, size, return_indices=True), dtype, dynamic)


def test_adaptive_average_keeps_infinities_in_their_windows() -> None:
    x = values(1, 1, 1, 7)
    x[0, 0, 0, 0] = float("inf")
    export_and_compare(lambda x: F.adaptive_avg_pool2d(x, (1, 3)), (x,))


@pytest.mark.parametrize("spatial", [1, 3])
def test_one_and_three_axes(spatial: int) -> None:
    x = values(2, 3, *[7, 6, 5][:spatial])
    for name in ("max_pool", "avg_pool"):
        pool = getattr(F, f"{name}{spatial}d")
        export_and_compare(lambda x, pool=pool: pool(x, 3, 2, 1, ceil_mode=True), (x,))
        export_and_compare(lambda x, pool=pool: pool(x, 2), (x[0],))
    for name in ("adaptive_max_pool", "adaptive_avg_pool"):
        pool = getattr(F, f"{name}{spatial}d")
        export_and_compare(lambda x, pool=pool: pool(x, 2), (x,))


def test_global_pool_is_one_node() -> None:
    program = export_and_compare(
        nn.AdaptiveAvgPool2d(1), (values(2, 3, 4, 5),), other_args=(values(3, 3, 6, 7),), dynamic_shapes=(DYNAMIC,)
    )
    assert op_types(program) == ["GlobalAveragePool"]


def test_unpool() -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, indices, 2)

    export_and_compare(there_and_back, (values(2, 3, 6, 8),))


def test_fractional_pool_with_given_samples() -> None:
    samples, volume = torch.rand(2, 3, 2), torch.rand(2, 3, 3)
    export_and_compare(
        lambda x, s: torch.ops.aten.fractional_max_pool2d(x, [2, 3], [4, 3], s),
        (values(2, 3, 9, 8), samples),
        other_args=(values(2, 3, 11, 10), samples),
        dynamic_shapes=((({2: Dim.AUTO, 3: Dim.AUTO}), None),),
    )
    export_and_compare(
        lambda x, s: torch.ops.aten.fractional_max_pool3d(x, [2, 2, 2], [3, 1, 2], s), (values(2, 3, 6, 5, 7), volume)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_fractional_windows_start_where_torch_has_them(dtype: torch.dtype) -> None:
    """The starts are products in the samples' own precision."""
    torch.manual_seed(0)

    def pool(x: torch.Tensor, samples: torch.Tensor) -> Any:
        return F.fractional_max_pool2d(x, 2, output_size=(8, 7), _random_samples=samples, return_indices=True)

    axes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}, {})
    for height, width in ((22, 38), (38, 27), (31, 30)):
        x, samples = torch.randperm(2 * height * width)[: 2 * height * width], torch.rand(1, 2, 2)
        export_and_compare(
            pool,
            (torch.randn(1, 2, 16, 17).to(dtype), samples.to(dtype)),
            dynamic_shapes=(axes,),
            other_args=((x % 2000).view(1, 2, height, width).to(dtype), samples.to(dtype)),
            rtol=0,
            atol=0,
        )
