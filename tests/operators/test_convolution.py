"""Convolutions of one to three axes, transposed ones, and the dtypes that ONNX's kernels lack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "groups": 2},
    {"padding": "same", "dilation": 3},
    {"padding": "valid", "stride": 2},
]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(-9, 9, shape).to(dtype)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolution(spatial: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    channels = 4 // options.get("groups", 1)
    weight, bias = values(6, channels, *[2] * spatial, dtype=dtype), values(6, dtype=dtype)
    x, other = values(2, 4, *[7, 6, 5][:spatial], dtype=dtype), values(3, 4, *[8, 9, 6][:spatial], dtype=dtype)
    dynamic = {0: Dim.AUTO} | {2 + i: Dim.AUTO for i in range(spatial)}
    export_and_compare(
        lambda x, w, b: CONVOLUTIONS[spatial](x, w, b, **options),
        (x, weight, bias),
        other_args=(other, weight, bias),
        dynamic_shapes=((dynamic, None, None),),
    )


TRANSPOSED_OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "dilation": 2, "groups": 2},
    {"stride": 1, "dilation": 3, "padding": 2, "output_padding": 2},
    {"stride": 1, "dilation": 3, "padding": 1, "output_padding": 2},
]


@pytest.mark.parametrize("options", TRANSPOSED_OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_transposed_convolution(spatial: int, dtype: torch.dtype, options: dict[str, Any]) -> None:
    weight, bias = values(4, 3, *[2, 3, 2][:spatial], dtype=dtype), values(3 * options.get("groups", 1), dtype=dtype)
    export_and_compare(
        lambda x, w, b: TRANSPOSED[spatial](x, w, b, **options),
        (values(2, 4, *[3, 4, 3][:spatial], dtype=dtype), weight, bias),
    )


def test_one_node() -> None:
    dynamic = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    program = export_and_compare(
        nn.Conv2d(4, 8, 3, 2, 1, groups=2),
        (values(2, 4, 9, 9),),
        other_args=(values(3, 4, 11, 7),),
        dynamic_shapes=(dynamic,),
    )
    assert op_types(program) == ["Conv"]


def test_without_a_batch() -> None:
    export_and_compare(nn.Conv2d(3, 4, 3), (values(3, 6, 6),))
    export_and_compare(nn.ConvTranspose1d(3, 4, 3), (values(3, 6),))


def test_kernel_of_symbolic_size() -> None:
    for dtype in (torch.float32, torch.float64):
        export_and_compare(
            lambda x, w: F.conv1d(x, w, padding="same"),
            (values(2, 3, 9, dtype=dtype), values(4, 3, 3, dtype=dtype)),
            other_args=(values(2, 3, 9, dtype=dtype), values(4, 3, 4, dtype=dtype)),
            dynamic_shapes=((None, {2: Dim.AUTO}),),
        )


def test_time_batch_channel() -> None:
    export_and_compare(lambda x, w, b: torch.conv_tbc(x, w, b, 1), (values(5, 2, 3), values(3, 3, 4), values(4)))
