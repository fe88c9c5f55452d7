"""Affine quantization, ``real = (integer - zero_point) * scale``, as QuantizeLinear and DequantizeLinear.

What onnxruntime (CPU, 1.32) has kernels for, with float32 scales, and from which opset ONNX defines it:

=====================================  ======================================
uint8, int8; int32 (dequantized)       18; per tensor and per axis
float8 (four kinds)                    19
int16, uint16, int4, uint4             21
int2, uint2                            25
scales in blocks along an axis         21
float16 scales                         19
=====================================  ======================================

bfloat16 has no kernels and is computed in float32. What ONNX can't say at the target opset is composed: blocks become
rows of a reshaped tensor, 16-bit integers go through int32. ``QuantizeLinear`` divides by the scale where torch
multiplies by its reciprocal: results differ by one where ``real / scale`` is within a rounding error of a half. Where
the scale is computed in the model, and it or the zero point is one number, the model multiplies too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxport import Builder, DataType, Size, Tensor, Unsupported

from onnxport_builtin.aten.kernels import computed_in

_FLOAT8 = dict.fromkeys(
    (DataType.FLOAT8E4M3FN, DataType.FLOAT8E4M3FNUZ, DataType.FLOAT8E5M2, DataType.FLOAT8E5M2FNUZ), 19
)
_BOTH = {
    DataType.UINT8: 13,
    DataType.INT8: 13,
    DataType.UINT16: 21,
    DataType.INT16: 21,
    DataType.UINT4: 21,
    DataType.INT4: 21,
    DataType.UINT2: 25,
    DataType.INT2: 25,
}
#: The opset from which QuantizeLinear gives a type, and DequantizeLinear takes it.
QUANTIZED = {**_BOTH, **_FLOAT8}
DEQUANTIZED = {**QUANTIZED, DataType.INT32: 13}
#: The range of each integer type.
RANGES = {
    dtype: (0, (1 << dtype.bitwidth) - 1)
    if dtype.name.startswith("U")
    else (-(1 << (dtype.bitwidth - 1)), (1 << (dtype.bitwidth - 1)) - 1)
    for dtype in (*_BOTH, DataType.INT32, DataType.UINT32)
}
_TORCH = {dtype: getattr(torch, dtype.name.lower()) for dtype in _BOTH}
_WIDE = (DataType.INT16, DataType.UINT16, DataType.INT32)


def quantize(
    op: Builder,
    real: Tensor,
    scale: Any,
    zero_point: Any,
    dtype: DataType,
    low: float | None = None,
    high: float | None = None,
    axis: int | None = None,
    block: int | None = None,
) -> Tensor:
    """``clamp(round(real / scale) + zero_point, low, high)`` as ``dtype``, rounded half to even.

    Args:
        real: float32, float16 or bfloat16.
        scale: a number or a tensor: of rank 0, of rank 1 along ``axis``, or of the rank of ``real`` with ``block``.
        zero_point: integers of the scale's shape, of any dtype; a number; or None for 0.
        low: the least result, by default the least number of ``dtype``.
        high: the greatest result.
        axis: not negative; None where the whole tensor has one scale.
        block: how many neighbours along ``axis`` share a scale.

    Raises:
        Unsupported: blocks or a type that the opset lacks.
    """
    real = op.cast(real, DataType.FLOAT)
    least, most = RANGES.get(dtype, (None, None))
    low, high = least if low is None else low, most if high is None else high
    if QUANTIZED.get(dtype, 99) > op.opset:
        return _quantize_by_arithmetic(op, real, scale, zero_point, dtype, low, high, axis, block)
    _check_block(op, block)
    computed = isinstance(scale, Tensor) and scale.const_value is None
    number = _uniform(zero_point) if computed else None
    if computed and (axis is None or (number is not None and (block is None or scale.shape[-1] == 1))):
        # A scale made of the greatest value puts that at 127.5, and what was quantized before on other halves, where it
        # matters that torch multiplies.
        step = op.Reciprocal(_scale(op, scale))
        real = op.Mul(real, step if block is not None else _along(op, step, op.rank(real), axis))
        scale, zero_point, axis, block = 1.0, zero_point if number is None else number, None, None
    narrow = (low, high) != (least, most)
    bound = _bound(op, scale, zero_point, high) if narrow and low == least and axis is None else None
    if bound is not None:
        # Clipped before, so that QuantizeLinear and DequantizeLinear stay neighbours, as runtimes look for them. Where
        # the lower end is cut off too, that would put NaN below it.
        real, narrow = op.Min(real, bound), False
    scale = _scale(op, scale)
    zero = _zero_point(op, zero_point, dtype, scale)
    result = op.QuantizeLinear(real, scale, zero, axis=axis, block_size=block)
    return _clipped(op, result, low, high) if narrow else result


def dequantize(
    op: Builder,
    integer: Tensor,
    scale: Any,
    zero_point: Any,
    out: DataType = DataType.FLOAT,
    low: float | None = None,
    high: float | None = None,
    axis: int | None = None,
    block: int | None = None,
) -> Tensor:
    """``(integer - zero_point) * scale`` as ``out``; the other arguments are as in :func:`quantize`.

    A weight of 8-bit storage whose range, as ``low`` and ``high`` say, is that of 4 or 2 bits is stored in these where
    the opset has them.
    """
    if integer.dtype not in DEQUANTIZED:
        raise Unsupported(f"dequantized {integer.dtype.name}")
    if integer.dtype in _FLOAT8 and op.opset < 19:
        raise Unsupported(f"needs opset 19: {integer.dtype.name}")
    _check_block(op, block)
    if integer.dtype in _WIDE and (integer.dtype is DataType.INT32 or DEQUANTIZED[integer.dtype] > op.opset):
        integer, zero_point = _less_zero_point(op, integer, zero_point, axis), None
    elif low is not None and high is not None:
        integer = packed(op, integer, int(low), int(high))
    native = out is DataType.FLOAT16 and isinstance(scale, Tensor) and scale.dtype is out and op.opset >= 19
    scale = scale if native else _scale(op, scale)
    zero = None if zero_point is None else _zero_point(op, zero_point, integer.dtype, scale)
    return op.cast(op.DequantizeLinear(integer, scale, zero, axis=axis, block_size=block), out)


def packed(op: Builder, integer: Tensor, low: int, high: int) -> Tensor:
    """A weight in the narrowest type that the opset has for ``low`` to ``high``, if that holds its values."""
    for dtype in (DataType.INT2, DataType.UINT2, DataType.INT4, DataType.UINT4):
        least, most = RANGES[dtype]
        if QUANTIZED[dtype] > op.opset or integer.dtype.bitwidth != 8 or low < least or high > most:
            continue
        data: Any = integer.const_value
        if getattr(data, "has_data", False) and data.size:
            values = data.raw
            if least <= int(values.min()) and int(values.max()) <= most:
                torch_dtype = _TORCH[dtype]
                narrow = op.derived(dtype.name.lower(), lambda t, d=torch_dtype: t.contiguous().view(d), integer)
                return integer if narrow is None else narrow
    return integer


def in_blocks(
    op: Builder,
    function: Callable[..., Tensor],
    value: Tensor,
    blocks: Sequence[int | Size],
    scale: Tensor,
    zero_point: Tensor | None,
) -> Tensor:
    """``function(value, scale, zero_point, axis, block)`` where each block of the value has a scale of its own.

    Args:
        function: :func:`quantize` or :func:`dequantize`, with its other arguments bound.
        blocks: the block's size along each axis of the value.
        scale: one number a block, in the blocks' order, of any shape.
        zero_point: as the scale, or None.

    Raises:
        Unsupported: blocks that are neither along one axis nor rows of the reshaped tensor.
    """
    dims = list(value.shape)
    if len(blocks) != len(dims):
        raise Unsupported("a block size of another rank than the tensor")

    def with_scales(shaped: Tensor, shape: list[Any], axis: int | None, block: int | None = None) -> Tensor:
        zero = None if zero_point is None else reshaped(op, zero_point, shape)
        return function(shaped, reshaped(op, scale, shape), zero, axis, block)

    varying = [i for i, (size, block) in enumerate(zip(dims, blocks)) if not _equal(size, block)]
    if not varying:
        return with_scales(value, [], None)
    last = varying[-1]
    if len(varying) == 1 and blocks[last] == 1:
        return with_scales(value, [-1], last)
    if any(block != 1 and size != 1 for size, block in zip(dims[:last], blocks)):
        raise Unsupported("blocks that span several axes")
    block, rest = blocks[last], dims[last + 1 :]
    if not isinstance(block, int):
        raise Unsupported("blocks of a dynamic size")
    if block > 1 and not rest and op.opset >= 21 and isinstance(dims[last], int):
        return with_scales(value, [*dims[:last], dims[last] // block], last, block)
    if block == 1 and len(rest) == 1 and op.opset >= 21 and isinstance(rest[0], int):
        return with_scales(value, [*dims[:-1], 1], last + 1, rest[0])
    row: Any = block
    for size in rest:
        row = row * size
    flat = with_scales(reshaped(op, value, [-1, row]), [-1], 0)
    return op.Reshape(flat, op.sizes(dims))


def reshaped(op: Builder, value: Tensor, shape: Sequence[int | Size]) -> Tensor:
    """The value in another shape, one of whose sizes may be -1; a weight is stored in it."""
    have = None if value.shape is None else list(value.shape)
    if have == list(shape) or _fits(have, shape):
        return value
    node = value.producer()
    if node is not None and node.op_type == "Reshape" and _fits(node.inputs[0].shape, shape):
        return node.inputs[0]
    if all(isinstance(size, int) for size in shape):
        what = "x".join(map(str, shape)).replace("-1", "rows") or "scalar"
        stored = op.derived(what, lambda tensor: tensor.reshape(list(shape)), value)
        if stored is not None:
            return stored
    if have is not None and list(shape) == [*have, 1]:
        return op.Unsqueeze(value, [len(have)])
    return op.Reshape(value, op.sizes(shape))


def _fits(have: Any, shape: Sequence[int | Size]) -> bool:
    """A tensor of this shape is in the other already; both have the same elements."""
    if have is None or len(have) != len(shape) or list(shape).count(-1) > 1:
        return False
    return all(size == -1 or size == own for own, size in zip(have, shape))


def row_scale(op: Builder, value: Tensor, rank: int, axis: int) -> Tensor:
    """A vector in the shape that broadcasts it along one axis of a tensor of that rank."""
    shape = [1] * rank
    shape[axis] = -1
    return value if rank == 1 else reshaped(op, value, shape)


def _equal(size: int | Size, block: int | Size) -> bool:
    return size is block or size == block


def _check_block(op: Builder, block: int | None) -> None:
    if block is not None and op.opset < 21:
        raise Unsupported("needs opset 21: QuantizeLinear in blocks")


def _scale(op: Builder, scale: Any) -> Tensor:
    """The scale in float32; stored so where it is a weight."""
    if not isinstance(scale, Tensor):
        return op.const(float(scale), DataType.FLOAT)
    if scale.dtype is DataType.FLOAT:
        return scale
    node = scale.producer()
    if node is not None and node.op_type == "Cast" and node.inputs[0].dtype is DataType.FLOAT:
        return node.inputs[0]
    stored = op.derived("float32", lambda tensor: tensor.to(torch.float32), scale)
    return op.cast(scale, DataType.FLOAT) if stored is None else stored


def _zero_point(op: Builder, zero_point: Any, dtype: DataType, scale: Tensor) -> Tensor:
    """The zero point as ``dtype``, of the scale's shape.

    Raises:
        Unsupported: it isn't a whole number, or not one of ``dtype``.
    """
    if isinstance(zero_point, Tensor):
        if zero_point.dtype is dtype:
            return zero_point
        if zero_point.dtype.is_floating_point() and dtype not in _FLOAT8:
            raise Unsupported("zero points that are no integers")
        data: Any = zero_point.const_value
        if dtype in RANGES and getattr(data, "has_data", False) and data.size:
            low, high = RANGES[dtype]
            if data.raw.min() < low or data.raw.max() > high:
                raise Unsupported(f"a zero point outside the range of {dtype.name}")
        stored = op.derived(dtype.name.lower(), as_integers(dtype), zero_point) if dtype in _TORCH else None
        return op.cast(zero_point, dtype) if stored is None else stored
    number = 0 if zero_point is None else zero_point
    if dtype in RANGES and not RANGES[dtype][0] <= number <= RANGES[dtype][1]:
        raise Unsupported(f"a zero point of {number}, outside the range of {dtype.name}")
    scalar = op.const(number, dtype)
    shape = scale.shape
    if shape is not None and len(shape) == 0:
        return scalar
    if shape is not None and all(isinstance(size, int) for size in shape) and dtype in _TORCH:
        return op.const(as_integers(dtype)(torch.full(tuple(shape), number)))
    return op.Expand(scalar, op.shape(scale) if shape is not None else op.Shape(scale))


def as_integers(dtype: DataType) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that converts a tensor of whole numbers to the torch dtype of an integer type."""
    target = _TORCH[dtype]
    stored = target if dtype.bitwidth >= 8 else torch.int8  # torch keeps narrower ones in a byte, and can't convert
    return lambda tensor: tensor.to(stored).view(target)


def _uniform(zero_point: Any) -> int | None:
    """The number that every zero point is; None where they may differ or are a weight."""
    if not isinstance(zero_point, Tensor):
        return zero_point or 0
    while (node := zero_point.producer()) is not None and node.op_type in ("Expand", "Reshape", "Unsqueeze", "Cast"):
        zero_point = node.inputs[0]
    data: Any = zero_point.const_value
    known = data is not None and data.size == 1 and not getattr(data, "is_weight", False)
    return int(data.numpy().reshape(-1)[0]) if known else None


def _bound(op: Builder, scale: Any, zero_point: Any, high: float) -> Any:
    """The real number that ``high`` stands for; None where it isn't known at export time."""
    if isinstance(scale, Tensor) and isinstance(zero_point, Tensor):
        return op.derived(f"most{high}", lambda step, zero: ((high - zero) * step).to(torch.float32), scale, zero_point)
    if isinstance(scale, Tensor) or isinstance(zero_point, Tensor):
        return None
    return (high - (zero_point or 0)) * scale


def _clipped(op: Builder, integer: Tensor, low: float, high: float) -> Tensor:
    if integer.dtype in (DataType.INT8, DataType.UINT8):
        return op.Clip(integer, low, high)
    if integer.dtype in (DataType.INT16, DataType.UINT16):
        return computed_in(DataType.INT32, lambda op, value: op.Clip(value, low, high), op, integer)
    raise Unsupported(f"a range narrower than that of {integer.dtype.name}")


def _along(op: Builder, value: Any, rank: int, axis: int | None) -> Any:
    """A scale or zero point as an operand of arithmetic on the whole tensor."""
    return value if axis is None or not isinstance(value, Tensor) else row_scale(op, value, rank, axis)


def _quantize_by_arithmetic(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, dtype: DataType, low: Any, high: Any, axis: Any, block: Any
) -> Tensor:
    """For types that QuantizeLinear lacks at this opset: int16 and uint16 below 21, int32."""
    if dtype not in RANGES or dtype.bitwidth < 16:
        raise Unsupported(f"needs opset {QUANTIZED.get(dtype)}: QuantizeLinear to {dtype.name}")
    if block is not None:
        raise Unsupported(f"blocks of {dtype.name}")
    return op.cast(rounded(op, real, scale, zero_point, low, high, axis), dtype)


def rounded(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, low: float, high: float, axis: int | None = None
) -> Tensor:
    """:func:`quantize` in float32 arithmetic, with the reciprocal of the scale, as torch computes it."""
    rank = op.rank(real)
    if isinstance(scale, Tensor):
        result = op.Mul(real, _along(op, op.Reciprocal(_scale(op, scale)), rank, axis))
    else:
        result = op.Mul(real, op.const(1.0 / scale, DataType.FLOAT))
    result = op.Round(result)
    if isinstance(zero_point, Tensor):
        result = op.Add(result, _along(op, op.cast(zero_point, DataType.FLOAT), rank, axis))
    elif zero_point:
        result = op.Add(result, float(zero_point))
    return op.Clip(result, float(low), float(high))


def _less_zero_point(op: Builder, integer: Tensor, zero_point: Any, axis: int | None) -> Tensor:
    """The integers less their zero point in int32, of which DequantizeLinear takes no zero point."""
    wide = op.cast(integer, DataType.INT32)
    if isinstance(zero_point, Tensor):
        return op.Sub(wide, _along(op, op.cast(zero_point, DataType.INT32), op.rank(integer), axis))
    return op.Sub(wide, zero_point) if zero_point else wide
