"""Products of float8 matrices whose scales are of all, of rows or of blocks: DequantizeLinear and MatMul in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnxport import Builder, DataType, Size, Tensor, Unsupported, translation

from onnxport_builtin.affine import dequantize, reshaped

#: torch.nn.functional.ScalingType: what a number of a scale stands for; 1x16 (2) is for float4 alone.
_TENSOR, _ROW, _OF_32, _OF_128, _SQUARE = 0, 1, 3, 4, 5
_SWIZZLED = 1  # torch.nn.functional.SwizzleType.SWIZZLE_32_4_4


@translation("aten::_scaled_mm")
def scaled_mm(
    op: Builder,
    self: Tensor,
    mat2: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    bias: Tensor | None = None,
    scale_result: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    use_fast_accum: bool = False,
) -> Tensor:
    """``(self * scale_a) @ (mat2 * scale_b) + bias`` of float8 matrices (M, K) and (K, N), computed in float32.

    Scales of one element; of one a row (M, 1), or column (1, N); of 128 neighbours along K, (M, K / 128) and
    (K / 128, N); of 128 x 128 blocks; or powers of two (float8_e8m0fnu) of 32 neighbours along K, in the order
    ``SWIZZLE_32_4_4``.
    """
    if scale_result is not None:
        raise Unsupported("a scale of the result")
    return _product(op, _by_shape(op, self, scale_a, 1), _by_shape(op, mat2, scale_b, 0), bias)


@translation("aten::_scaled_mm_v2")
def scaled_mm_by_recipes(
    op: Builder,
    self: Tensor,
    mat2: Tensor,
    scale_a: Sequence[Tensor],
    recipe_a: Sequence[int],
    swizzle_a: Sequence[int],
    scale_b: Sequence[Tensor],
    recipe_b: Sequence[int],
    swizzle_b: Sequence[int],
    bias: Tensor | None,
    out_dtype: torch.dtype | None,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_mm``: the same, where it is said what the scales stand for.

    Of 128 neighbours along K they are (M, K / 128) and (N, K / 128), of 128 x 128 blocks (K / 128, M / 128) and
    (K / 128, N / 128), the first axis padded to a multiple of 4. Source: torch 2.14, ``sample_inputs_scaled_mm_v2``.
    """
    if list(contraction_dim) not in ([], [1, 0], [-1, -2]):
        raise Unsupported("products along other axes")
    left = _by_recipe(op, self, scale_a, recipe_a, swizzle_a, 1)
    return _product(op, left, _by_recipe(op, mat2, scale_b, recipe_b, swizzle_b, 0), bias)


def _product(op: Builder, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    product = op.MatMul(left, right)
    if bias is not None:
        product = op.Add(product, op.cast(bias, DataType.FLOAT))
    return op.cast(product, op.result.dtype)


def _by_shape(op: Builder, value: Tensor, scale: Tensor, along: int) -> Tensor:
    """The matrix times its scale; ``along`` is K's axis."""
    shape, rows = list(scale.shape), value.shape[1 - along]
    if scale.dtype is DataType.FLOAT8E8M0:
        return _in_powers(op, value, scale, along)
    if all(size == 1 for size in shape):
        return dequantize(op, value, reshaped(op, scale, []), None)
    if len(shape) == 2 and shape[along] == 1 and shape[1 - along] == rows:
        return dequantize(op, value, reshaped(op, scale, [-1]), None, axis=1 - along)
    return _in_blocks(op, value, scale, shape, along)


def _by_recipe(
    op: Builder, value: Tensor, scales: Sequence[Tensor], recipe: Sequence[int], swizzle: Sequence[int], along: int
) -> Tensor:
    if len(scales) != 1 or len(recipe) != 1:
        raise Unsupported("scales of two levels")
    scale, kind = scales[0], recipe[0]
    if kind in (_TENSOR, _ROW):
        return _by_shape(op, value, scale, along)
    if kind == _OF_32 and list(swizzle) == [_SWIZZLED]:
        return _in_powers(op, value, scale, along)
    shape = list(scale.shape)
    if kind == _OF_128 and list(swizzle) in ([], [0]):
        given, dims = (scale, shape) if along else _turned(op, scale, shape)
        return _in_blocks(op, value, given, dims, along)
    if kind == _SQUARE and list(swizzle) in ([], [0]):
        count = -(-_whole(value.shape[along]) // 128)
        if shape[0] != count:
            scale, shape = op.Slice(scale, [0], [count], [0]), [count, *shape[1:]]
        given, dims = _turned(op, scale, shape) if along else (scale, shape)
        return _in_blocks(op, value, given, dims, along)
    raise Unsupported(f"scaling recipe {kind} with swizzle {list(swizzle)}")


def _in_blocks(op: Builder, value: Tensor, scale: Tensor, shape: Sequence[Any], along: int, block: int = 128) -> Tensor:
    """The matrix times a scale of its rank, of which a number stands for ``block`` neighbours along K.

    Along the other axis it stands for one row, or for 128.

    Args:
        shape: the scale's.

    Raises:
        Unsupported: a scale of another shape; sizes that have to be known and aren't.
    """
    width, rows = _whole(value.shape[along]), value.shape[1 - along]
    wrong = len(shape) != 2 or shape[along] != -(-width // block)
    if not wrong and shape[1 - along] != rows:
        wrong = shape[1 - along] != -(-_whole(rows) // 128)
        scale = op.Gather(scale, op.const(torch.arange(_whole(rows)) // 128), axis=1 - along)
    if wrong:
        raise Unsupported(f"a scale of shape {list(shape)} for a matrix of shape {list(value.shape)}")
    if width % block == 0 and op.opset >= 21:
        return dequantize(op, value, scale, None, axis=along, block=block)
    scale = op.Gather(op.cast(scale, DataType.FLOAT), op.const(torch.arange(width) // block), axis=along)
    return op.Mul(op.cast(value, DataType.FLOAT), scale)


def _in_powers(op: Builder, value: Tensor, scale: Tensor, along: int) -> Tensor:
    """The matrix times powers of two of 32 neighbours along K, in the order ``SWIZZLE_32_4_4``.

    Source: cuBLAS, "1D block scaling factors layout": tiles of 128 rows and 4 blocks, whose row ``32 j + i`` is found
    at ``(i, j)``.
    """
    if scale.dtype is not DataType.FLOAT8E8M0:
        raise Unsupported(f"scales of {scale.dtype.name} for blocks of 32")
    shape = [value.shape[1 - along], -(-_whole(value.shape[along]) // 32)]
    tiles = op.Reshape(op.cast(scale, DataType.FLOAT), [-1, -(-shape[1] // 4), 32, 4, 4])
    table = op.Reshape(op.Transpose(tiles, perm=[0, 3, 2, 1, 4]), [-1, -(-shape[1] // 4) * 4])
    table = op.Slice(table, op.sizes([0, 0]), op.sizes(shape), [0, 1])
    given, dims = (table, shape) if along else _turned(op, table, shape)
    return _in_blocks(op, value, given, dims, along, 32)


def _turned(op: Builder, scale: Tensor, shape: Sequence[Any]) -> tuple[Tensor, list[Any]]:
    return op.Transpose(scale, perm=[1, 0]), list(reversed(shape))


def _whole(size: int | Size) -> int:
    if not isinstance(size, int):
        raise Unsupported("scales in blocks of a dynamic size")
    return size
