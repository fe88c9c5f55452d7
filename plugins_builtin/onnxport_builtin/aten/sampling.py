"""Sampling at given places (grid_sample, affine_grid), and unfolding into columns and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx_ir.tensor_adapters import to_torch_dtype
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, is_static, product, reshape

from onnxport_builtin.aten.windows import batched, gather_windows, pad_spatial, positions, spread, window_count

if TYPE_CHECKING:
    from onnxport import Builder

_INTERPOLATION = ("linear", "nearest", "cubic")
_INTERPOLATION_16 = ("bilinear", "nearest", "bicubic")
_PADDING = ("zeros", "border", "reflection")


@translation(
    "aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d", "aten::_grid_sampler_2d_cpu_fallback"
)
def grid_sampler(
    op: Builder, input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    volume = len(input.shape) == 5
    if op.opset < 20 and (volume or input.dtype == DataType.DOUBLE):
        return _sampled(op, input, grid, interpolation_mode, padding_mode, align_corners)
    names = _INTERPOLATION if op.opset >= 20 else _INTERPOLATION_16
    return op.GridSample(
        input,
        op.cast(grid, input.dtype),
        mode=names[interpolation_mode],
        padding_mode=_PADDING[padding_mode],
        align_corners=int(align_corners),
    )


def _unnormalized(op: Builder, x: Tensor, size: Dim, padding: int, align_corners: bool, *, clip: bool) -> Tensor:
    """Places in pixels from places in -1 ... 1."""
    dtype = x.dtype
    length = op.cast(size, dtype)
    if align_corners:
        x = op.Mul(op.Add(x, 1), op.Mul(op.Sub(length, 1), 0.5))
    else:
        x = op.Sub(op.Mul(op.Add(x, 1), op.Mul(length, 0.5)), 0.5)
    if not clip or padding == 0:
        return x
    if padding == 2:
        low, high = (0.0, op.Sub(length, 1)) if align_corners else (-0.5, op.Sub(length, 0.5))
        x = _reflected(op, x, low, high)
    return op.Max(op.Min(x, op.Sub(length, 1)), 0)


def _reflected(op: Builder, x: Tensor, low: float, high: Tensor) -> Tensor:
    """`x` mirrored at `low` and `high` until it lies between them."""
    span = op.Sub(high, low) if low else high
    away = op.Abs(op.Sub(x, low) if low else x)
    flips = op.Floor(op.Div(away, span))
    rest = op.Sub(away, op.Mul(flips, span))
    even = op.Equal(op.Mod(op.cast(flips, DataType.INT64), 2), 0)
    mirrored = op.Where(even, rest, op.Sub(span, rest))
    mirrored = op.Add(mirrored, low) if low else mirrored
    return op.Where(op.Equal(span, 0), op.const(low, x.dtype), mirrored)


def _sampled(op: Builder, x: Tensor, grid: Tensor, interpolation: int, padding: int, align_corners: bool) -> Tensor:
    """What GridSample does, by gathering corners: below opset 20 it knows no volumes, and no doubles run."""
    if interpolation == 2:
        raise Unsupported("bicubic grid_sample of doubles needs opset 20")
    spatial = len(x.shape) - 2
    sizes = list(x.shape)[2:]
    out = list(grid.shape)[1:-1]
    dtype = x.dtype
    grid = op.cast(grid, dtype)
    flat = reshape(op, x, [*list(x.shape)[:2], product(sizes)])
    points = op.Reshape(grid, op.sizes([grid.shape[0], product(out), spatial]))
    coordinates = []
    for axis in range(spatial):  # the last coordinate is that of the first spatial axis
        column = op.Gather(points, op.const(np.int64(spatial - 1 - axis)), axis=2)
        coordinates.append(_unnormalized(op, column, sizes[axis], padding, align_corners, clip=True))
    if interpolation == 1:
        corners = [[(op.Round(c), None)] for c in coordinates]
    else:
        corners = []
        for c in coordinates:
            floor = op.Floor(c)
            part = op.Sub(c, floor)
            corners.append([(floor, op.Sub(op.const(1, dtype), part)), (op.Add(floor, 1), part)])
    total: Tensor | None = None
    for choice in np.ndindex(*(len(c) for c in corners)):
        weight: Tensor | None = None
        inside: Tensor | None = None
        index: Tensor | None = None
        for axis, which in enumerate(choice):
            place, part = corners[axis][which]
            limit = op.Sub(op.cast(sizes[axis], dtype), 1)
            fits = op.And(op.GreaterOrEqual(place, 0), op.LessOrEqual(place, limit))
            inside = fits if inside is None else op.And(inside, fits)
            if part is not None:
                weight = part if weight is None else op.Mul(weight, part)
            at = op.cast(op.Max(op.Min(place, limit), 0), DataType.INT64)
            index = at if index is None else op.Add(op.Mul(index, op.tensor(sizes[axis], DataType.INT64)), at)
        wanted = expand(op, op.Unsqueeze(index, [1]), [x.shape[0], x.shape[1], product(out)])
        value = op.GatherElements(flat, wanted, axis=2)
        value = op.Where(op.Unsqueeze(inside, [1]), value, 0)
        if weight is not None:
            value = op.Mul(value, op.Unsqueeze(weight, [1]))
        total = value if total is None else op.Add(total, value)
    return op.Reshape(total, op.sizes([x.shape[0], x.shape[1], *out]))


def _line(size: int, align_corners: bool, dtype: torch.dtype) -> torch.Tensor:
    """`size` places from -1 to 1, rounded as eager's: the pixels' centres, or with `align_corners` the corners'."""
    places = torch.linspace(-1.0, 1.0, size, dtype=dtype) if size > 1 else torch.zeros(size, dtype=dtype)
    return places if align_corners or size == 0 else places * (size - 1) / size


@translation("aten::affine_grid_generator")
def affine_grid_generator(op: Builder, theta: Tensor, size: Sequence[Dim], align_corners: bool) -> Tensor:
    """The places that an affine map gives for each pixel: (N, H, W, 2) or (N, D, H, W, 3)."""
    dims = list(size)[2:]
    spatial = len(dims)
    kind = to_torch_dtype(theta.dtype)
    lines: list[Any] = [_line(dim, align_corners, kind) if isinstance(dim, int) else None for dim in dims]
    if is_static(dims):
        mesh = torch.meshgrid(*lines, indexing="ij")
        places = torch.stack([*reversed(mesh), torch.ones_like(mesh[0])], dim=-1)
        base = op.const(places.reshape(-1, spatial + 1))
    else:
        work = theta.dtype if theta.dtype is DataType.DOUBLE else DataType.FLOAT
        columns = []
        for axis in reversed(range(spatial)):
            line = lines[axis]
            values = _dynamic_line(op, dims[axis], align_corners, work) if line is None else op.const(line, work)
            column = op.Reshape(values, [-1] + [1] * (spatial - axis))
            columns.append(expand(op, column, [*dims, 1]))
        columns.append(expand(op, op.const(1.0, work), [*dims, 1]))
        base = op.cast(op.Reshape(op.Concat(*columns, axis=-1), [-1, spatial + 1]), theta.dtype)
    grid = op.MatMul(base, op.Transpose(theta, perm=[0, 2, 1]))
    return reshape(op, grid, [theta.shape[0], *dims, spatial])


def _dynamic_line(op: Builder, size: Size, align_corners: bool, work: DataType) -> Tensor:
    """`_line` of a dynamic size, from both ends towards the middle as torch's linspace counts."""
    count, index = op.cast(size, work), op.cast(op.Range(0, size, 1), work)
    last = op.Sub(count, 1)
    step = op.Div(op.const(2.0, work), op.Max(last, 1))
    below = op.Sub(op.Mul(index, step), 1)
    above = op.Sub(op.const(1.0, work), op.Mul(op.Sub(last, index), step))
    line = op.Where(op.Less(index, op.Mul(last, 0.5)), below, above)
    if align_corners:
        return op.Where(op.Equal(last, 0), op.const(0.0, work), line)
    return op.Div(op.Mul(line, last), count)


# ---- columns


def _column_positions(
    op: Builder,
    size: Sequence[Dim],
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> tuple[list[Tensor], list[Dim]]:
    counts = [window_count(size[i], kernel[i], stride[i], dilation[i], padding[i], padding[i]) for i in (0, 1)]
    return [positions(op, kernel[i], counts[i], stride[i], dilation[i]) for i in (0, 1)], counts


@translation("aten::im2col")
def im2col(op: Builder, self: Tensor, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    kernel, dilation, padding, stride = (
        spread(v, 2, name)
        for v, name in ((kernel_size, "kernel_size"), (dilation, "dilation"), (padding, "padding"), (stride, "stride"))
    )
    x, added = batched(op, self, 2)
    size = list(self.shape)[-2:]
    indices, counts = _column_positions(op, size, kernel, dilation, padding, stride)
    wide = DataType.INT32 if x.dtype == DataType.INT16 else x.dtype
    windows = gather_windows(op, pad_spatial(op, op.cast(x, wide), padding, padding), indices)
    channels = self.shape[-3]
    shape = [1 if added else self.shape[0], channels * product(kernel), product(counts)]
    y = op.cast(reshape(op, windows, shape), self.dtype)
    return op.Squeeze(y, [0]) if added else y


@translation("aten::col2im")
def col2im(
    op: Builder, self: Tensor, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Tensor:
    kernel, dilation, padding, stride = (
        spread(v, 2, name)
        for v, name in ((kernel_size, "kernel_size"), (dilation, "dilation"), (padding, "padding"), (stride, "stride"))
    )
    out = list(op.result.shape)[-2:]
    x, added = (op.Unsqueeze(self, [0]), True) if len(self.shape) == 2 else (self, False)
    if x.dtype in (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16):
        y = op.Col2Im(x, op.sizes(out), kernel, dilations=dilation, pads=padding * 2, strides=stride)
        return op.Squeeze(y, [0]) if added else y
    # Each column's elements are added at their places in the flattened padded image.
    height, width = (out[i] + 2 * padding[i] for i in (0, 1))
    (rows, columns), counts = _column_positions(op, out, kernel, dilation, padding, stride)
    places = op.Add(op.Mul(op.Unsqueeze(rows, [1, 3]), op.tensor(width, DataType.INT64)), op.Unsqueeze(columns, [0, 2]))
    channels = op.result.shape[-3]
    lead = [1 if added else self.shape[0], channels]
    length = product(kernel) * product(counts)
    index = expand(op, op.Reshape(op.Identity(places), op.sizes([1, 1, length])), [*lead, length])
    dtype = x.dtype
    image = expand(op, op.const(0, dtype), [*lead, height * width])
    summed = op.ScatterElements(image, index, op.Reshape(x, op.sizes([*lead, length])), axis=2, reduction="add")
    y = op.Reshape(summed, op.sizes([*lead, height, width]))
    if any(padding):
        y = op.Slice(y, padding, [padding[i] + out[i] for i in (0, 1)], [2, 3])
    return op.Squeeze(y, [0]) if added else y
