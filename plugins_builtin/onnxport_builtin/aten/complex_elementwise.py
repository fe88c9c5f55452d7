"""Arithmetic, functions and comparisons of complex numbers, element by element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, Unsupported
from onnxport.authoring import expand

from onnxport_builtin.aten.complex_parts import (
    Pair,
    as_complex_tensor,
    complex_translation,
    component_of,
    flagged,
    pair,
)
from onnxport_builtin.aten.complex_shape import nonzero_mask
from onnxport_builtin.aten.kernels import sign_bit
from onnxport_builtin.aten.transcendental import angle_of, asinh, cosh, log_one_plus, sinh

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport import Builder

Operand = Any  # Tensor, Size or number


def result_of(op: Builder, value: Pair) -> Tensor:
    """The complex result of the FX node, brought to its shape and type (real results of complex formulas as well)."""
    result = op.result
    value = value.cast(result.dtype)
    if not result.is_complex:
        return value.re
    shape = result.shape
    re, im = expand(op, value.re, shape), expand(op, value.imag, shape)
    return op.complex(re, im)


def _operands(op: Builder, *values: Operand) -> list[Pair]:
    dtype = op.result.dtype if op.result.is_complex else component_of(*values)
    return [pair(op, value, dtype) for value in values]


# ---- arithmetic


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, (int, float)) and alpha == 1


def _sum(op: Builder, self: Operand, other: Operand, alpha: Any, subtract: bool) -> Tensor:
    dtype = op.result.dtype
    if _is_one(alpha):
        a, b = as_complex_tensor(op, self, dtype), as_complex_tensor(op, other, dtype)
        return flagged(op, (op.Sub if subtract else op.Add)(a, b), op.result.shape)
    a, b, factor = _operands(op, self, other, alpha)
    return result_of(op, a - b * factor if subtract else a + b * factor)


@complex_translation("aten::add.Tensor", "aten::add.Scalar")
def add(op: Builder, self: Operand, other: Operand, *, alpha: Any = 1) -> Tensor:
    return _sum(op, self, other, alpha, subtract=False)


@complex_translation("aten::sub.Tensor", "aten::sub.Scalar", "aten::subtract.Tensor", "aten::subtract.Scalar")
def sub(op: Builder, self: Operand, other: Operand, *, alpha: Any = 1) -> Tensor:
    return _sum(op, self, other, alpha, subtract=True)


@complex_translation("aten::rsub.Tensor", "aten::rsub.Scalar")
def rsub(op: Builder, self: Operand, other: Operand, *, alpha: Any = 1) -> Tensor:
    return _sum(op, other, self, alpha, subtract=True)


def _real_factor(op: Builder, value: Operand) -> Tensor | None:
    """A real operand, ready to meet a complex tensor as it is stored; None for complex ones."""
    if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex):
        return None
    factor = op.cast(value, op.result.dtype)
    return op.Unsqueeze(factor, [-1]) if isinstance(value, Tensor) and len(value.shape) else factor


@complex_translation("aten::mul.Tensor", "aten::mul.Scalar", "aten::multiply.Tensor", "aten::multiply.Scalar")
def mul(op: Builder, self: Operand, other: Operand) -> Tensor:
    for value, factor in ((self, _real_factor(op, other)), (other, _real_factor(op, self))):
        if factor is not None and isinstance(value, Tensor) and value.is_complex:
            return flagged(op, op.Mul(op.cast(value, op.result.dtype), factor), op.result.shape)
    a, b = _operands(op, self, other)
    return result_of(op, a * b)


@complex_translation(
    "aten::div.Tensor",
    "aten::div.Scalar",
    "aten::true_divide.Tensor",
    "aten::true_divide.Scalar",
    "aten::divide.Tensor",
    "aten::divide.Scalar",
)
def div(op: Builder, self: Operand, other: Operand) -> Tensor:
    divisor = _real_factor(op, other)
    if divisor is not None and isinstance(self, Tensor) and self.is_complex:
        return flagged(op, op.Div(op.cast(self, op.result.dtype), divisor), op.result.shape)
    return result_of(op, quotient(*_operands(op, self, other)))


def quotient(a: Pair, b: Pair) -> Pair:
    """``a / b``; of a complex 0 each part by 0, as torch does: infinite where that part of `a` isn't 0."""
    if b.im is None:
        return a / b
    op = a.op
    zero = op.And(op.Equal(b.re, 0.0), op.Equal(b.im, 0.0))
    value = a / Pair(op, op.Where(zero, 1.0, b.re), b.im)
    return value / op.cast(op.Not(zero), value.re.dtype)


@complex_translation("aten::div.Tensor_mode", "aten::div.Scalar_mode")
def div_mode(op: Builder, self: Operand, other: Operand, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode is not None:
        raise Unsupported("complex numbers have no order to round in")
    return div(op, self, other)


@complex_translation("prims::div")
def prims_div(op: Builder, self: Operand, other: Operand) -> Tensor:
    return div(op, self, other)


@complex_translation("aten::neg", "aten::negative")
def neg(op: Builder, self: Tensor) -> Tensor:
    return flagged(op, op.Neg(self), self.shape)


@complex_translation("aten::square")
def square(op: Builder, self: Tensor) -> Tensor:
    value = pair(op, self)
    return result_of(op, value * value)


@complex_translation("aten::addcmul")
def addcmul(op: Builder, self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    a, b, c, factor = _operands(op, self, tensor1, tensor2, value)
    return result_of(op, a + (b * c if _is_one(value) else b * factor * c))


@complex_translation("aten::addcdiv")
def addcdiv(op: Builder, self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    a, b, c, factor = _operands(op, self, tensor1, tensor2, value)
    return result_of(op, a + (b if _is_one(value) else b * factor) / c)


@complex_translation("aten::lerp.Scalar", "aten::lerp.Tensor")
def lerp(op: Builder, self: Tensor, end: Tensor, weight: Operand) -> Tensor:
    a, b, w = _operands(op, self, end, weight)
    return result_of(op, a + w * (b - a))


@complex_translation("aten::ldexp.Tensor")
def ldexp(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, b = _operands(op, self, other)
    return result_of(op, a * (b * math.log(2)).exp())


def power(base: Pair, exponent: Pair) -> Pair:
    """``exp(exponent * log(base))``; of 0: 1 to the power 0, else 0."""
    op = base.op
    zero = op.And(op.Equal(base.re, 0.0), op.Equal(base.imag, 0.0))
    safe = Pair(op, op.Where(zero, 1.0, base.re), base.imag)
    value = (safe.log() * exponent).exp()
    none = op.And(op.Equal(exponent.re, 0.0), op.Equal(exponent.imag, 0.0))
    limit = Pair(op, op.cast(none, value.re.dtype), None)
    return Pair(op, op.Where(zero, limit.re, value.re), op.Where(zero, 0.0, value.imag))


def _integer_power(value: Pair, exponent: int) -> Pair:
    """By squaring; `exponent` is not 0."""
    result: Pair | None = None
    bits = abs(exponent)
    while bits:
        if bits & 1:
            result = value if result is None else result * value
        bits >>= 1
        if bits:
            value = value * value
    return result if exponent > 0 else quotient(_one(value), result)  # type: ignore[return-value, arg-type]


@complex_translation("aten::pow.Tensor_Tensor", "aten::pow.Tensor_Scalar", "aten::pow.Scalar")
def pow(op: Builder, self: Operand, exponent: Operand) -> Tensor:
    number = exponent.real if isinstance(exponent, complex) and exponent.imag == 0 else exponent
    if isinstance(number, (int, float)):
        if number == 0:
            ones = Pair(op, op.const(1.0, op.result.dtype), None)
            return result_of(op, ones)
        if number == int(number) and abs(number) <= 16:
            return result_of(op, _integer_power(pair(op, self, op.result.dtype), int(number)))
        if number == 0.5:
            return result_of(op, root(pair(op, self, DataType.DOUBLE)))
    a, b = pair(op, self, DataType.DOUBLE), pair(op, exponent, DataType.DOUBLE)
    return result_of(op, power(a, b))


@complex_translation("aten::float_power.Tensor_Tensor", "aten::float_power.Tensor_Scalar", "aten::float_power.Scalar")
def float_power(op: Builder, self: Operand, exponent: Operand) -> Tensor:
    return pow(op, self, exponent)


# ---- functions, in float64: most lose digits in float32 where torch's don't


def root(value: Pair) -> Pair:
    """The square root with a real part that isn't negative."""
    op = value.op
    t = op.Sqrt(op.Mul(op.Add(value.abs(), op.Abs(value.re)), 0.5))
    other = op.Div(op.Abs(value.imag), op.Mul(op.Where(op.Equal(t, 0.0), 1.0, t), 2.0))
    left = op.Less(value.re, 0.0)
    re, im = op.Where(left, other, t), op.Where(left, t, other)
    return Pair(op, re, op.Where(sign_bit(op, value.imag), op.Neg(im), im))


def _one(value: Pair) -> Pair:
    return Pair(value.op, value.op.const(1.0, value.re.dtype), None)


def sine(value: Pair) -> Pair:
    op = value.op
    x, y = value.re, value.imag
    return Pair(op, op.Mul(op.Sin(x), cosh(op, y)), op.Mul(op.Cos(x), sinh(op, y)))


def cosine(value: Pair) -> Pair:
    op = value.op
    x, y = value.re, value.imag
    return Pair(op, op.Mul(op.Cos(x), cosh(op, y)), op.Neg(op.Mul(op.Sin(x), sinh(op, y))))


def hyperbolic_tangent(value: Pair) -> Pair:
    """``(tanh x + i sin y cos y s) / (tanh(x) ** 2 + cos(y) ** 2 s)`` with ``s = 1 / cosh(x) ** 2``: nothing cancels at
    the poles, and nothing overflows."""
    op = value.op
    x, y = op.Clip(value.re, -300.0, 300.0), value.imag
    size, ratio, across = cosh(op, x), op.Tanh(x), op.Cos(y)
    shrunk = op.Div(across, op.Mul(size, size))
    bottom = op.Add(op.Mul(ratio, ratio), op.Mul(across, shrunk))
    return Pair(op, op.Div(ratio, bottom), op.Div(op.Mul(op.Sin(y), shrunk), bottom))


def arcsine(value: Pair) -> Pair:
    """Kahan, "Branch cuts for complex elementary functions", 1987; so the others that take two roots."""
    op = value.op
    minus, plus = root(-value + 1.0), root(value + 1.0)  # 1 - z has the sign of zero that -z has
    re = angle_of(op, value.re, (minus * plus).re)
    return Pair(op, re, asinh(op, (minus.conj() * plus).imag))


def arccosine(value: Pair) -> Pair:
    op = value.op
    minus, plus = root(-value + 1.0), root(value + 1.0)  # 1 - z has the sign of zero that -z has
    re = op.Mul(angle_of(op, minus.re, plus.re), 2.0)
    return Pair(op, re, asinh(op, (plus.conj() * minus).imag))


def hyperbolic_arccosine(value: Pair) -> Pair:
    op = value.op
    minus, plus = root(value - 1.0), root(value + 1.0)
    return Pair(op, asinh(op, (minus.conj() * plus).re), op.Mul(angle_of(op, minus.imag, plus.re), 2.0))


def hyperbolic_arctangent(value: Pair) -> Pair:
    """``log((1 + z) / (1 - z)) / 2``; where the real part is negative by ``-atanh(-z)``, which doesn't cancel."""
    op = value.op
    # beyond 1e150 nothing changes but that squares overflow
    x, y = op.Min(op.Abs(value.re), 1e150), op.Max(op.Min(value.imag, 1e150), -1e150)
    square = op.Mul(y, y)
    below = op.Sub(1.0, x)
    distance = op.Add(op.Mul(below, below), square)
    re = op.Mul(log_one_plus(op, op.Div(op.Mul(x, 4.0), distance)), 0.25)
    re = op.Where(op.Less(value.re, 0.0), op.Neg(re), re)
    across = op.Sub(op.Mul(below, op.Add(x, 1.0)), square)
    return Pair(op, re, op.Mul(angle_of(op, op.Mul(y, 2.0), across), 0.5))


def logarithm_of_one_plus(value: Pair) -> Pair:
    """By the square of the modulus less 1, except where that is about -1."""
    op = value.op
    x, y = value.re, value.imag
    excess = op.Add(op.Mul(x, op.Add(x, 2.0)), op.Mul(y, y))
    far = op.Less(excess, -0.5)
    near = op.Mul(log_one_plus(op, op.Where(far, 0.0, excess)), 0.5)
    total = value + 1.0
    return Pair(op, op.Where(far, op.Log(total.abs()), near), total.angle())


def logistic(value: Pair) -> Pair:
    """``1 / (1 + exp(-z))``, above and below the fraction times ``exp(z)`` where that is the smaller."""
    left = value.op.Less(value.re, 0.0)
    small = value.where(left, -value).exp()
    return small.where(left, 1.0) / (small + 1.0)


def cardinal_sine(value: Pair) -> Pair:
    op = value.op
    zero = op.And(op.Equal(value.re, 0.0), op.Equal(value.imag, 0.0))
    z = value * math.pi
    safe = Pair(op, op.Where(zero, 1.0, z.re), z.imag)
    ratio = sine(safe) / safe
    return Pair(op, op.Where(zero, 1.0, ratio.re), op.Where(zero, 0.0, ratio.imag))


def direction(value: Pair) -> Pair:
    """``z / |z|``, 0 for 0."""
    size = value.abs()
    return value / value.op.Where(value.op.Equal(size, 0.0), 1.0, size)


_FUNCTIONS: dict[str, Callable[[Pair], Pair]] = {
    "exp": lambda z: z.exp(),
    "exp2 special_exp2": lambda z: (z * math.log(2)).exp(),
    "expm1 special_expm1": lambda z: z.exp() - 1.0,
    "log": lambda z: z.log(),
    "log2": lambda z: z.log() / math.log(2),
    "log10": lambda z: z.log() / math.log(10),
    "log1p special_log1p": logarithm_of_one_plus,
    "sqrt": root,
    "rsqrt": lambda z: quotient(_one(z), root(z)),
    "reciprocal": lambda z: quotient(_one(z), z),
    "sin": sine,
    "cos": cosine,
    "tan": lambda z: hyperbolic_tangent(z.times_i()).over_i(),
    "sinh": lambda z: sine(z.times_i()).over_i(),
    "cosh": lambda z: cosine(z.times_i()),
    "tanh": hyperbolic_tangent,
    "asin arcsin": arcsine,
    "acos arccos": arccosine,
    "atan arctan": lambda z: hyperbolic_arctangent(z.times_i()).over_i(),
    "asinh arcsinh": lambda z: arcsine(z.times_i()).over_i(),
    "acosh arccosh": hyperbolic_arccosine,
    "atanh arctanh": hyperbolic_arctangent,
    "sigmoid special_expit": logistic,
    "silu": lambda z: z * logistic(z),
    "sinc special_sinc": cardinal_sine,
    "sgn": direction,
}


def _function_translation(function: Callable[[Pair], Pair]) -> Callable[..., Tensor]:
    def elementwise(op: Builder, self: Tensor) -> Tensor:
        return result_of(op, function(pair(op, self, DataType.DOUBLE)))

    return elementwise


for _names, _function in _FUNCTIONS.items():
    complex_translation(*(f"aten::{name}" for name in _names.split()))(_function_translation(_function))


@complex_translation("aten::abs", "aten::absolute")
def abs_(op: Builder, self: Tensor) -> Tensor:
    return pair(op, self).abs()


@complex_translation("aten::angle")
def angle(op: Builder, self: Tensor) -> Tensor:
    return op.cast(pair(op, self, DataType.DOUBLE).angle(), self.dtype)


def log_of_sum(a: Pair, b: Pair) -> Pair:
    """``log(exp(a) + exp(b))`` from the operand with the greater real part on: ``a + log(1 + exp(b - a))``, from `a`
    where they are equal; `b` where both are the logarithm of 0."""
    op = a.op
    lower = op.Less(a.re, b.re)
    greater, less = b.where(lower, a), a.where(lower, b)
    nothing = op.Equal(greater.re, -math.inf)
    return less.where(nothing, greater + ((less - greater).exp() + 1.0).log())


@complex_translation("aten::logaddexp")
def logaddexp(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return result_of(op, log_of_sum(pair(op, self, DataType.DOUBLE), pair(op, other, DataType.DOUBLE)))


# ---- comparisons


@complex_translation("aten::eq.Tensor", "aten::eq.Scalar")
def eq(op: Builder, self: Operand, other: Operand) -> Tensor:
    dtype = component_of(self, other)
    a, b = pair(op, self, dtype), pair(op, other, dtype)
    return op.And(op.Equal(a.re, b.re), op.Equal(a.imag, b.imag))


@complex_translation("aten::ne.Tensor", "aten::ne.Scalar", "aten::not_equal.Tensor", "aten::not_equal.Scalar")
def ne(op: Builder, self: Operand, other: Operand) -> Tensor:
    return op.Not(eq(op, self, other))


@complex_translation("aten::isnan")
def isnan(op: Builder, self: Tensor) -> Tensor:
    value = pair(op, self)
    return op.Or(op.IsNaN(value.re), op.IsNaN(value.imag))


@complex_translation("aten::isinf")
def isinf(op: Builder, self: Tensor) -> Tensor:
    value = pair(op, self)
    return op.Or(op.IsInf(value.re), op.IsInf(value.imag))


@complex_translation("aten::isfinite")
def isfinite(op: Builder, self: Tensor) -> Tensor:
    """Where the difference of a part from itself is 0, not NaN."""
    value = pair(op, self)
    return op.And(*(op.Equal(op.Sub(part, part), 0.0) for part in (value.re, value.imag)))


@complex_translation("aten::isreal")
def isreal(op: Builder, self: Tensor) -> Tensor:
    return op.Equal(op.imag(self), 0.0)


@complex_translation("aten::isclose")
def isclose(
    op: Builder, self: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    dtype = component_of(self, other)
    a, b = pair(op, self, dtype), pair(op, other, dtype)
    same = op.And(op.Equal(a.re, b.re), op.Equal(a.imag, b.imag))
    difference = (a - b).abs()
    finite = op.Equal(op.Sub(difference, difference), 0.0)
    close = op.LessOrEqual(difference, op.Add(op.Mul(b.abs(), rtol), atol))
    near = op.Or(same, op.And(finite, close))
    return op.Or(near, op.And(isnan(op, self), isnan(op, other))) if equal_nan else near


def _logical(name: str) -> Callable[..., Tensor]:
    def logical(op: Builder, self: Tensor, other: Tensor) -> Tensor:
        return getattr(op, name)(nonzero_mask(op, self), nonzero_mask(op, other))

    return logical


for _target, _emit in (("and", "And"), ("or", "Or"), ("xor", "Xor")):
    complex_translation(f"aten::logical_{_target}")(_logical(_emit))


@complex_translation("aten::logical_not")
def logical_not(op: Builder, self: Tensor) -> Tensor:
    return op.Not(nonzero_mask(op, self))
