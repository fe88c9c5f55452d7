"""Exponentials, logarithms, trigonometry, rounding.

Half precision is computed in float32 where it takes more than one step. onnxruntime has no float64 kernels for most
trigonometric operators: those are written with the ones it has and tables (:mod:`.tables`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxport import DataType, Tensor, Unsupported, translation

from onnxport_builtin.aten.kernels import as_float, elementary, in_float32, operands, sign_bit, truncated
from onnxport_builtin.aten.tables import piecewise

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport import Builder


@translation("aten::exp")
def exp(op: Builder, self: Tensor) -> Tensor:
    return op.Exp(as_float(op, self))


@translation("aten::exp2", "aten::special_exp2")
def exp2(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    return op.Pow(op.const(2.0, value.dtype), value)


@translation("aten::expm1", "aten::special_expm1")
def expm1(op: Builder, self: Tensor) -> Tensor:
    return in_float32(exp_minus_one, op, as_float(op, self))


def exp_minus_one(op: Builder, x: Tensor) -> Tensor:
    """``tanh(x / 2) * (exp(x) + 1)``: no cancellation near 0."""
    return op.Mul(op.Tanh(op.Mul(x, 0.5)), op.Add(op.Exp(x), 1.0))


@translation("aten::log")
def log(op: Builder, self: Tensor) -> Tensor:
    return op.Log(as_float(op, self))


@translation("aten::log2")
def log2(op: Builder, self: Tensor) -> Tensor:
    return in_float32(lambda op, x: op.Div(op.Log(x), math.log(2)), op, as_float(op, self))


@translation("aten::log10")
def log10(op: Builder, self: Tensor) -> Tensor:
    return in_float32(lambda op, x: op.Div(op.Log(x), math.log(10)), op, as_float(op, self))


@translation("aten::log1p", "aten::special_log1p")
def log1p(op: Builder, self: Tensor) -> Tensor:
    return in_float32(log_one_plus, op, as_float(op, self))


def log_one_plus(op: Builder, x: Tensor) -> Tensor:
    """``log(u) * x / (u - 1)`` for ``u = 1 + x`` as rounded, which cancels the rounding (Kahan)."""
    u = op.Add(x, 1.0)
    value = op.Mul(op.Log(u), op.Div(x, op.Sub(u, 1.0)))
    return op.Where(op.Or(op.Equal(u, 1.0), op.Equal(x, math.inf)), x, value)


@translation("aten::sin")
def sin(op: Builder, self: Tensor) -> Tensor:
    return elementary(op, "Sin", as_float(op, self))


@translation("aten::cos")
def cos(op: Builder, self: Tensor) -> Tensor:
    return elementary(op, "Cos", as_float(op, self))


@translation("aten::tan")
def tan(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    return op.Div(op.Sin(value), op.Cos(value)) if value.dtype is DataType.DOUBLE else elementary(op, "Tan", value)


@translation("aten::asin", "aten::arcsin")
def asin(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Asin", value)
    return arctangent(op, op.Div(value, op.Sqrt(op.Mul(op.Sub(1.0, value), op.Add(1.0, value)))))


@translation("aten::acos", "aten::arccos")
def acos(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Acos", value)
    return op.Mul(arctangent(op, op.Sqrt(op.Div(op.Sub(1.0, value), op.Add(1.0, value)))), 2.0)


@translation("aten::atan", "aten::arctan")
def atan(op: Builder, self: Tensor) -> Tensor:
    return arctangent(op, as_float(op, self))


def arctangent(op: Builder, x: Tensor) -> Tensor:
    """``atan`` of any float type."""
    if x.dtype is not DataType.DOUBLE:
        return elementary(op, "Atan", x)
    steep = op.Greater(op.Abs(x), 1.0)
    ratio = op.Where(steep, op.Reciprocal(x), x)
    angle = op.Mul(ratio, piecewise(op, op.Abs(ratio), "atan_over_x"))
    right = op.Where(op.Less(x, 0.0), -math.pi / 2, op.const(math.pi / 2, DataType.DOUBLE))
    return op.Where(steep, op.Sub(right, angle), angle)


@translation("aten::atan2", "aten::arctan2")
def atan2(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return in_float32(angle_of, op, *operands(op, self, other, int_to_float=True))


@translation("aten::angle")
def angle(op: Builder, self: Tensor) -> Tensor:
    """Of a real number: 0, pi for negative ones, NaN for NaN."""
    x = as_float(op, self)
    result = op.Where(op.Less(x, 0), op.const(math.pi, x.dtype), op.const(0.0, x.dtype))
    return op.Where(op.IsNaN(x), x, result) if self.dtype.is_floating_point() else result


def angle_of(op: Builder, y: Tensor, x: Tensor) -> Tensor:
    """The angle of the point (x, y), with C's rules for zeros, their signs, and infinities."""
    height, width = op.Abs(y), op.Abs(x)
    longer, shorter = op.Max(height, width), op.Min(height, width)
    one = op.const(1.0, x.dtype)
    ratio = op.Div(shorter, op.Where(op.Equal(longer, 0.0), one, longer))
    ratio = op.Where(op.Equal(shorter, math.inf), one, ratio)
    angle = arctangent(op, ratio)
    angle = op.Where(op.Greater(height, width), op.Sub(math.pi / 2, angle), angle)
    angle = op.Where(sign_bit(op, x), op.Sub(math.pi, angle), angle)
    return op.Where(sign_bit(op, y), op.Neg(angle), angle)


@translation("aten::sinh")
def sinh(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Sinh", value)
    small = exp_minus_one(op, op.Clip(value, -1.0, 1.0))
    near = op.Mul(op.Mul(small, 0.5), op.Add(op.Reciprocal(op.Add(small, 1.0)), 1.0))
    up, down = _half_exponentials(op, value)
    return op.Where(op.Less(op.Abs(value), 1.0), near, op.Sub(up, down))


@translation("aten::cosh")
def cosh(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    return op.Add(*_half_exponentials(op, value)) if value.dtype is DataType.DOUBLE else elementary(op, "Cosh", value)


def _half_exponentials(op: Builder, x: Tensor) -> tuple[Tensor, Tensor]:
    """``exp(x) / 2`` and ``exp(-x) / 2``, which overflow only where the halves do."""
    root, inverse = op.Exp(op.Mul(x, 0.5)), op.Exp(op.Mul(x, -0.5))
    return op.Mul(op.Mul(root, 0.5), root), op.Mul(op.Mul(inverse, 0.5), inverse)


@translation("aten::tanh")
def tanh(op: Builder, self: Tensor) -> Tensor:
    return op.Tanh(as_float(op, self))


@translation("aten::asinh", "aten::arcsinh")
def asinh(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Asinh", value)
    size = op.Abs(value)
    large = op.Greater(size, 1e8)
    x = op.Min(size, 1e8)
    square = op.Mul(x, x)
    near = log_one_plus(op, op.Add(x, op.Div(square, op.Add(op.Sqrt(op.Add(square, 1.0)), 1.0))))
    far = op.Add(op.Log(size), math.log(2))
    return op.Mul(op.Sign(value), op.Where(large, far, near))


@translation("aten::acosh", "aten::arccosh")
def acosh(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Acosh", value)
    over = op.Sub(op.Min(value, 1e8), 1.0)
    near = log_one_plus(op, op.Add(over, op.Sqrt(op.Mul(over, op.Add(over, 2.0)))))
    far = op.Add(op.Log(value), math.log(2))
    return op.Where(op.Greater(value, 1e8), far, op.Where(op.Less(value, 1.0), math.nan, near))


@translation("aten::atanh", "aten::arctanh")
def atanh(op: Builder, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if value.dtype is not DataType.DOUBLE:
        return elementary(op, "Atanh", value)
    size = op.Abs(value)
    half = op.Mul(log_one_plus(op, op.Div(op.Mul(size, 2.0), op.Sub(1.0, size))), 0.5)
    return op.Mul(op.Sign(value), half)


@translation("aten::sigmoid", "aten::special_expit")
def sigmoid(op: Builder, self: Tensor) -> Tensor:
    x = as_float(op, self)
    if x.dtype is not DataType.DOUBLE:
        return op.Sigmoid(x)
    # onnxruntime 1.32 computes it by tanh, which leaves nothing of it below -37.
    return op.Reciprocal(op.Add(op.Exp(op.Neg(x)), 1.0))


@translation("aten::floor")
def floor(op: Builder, self: Tensor) -> Tensor:
    return op.Floor(self) if self.dtype.is_floating_point() else self


@translation("aten::ceil")
def ceil(op: Builder, self: Tensor) -> Tensor:
    return op.Ceil(self) if self.dtype.is_floating_point() else self


@translation("aten::trunc", "aten::fix")
def trunc(op: Builder, self: Tensor) -> Tensor:
    return truncated(op, self) if self.dtype.is_floating_point() else self


@translation("aten::round", "aten::round.decimals", "aten::special_round")
def round(op: Builder, self: Tensor, *, decimals: int = 0) -> Tensor:
    """Halves go to even."""
    if not self.dtype.is_floating_point():
        return self
    if decimals == 0:
        return elementary(op, "Round", self)
    scale = op.const(10.0 ** abs(decimals), self.dtype)
    if decimals > 0:
        return op.Div(elementary(op, "Round", op.Mul(self, scale)), scale)
    return op.Mul(elementary(op, "Round", op.Div(self, scale)), scale)


@translation("aten::frac")
def frac(op: Builder, self: Tensor) -> Tensor:
    return op.Mod(self, 1.0, fmod=1)


@translation("aten::deg2rad")
def deg2rad(op: Builder, self: Tensor) -> Tensor:
    return op.Mul(as_float(op, self), math.pi / 180)


@translation("aten::rad2deg")
def rad2deg(op: Builder, self: Tensor) -> Tensor:
    return op.Mul(as_float(op, self), 180 / math.pi)


@translation("aten::sinc", "aten::special_sinc")
def sinc(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        angle = op.Mul(x, math.pi)
        return op.Where(op.Equal(x, 0.0), 1.0, op.Div(op.Sin(angle), angle))

    return in_float32(formula, op, as_float(op, self))


@translation("aten::logaddexp")
def logaddexp(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return in_float32(_log_add, op, *operands(op, self, other, int_to_float=True))


@translation("aten::logaddexp2")
def logaddexp2(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return in_float32(
        lambda op, a, b: _log_add(op, a, b, math.log(2)), op, *operands(op, self, other, int_to_float=True)
    )


def _log_add(op: Builder, a: Tensor, b: Tensor, unit: float = 1.0) -> Tensor:
    """``log(exp(a) + exp(b))``, with logarithms counted in ``unit`` (log 2 for base 2)."""
    apart = op.Neg(op.Abs(op.Sub(a, b)))
    apart = op.Where(op.Equal(a, b), 0.0, apart)  # of equal infinities too
    if unit != 1.0:
        return op.Add(op.Max(a, b), op.Div(soft_plus(op, op.Mul(apart, unit)), unit))
    return op.Add(op.Max(a, b), soft_plus(op, apart))


def soft_plus(op: Builder, x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` with full relative accuracy on both sides."""
    if x.dtype is not DataType.DOUBLE:
        return elementary(op, "Softplus", x)
    return op.Add(op.Max(x, 0.0), log_one_plus(op, op.Exp(op.Neg(op.Abs(x)))))


@translation("aten::log_sigmoid")
def log_sigmoid(op: Builder, self: Tensor) -> Tensor:
    return op.Neg(soft_plus(op, op.Neg(self)))


@translation("aten::log_sigmoid_forward")
def log_sigmoid_forward(op: Builder, self: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sigmoid, and the exponential that the CPU's backward pass keeps."""
    return log_sigmoid(op, self), op.Exp(op.Neg(op.Abs(self)))


@translation("aten::xlogy.Tensor", "aten::xlogy.Scalar_Other", "aten::xlogy.Scalar_Self")
@translation("aten::special_xlogy", "aten::special_xlogy.other_scalar", "aten::special_xlogy.self_scalar")
def xlogy(op: Builder, self: Tensor | float, other: Tensor | float) -> Tensor:
    return _x_times_log(op, self, other, lambda op, y: op.Log(y))


@translation("aten::special_xlog1py", "aten::special_xlog1py.other_scalar", "aten::special_xlog1py.self_scalar")
def xlog1py(op: Builder, self: Tensor | float, other: Tensor | float) -> Tensor:
    return _x_times_log(op, self, other, log_one_plus)


def _x_times_log(
    op: Builder, self: Tensor | float, other: Tensor | float, logarithm: Callable[[Builder, Tensor], Tensor]
) -> Tensor:
    """0 where ``self`` is 0, NaN where ``other`` is."""

    def formula(op: Builder, x: Tensor, y: Tensor) -> Tensor:
        product = op.Mul(x, logarithm(op, y))
        return op.Where(op.IsNaN(y), y, op.Where(op.Equal(x, 0.0), 0.0, product))

    return in_float32(formula, op, *operands(op, self, other, int_to_float=True))


@translation("aten::logit", "aten::special_logit")
def logit(op: Builder, self: Tensor, eps: float | None = None) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        if eps is not None and eps >= 0:
            if eps > 0.5:
                raise Unsupported("logit with eps above 0.5")
            x = op.Clip(x, eps, 1 - eps)
        return op.Log(op.Div(x, op.Sub(1.0, x)))

    return in_float32(formula, op, as_float(op, self))


@translation("aten::special_entr")
def entr(op: Builder, self: Tensor) -> Tensor:
    """``-x * log(x)``, 0 at 0, minus infinity below."""

    def formula(op: Builder, x: Tensor) -> Tensor:
        inside = op.Neg(op.Mul(x, op.Log(x)))
        outside = op.Where(op.Less(x, 0.0), -math.inf, op.const(0.0, x.dtype))
        return op.Where(op.LessOrEqual(x, 0.0), outside, inside)

    return in_float32(formula, op, as_float(op, self))
