"""Convolutions and transposed convolutions, one to three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, Unsupported, translation
from onnxport.authoring import Dim, is_static, product

from onnxport_builtin.aten.matmul import matrix_product, plus
from onnxport_builtin.aten.padding import pad_axes
from onnxport_builtin.aten.windows import batched, gather_windows, pad_spatial, positions, spread, window_count

if TYPE_CHECKING:
    from onnxport import Builder

# onnxruntime 1.32 has kernels of Conv and ConvTranspose for these alone (bfloat16 runs elsewhere).
_NATIVE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)


def _kernel_shape(weight: Tensor) -> list[int] | None:
    sizes = list(weight.shape)[2:]
    return sizes if all(isinstance(size, int) for size in sizes) else None


def _bias_shaped(op: Builder, bias: Tensor, spatial: int) -> Tensor:
    return op.Unsqueeze(bias, list(range(1, spatial + 1)))


def _convolve_by_matmul(
    op: Builder,
    x: Tensor,
    weight: Tensor,
    weight_shape: Sequence[Dim],
    bias: Tensor | None,
    size: Sequence[Dim],
    stride: Sequence[int],
    pads: tuple[Sequence[Dim], Sequence[Dim]],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution in the dtypes that Conv has no kernel for: windows gathered, then multiplied.

    `x` is (N, C, size...), `weight` has `weight_shape` (M, C/groups, kernel...).
    """
    spatial = len(size)
    filters, channels, *kernel = weight_shape
    counts = [window_count(size[i], kernel[i], stride[i], dilation[i], pads[0][i], pads[1][i]) for i in range(spatial)]
    padded = pad_spatial(op, x, *pads)
    indices = [positions(op, kernel[i], counts[i], stride[i], dilation[i]) for i in range(spatial)]
    columns = gather_windows(op, padded, indices)
    depth, area = product([channels, *kernel]), product(counts)
    columns = op.Reshape(columns, op.sizes([-1, groups, depth, area]))
    rows = op.Reshape(weight, op.sizes([groups, filters // groups, depth]))
    y = op.Reshape(matrix_product(op, rows, columns), op.sizes([-1, filters, *counts]))
    return y if bias is None else plus(op, y, _bias_shaped(op, bias, spatial))


def _convolve(
    op: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Tensor:
    """A convolution; `padding` is "valid", "same", or ints."""
    spatial = len(weight.shape) - 2
    kernel = _kernel_shape(weight)
    stride, dilation = spread(stride, spatial, "stride"), spread(dilation, spatial, "dilation")
    (groups,) = spread(groups, 1, "groups")
    if padding == "valid":
        padding = 0
    if padding == "same":
        totals: list[Dim] = [(extent - 1) * d for extent, d in zip(list(weight.shape)[2:], dilation)]
        begin: list[Any] = [amount // 2 for amount in totals]
        end: list[Any] = [amount - before for amount, before in zip(totals, begin)]
    else:
        begin = end = list(padding) if isinstance(padding, list | tuple) else [padding]
        if len(begin) != spatial:
            begin = end = begin * spatial
    x, added = batched(op, x, spatial)
    size = [x.shape[2 + i] for i in range(spatial)]
    if x.dtype in _NATIVE and not is_static([*begin, *end]):  # Conv's pads are attributes
        x = pad_spatial(op, x, begin, end)
        begin = end = [0] * spatial
    if x.dtype in _NATIVE:
        y = op.Conv(
            x,
            weight,
            bias,
            kernel_shape=kernel,
            strides=stride,
            pads=[*begin, *end],
            dilations=dilation,
            group=groups,
        )
    else:
        y = _convolve_by_matmul(op, x, weight, list(weight.shape), bias, size, stride, (begin, end), dilation, groups)
    return op.Squeeze(y, [0]) if added else y


def _spaced(op: Builder, x: Tensor, size: Sequence[Dim], stride: Sequence[int]) -> tuple[Tensor, list[Dim]]:
    """`x` (N, C, size...) with ``stride - 1`` zeros between neighbours, and its new spatial sizes."""
    sizes = list(size)
    channels = x.shape[1]
    for i, step in enumerate(stride):
        if step == 1:
            continue
        axis = 2 + i
        spread_out = pad_axes(op, op.Unsqueeze(x, [axis + 1]), 3 + len(size), {axis + 1: (0, step - 1)})
        longer = sizes[i] * step
        x = op.Reshape(spread_out, op.sizes([-1, channels, *sizes[:i], longer, *sizes[i + 1 :]]))
        sizes[i] = longer - (step - 1)
        x = op.Slice(x, [0], [-(step - 1)], [axis], [1])
    return x, sizes


def _convolve_transposed(
    op: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> Tensor:
    spatial = len(weight.shape) - 2
    stride, dilation = spread(stride, spatial, "stride"), spread(dilation, spatial, "dilation")
    padding = spread(padding, spatial, "padding")
    output_padding = spread(output_padding, spatial, "output_padding")
    (groups,) = spread(groups, 1, "groups")
    x, added = batched(op, x, spatial)
    end = padding
    if any(extra >= step for extra, step in zip(output_padding, stride)):
        # onnxruntime 1.32 refuses such output paddings; cropping less at the end says the same
        end = [pad - extra for pad, extra in zip(padding, output_padding)]
        output_padding_ = [0] * spatial
    else:
        output_padding_ = output_padding
    if x.dtype in _NATIVE and min(end) >= 0:
        y = op.ConvTranspose(
            x,
            weight,
            bias,
            kernel_shape=_kernel_shape(weight),
            strides=stride,
            pads=[*padding, *end],
            output_padding=output_padding_ if any(output_padding_) else None,
            dilations=dilation,
            group=groups,
        )
        return op.Squeeze(y, [0]) if added else y
    channels, filters, *kernel = weight.shape
    x, size = _spaced(op, x, list(x.shape)[2:], stride)
    # The transposed convolution is the convolution with the flipped kernel, its in and out channels exchanged.
    axes = list(range(2, spatial + 2))
    flipped = op.Slice(weight, [-1] * spatial, [-(2**62)] * spatial, axes, [-1] * spatial)
    grouped = op.Reshape(flipped, op.sizes([groups, channels // groups, filters, *kernel]))
    exchanged = op.Transpose(grouped, perm=[0, 2, 1, *range(3, spatial + 3)])
    shape = [filters * groups, channels // groups, *kernel]
    begin = [(kernel[i] - 1) * dilation[i] - padding[i] for i in range(spatial)]
    end = [begin[i] + output_padding[i] for i in range(spatial)]
    y = _convolve_by_matmul(
        op,
        x,
        op.Reshape(exchanged, op.sizes(shape)),
        shape,
        bias,
        size,
        [1] * spatial,
        (begin, end),
        dilation,
        groups,
    )
    return op.Squeeze(y, [0]) if added else y


@translation(
    "aten::conv1d",
    "aten::conv2d",
    "aten::conv3d",
    "aten::conv1d.padding",
    "aten::conv2d.padding",
    "aten::conv3d.padding",
)
def conv(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Tensor:
    return _convolve(op, input, weight, bias, stride, padding, dilation, groups)


@translation("aten::_convolution_mode")
def convolution_mode(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: str,
    dilation: Any,
    groups: Any,
) -> Tensor:
    return _convolve(op, input, weight, bias, stride, padding, dilation, groups)


@translation("aten::conv_transpose1d", "aten::conv_transpose2d.input", "aten::conv_transpose3d.input")
def conv_transpose(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: Any = 1,
    dilation: Any = 1,
) -> Tensor:
    return _convolve_transposed(op, input, weight, bias, stride, padding, output_padding, groups, dilation)


@translation("aten::convolution")
def convolution(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: Any,
) -> Tensor:
    if transposed:
        return _convolve_transposed(op, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolve(op, input, weight, bias, stride, padding, dilation, groups)


@translation("aten::_convolution", "aten::_convolution.deprecated")
def underscore_convolution(
    op: Builder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: Any,
    benchmark: bool,
    deterministic: bool,
    cudnn_enabled: bool,
    allow_tf32: bool = False,
) -> Tensor:
    del benchmark, deterministic, cudnn_enabled, allow_tf32  # choices among kernels
    return convolution(op, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)


@translation("aten::conv_tbc")
def conv_tbc(op: Builder, self: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Time, batch, channel: `self` (T, B, C_in), `weight` (K, C_in, C_out)."""
    if self.dtype not in _NATIVE:
        raise Unsupported(f"conv_tbc of {self.dtype.name}")
    x = op.Transpose(self, perm=[1, 2, 0])
    kernel = op.Transpose(weight, perm=[2, 1, 0])
    y = op.Conv(x, kernel, bias, pads=[pad, pad])
    return op.Transpose(y, perm=[2, 0, 1])


@translation("aten::slow_conv3d", "aten::thnn_conv2d", "aten::_slow_conv2d_forward")
def slow_conv(
    op: Builder,
    self: Tensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
) -> Tensor:
    del kernel_size  # the weight's own
    return _convolve(op, self, weight, bias, stride, padding, 1, 1)


@translation("aten::slow_conv_dilated2d", "aten::slow_conv_dilated3d")
def slow_conv_dilated(
    op: Builder,
    self: Tensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    del kernel_size  # the weight's own
    return _convolve(op, self, weight, bias, stride, padding, dilation, 1)


@translation("aten::conv_depthwise3d", "aten::_conv_depthwise2d")
def conv_depthwise(
    op: Builder,
    self: Tensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
) -> Tensor:
    del kernel_size  # the weight's own
    return _convolve(op, self, weight, bias, stride, padding, dilation, self.shape[-len(weight.shape) + 1])


@translation("aten::slow_conv_transpose2d", "aten::slow_conv_transpose3d")
def slow_conv_transpose(
    op: Builder,
    self: Tensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    del kernel_size  # the weight's own
    return _convolve_transposed(op, self, weight, bias, stride, padding, output_padding, 1, dilation)
