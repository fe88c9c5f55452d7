"""Captured although torch alone can't: branches on values that the forward spells out, grids of dynamic sizes."""

from __future__ import annotations

import pytest
import torch
from support import FunctionModule, export_and_compare

IMAGES, OTHERS = torch.rand(2, 3, 6, 7), torch.rand(3, 3, 9, 5)
SHAPES = ({0: "batch", 2: "h", 3: "w"},)


def normalized(x):
    deviation = torch.as_tensor([0.1, 0.2, 0.3], dtype=x.dtype, device=x.device)
    if (deviation == 0).any():
        raise ValueError("deviations must not be 0")
    return x / deviation[:, None, None]


def written(x):
    scale = torch.tensor([1.0, 2.0, 3.0])
    scale[1] = -1.0
    return x * scale[:, None, None] if scale.min() < 0 else x


@pytest.mark.parametrize("function", [normalized, written])
def test_a_branch_on_spelled_out_values(function):
    export_and_compare(FunctionModule(function), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


def grid(x):
    h, w = x.shape[-2:]
    rows = torch.linspace(0.5, h - 0.5, h)
    columns = torch.linspace((1.0 - w) * 0.5, (w - 1.0) * 0.5, steps=w, dtype=x.dtype, device=x.device)
    return x + rows[:, None] + columns


@pytest.mark.parametrize("other", [OTHERS, torch.rand(1, 3, 1, 8)], ids=["larger", "one row"])
def test_a_grid_of_dynamic_height_and_width(other):
    export_and_compare(FunctionModule(grid), (IMAGES,), dynamic_shapes=SHAPES, other_args=(other,))


def scaled(x):
    factor = max(x.shape[-1] / x.shape[-2], 1.0)
    return x * factor + min(0.5 * x.shape[-1], x.shape[-2] - 1.0)


def test_the_larger_of_two_quotients_of_sizes():
    export_and_compare(FunctionModule(scaled), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


def test_a_tensor_of_a_quotient_of_sizes():
    def halved(x):
        return x * torch.as_tensor(x.shape[2] / 2) + torch.as_tensor(x.shape[3] / 3, dtype=x.dtype, device=x.device)

    export_and_compare(FunctionModule(halved), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_steps_between_tensors(dtype):
    def between(x):
        return torch.linspace(x.min(), x.max(), x.shape[0], dtype=dtype)

    export_and_compare(FunctionModule(between), (IMAGES,), dynamic_shapes=SHAPES, other_args=(torch.rand(9, 3, 6, 7),))
