"""Comparisons, logic and bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxport import DataType, Size, Tensor, Unsupported, promote, translation
from onnxport.authoring import filled

from onnxport_builtin.aten.kernels import is_infinite, is_nan, operands

if TYPE_CHECKING:
    from onnxport import Builder

Operand = Tensor | Size | int | float | bool


@translation("aten::eq.Tensor", "aten::eq.Scalar")
def eq(op: Builder, self: Tensor, other: Operand) -> Tensor:
    return op.Equal(*operands(op, self, other))


@translation("aten::ne.Tensor", "aten::ne.Scalar", "aten::not_equal.Tensor", "aten::not_equal.Scalar")
def ne(op: Builder, self: Tensor, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.Xor(a, b) if a.dtype is DataType.BOOL else op.Not(op.Equal(a, b))


@translation("aten::lt.Tensor", "aten::lt.Scalar", "aten::less.Tensor", "aten::less.Scalar")
def lt(op: Builder, self: Tensor, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.And(op.Not(a), b) if a.dtype is DataType.BOOL else op.Less(a, b)


@translation("aten::le.Tensor", "aten::le.Scalar", "aten::less_equal.Tensor", "aten::less_equal.Scalar")
def le(op: Builder, self: Tensor, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.Or(op.Not(a), b) if a.dtype is DataType.BOOL else op.LessOrEqual(a, b)


@translation("aten::gt.Tensor", "aten::gt.Scalar", "aten::greater.Tensor", "aten::greater.Scalar")
def gt(op: Builder, self: Tensor, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.And(a, op.Not(b)) if a.dtype is DataType.BOOL else op.Greater(a, b)


@translation("aten::ge.Tensor", "aten::ge.Scalar", "aten::greater_equal.Tensor", "aten::greater_equal.Scalar")
def ge(op: Builder, self: Tensor, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.Or(a, op.Not(b)) if a.dtype is DataType.BOOL else op.GreaterOrEqual(a, b)


@translation("aten::logical_and")
def logical_and(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return op.And(op.cast(self, DataType.BOOL), op.cast(other, DataType.BOOL))


@translation("aten::logical_or")
def logical_or(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return op.Or(op.cast(self, DataType.BOOL), op.cast(other, DataType.BOOL))


@translation("aten::logical_xor")
def logical_xor(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return op.Xor(op.cast(self, DataType.BOOL), op.cast(other, DataType.BOOL))


@translation("aten::logical_not")
def logical_not(op: Builder, self: Tensor) -> Tensor:
    return op.Not(op.cast(self, DataType.BOOL))


@translation("aten::isnan")
def isnan(op: Builder, self: Tensor) -> Tensor:
    return is_nan(op, self)


@translation("aten::isinf")
def isinf(op: Builder, self: Tensor) -> Tensor:
    if not self.dtype.is_floating_point():
        return filled(op, self, False, DataType.BOOL)
    return is_infinite(op, self)


@translation("aten::isfinite")
def isfinite(op: Builder, self: Tensor) -> Tensor:
    if not self.dtype.is_floating_point():
        return filled(op, self, True, DataType.BOOL)
    return op.Less(op.Abs(self), math.inf)  # false for NaN too


@translation("aten::isposinf")
def isposinf(op: Builder, self: Tensor) -> Tensor:
    if not self.dtype.is_floating_point():
        return filled(op, self, False, DataType.BOOL)
    return op.Equal(self, math.inf)


@translation("aten::isneginf")
def isneginf(op: Builder, self: Tensor) -> Tensor:
    if not self.dtype.is_floating_point():
        return filled(op, self, False, DataType.BOOL)
    return op.Equal(self, -math.inf)


@translation("aten::isreal")
def isreal(op: Builder, self: Tensor) -> Tensor:
    return filled(op, self, True, DataType.BOOL)


@translation("aten::isclose")
def isclose(
    op: Builder, self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Equal, or finitely apart by at most ``atol + |rtol * other|``; integers are measured in float."""
    close = op.Equal(self, other)
    if equal_nan and self.dtype.is_floating_point():
        close = op.Or(close, op.And(op.IsNaN(self), op.IsNaN(other)))
    if rtol == 0 and atol == 0:
        return close
    measure = promote(self, int_to_float=True)
    self, other = op.cast(self, measure), op.cast(other, measure)
    allowed = op.Add(op.Abs(op.Mul(other, rtol)), atol)
    actual = op.Abs(op.Sub(self, other))
    within = op.And(op.Less(actual, math.inf), op.LessOrEqual(actual, allowed))
    return op.Or(close, within)


@translation("aten::bitwise_and.Tensor", "aten::bitwise_and.Scalar", "aten::bitwise_and.Scalar_Tensor")
@translation("aten::__and__.Tensor", "aten::__and__.Scalar")
def bitwise_and(op: Builder, self: Operand, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.And(a, b) if a.dtype is DataType.BOOL else op.BitwiseAnd(a, b)


@translation("aten::bitwise_or.Tensor", "aten::bitwise_or.Scalar", "aten::bitwise_or.Scalar_Tensor")
@translation("aten::__or__.Tensor", "aten::__or__.Scalar")
def bitwise_or(op: Builder, self: Operand, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.Or(a, b) if a.dtype is DataType.BOOL else op.BitwiseOr(a, b)


@translation("aten::bitwise_xor.Tensor", "aten::bitwise_xor.Scalar", "aten::bitwise_xor.Scalar_Tensor")
@translation("aten::__xor__.Tensor", "aten::__xor__.Scalar")
def bitwise_xor(op: Builder, self: Operand, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.Xor(a, b) if a.dtype is DataType.BOOL else op.BitwiseXor(a, b)


@translation("aten::bitwise_not")
def bitwise_not(op: Builder, self: Tensor) -> Tensor:
    return op.Not(self) if self.dtype is DataType.BOOL else op.BitwiseNot(self)


@translation(
    "aten::bitwise_left_shift.Tensor",
    "aten::bitwise_left_shift.Tensor_Scalar",
    "aten::bitwise_left_shift.Scalar_Tensor",
    "aten::__lshift__.Tensor",
    "aten::__lshift__.Scalar",
)
def bitwise_left_shift(op: Builder, self: Operand, other: Operand) -> Tensor:
    """A multiplication that wraps; a shift by a negative number, or by the width or more, gives 0."""
    a, b = operands(op, self, other)
    if not a.dtype.is_integer():
        raise Unsupported("shifts of floats")
    bits = a.dtype.bitwidth
    powers = [1 << i for i in range(bits)]
    powers[-1] -= 0 if a.dtype in (DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64) else 1 << bits
    if isinstance(other, int):
        return op.Mul(a, op.const(powers[other] if 0 <= other < bits else 0, a.dtype))
    return op.Mul(a, op.Gather(op.const([*powers, 0], a.dtype), _clipped_shift(op, b, bits, bits)))


@translation(
    "aten::bitwise_right_shift.Tensor",
    "aten::bitwise_right_shift.Tensor_Scalar",
    "aten::bitwise_right_shift.Scalar_Tensor",
    "aten::__rshift__.Tensor",
    "aten::__rshift__.Scalar",
)
def bitwise_right_shift(op: Builder, self: Operand, other: Operand) -> Tensor:
    """Arithmetic: the sign fills in. A shift by a negative number, or by the width or more, leaves the sign alone."""
    a, b = operands(op, self, other)
    if not a.dtype.is_integer():
        raise Unsupported("shifts of floats")
    wide = DataType.UINT64
    amount = op.cast(_clipped_shift(op, b, a.dtype.bitwidth, 63), wide)
    value = op.cast(a, DataType.INT64)
    # Negative numbers are shifted as their complements, which are positive: zeros fill in, and become ones again.
    mask = op.Where(op.Less(value, 0), op.const(-1, DataType.INT64), op.const(0, DataType.INT64))
    shifted = op.BitShift(op.cast(op.BitwiseXor(value, mask), wide), amount, direction="RIGHT")
    return op.cast(op.BitwiseXor(op.cast(shifted, DataType.INT64), mask), a.dtype)


def _clipped_shift(op: Builder, amount: Tensor, bits: int, outside: int) -> Tensor:
    """Shifts as int64, those outside [0, bits) replaced."""
    value = op.cast(amount, DataType.INT64)
    beyond = op.Or(op.Less(value, 0), op.GreaterOrEqual(value, bits))
    return op.Where(beyond, op.const(outside, DataType.INT64), value)
