"""Gradients that are core ATen operators of their own; those of norms and embeddings have decompositions in torch.

A program has them when it was captured with its backward pass, or decomposed from one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import filled, product, reshape

from onnxport_builtin.aten.scatter import scatter_elements
from onnxport_builtin.aten.windows import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxport import Builder

_NATIVE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)


def _static(*sizes: int | Size) -> list[int]:
    if any(not isinstance(size, int) for size in sizes):
        raise Unsupported("the gradient for symbolic sizes")
    return [int(size) for size in sizes]  # type: ignore[call-overload]


def _through(op: Builder, grad: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """``rows^T grad columns``: the gradient of ``rows x columns^T``, for matrices that are constants."""
    left, right = op.const(rows.T.copy(), grad.dtype), op.const(columns, grad.dtype)
    return op.MatMul(op.MatMul(left, grad), right)


def _means(outputs: int, size: int, kernel: int, stride: int, padding: int, count_padding: bool, sums: bool) -> Any:
    """The matrix (outputs, size) of an average pool along one axis."""
    matrix = np.zeros((outputs, size))
    for i in range(outputs):
        start = i * stride - padding
        end = min(start + kernel, size + padding)
        inside = slice(max(start, 0), min(end, size))
        divisor = end - start if count_padding else inside.stop - inside.start
        matrix[i, inside] = 1 if sums else 1 / divisor
    return matrix


@translation("aten::avg_pool2d_backward")
def avg_pool2d_backward(
    op: Builder,
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """The pool is linear and separable: two matrix products with constants. Sizes must be static."""
    kernel = spread(kernel_size, 2, "kernel_size")
    steps = spread(stride, 2, "stride") if stride else kernel
    pads = spread(padding, 2, "padding")
    outputs, sizes = _static(*list(grad_output.shape)[-2:]), _static(*list(self.shape)[-2:])
    rows, columns = (
        _means(outputs[i], sizes[i], kernel[i], steps[i], pads[i], count_include_pad, divisor_override is not None)
        for i in range(2)
    )
    return _through(op, grad_output, rows / (divisor_override or 1), columns)


@translation("aten::_adaptive_avg_pool2d_backward")
def adaptive_avg_pool2d_backward(op: Builder, grad_output: Tensor, self: Tensor) -> Tensor:
    """As for the pool with fixed windows; sizes must be static."""
    outputs, sizes = _static(*list(grad_output.shape)[-2:]), _static(*list(self.shape)[-2:])
    matrices = []
    for count, size in zip(outputs, sizes):
        matrix = np.zeros((count, size))
        for i in range(count):
            start, end = i * size // count, -(-(i + 1) * size // count)
            matrix[i, start:end] = 1 / (end - start)
        matrices.append(matrix)
    return _through(op, grad_output, *matrices)


@translation("aten::max_pool2d_with_indices_backward")
def max_pool2d_with_indices_backward(
    op: Builder,
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each window's gradient is added where its maximum was. torch 2.11 has no decomposition of it."""
    *lead, height, width = self.shape
    flat = [*lead, product(list(grad_output.shape)[-2:])]
    zeros = filled(op, [*lead, product([height, width])], 0, self.dtype)
    places, gradients = reshape(op, indices, flat), reshape(op, grad_output, flat)
    return reshape(op, scatter_elements(op, zeros, places, gradients, len(lead), "add"), list(self.shape))


def _weight_gradient(
    op: Builder, image: Tensor, kernel: Tensor, sizes: Sequence[int], groups: int, **window: list[int]
) -> Tensor:
    """Gradient (M, C/groups, sizes...) of the weight that convolves ``image`` (N, C, ...) to ``kernel`` (N, M, ...).

    It is the convolution of the two with batch and channels exchanged; ``window`` is the forward one's stride and
    padding, of which stride and dilation change places too.
    """
    n, c, *image_size = _static(*image.shape)
    m, *kernel_size = _static(*list(kernel.shape)[1:])
    order = [2, 1, 0, *range(3, 3 + len(image_size))]
    swapped = op.Reshape(
        op.Transpose(op.Reshape(image, [n, groups, c // groups, *image_size]), perm=order),
        [c // groups, groups * n, *image_size],
    )
    filters = op.Reshape(
        op.Transpose(op.Reshape(kernel, [n, groups, m // groups, *kernel_size]), perm=[1, 2, 0, *order[3:]]),
        [m, n, *kernel_size],
    )
    pads = window["padding"]
    found = op.Conv(
        swapped, filters, strides=window["dilation"], dilations=window["stride"], pads=[*pads, *pads], group=groups
    )
    axes = list(range(2, 2 + len(sizes)))
    cropped = op.Slice(found, [0] * len(sizes), list(sizes), axes)  # a stride that leaves a rest gives too many
    return op.Transpose(cropped, perm=[1, 0, *axes])


@translation("aten::convolution_backward")
def convolution_backward(
    op: Builder,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of the input (a convolution, transposed where the forward wasn't), the weight and the bias."""
    if input.dtype not in _NATIVE:
        raise Unsupported(f"onnxruntime 1.32 has no Conv for {input.dtype.name}")
    kernel = _static(*list(weight.shape)[2:])
    spatial = len(kernel)
    steps, spaces = spread(stride, spatial, "stride"), spread(dilation, spatial, "dilation")
    pads = spread(padding, spatial, "padding")
    window = {"stride": steps, "dilation": spaces, "padding": pads}
    grad_input = grad_weight = grad_bias = None
    if output_mask[0]:
        given = {"strides": steps, "dilations": spaces, "pads": [*pads, *pads], "group": groups}
        if transposed:
            grad_input = op.Conv(grad_output, weight, kernel_shape=kernel, **given)
        else:
            sizes, outputs = _static(*list(input.shape)[2:]), _static(*list(grad_output.shape)[2:])
            rest = [
                size - ((outputs[i] - 1) * steps[i] - 2 * pads[i] + spaces[i] * (kernel[i] - 1) + 1)
                for i, size in enumerate(sizes)
            ]
            grad_input = op.ConvTranspose(grad_output, weight, kernel_shape=kernel, output_padding=rest, **given)
    if output_mask[1]:
        image, filters = (grad_output, input) if transposed else (input, grad_output)
        grad_weight = _weight_gradient(op, image, filters, kernel, groups, **window)
    if output_mask[2]:
        grad_bias = op.ReduceSum(grad_output, [0, *range(2, 2 + spatial)], keepdims=0)
    return grad_input, grad_weight, grad_bias
