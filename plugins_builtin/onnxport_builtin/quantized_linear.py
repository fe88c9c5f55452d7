"""Products with quantized operands: integer matrices, and weights packed for torch's kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from onnxport import Builder, DataType, Tensor, Unsupported, translation

from onnxport_builtin.affine import dequantize


@translation("aten::_int_mm")
def int_mm(op: Builder, self: Tensor, mat2: Tensor) -> Tensor:
    """The product of two int8 matrices in int32."""
    return op.MatMulInteger(self, mat2)


@translation("aten::_weight_int8pack_mm")
def weight_int8pack_mm(op: Builder, self: Tensor, mat2: Tensor, scales: Tensor) -> Tensor:
    """``self (M, K) @ (mat2 (N, K) * scales (N, 1)).T``; the weights are int8."""
    weight = dequantize(op, mat2, scales, None, self.dtype, axis=0)
    return op.MatMul(self, op.Transpose(weight, perm=[1, 0]))


@translation("aten::_convert_weight_to_int4pack_for_cpu")
def convert_weight_to_int4pack_for_cpu(op: Builder, self: Tensor, innerKTiles: int) -> Tensor:
    """Weights (N, K) of 0 to 15 in the order that torch's kernel on this machine reads them."""
    packed = op.derived("int4pack", lambda weight: _PACK(weight, innerKTiles), self)
    if packed is None:
        raise Unsupported("packs weights that aren't known at export time")
    return packed


@translation("aten::_weight_int4pack_mm_for_cpu")
def weight_int4pack_mm_for_cpu(
    op: Builder, self: Tensor, mat2: Tensor, qGroupSize: int, qScaleAndZeros: Tensor
) -> Tensor:
    """``self (M, K) @ W.T`` with ``W = (q - 8) * scale + zero``; scale and zero are (K / qGroupSize, N, 2).

    The packed weights ``q``, of 0 to 15, are put back in order.
    """
    groups, rows = op.size(qScaleAndZeros, 0), op.size(qScaleAndZeros, 1)
    if not isinstance(groups, int) or not isinstance(rows, int):
        raise Unsupported("packed weights of a dynamic size")

    def integers(packed: torch.Tensor) -> torch.Tensor:
        return _unpacked(packed, rows, groups * qGroupSize).to(torch.int8) - 8

    scale = op.derived("scale", lambda both: both[..., 0].float(), qScaleAndZeros)
    zero = op.derived("zero", lambda both: both[..., 1].float(), qScaleAndZeros)
    return _by_groups(op, self, op.derived("int8", lambda packed: integers(packed).t(), mat2), scale, zero)


@translation("mslk::bf16i4bf16_rowwise")
def bf16i4bf16_rowwise(op: Builder, X: Tensor, WQ: Tensor, w_scale_group: Tensor, w_zero_group: Tensor) -> Tensor:
    """``X (M, K) @ W.T`` with ``W = q * scale + zero`` of bytes (N, K / 2), the first of two integers in the low bits.

    Scales and zeros are (K / group, N). Source: mslk, ``mslk.quantize.shuffle.int4_row_quantize_zp`` and ``pack_int4``.
    """
    weight = op.derived("int4", lambda packed: _signed(packed).t(), WQ)
    scale, zero = (op.derived("float32", lambda tensor: tensor.float(), each) for each in (w_scale_group, w_zero_group))
    return _by_groups(op, X, weight, scale, zero)


@translation("mslk::bf16i4bf16_rowwise_batched", "mslk::bf16i4bf16_shuffled")
def shuffled_for_an_accelerator(op: Builder, **_: object) -> Tensor:
    raise Unsupported(
        "int4 weights in batches, or in the order of a GPU's kernel: quantize with "
        "Int4WeightOnlyConfig(int4_packing_format='plain') or IntxWeightOnlyConfig(weight_dtype=torch.int4)"
    )


def _by_groups(op: Builder, left: Tensor, weight: Tensor | None, scale: Tensor | None, zero: Tensor | None) -> Tensor:
    """``left @ (weight * scale + zero)``, in float32.

    Zeros are real numbers, which DequantizeLinear doesn't take: what they add is the sum of each group of ``left`` by
    its zero.

    Args:
        left: (..., K).
        weight: (K, N) of -8 to 7, int8.
        scale: (K / group, N), float32.
        zero: as the scale.

    Raises:
        Unsupported: weights that aren't known at export time, hence None.
    """
    if weight is None or scale is None or zero is None:
        raise Unsupported("packed weights that aren't known at export time")
    (width, columns), groups = (int(size) for size in weight.shape), int(scale.shape[0])
    group = width // groups
    if op.opset >= 21:
        real = dequantize(op, weight, scale, None, low=-8, high=7, axis=0, block=group)
    else:
        rows = op.derived("rows", lambda tensor: tensor.t().reshape(-1, group), weight)
        steps = op.derived("rows", lambda tensor: tensor.t().reshape(-1), scale)
        if rows is None or steps is None:
            raise Unsupported("packed weights that aren't known at export time")
        real = op.Transpose(op.Reshape(dequantize(op, rows, steps, None, axis=0), [columns, width]), perm=[1, 0])
    left32 = op.cast(left, DataType.FLOAT)
    dims = list(left.shape)
    sums = op.ReduceSum(op.Reshape(left32, op.sizes([*dims[:-1], groups, group])), [-1], keepdims=0)
    return op.cast(op.Add(op.MatMul(left32, real), op.MatMul(sums, zero)), op.result.dtype)


def _signed(packed: torch.Tensor) -> torch.Tensor:
    """The int8 numbers of -8 to 7 of bytes (..., n), as (..., 2 n)."""
    low, high = packed.view(torch.int8) << 4, packed.view(torch.int8)
    return torch.stack((low >> 4, high >> 4), dim=-1).flatten(-2)


@translation(
    "aten::_convert_weight_to_int4pack",
    "aten::_weight_int4pack_mm",
    "aten::_weight_int4pack_mm_with_scales_and_zeros",
)
def packed_for_an_accelerator(op: Builder, **_: object) -> Tensor:
    raise Unsupported(
        "weights in the order of an accelerator's kernel: quantize with IntxWeightOnlyConfig(weight_dtype=torch.int4), "
        "or pack them with _convert_weight_to_int4pack_for_cpu"
    )


_PACK: Callable[..., torch.Tensor] = torch.ops.aten._convert_weight_to_int4pack_for_cpu


def _unpacked(packed: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    """The weights (rows, width) of 0 to 15 that torch packed.

    The order of the packed nibbles depends on the processor, and only torch knows it. So it is asked: matrices that
    hold the digits of each place's number are packed in the same way, and what was packed goes where their nibbles say.
    """
    count = rows * width
    places = torch.zeros(count, dtype=torch.int64)
    numbers = torch.arange(count)
    for digit in range(max(1, math.ceil(math.log(count, 16)))):
        digits = (numbers >> (4 * digit)) & 15
        places |= _nibbles(_PACK(digits.to(torch.int32).reshape(rows, width), 2)).long() << (4 * digit)
    weights = torch.empty(count, dtype=torch.uint8)
    weights[places] = _nibbles(packed)
    return weights.reshape(rows, width)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    flat = packed.contiguous().view(torch.uint8).reshape(-1)
    return torch.stack((flat & 15, flat >> 4), dim=-1).reshape(-1)
