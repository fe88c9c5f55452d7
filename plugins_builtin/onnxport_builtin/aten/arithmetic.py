"""Addition to powers: arithmetic on tensors and numbers of every element type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Size, Tensor, Unsupported, promote, translation
from onnxport.authoring import choose

from onnxport_builtin.aten.kernels import (
    HALVES,
    NARROW,
    UNSIGNED,
    as_float,
    computed_in,
    in_float32,
    maximum,
    minimum,
    negative,
    operands,
    truncated,
)

if TYPE_CHECKING:
    from onnxport import Builder

Number = int | float | bool | Size
Operand = Tensor | Number


def _is_one(alpha: Number) -> bool:
    return isinstance(alpha, (int, float)) and alpha == 1


def _scaled(op: Builder, value: Operand, alpha: Number, dtype: DataType) -> Tensor:
    """``alpha * value`` in the result's element type."""
    if _is_one(alpha):
        return op.cast(value, dtype)
    if isinstance(value, (int, float)) and isinstance(alpha, (int, float)):
        return op.cast(value * alpha, dtype)
    if dtype is DataType.BOOL:
        return op.And(op.cast(value, dtype), op.cast(alpha, dtype))
    return op.Mul(op.cast(value, dtype), op.cast(alpha, dtype))


def _real(*values: Any, int_to_float: bool = False) -> DataType:
    dtype = promote(*values, int_to_float=int_to_float)
    if dtype in (DataType.COMPLEX64, DataType.COMPLEX128):
        raise Unsupported("complex operands")
    return dtype


@translation("aten::add.Tensor", "aten::add.Scalar")
def add(op: Builder, self: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    dtype = _real(self, other)
    emit = op.Or if dtype is DataType.BOOL else op.Add
    return emit(op.cast(self, dtype), _scaled(op, other, alpha, dtype))


@translation("aten::sub.Tensor", "aten::sub.Scalar", "aten::subtract.Tensor", "aten::subtract.Scalar")
def sub(op: Builder, self: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    dtype = _real(self, other)
    return op.Sub(op.cast(self, dtype), _scaled(op, other, alpha, dtype))


@translation("aten::rsub.Tensor", "aten::rsub.Scalar")
def rsub(op: Builder, self: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    return sub(op, other, self, alpha=alpha)


@translation("aten::mul.Tensor", "aten::mul.Scalar", "aten::multiply.Tensor", "aten::multiply.Scalar")
def mul(op: Builder, self: Operand, other: Operand) -> Tensor:
    a, b = operands(op, self, other)
    return op.And(a, b) if a.dtype is DataType.BOOL else op.Mul(a, b)


@translation(
    "aten::div.Tensor",
    "aten::div.Scalar",
    "aten::true_divide.Tensor",
    "aten::true_divide.Scalar",
    "aten::divide.Tensor",
    "aten::divide.Scalar",
)
def div(op: Builder, self: Operand, other: Operand) -> Tensor:
    return op.Div(*operands(op, self, other, int_to_float=True))


@translation("aten::div.Tensor_mode", "aten::div.Scalar_mode", "aten::divide.Tensor_mode", "aten::divide.Scalar_mode")
def div_mode(op: Builder, self: Operand, other: Operand, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode is None:
        return div(op, self, other)
    if rounding_mode == "floor":
        return floor_divide(op, self, other)
    a, b = operands(op, self, other)
    if a.dtype.is_integer():
        return op.Div(a, b)
    if isinstance(other, Tensor) and op.rank(other):
        # torch rounds the quotient of half-precision tensors first; so does this, as onnxruntime drops no cast of ours.
        return in_float32(truncated, op, in_float32(_quotient, op, a, b))
    return in_float32(lambda op, a, b: truncated(op, op.Div(a, b)), op, a, b)


def _quotient(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    return op.Div(a, b)


@translation("aten::floor_divide", "aten::floor_divide.Scalar")
def floor_divide(op: Builder, self: Operand, other: Operand) -> Tensor:
    """Rounded down, as Python's ``//``: exact where ``floor(a / b)`` isn't (1.0 // 0.1 is 9)."""
    a, b = operands(op, self, other)
    if a.dtype in UNSIGNED:
        return op.Div(a, b)
    if a.dtype.is_integer():
        remainder = op.Mod(a, b, fmod=1)
        if isinstance(other, int) and other > 0:
            lower = op.Less(remainder, 0)
        else:
            lower = op.Less(op.Mul(op.Sign(remainder), op.Sign(b)), 0)
        return op.Sub(op.Div(a, b), op.cast(lower, a.dtype))
    known = float(other) if isinstance(other, (int, float)) else None
    if known and abs(math.frexp(known)[0]) == 0.5 and 2**-60 < abs(known) < 2**60:
        # Division by a power of two is exact. The difference is NaN for infinities, as the result shall be.
        return op.Add(op.Floor(op.Div(a, b)), op.Sub(a, a))

    def formula(op: Builder, a: Tensor, b: Tensor) -> Tensor:
        return _floor_divide_float(op, a, b if known is None else op.const(known, a.dtype), known)

    return in_float32(formula, op, a, b)


def _floor_divide_float(op: Builder, a: Tensor, b: Tensor, known: float | None) -> Tensor:
    remainder = op.Mod(a, b, fmod=1)
    quotient = op.Round(op.Div(op.Sub(a, remainder), b))
    if known is not None and known > 0:
        lower = op.Less(remainder, 0)
    else:
        lower = op.Less(op.Mul(op.Sign(remainder), op.Sign(b)), 0)
    quotient = op.Sub(quotient, op.cast(lower, a.dtype))
    if known:
        return quotient
    return op.Where(op.Equal(b, 0), op.Div(a, b), quotient)


@translation("aten::remainder.Tensor", "aten::remainder.Scalar", "aten::remainder.Scalar_Tensor")
def remainder(op: Builder, self: Operand, other: Operand) -> Tensor:
    """The remainder with the divisor's sign, as Python's ``%``."""
    a, b = operands(op, self, other)
    if a.dtype.is_integer():
        return op.Mod(a, b)
    rest = op.Mod(a, b, fmod=1)
    if isinstance(other, (int, float)) and other > 0:
        wrong = op.Less(rest, 0)
    else:
        wrong = op.Less(op.Mul(op.Sign(rest), op.Sign(b)), 0)
    return op.Where(wrong, op.Add(rest, b), rest)


@translation("aten::fmod.Tensor", "aten::fmod.Scalar")
def fmod(op: Builder, self: Operand, other: Operand) -> Tensor:
    """The remainder with the dividend's sign, as C's ``fmod``."""
    return op.Mod(*operands(op, self, other), fmod=1)


@translation("aten::pow.Tensor_Tensor", "aten::pow.Tensor_Scalar", "aten::pow.Scalar")
def pow(op: Builder, self: Operand, exponent: Operand) -> Tensor:
    dtype = _real(self, exponent)
    if not isinstance(exponent, (int, float)):
        base, power = op.cast(self, dtype), op.cast(exponent, dtype)
        return op.Pow(base, power) if dtype.is_floating_point() else _integer_power(op, base, power)
    base = op.cast(self, dtype)
    if dtype.is_floating_point():
        return _float_power(op, base, float(exponent))
    if exponent < 0:
        raise Unsupported("integers to a negative power")
    return _power_by_squaring(op, base, int(exponent))


def _float_power(op: Builder, base: Tensor, exponent: float) -> Tensor:
    """torch's shortcuts for common exponents; each is the correctly rounded product that torch computes."""
    if exponent == 0:  # of NaN too, for which onnxruntime 1.32 gives NaN
        return op.Expand(op.const(1.0, base.dtype), op.shape(base)) if len(base.shape) else op.const(1.0, base.dtype)
    if exponent == 1:
        return base
    if exponent == 2:
        return op.Mul(base, base)
    if exponent == 3:
        return op.Mul(op.Mul(base, base), base)
    if exponent == -1:
        return op.Reciprocal(base)
    if base.dtype is DataType.FLOAT16:  # torch takes no further shortcut here: (-inf) ** 0.5 is inf, and NaN elsewhere
        return op.Pow(base, op.const(exponent, base.dtype))
    if exponent == 0.5:
        return op.Sqrt(base)
    if exponent == -0.5:
        return op.Reciprocal(op.Sqrt(base))
    if exponent == -2:
        return op.Reciprocal(op.Mul(base, base))
    return op.Pow(base, op.const(exponent, base.dtype))


def _power_by_squaring(op: Builder, base: Tensor, exponent: int) -> Tensor:
    """Exact integer power with wrap-around."""
    if exponent == 0:
        return op.Add(op.Mul(base, 0), 1)
    result: Tensor | None = None
    while exponent:
        if exponent & 1:
            result = base if result is None else op.Mul(result, base)
        exponent >>= 1
        if exponent:
            base = op.Mul(base, base)
    return result


def _integer_power(op: Builder, base: Tensor, exponent: Tensor) -> Tensor:
    """Exact integer power with wrap-around: squarings in a Loop, one for each bit of the greatest exponent.

    A negative exponent gives 0, save for the bases 1 and -1.
    """
    dtype, wide = base.dtype, DataType.INT64
    base, exponent = op.cast(base, wide), op.cast(exponent, wide)
    shape = op.Shape(op.Add(base, exponent))
    bits = op.Abs(exponent)

    def step(_i: Tensor, _go: Tensor, result: Tensor, square: Tensor, bits: Tensor) -> tuple[Tensor, ...]:
        odd = op.Equal(op.Mod(bits, 2), 1)
        rest = op.Div(bits, 2)
        go = op.Greater(op.ReduceMax(op.Concat(op.Reshape(rest, [-1]), [0], axis=0), keepdims=0), 0)
        return go, op.Where(odd, op.Mul(result, square), result), op.Mul(square, square), rest

    body = op.subgraph(
        step,
        [(wide, []), (DataType.BOOL, []), (wide, None), (wide, None), (wide, None)],
        name="power",
    )
    start = (op.Expand(op.const(1, wide), shape), op.Expand(base, shape), op.Expand(bits, shape))
    result = op.Loop(None, op.const(True), *start, body=body, outputs=3)[0]
    if dtype not in UNSIGNED:
        unit = op.Equal(op.Abs(base), 1)
        result = op.Where(op.And(op.Less(exponent, 0), op.Not(unit)), 0, result)
    return op.cast(result, dtype)


@translation("aten::float_power.Tensor_Tensor", "aten::float_power.Tensor_Scalar", "aten::float_power.Scalar")
def float_power(op: Builder, self: Operand, exponent: Operand) -> Tensor:
    _real(self, exponent)
    return op.Pow(op.cast(self, DataType.DOUBLE), op.cast(exponent, DataType.DOUBLE))


@translation("aten::neg", "aten::negative", "aten::_neg_view")
def neg(op: Builder, self: Tensor) -> Tensor:
    return negative(op, self)


@translation("aten::abs", "aten::absolute")
def abs_(op: Builder, self: Tensor) -> Tensor:
    return self if self.dtype in UNSIGNED or self.dtype is DataType.BOOL else op.Abs(self)


@translation("aten::sign", "aten::sgn")
def sign(op: Builder, self: Tensor) -> Tensor:
    """torch's sign of NaN is 0, ONNX's is NaN."""
    if self.dtype is DataType.BOOL:
        return self
    if not self.dtype.is_floating_point():
        return op.Sign(self)
    return op.Where(op.IsNaN(self), 0, op.Sign(self))


@translation("aten::clamp", "aten::clamp.Tensor", "aten::clip", "aten::clip.Tensor")
def clamp(op: Builder, self: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Where ``min`` is above ``max`` the result is ``max``; NaN in any operand gives NaN."""
    value, low, high = operands(op, self, min, max)
    numbers = isinstance(min, (int, float)) and isinstance(max, (int, float)) and min == min and max == max
    if numbers and value.dtype not in NARROW:
        return op.Clip(value, low if min <= max else high, high)
    # One bound: Clip would take the type's finite range for the other, and lose infinities.
    if low is not None:
        value = maximum(op, value, low)
    return value if high is None else minimum(op, value, high)


@translation("aten::clamp_min", "aten::clamp_min.Tensor")
def clamp_min(op: Builder, self: Tensor, min: Operand) -> Tensor:
    return clamp(op, self, min, None)


@translation("aten::clamp_max", "aten::clamp_max.Tensor")
def clamp_max(op: Builder, self: Tensor, max: Operand) -> Tensor:
    return clamp(op, self, None, max)


@translation("aten::maximum", "aten::max.other")
def maximum_(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return maximum(op, *operands(op, self, other))


@translation("aten::minimum", "aten::min.other")
def minimum_(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return minimum(op, *operands(op, self, other))


@translation("aten::fmax")
def fmax(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    """The greater of each pair; a number wins over NaN."""
    a, b = operands(op, self, other)
    if not a.dtype.is_floating_point():
        return maximum(op, a, b)
    return op.Where(op.IsNaN(a), b, op.Where(op.IsNaN(b), a, op.Max(a, b)))


@translation("aten::fmin")
def fmin(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    """The smaller of each pair; a number wins over NaN."""
    a, b = operands(op, self, other)
    if not a.dtype.is_floating_point():
        return minimum(op, a, b)
    return op.Where(op.IsNaN(a), b, op.Where(op.IsNaN(b), a, op.Min(a, b)))


@translation("aten::addcmul")
def addcmul(op: Builder, self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    def formula(op: Builder, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        product = op.Mul(b if _is_one(value) else op.Mul(b, op.cast(value, b.dtype)), c)
        return op.Add(a, product)

    return in_float32(formula, op, *operands(op, self, tensor1, tensor2))


@translation("aten::addcdiv")
def addcdiv(op: Builder, self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    def formula(op: Builder, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return op.Add(a, op.Div(b if _is_one(value) else op.Mul(b, op.cast(value, b.dtype)), c))

    return in_float32(formula, op, *operands(op, self, tensor1, tensor2))


@translation("aten::lerp.Scalar", "aten::lerp.Tensor")
def lerp(op: Builder, self: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """From the nearer end, so that both ends are met exactly."""

    def formula(op: Builder, a: Tensor, b: Tensor, w: Operand) -> Tensor:
        difference = op.Sub(b, a)
        w = op.cast(w, a.dtype) if isinstance(w, Size) else w
        near = op.Add(a, op.Mul(w, difference)) if not isinstance(w, (int, float)) or abs(w) < 0.5 else None
        if isinstance(w, (int, float)):
            return op.Sub(b, op.Mul(1 - w, difference)) if near is None else near
        far = op.Sub(b, op.Mul(difference, op.Sub(1, w)))
        return op.Where(op.Less(op.Abs(w), 0.5), near, far)

    return in_float32(formula, op, self, end, weight)


@translation("aten::square")
def square(op: Builder, self: Tensor) -> Tensor:
    value = op.cast(self, DataType.INT64) if self.dtype is DataType.BOOL else self
    return op.Mul(value, value)


@translation("aten::reciprocal")
def reciprocal(op: Builder, self: Tensor) -> Tensor:
    return op.Reciprocal(as_float(op, self))


@translation("aten::sqrt")
def sqrt(op: Builder, self: Tensor) -> Tensor:
    return op.Sqrt(as_float(op, self))


@translation("aten::rsqrt")
def rsqrt(op: Builder, self: Tensor) -> Tensor:
    return in_float32(lambda op, x: op.Reciprocal(op.Sqrt(x)), op, as_float(op, self))


@translation("aten::hypot")
def hypot(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    """Without overflow or underflow of the squares: in the next wider type, or scaled by the greater side."""
    a, b = operands(op, self, other)
    infinity = op.Or(op.Equal(op.Abs(a), math.inf), op.Equal(op.Abs(b), math.inf))
    if a.dtype is DataType.DOUBLE:
        x, y = op.Abs(a), op.Abs(b)
        greater = op.Max(x, y)
        scale = op.Where(op.Equal(greater, 0), 1.0, greater)
        x, y = op.Div(x, scale), op.Div(y, scale)
        length = op.Mul(greater, op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y))))
    else:
        wide = DataType.FLOAT if a.dtype in HALVES else DataType.DOUBLE

        def root(op: Builder, x: Tensor, y: Tensor) -> Tensor:
            return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

        length = computed_in(wide, root, op, a, b)
    return op.Where(infinity, math.inf, length)


@translation("aten::heaviside")
def heaviside(op: Builder, self: Tensor, values: Tensor) -> Tensor:
    a, b = operands(op, self, values)
    zero = op.Not(a) if a.dtype is DataType.BOOL else op.Equal(a, 0)
    step = a if a.dtype is DataType.BOOL else op.cast(op.Greater(a, 0), a.dtype)
    return choose(op, zero, b, step)


@translation("aten::where.self", "aten::where.ScalarOther", "aten::where.ScalarSelf", "aten::where.Scalar")
def where_(op: Builder, condition: Tensor, self: Operand, other: Operand) -> Tensor:
    dtype, mask = _real(self, other), op.cast(condition, DataType.BOOL)
    if dtype is DataType.BOOL and isinstance(self, bool) != isinstance(other, bool):
        return choose(op, mask, self, other)
    return choose(op, mask, op.cast(self, dtype), op.cast(other, dtype))


@translation("aten::nan_to_num")
def nan_to_num(
    op: Builder,
    self: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """Infinities become the greatest and lowest finite numbers of the type, unless told otherwise."""
    dtype = self.dtype
    if not dtype.is_floating_point():
        return self
    value = op.Where(op.IsNaN(self), op.const(nan or 0.0, dtype), self)
    if posinf is None and neginf is None:
        return op.Clip(value, op.const(dtype.min, dtype), op.const(dtype.max, dtype))
    # From self, so that a replacement that is infinite itself isn't replaced again.
    high = op.const(dtype.max if posinf is None else posinf, dtype)
    low = op.const(dtype.min if neginf is None else neginf, dtype)
    value = op.Where(op.Equal(self, math.inf), high, value)
    return op.Where(op.Equal(self, -math.inf), low, value)


@translation("aten::gcd")
def gcd(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, b = operands(op, self, other)
    return op.cast(_gcd(op, op.cast(a, DataType.INT64), op.cast(b, DataType.INT64)), a.dtype)


@translation("aten::lcm")
def lcm(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, b = operands(op, self, other)
    x, y = op.cast(a, DataType.INT64), op.cast(b, DataType.INT64)
    divisor = _gcd(op, x, y)
    multiple = op.Mul(op.Div(x, op.Max(divisor, 1)), y)
    return op.cast(op.Abs(multiple), a.dtype)


def _gcd(op: Builder, a: Tensor, b: Tensor) -> Tensor:
    """Euclid's algorithm on all elements at once, in int64, until every remainder is 0."""
    shape = op.Shape(op.Add(a, b))
    wide = DataType.INT64

    def unfinished(b: Tensor) -> Tensor:
        return op.Greater(op.ReduceMax(op.Concat(op.Reshape(b, [-1]), [0], axis=0), keepdims=0), 0)

    def step(_i: Tensor, _go: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        done = op.Equal(b, 0)
        rest = op.Where(done, 0, op.Mod(a, op.Where(done, 1, b)))
        return unfinished(rest), op.Where(done, a, b), rest

    body = op.subgraph(step, [(wide, []), (DataType.BOOL, []), (wide, None), (wide, None)], name="euclid")
    a, b = op.Expand(op.Abs(a), shape), op.Expand(op.Abs(b), shape)
    return op.Loop(None, unfinished(b), a, b, body=body, outputs=2)[0]
