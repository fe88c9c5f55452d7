"""Deformable convolution by the installed pack."""

from __future__ import annotations

import pytest
import torch
from support import export_and_compare, op_types
from torch.export import Dim
from torchvision.ops import DeformConv2d, deform_conv2d

OPSETS = [18, 19]  # ONNX has the operator since 19
# channels, out channels, groups, offset groups, kernel, stride, padding, dilation, mask
CASES = {
    "plain": (4, 3, 1, 1, (3, 3), (1, 1), (0, 0), (1, 1), False),
    "mask": (4, 3, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1), True),
    "everything": (6, 4, 2, 3, (3, 2), (2, 1), (1, 2), (2, 1), True),
    "one row": (4, 4, 4, 2, (1, 3), (1, 2), (0, 1), (1, 2), False),
    "pointwise": (4, 2, 1, 4, (1, 1), (1, 1), (0, 0), (1, 1), True),
}


class Deform(torch.nn.Module):
    def __init__(self, case: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.case = CASES[case]
        channels, out, groups, _, kernel, *self.window, _ = self.case
        self.weight = torch.nn.Parameter(torch.randn(out, channels // groups, *kernel).to(dtype))
        self.bias = torch.nn.Parameter(torch.randn(out).to(dtype))
        self.dtype = dtype

    def forward(self, x, offset, mask=None):
        return deform_conv2d(x, offset, self.weight, self.bias, *self.window, mask=mask)

    def inputs(self, batch: int = 2, height: int = 7, width: int = 8) -> tuple[torch.Tensor, ...]:
        channels, _, _, parts, kernel, stride, padding, dilation, with_mask = self.case
        out = [
            (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            for i, size in enumerate((height, width))
        ]
        taps = parts * kernel[0] * kernel[1]
        tensors = [torch.randn(batch, channels, height, width), torch.randn(batch, 2 * taps, *out) * 2]
        if with_mask:
            tensors.append(torch.rand(batch, taps, *out))
        return tuple(tensor.to(self.dtype) for tensor in tensors)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_deform_conv2d(case, dtype, opset):
    model = Deform(case, dtype)
    program = export_and_compare(model, model.inputs(), opset_version=opset)
    assert ("DeformConv" in op_types(program)) == (opset >= 19)


@pytest.mark.parametrize("opset", OPSETS)
def test_float16(opset):
    model = Deform("mask", torch.float16)
    # eager accumulates in float16
    export_and_compare(model, model.inputs(), opset_version=opset, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("opset", OPSETS)
def test_far_outside(opset):
    model = Deform("mask")
    x, offset, mask = model.inputs()
    far = torch.tensor([-1e9, -9.0, -8.0, 7.0, 8.0, 1e9])
    offset = far[torch.randint(0, 6, offset.shape)]
    export_and_compare(model, (x, offset, mask), opset_version=opset)


@pytest.mark.parametrize("opset", OPSETS)
def test_layer_with_dynamic_shapes(opset):
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where = torch.nn.Conv2d(4, 18, 3, padding=1)
            self.conv = DeformConv2d(4, 6, 3, padding=1, bias=False)

        def forward(self, x):
            return self.conv(x, self.where(x)).relu()

    export_and_compare(
        Layer(),
        (torch.randn(2, 4, 9, 8),),
        dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},),
        other_args=(torch.randn(3, 4, 7, 11),),
        opset_version=opset,
    )
