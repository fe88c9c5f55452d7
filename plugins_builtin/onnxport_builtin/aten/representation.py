"""Floating-point numbers taken apart: sign, exponent, neighbour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, Unsupported, promote, translation

from onnxport_builtin.aten.kernels import operands, sign_bit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxport import Builder

#: float types as arrays of bits, and the bits of the magnitude.
_INTEGERS = {DataType.FLOAT: DataType.INT32, DataType.DOUBLE: DataType.INT64, DataType.FLOAT16: DataType.INT16}
_DIGITS = {DataType.FLOAT: 24, DataType.DOUBLE: 53, DataType.FLOAT16: 11, DataType.BFLOAT16: 8}
_LOWEST = {DataType.FLOAT: -149, DataType.DOUBLE: -1074, DataType.FLOAT16: -24, DataType.BFLOAT16: -133}
_OVERFLOW = {DataType.FLOAT: 128, DataType.FLOAT16: 16, DataType.BFLOAT16: 128}


@translation("aten::signbit")
def signbit(op: Builder, self: Tensor) -> Tensor:
    return sign_bit(op, self)


@translation("aten::copysign.Tensor", "aten::copysign.Scalar")
def copysign(op: Builder, self: Tensor, other: Tensor | float) -> Tensor:
    dtype = promote(self, other, int_to_float=True)
    magnitude = op.Abs(op.cast(self, dtype))
    if isinstance(other, (int, float)):
        return op.Neg(magnitude) if math.copysign(1, other) < 0 else magnitude
    # The sign is read before an integer operand becomes a float: both have the same one.
    return op.Where(sign_bit(op, op.cast(other, dtype)), op.Neg(magnitude), magnitude)


@translation("aten::nextafter")
def nextafter(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, b = operands(op, self, other)
    if a.dtype in (DataType.FLOAT, DataType.DOUBLE) and op.opset >= 26:
        return _next_bits(op, a, b)
    return _next_rounded(op, a, b)


def _next_bits(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    """Of the integers that order floats as their bits do, the next one."""
    integer = _INTEGERS[a.dtype]
    bits = op.BitCast(a, to=integer)
    outward = op.Equal(op.Greater(b, a), op.Greater(a, 0))
    step = op.Add(bits, op.Where(outward, op.const(1, integer), op.const(-1, integer)))
    moved = op.BitCast(step, to=a.dtype)
    smallest = op.const(2.0 ** _LOWEST[a.dtype], a.dtype)
    from_zero = op.Where(op.Greater(b, a), smallest, op.Neg(smallest))
    moved = op.Where(op.Equal(a, 0), from_zero, moved)
    moved = op.Where(op.Equal(a, b), b, moved)
    return op.Where(op.Or(op.IsNaN(a), op.IsNaN(b)), op.const(math.nan, a.dtype), moved)


def _next_rounded(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    """Add a little more than half a unit in the last place, and let rounding find the neighbour.

    ``a * 2**-digits`` is between half a unit and one; above half a unit of the lower neighbour's too. The sum is
    made in float64 and rounded by the cast; for float64 it rounds itself (exact down to 2**-1020, below which that
    step lacks the digits).
    """
    dtype = a.dtype
    digits, lowest = _DIGITS[dtype], 2.0 ** _LOWEST[dtype]
    x, y = op.cast(a, DataType.DOUBLE), op.cast(b, DataType.DOUBLE)
    if dtype is DataType.DOUBLE:
        limit, least = np.finfo(np.float64).max, lowest
    else:
        limit, least = 2.0 ** _OVERFLOW[dtype], 0.75 * lowest
    start = op.Clip(x, -limit, limit)
    step = op.Max(op.Mul(op.Abs(start), 2.0**-digits * (1 + 2.0**-20)), least)
    up = op.Greater(y, x)
    moved = op.Where(up, op.Add(start, step), op.Sub(start, step))
    if dtype is DataType.DOUBLE:
        inward = op.And(op.IsInf(x), op.Not(op.Equal(x, y)))
        moved = op.Where(inward, start, moved)
    moved = op.Where(op.Equal(x, y), y, moved)
    # A NaN on either side: x is already in the sum, y isn't.
    moved = op.Where(op.IsNaN(y), y, moved)
    return op.cast(moved, dtype)


def binary_parts(op: Builder, x: Tensor, *, narrow: bool = False) -> tuple[Tensor, Tensor]:
    """``x = mantissa * 2**exponent`` of finite doubles that aren't zero, the size of the mantissa in [0.5, 1).

    Args:
        narrow: their sizes are those of float32 and smaller types.

    Returns: the mantissa and the exponent, both doubles.
    """
    if not narrow:  # into the range in which powers of two are exact
        size = op.Abs(x)
        tiny, huge = op.Less(size, 2.0**-500), op.Greater(size, 2.0**500)
        x = op.Mul(x, op.Where(tiny, 2.0**600, op.Where(huge, 2.0**-600, op.const(1.0, DataType.DOUBLE))))
        shift = op.Where(tiny, -600.0, op.Where(huge, 600.0, op.const(0.0, DataType.DOUBLE)))
    exponent = op.Floor(op.Div(op.Log(op.Abs(x)), math.log(2)))
    mantissa = op.Mul(x, op.Pow(op.const(2.0, DataType.DOUBLE), op.Neg(exponent)))
    # The logarithm may be off by a bit next to a power of two.
    size = op.Abs(mantissa)
    high, low = op.GreaterOrEqual(size, 1.0), op.Less(size, 0.5)
    mantissa = op.Mul(mantissa, op.Where(high, 0.5, op.Where(low, 2.0, op.const(1.0, DataType.DOUBLE))))
    exponent = op.Add(exponent, op.Sub(op.cast(high, DataType.DOUBLE), op.cast(low, DataType.DOUBLE)))
    again = op.GreaterOrEqual(op.Abs(mantissa), 1.0)  # from [1, 2) down to [0.5, 1)
    mantissa = op.Where(again, op.Mul(mantissa, 0.5), mantissa)
    exponent = op.Add(exponent, op.cast(again, DataType.DOUBLE))
    return mantissa, exponent if narrow else op.Add(exponent, shift)


@translation("aten::frexp.Tensor")
def frexp(op: Builder, self: Tensor) -> tuple[Tensor, Tensor]:
    """``self = mantissa * 2**exponent`` with the mantissa in [0.5, 1); the exponent of 0, infinities and NaN is 0."""
    x = op.cast(self, DataType.DOUBLE)
    size = op.Abs(x)
    ordinary = op.And(op.Greater(size, 0.0), op.Less(size, math.inf))
    narrow = self.dtype is not DataType.DOUBLE
    mantissa, exponent = binary_parts(op, op.Where(ordinary, x, 1.0), narrow=narrow)
    mantissa = op.Where(ordinary, op.cast(mantissa, self.dtype), self)
    exponent = op.Where(ordinary, op.cast(exponent, DataType.INT32), op.const(0, DataType.INT32))
    return mantissa, exponent


@translation("aten::ldexp.Tensor")
def ldexp(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    """``self * 2**other``, which overflows only where the product does: the power is made in float64, or in parts."""
    if self.is_complex or other.is_complex:
        raise Unsupported("complex operands")
    dtype = promote(self, other, int_to_float=True)
    value, exponent = op.cast(self, DataType.DOUBLE), op.cast(other, DataType.DOUBLE)
    two = op.const(2.0, DataType.DOUBLE)
    if dtype is not DataType.DOUBLE:
        return op.cast(op.Mul(value, op.Pow(two, op.Clip(exponent, -400.0, 400.0))), dtype)
    exponent = op.Clip(exponent, -2200.0, 2200.0)
    part = op.Floor(op.Div(exponent, 3.0))
    third = op.Pow(two, part)
    rest = op.Pow(two, op.Sub(exponent, op.Mul(part, 2.0)))
    return op.Mul(op.Mul(op.Mul(value, third), third), rest)


def _double_bits(op: Builder, x: Tensor) -> Tensor:
    """The 64 bits of doubles, as int64.

    Below opset 26, which has BitCast, from their values; a NaN is then the positive quiet one, its sign can't be read.
    """
    if op.opset >= 26:
        return op.BitCast(x, to=DataType.INT64)
    size = op.Abs(x)
    low = op.Less(size, 2.0**-1022)  # zeros and denormals are multiples of 2**-1074
    fraction = op.cast(op.Mul(op.Mul(op.Where(low, size, 0.0), 2.0**537), 2.0**537), DataType.INT64)
    special = op.Or(op.IsInf(size), op.IsNaN(size))
    mantissa, exponent = binary_parts(op, op.Where(op.Or(low, special), 1.0, size))
    digits = op.cast(op.Mul(mantissa, 2.0**53), DataType.INT64)  # from 2**52: one unit in the exponent's place
    places = op.Mul(op.cast(op.Add(exponent, 1021.0), DataType.INT64), 1 << 52)
    infinite = op.Where(op.IsNaN(size), op.const(0x7FF8 << 48, DataType.INT64), op.const(0x7FF0 << 48))
    bits = op.Where(low, fraction, op.Where(special, infinite, op.Add(digits, places)))
    return op.Where(sign_bit(op, x), op.Add(bits, -(1 << 63)), bits)


@translation("aten::hash_tensor")
def hash_tensor(op: Builder, self: Tensor, dim: Sequence[int] = (), *, keepdim: bool = False, mode: int = 0) -> Tensor:
    """The exclusive or of all elements' 64 bits (those of the double for a float): each bit's parity, put together."""
    rank = len(self.shape)
    axes = sorted(axis % rank for axis in dim) if dim else list(range(rank))
    is_float = self.dtype.is_floating_point()
    words = _double_bits(op, op.cast(self, DataType.DOUBLE)) if is_float else op.cast(self, DataType.INT64)
    words = op.Unsqueeze(op.cast(words, DataType.UINT64), [rank])
    shifted = op.BitShift(words, op.const(np.arange(64), DataType.UINT64), direction="RIGHT")
    bits = op.cast(op.BitwiseAnd(shifted, op.const(1, DataType.UINT64)), DataType.INT64)
    if axes:
        bits = op.Mod(op.ReduceSum(bits, axes, keepdims=int(keepdim)), 2)
    powers = op.const(np.array([*(1 << i for i in range(63)), -(1 << 63)]))
    return op.cast(op.MatMul(bits, powers), DataType.UINT64)
