"""Pools whose windows or results follow a dynamic size: the size stays dynamic, and the numbers are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch.export import Dim

ADAPTIVE: dict[str, tuple[Callable[[torch.Tensor], Any], int]] = {
    "max2d, None": (lambda x: F.adaptive_max_pool2d(x, (3, None)), 2),
    "max2d, None, indices": (lambda x: F.adaptive_max_pool2d(x, (None, 3), return_indices=True), 2),
    "max2d, both None": (lambda x: F.adaptive_max_pool2d(x, (None, None), return_indices=True), 2),
    "max2d, of sizes": (
        lambda x: F.adaptive_max_pool2d(x, (x.shape[2] // 2, 2 * x.shape[3]), return_indices=True),
        2,
    ),
    "max1d, of a size": (lambda x: F.adaptive_max_pool1d(x, x.shape[2] // 2, return_indices=True), 1),
    "max3d": (lambda x: F.adaptive_max_pool3d(x, (2, None, x.shape[4] // 2), return_indices=True), 3),
    "avg1d": (lambda x: F.adaptive_avg_pool1d(x, x.shape[2] // 2), 1),
    "avg2d": (lambda x: F.adaptive_avg_pool2d(x, (None, x.shape[3] // 2)), 2),
    "avg3d": (lambda x: F.adaptive_avg_pool3d(x, (x.shape[2] // 2, None, 3)), 3),
    "area, one axis": (lambda x: F.interpolate(x, scale_factor=1.5, mode="area"), 1),
    "area, two axes": (lambda x: F.interpolate(x, size=(x.shape[2] // 2, 5), mode="area"), 2),
    "area, three axes": (lambda x: F.interpolate(x, scale_factor=0.5, mode="area"), 3),
    "lp_pool, whole": (lambda x: F.lp_pool1d(x.abs(), 2, x.shape[2]), 1),
}


def numbers(spatial: int, size: int) -> torch.Tensor:
    """(2, 3, size, size + 1, ...) of few values, so that maxima are met more than once."""
    torch.manual_seed(size)
    return torch.randint(0, 9, (2, 3, *range(size, size + spatial))).float()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_results_of_dynamic_sizes(name: str) -> None:
    function, spatial = ADAPTIVE[name]
    axes = dict.fromkeys(range(2, 2 + spatial), Dim.DYNAMIC)
    for other in (13, 1):  # half of 1 is no window at all
        export_and_compare(
            function, (numbers(spatial, 8),), dynamic_shapes=((axes,),), other_args=(numbers(spatial, other),)
        )


@pytest.mark.parametrize("size", [(3, None), (None, 4), (7, None)])
def test_a_layer_without_batch_and_of_other_dtypes(size: tuple[Any, Any]) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16):
        x, other = numbers(2, 7)[0].to(dtype), numbers(2, 7)[0].to(dtype)[..., :5]
        export_and_compare(
            torch.nn.AdaptiveMaxPool2d(size), (x,), dynamic_shapes=({2: "w"},), other_args=(other.contiguous(),)
        )


WHOLE: dict[str, tuple[Callable[[torch.Tensor], Any], int]] = {
    "max1d": (lambda x: F.max_pool1d(x, x.size(2)).squeeze(2), 1),
    "max1d, indices": (lambda x: F.max_pool1d(x, x.size(2), return_indices=True), 1),
    "max2d": (lambda x: F.max_pool2d(x, x.shape[2:], return_indices=True), 2),
    "max2d, rows": (lambda x: F.max_pool2d(x, (x.shape[2], 1)), 2),
    "avg1d": (lambda x: F.avg_pool1d(x, x.shape[-1]), 1),
    "avg2d": (lambda x: F.avg_pool2d(x, x.size()[2:]), 2),
    "avg2d, columns": (lambda x: F.avg_pool2d(x, (1, x.shape[3])), 2),
    "avg3d": (lambda x: F.avg_pool3d(x, x.shape[2:]), 3),
}


@pytest.mark.parametrize("name", WHOLE)
def test_one_window_over_a_dynamic_axis(name: str) -> None:
    function, spatial = WHOLE[name]
    axes = dict.fromkeys(range(2, 2 + spatial), Dim.DYNAMIC)
    program = export_and_compare(
        function, (numbers(spatial, 8),), dynamic_shapes=((axes,),), other_args=(numbers(spatial, 13),)
    )
    assert len(op_types(program)) <= 4


def test_other_windows_of_the_same_pool() -> None:
    """One axis whole, two elements of the other; numbers alone go the usual way."""
    for pool in (F.avg_pool2d, F.max_pool2d):
        export_and_compare(
            lambda x, pool=pool: pool(x, (2, x.shape[3])),
            (numbers(2, 8),),
            dynamic_shapes=(({3: "w"},),),
            other_args=(torch.randn(2, 3, 8, 5),),
        )
        export_and_compare(lambda x, pool=pool: pool(x, (2, 3), (1, 2), 1), (numbers(2, 8),))
