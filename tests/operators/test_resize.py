"""Interpolation, grid_sample, affine_grid, fold and unfold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch.export import Dim

DYNAMIC = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
MODES = [
    {"mode": "nearest"},
    {"mode": "nearest-exact"},
    {"mode": "bilinear"},
    {"mode": "bilinear", "align_corners": True},
    {"mode": "bicubic"},
    {"mode": "bicubic", "align_corners": True},
]
SIZES: list[dict[str, Any]] = [{"size": (7, 9)}, {"size": (3, 4)}, {"scale_factor": 2.0}, {"scale_factor": (1.7, 0.6)}]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 255, shape).to(dtype)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolate(dtype: torch.dtype, mode: dict[str, Any], size: dict[str, Any]) -> None:
    x, other = values(2, 3, 5, 6, dtype=dtype), values(3, 3, 8, 11, dtype=dtype)

    def resize(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, **size, **mode)

    program = export_and_compare(resize, (x,))
    if dtype == torch.float32:
        assert len(op_types(program)) <= 2
    export_and_compare(resize, (x,), other_args=(other,), dynamic_shapes=((DYNAMIC,),))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_bytes_are_rounded_as_torch_does(mode: str) -> None:
    export_and_compare(lambda x: F.interpolate(x, size=(13, 5), mode=mode), (values(2, 3, 8, 9, dtype=torch.uint8),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(4, 5), (17, 13)])
@pytest.mark.parametrize("align", [False, True])
def test_antialias(mode: str, dtype: torch.dtype, size: tuple[int, int], align: bool) -> None:
    export_and_compare(
        lambda x: F.interpolate(x, size=size, mode=mode, antialias=True, align_corners=align),
        (values(2, 3, 9, 12, dtype=dtype),),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_and_three_axes(dtype: torch.dtype) -> None:
    export_and_compare(lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"), (values(2, 3, 7, dtype=dtype),))
    export_and_compare(lambda x: F.interpolate(x, scale_factor=2), (values(2, 3, 7, dtype=dtype),))
    volume = values(2, 3, 4, 5, 6, dtype=dtype)
    export_and_compare(lambda x: F.interpolate(x, size=(3, 7, 9), mode="trilinear"), (volume,))
    export_and_compare(lambda x: F.interpolate(x, size=(3, 7, 9), mode="nearest-exact"), (volume,))


def test_size_of_another_tensor() -> None:
    export_and_compare(
        lambda x, y: F.interpolate(x, size=y.shape[2:], mode="bilinear"),
        (values(2, 3, 5, 6), values(2, 3, 8, 9)),
        other_args=(values(4, 3, 7, 8), values(4, 3, 11, 6)),
        dynamic_shapes=((DYNAMIC, DYNAMIC),),
    )


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_sample(dtype: torch.dtype, padding: str, mode: str, opset: int) -> None:
    for shape, grid in (((2, 3, 5, 6), (2, 4, 7, 2)), ((2, 3, 4, 5, 6), (2, 3, 4, 2, 3))):
        places = (torch.rand(grid) * 2.6 - 1.3).to(dtype)
        export_and_compare(
            lambda x, g: F.grid_sample(x, g, mode=mode, padding_mode=padding, align_corners=False),
            (values(*shape, dtype=dtype), places),
            opset_version=opset,
        )


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("spatial", [2, 3])
def test_affine_grid(align: bool, spatial: int) -> None:
    size = [5, 6, 4][:spatial]
    export_and_compare(
        lambda t: F.affine_grid(t, [t.shape[0], 3, *size], align_corners=align),
        (values(2, spatial, spatial + 1),),
        other_args=(values(4, spatial, spatial + 1),),
        dynamic_shapes=(({0: Dim.AUTO},),),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_fold_and_unfold(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"kernel_size": (3, 2), "dilation": (1, 2), "padding": (1, 0), "stride": (2, 1)}
    x = values(2, 3, 7, 8, dtype=dtype)
    export_and_compare(
        lambda x: F.unfold(x, **options),
        (x,),
        other_args=(values(3, 3, 9, 6, dtype=dtype),),
        dynamic_shapes=((DYNAMIC,),),
    )
    columns = F.unfold(x, **options)
    export_and_compare(
        lambda c: F.fold(c, (7, 8), **options),
        (columns,),
        other_args=(columns[:1],),
        dynamic_shapes=(({0: Dim.AUTO},),),
    )


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_symbolic_sizes_shrink_and_grow(mode: str, antialias: bool, dtype: torch.dtype) -> None:
    """Weights are computed in the model: bytes exactly as torch's fixed-point arithmetic has them."""

    def resize(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=(0.4, 1.7), mode=mode, antialias=antialias)

    def image(height: int, width: int) -> torch.Tensor:
        return (torch.rand(1, 2, height, width) * 255).to(dtype)

    shapes = (({2: Dim.AUTO, 3: Dim.AUTO},),)
    export_and_compare(resize, (image(20, 11),), other_args=(image(31, 18),), dynamic_shapes=shapes, atol=1e-3)
