"""Resizes to and from dynamic sizes take the pixels that eager takes, rounding by rounding."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch.export import Dim

#: sizes at which an index is a whole number but for a rounding, and a few others
SIZES = [
    2,
    3,
    4,
    7,
    14,
    26,
    28,
    49,
    56,
    60,
    78,
    91,
    98,
    104,
    156,
    171,
    182,
    196,
    236,
    252,
    336,
    341,
    381,
    478,
    511,
    512,
]


def rows(count: int, dtype: torch.dtype = torch.float32, channels: int = 2, width: int = 1) -> torch.Tensor:
    """(1, channels, count, width): every row is another, in dtypes that hold 128 numbers too."""
    index = torch.arange(count)
    values = torch.stack([index % 128, index // 128]).repeat(channels // 2, 1)
    return values.to(dtype).view(1, channels, count, 1).expand(1, channels, count, width).contiguous()


class Resized(torch.nn.Module):
    """To `height` rows, or as many as the second argument has, and as many columns as the second argument has."""

    def __init__(self, mode: str, height: int | None = None) -> None:
        super().__init__()
        self.mode, self.height = mode, height

    def forward(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        height = like.shape[0] if self.height is None else self.height
        return F.interpolate(x, size=(height, like.shape[1]), mode=self.mode)


class Function(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(*args)


def compare(model: torch.nn.Module, program: onnxport.ONNXProgram, *args: Any) -> None:
    assert torch.equal(program(*args)[0], model(*args)), [tuple(arg.shape) for arg in args]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("height", [32, 7])
def test_from_a_dynamic_size(mode: str, height: int) -> None:
    model = Resized(mode, height)
    like = torch.zeros(1, 4)
    program = onnxport.export(model, (rows(80, width=4), like), dynamic_shapes=({2: "h"}, {}))
    for size in [*SIZES, *range(5, 260, 5)]:
        compare(model, program, rows(size, width=4), like)


@pytest.mark.parametrize(
    ("mode", "dtype", "channels"),
    [
        ("nearest", torch.float32, 2),
        ("nearest", torch.float64, 2),
        ("nearest", torch.float64, 4),
        ("nearest", torch.uint8, 2),
        ("nearest-exact", torch.float32, 2),
        ("nearest-exact", torch.float32, 4),
        ("nearest-exact", torch.float64, 2),
    ],
)
def test_between_dynamic_sizes(mode: str, dtype: torch.dtype, channels: int) -> None:
    """torch has a kernel for small images and one for channels-last, which round otherwise."""
    layout = torch.channels_last if channels == 4 else torch.contiguous_format
    model = Resized(mode)
    example = rows(20, dtype, channels, 3).contiguous(memory_format=layout)
    axes = ({2: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC})
    program = onnxport.export(model, (example, torch.zeros(30, 9)), dynamic_shapes=axes)
    for size in SIZES[::2]:
        x = rows(size, dtype, channels, 3).contiguous(memory_format=layout)
        for out in (*SIZES[::3], 41, 47, 54, 63, 69, 82, 100, 235):
            compare(model, program, x, torch.zeros(out, 3 if out % 2 else 100))


@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_one_and_three_axes(spatial: int, mode: str) -> None:
    def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size=[like.shape[0], 2, 3][:spatial], mode=mode)

    def argument(size: int) -> torch.Tensor:
        return rows(size).view(1, 2, size, 1, 1).expand(1, 2, size, 3, 2)[(..., *[0] * (3 - spatial))].contiguous()

    axes = ({2: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    program = onnxport.export(Function(resize), (argument(20), torch.zeros(30)), dynamic_shapes=(axes,))
    for size in SIZES[::2]:
        for out in (30, 41, 69, 235, 512):
            compare(Function(resize), program, argument(size), torch.zeros(out))


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.01, 1.3, 2.01, 41.0])
@pytest.mark.parametrize(("mode", "recompute"), [("nearest", None), ("nearest", True), ("nearest-exact", None)])
def test_scale_factors(scale: float, mode: str, recompute: bool | None) -> None:
    model = Function(lambda x: F.interpolate(x, None, scale, mode, recompute_scale_factor=recompute))
    program = onnxport.export(model, (rows(20, width=4),), dynamic_shapes=(({2: "h"},),))
    for size in [size for size in SIZES if size * scale >= 1]:
        compare(model, program, rows(size, width=4))


@pytest.mark.parametrize("scale", [1.02, 1.3])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("antialias", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.float64), (False, torch.uint8)]
)
def test_sizes_that_a_scale_factor_leaves(scale: float, mode: str, antialias: bool, dtype: torch.dtype) -> None:
    """torch copies along such an axis, except for a bicubic resize of floats; bytes are rounded."""
    model = Function(lambda x: F.interpolate(x, scale_factor=scale, mode=mode, antialias=antialias))
    torch.manual_seed(0)
    image = torch.randint(0, 255, (1, 2, 100, 7)).to(dtype)
    program = onnxport.export(model, (image[:, :, :20],), dynamic_shapes=(({2: "h"},),))
    # 90: the product with the scale factor in single precision is another whole number than in double
    for size in (2, 3, 4, 9, 90):
        x = image[:, :, :size].contiguous()
        got, want = program(x)[0].double(), model(x).double()
        assert got.shape == want.shape
        assert (got - want).abs().max() <= (1 if dtype == torch.uint8 else 1e-2)
    export_and_compare(model, (image[:, :, :3].contiguous(),), atol=1 if dtype == torch.uint8 else 1e-2)


def test_whole_factors_are_one_resize() -> None:
    for factor in (2, 3, 8):
        model = Function(lambda x, k=factor: F.interpolate(x, scale_factor=k))
        program = onnxport.export(model, (rows(20, width=4),), dynamic_shapes=(({2: "h"},),))
        assert "Gather" not in op_types(program) and "If" not in op_types(program)
        compare(model, program, rows(37, width=4))
