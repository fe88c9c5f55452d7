"""Where onnxruntime (CPU, 1.32) has no kernel for an element type, and what is computed instead.

Measured with one-node models at opsets 18 to 25. What has kernels for float32, float64, float16, int64, int32, int8 and
uint8 is emitted as it is: Add, Sub, Mul, Div, Mod, Abs, Sign, Equal, Less..., Clip, BitwiseAnd.... The gaps:

===================================  ==========================================
Neg                                  not defined for unsigned integers
Max, Min, Where                      no int16, uint16; not defined for (Max, Min) or no kernel for (Where) bool
Relu, PRelu                          no integers
Pow                                  integers go through double: inexact above 2**53
Erf, Tan, Asin ... Atanh             no float64
Elu, Selu, Softplus, ... from 20 on  no float64
IsInf                                no float16 below opset 20
BitShift                             not defined for signed integers
===================================  ==========================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, Unsupported, promote
from onnxport.authoring import filled

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport import Builder

HALVES = frozenset({DataType.FLOAT16, DataType.BFLOAT16})
UNSIGNED = frozenset({DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64})
COMPLEX = frozenset({DataType.COMPLEX64, DataType.COMPLEX128})

#: Types without kernels for Clip, Max, Min and Where.
NARROW = frozenset({DataType.INT16, DataType.UINT16, DataType.BOOL})
#: Where Max, Min, Where and the like have no kernel: a type that has one and holds every value.
_SELECT_IN: dict[DataType, DataType] = {
    DataType.INT16: DataType.INT32,
    DataType.UINT16: DataType.INT32,
}


def computed_in(dtype: DataType, function: Callable[..., Tensor], op: Builder, *operands: Any) -> Tensor:
    """``function(op, *operands)`` in another element type, its result in the first operand's own.

    Args:
        dtype: the type to compute in; where the first tensor already has it, no node is added.
        operands: tensors are cast; numbers and ``None`` are passed on.
    """
    own = next(value.dtype for value in operands if isinstance(value, Tensor))
    result = function(op, *(op.cast(v, dtype) if isinstance(v, Tensor) else v for v in operands))
    return op.cast(result, own)


def operands(op: Builder, *values: Any, int_to_float: bool = False) -> list[Tensor]:
    """Tensors, sizes and numbers in the one element type that torch promotes them to.

    Numbers outside an integer type's range wrap, as in torch. ``None`` stays.

    Raises:
        Unsupported: the type is complex.
    """
    dtype = promote(*values, int_to_float=int_to_float)
    if dtype in COMPLEX:
        raise Unsupported("complex operands")
    return [None if value is None else op.cast(value, dtype) for value in values]


def as_float(op: Builder, value: Tensor) -> Tensor:
    """A floating-point tensor as it is; integers and bools in torch's default float type."""
    return op.cast(value, promote(value, int_to_float=True))


def in_float32(function: Callable[..., Tensor], op: Builder, *values: Any) -> Tensor:
    """Half precision is computed in float32 and rounded once, as torch does on the CPU; the others as they are."""
    if any(isinstance(value, Tensor) and value.dtype in HALVES for value in values):
        return computed_in(DataType.FLOAT, function, op, *values)
    return function(op, *values)


def in_float64(function: Callable[..., Tensor], op: Builder, *values: Any) -> Tensor:
    """Every float type is computed in float64, for functions that float32 steps would compute badly."""
    return computed_in(DataType.DOUBLE, function, op, *values)


def elementary(op: Builder, name: str, value: Tensor, **attributes: Any) -> Tensor:
    """A one-input operator that ONNX defines for bfloat16 only from opset 22 on (Sin, Elu, Round, ...)."""
    emit = getattr(op, name)
    if value.dtype is DataType.BFLOAT16 and op.opset < 22:
        return op.cast(emit(op.cast(value, DataType.FLOAT), **attributes), value.dtype)
    return emit(value, **attributes)


def choose(op: Builder, condition: Tensor, self: Any, other: Any) -> Tensor:
    """``self`` where ``condition`` holds, else ``other``, for every element type; the three broadcast.

    Args:
        condition: a tensor of bools.
        self: a tensor, or a number in the other's element type; at least one of the two is a tensor.
        other: as ``self``; tensors are of one element type.
    """
    dtype = next(value.dtype for value in (self, other) if isinstance(value, Tensor))
    if dtype is DataType.BOOL:
        if not isinstance(self, Tensor):
            return op.Or(condition, other) if self else op.And(op.Not(condition), other)
        if not isinstance(other, Tensor):
            return op.Or(op.Not(condition), self) if other else op.And(condition, self)
        return op.Xor(other, op.And(condition, op.Xor(self, other)))
    wide = _SELECT_IN.get(dtype, dtype)
    return op.cast(op.Where(condition, op.cast(self, wide), op.cast(other, wide)), dtype)


def maximum(op: Builder, self: Tensor, other: Any) -> Tensor:
    """The greater of each pair, NaN if either is, for every element type; a number takes the type of ``self``."""
    if self.dtype is DataType.BOOL:
        return op.Or(self, op.cast(other, DataType.BOOL))
    return _extremum(op.Max, op, self, other)


def minimum(op: Builder, self: Tensor, other: Any) -> Tensor:
    """The smaller of each pair, NaN if either is, for every element type; a number takes the type of ``self``."""
    if self.dtype is DataType.BOOL:
        return op.And(self, op.cast(other, DataType.BOOL))
    return _extremum(op.Min, op, self, other)


def _extremum(emit: Callable[..., Tensor], op: Builder, self: Tensor, other: Any) -> Tensor:
    wide = _SELECT_IN.get(self.dtype, self.dtype)
    return op.cast(emit(op.cast(self, wide), op.cast(other, wide)), self.dtype)


def negative(op: Builder, self: Tensor) -> Tensor:
    """``-self``; unsigned integers wrap."""
    if self.dtype in UNSIGNED:
        return op.Sub(op.const(0, self.dtype), self)
    return op.Neg(self)


def truncated(op: Builder, self: Tensor) -> Tensor:
    """A float tensor rounded towards zero; infinities, NaN and the sign of zero stay."""
    return op.Where(op.Less(self, 0), op.Ceil(self), op.Floor(self))


def is_nan(op: Builder, self: Tensor) -> Tensor:
    """Where a tensor is NaN; nowhere for integers and bools."""
    if self.dtype.is_floating_point():
        return op.IsNaN(self)
    return filled(op, self, False, DataType.BOOL)


def is_infinite(op: Builder, self: Tensor) -> Tensor:
    """Where a float tensor is infinite, of either sign."""
    if self.dtype in HALVES and op.opset < 20:
        return op.Equal(op.Abs(self), float("inf"))
    return op.IsInf(self)


def sign_bit(op: Builder, self: Tensor) -> Tensor:
    """Where a tensor is negative, negative zero included (and negative NaN, from opset 26 on)."""
    if self.dtype in UNSIGNED or self.dtype is DataType.BOOL:
        return filled(op, self, False, DataType.BOOL)
    bits = {DataType.FLOAT: DataType.INT32, DataType.DOUBLE: DataType.INT64}.get(self.dtype)
    if bits is not None and op.opset >= 26:
        return op.Less(op.BitCast(self, to=bits), 0)
    below = op.Less(self, 0)
    if self.dtype.is_integer():
        return below
    return op.Or(below, op.Less(op.Reciprocal(self), 0))
