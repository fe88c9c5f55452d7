"""Deformable convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import DataType, Tensor, translation
from onnxport.authoring import Dim, iota, static

from onnxport_torchvision.sampling import working_dtype

if TYPE_CHECKING:
    from onnxport import Builder


@translation("torchvision::deform_conv2d", opset=19)
def deform_conv2d(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: Dim,
    stride_w: Dim,
    pad_h: Dim,
    pad_w: Dim,
    dilation_h: Dim,
    dilation_w: Dim,
    groups: Dim,
    offset_groups: Dim,
    use_mask: bool,
) -> Tensor:
    """ONNX's operator is defined as torchvision's, with the same order of offsets."""
    window = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups
    *steps, group, offset_group = static("the window of deform_conv2d", *window)
    return op.DeformConv(
        input,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        kernel_shape=static("the kernel of deform_conv2d", *list(weight.shape)[2:]),
        strides=steps[0:2],
        pads=steps[2:4] * 2,
        dilations=steps[4:6],
        group=group,
        offset_group=offset_group,
    )


@translation("torchvision::deform_conv2d")
def deform_conv2d_by_samples(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: Dim,
    stride_w: Dim,
    pad_h: Dim,
    pad_w: Dim,
    dilation_h: Dim,
    dilation_w: Dim,
    groups: Dim,
    offset_groups: Dim,
    use_mask: bool,
) -> Tensor:
    """Bilinear samples at the kernel's displaced places, then a matrix product. Below opset 19."""
    window = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups
    *steps, group, parts = static("the window of deform_conv2d", *window)
    channels, height, width = list(input.shape)[1:]
    out_channels, _, *kernel = static("the kernel of deform_conv2d", *weight.shape)
    out = list(op.result.shape)[2:]
    dtype = working_dtype(input.dtype)

    # (N * offset groups, kh, kw, oh, ow) each
    displaced = op.Reshape(op.cast(offset, dtype), op.sizes([-1, *kernel, 2, *out]))
    corners = []
    for axis, size in enumerate((height, width)):
        place = op.Gather(displaced, op.const(axis), axis=3)
        start = op.Unsqueeze(iota(op, kernel[axis], dtype), [1, 2, 3] if axis == 0 else [1, 2])
        count = op.Unsqueeze(iota(op, out[axis], dtype), [1]) if axis == 0 else iota(op, out[axis], dtype)
        stride, pad, dilation = steps[axis], steps[2 + axis], steps[4 + axis]
        center = op.Sub(op.Add(op.Mul(count, stride), op.Mul(start, dilation)), pad)
        corners.append(_corners(op, op.Add(place, center), size))
    (rows, row_weights), (columns, column_weights) = corners
    index = op.Add(
        op.Mul(op.Unsqueeze(rows, [6]), op.tensor(width, DataType.INT64)), op.Unsqueeze(columns, [5])
    )  # (..., 2, 2)
    weights = op.Mul(op.Unsqueeze(row_weights, [6]), op.Unsqueeze(column_weights, [5]))
    if use_mask:
        strength = op.Reshape(op.cast(mask, dtype), op.sizes([-1, *kernel, *out]))
        weights = op.Mul(weights, op.Unsqueeze(strength, [5, 6]))

    first = op.Mul(iota(op, input.shape[0] * parts), op.tensor(height * width, DataType.INT64))
    index = op.Add(index, op.Unsqueeze(first, [1, 2, 3, 4, 5, 6]))
    pixels = op.Reshape(op.cast(input, dtype), op.sizes([-1, parts, channels // parts, height, width]))
    table = op.Reshape(op.Transpose(pixels, perm=[0, 1, 3, 4, 2]), op.sizes([-1, channels // parts]))
    sampled = op.Gather(table, op.Reshape(index, op.sizes([-1, *kernel, *out, 4])), axis=0)
    sampled = op.MatMul(op.Reshape(weights, op.sizes([-1, *kernel, *out, 1, 4])), sampled)
    columns_of = op.Transpose(op.Squeeze(sampled, [5]), perm=[0, 5, 1, 2, 3, 4])

    taps = channels // group * kernel[0] * kernel[1]
    flat = op.Reshape(columns_of, op.sizes([-1, group, taps, out[0] * out[1]]))
    matrix = op.Reshape(op.cast(weight, dtype), op.sizes([group, out_channels // group, taps]))
    product = op.Reshape(op.MatMul(matrix, flat), op.sizes([-1, out_channels, *out]))
    return op.cast(op.Add(product, op.Unsqueeze(op.cast(bias, dtype), [1, 2])), input.dtype)


def _corners(op: Builder, at: Tensor, size: Dim) -> tuple[Tensor, Tensor]:
    """The two pixels around each place on an axis and their weights, on a new last axis; 0 outside of the image."""
    last = op.cast(size - 1, at.dtype)
    low = op.Floor(at)
    part = op.Sub(at, low)
    both = op.Concat(op.Unsqueeze(low, [5]), op.Unsqueeze(op.Add(low, 1), [5]), axis=5)
    weights = op.Concat(op.Unsqueeze(op.Sub(1, part), [5]), op.Unsqueeze(part, [5]), axis=5)
    inside = op.And(op.GreaterOrEqual(both, 0), op.LessOrEqual(both, last))
    index = op.cast(op.Min(op.Max(both, 0), last), DataType.INT64)
    return index, op.Where(inside, weights, 0)
