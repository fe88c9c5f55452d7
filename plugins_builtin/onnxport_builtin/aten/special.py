"""Error, gamma and zeta functions, computed in float64: float32 results are good to the last place or two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, translation

from onnxport_builtin.aten.kernels import as_float, computed_in, in_float64, operands
from onnxport_builtin.aten.tables import piecewise, series
from onnxport_builtin.aten.transcendental import log_one_plus

if TYPE_CHECKING:
    from onnxport import Builder

_DOUBLE = DataType.DOUBLE

#: B(2k) / (2k (2k - 1)), Stirling's series of log gamma.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400, 43867 / 244188)
#: Bernoulli's numbers B(2), B(4), ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330)
_SHIFT = 10  # how far arguments are moved up to where the asymptotic series are exact


# The error function --------------------------------------------------------------------------------------------------


def error_function(op: Builder, x: Tensor) -> Tensor:
    """``erf`` of any float type; onnxruntime has no kernel for float64."""
    if x.dtype is not _DOUBLE:
        return op.Erf(x)
    bounded = op.Clip(x, -6.0, 6.0)  # where it is 1 to the last place
    return op.Mul(bounded, piecewise(op, op.Abs(bounded), "erf_over_x"))


def _scaled_tail(op: Builder, x: Tensor) -> Tensor:
    """``exp(x**2) * erfc(x)`` for float64 x >= 0."""
    y = op.Div(4.0, op.Add(x, 4.0))
    return op.Mul(y, piecewise(op, y, "erfcx_over_y"))


def _complement(op: Builder, x: Tensor) -> Tensor:
    """``erfc`` of float64."""
    tail = op.Mul(op.Exp(op.Neg(op.Mul(x, x))), _scaled_tail(op, op.Abs(x)))
    return op.Where(op.Less(x, 0.0), op.Sub(2.0, tail), tail)


@translation("aten::erf", "aten::special_erf")
def erf(op: Builder, self: Tensor) -> Tensor:
    return error_function(op, as_float(op, self))


@translation("aten::erfc", "aten::special_erfc")
def erfc(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_complement, op, as_float(op, self))


@translation("aten::special_erfcx")
def erfcx(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        tail = _scaled_tail(op, op.Abs(x))
        return op.Where(op.Less(x, 0.0), op.Sub(op.Mul(op.Exp(op.Mul(x, x)), 2.0), tail), tail)

    return in_float64(formula, op, as_float(op, self))


def _inverse_over_x(op: Builder, w: Tensor) -> Tensor:
    """``erfinv(x) / x`` in terms of ``w = -log(1 - x**2)``."""
    return piecewise(op, op.Sub(op.Sqrt(op.Add(w, 4.0)), 2.0), "erfinv_over_x")


@translation("aten::erfinv", "aten::special_erfinv")
def erfinv(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        w = op.Neg(op.Log(op.Mul(op.Sub(1.0, x), op.Add(x, 1.0))))
        value = op.Mul(x, _inverse_over_x(op, w))
        return op.Where(op.Equal(op.Abs(x), 1.0), op.Mul(x, math.inf), value)

    return in_float64(formula, op, as_float(op, self))


@translation("aten::special_ndtri")
def ndtri(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, p: Tensor) -> Tensor:
        q = op.Sub(1.0, p)
        # 1 - (2 p - 1)**2 is 4 p (1 - p): nothing is lost near 0.
        w = op.Neg(op.Add(op.Add(op.Log(p), op.Log(q)), math.log(4)))
        x = op.Sub(p, q)
        value = op.Mul(op.Mul(x, math.sqrt(2)), _inverse_over_x(op, w))
        return op.Where(op.Equal(op.Min(p, q), 0.0), op.Mul(x, math.inf), value)

    return in_float64(formula, op, as_float(op, self))


@translation("aten::special_ndtr")
def ndtr(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        return op.Mul(_complement(op, op.Mul(x, -math.sqrt(0.5))), 0.5)

    return in_float64(formula, op, as_float(op, self))


@translation("aten::special_log_ndtr")
def log_ndtr(op: Builder, self: Tensor) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        half_tail = op.Mul(_scaled_tail(op, op.Mul(op.Abs(x), math.sqrt(0.5))), 0.5)
        square = op.Mul(op.Mul(x, x), 0.5)
        below = op.Sub(op.Log(half_tail), square)
        above = log_one_plus(op, op.Neg(op.Mul(half_tail, op.Exp(op.Neg(square)))))
        return op.Where(op.Less(x, 0.0), below, above)

    return in_float64(formula, op, as_float(op, self))


# The gamma function --------------------------------------------------------------------------------------------------


def _shifted(op: Builder, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where x is small; x moved up by ``_SHIFT`` there; ``x, x + 1, ...`` on a new last axis (elsewhere 1, 2, ...)."""
    small = op.Less(x, float(_SHIFT))
    moved = op.Where(small, op.Add(x, float(_SHIFT)), x)
    steps = op.Add(op.Unsqueeze(op.Where(small, x, 1.0), [-1]), op.const(np.arange(float(_SHIFT))))
    return small, moved, steps


def log_gamma(op: Builder, x: Tensor) -> Tensor:
    """``log |gamma(x)|`` of float64: Stirling's series, reflected below 1/2."""
    reflected = op.Less(x, 0.5)
    small, z, steps = _shifted(op, op.Where(reflected, op.Sub(1.0, x), x))
    tail = series(op, op.Reciprocal(z), _STIRLING, first=1, step=2)
    value = op.Add(op.Sub(op.Mul(op.Sub(z, 0.5), op.Log(z)), z), op.Add(tail, math.log(2 * math.pi) / 2))
    value = op.Sub(value, op.Where(small, op.Log(op.ReduceProd(steps, [-1], keepdims=0)), 0.0))
    sine = op.Abs(op.Sin(op.Mul(op.Sub(x, op.Round(x)), math.pi)))
    value = op.Where(reflected, op.Sub(op.Log(op.Div(math.pi, sine)), value), value)
    return op.Where(op.IsInf(x), math.inf, value)


@translation("aten::lgamma", "aten::special_gammaln")
def lgamma(op: Builder, self: Tensor) -> Tensor:
    return in_float64(log_gamma, op, as_float(op, self))


@translation("aten::mvlgamma", "aten::special_multigammaln")
def mvlgamma(op: Builder, self: Tensor, p: int) -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:
        each = log_gamma(op, op.Sub(op.Unsqueeze(x, [-1]), op.const(np.arange(p) / 2)))
        return op.Add(op.ReduceSum(each, [-1], keepdims=0), p * (p - 1) / 4 * math.log(math.pi))

    return in_float64(formula, op, as_float(op, self))


@translation("aten::digamma", "aten::special_digamma", "aten::special_psi")
def digamma(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_digamma, op, as_float(op, self))


def _digamma(op: Builder, x: Tensor) -> Tensor:
    reflected = op.Less(x, 0.5)
    small, z, steps = _shifted(op, op.Where(reflected, op.Sub(1.0, x), x))
    inverse = op.Reciprocal(z)
    tail = series(op, inverse, [b / (2 * k + 2) for k, b in enumerate(_BERNOULLI)], first=2, step=2)
    tail = op.Add(op.Mul(inverse, 0.5), tail)
    value = op.Sub(op.Log(z), tail)
    value = op.Sub(value, op.Where(small, op.ReduceSum(op.Reciprocal(steps), [-1], keepdims=0), 0.0))
    angle = op.Mul(op.Sub(x, op.Round(x)), math.pi)
    value = op.Where(reflected, op.Sub(value, op.Div(math.pi, op.Div(op.Sin(angle), op.Cos(angle)))), value)
    pole = op.And(reflected, op.Equal(angle, 0.0))
    return op.Where(pole, op.Where(op.Equal(x, 0.0), op.Neg(op.Reciprocal(x)), math.nan), value)


@translation("aten::polygamma", "aten::special_polygamma")
def polygamma(op: Builder, n: int, self: Tensor) -> Tensor:
    value = as_float(op, self)
    if n == 0:
        return in_float64(_digamma, op, value)
    return in_float64(lambda op, x: _polygamma(op, n, x), op, value)


def _polygamma(op: Builder, n: int, x: Tensor) -> Tensor:
    """From Hurwitz's zeta function above 1/2; below, reflected with the n-th derivative of the cotangent."""
    sign = -1.0 if n % 2 == 0 else 1.0
    reflected = op.Less(x, 0.5)
    above = _hurwitz(op, op.const(float(n + 1), _DOUBLE), op.Where(reflected, op.Sub(1.0, x), x))
    above = op.Mul(op.Where(op.IsInf(x), 0.0, above), sign * math.factorial(n))
    derivative = np.polynomial.Polynomial([0.0, 1.0])  # of the cotangent, as a polynomial in it
    for _ in range(n):
        derivative = -np.polynomial.Polynomial([1.0, 0.0, 1.0]) * derivative.deriv()
    angle = op.Mul(op.Sub(x, op.Round(x)), math.pi)
    cotangent = op.Div(op.Cos(angle), op.Sin(angle))
    turned = op.Mul(series(op, cotangent, [float(c) for c in derivative.coef]), math.pi ** (n + 1))
    below = op.Sub(op.Mul(above, -sign), turned)
    below = op.Where(op.Equal(angle, 0.0), sign * math.inf, below)
    return op.Where(reflected, below, above)


# The zeta function ---------------------------------------------------------------------------------------------------


def _hurwitz(op: Builder, s: Tensor, q: Tensor) -> Tensor:
    """``sum((q + k) ** -s)`` for s > 1 and q > 0, float64, by Euler and Maclaurin."""
    exponent = op.Neg(s)
    terms = op.Pow(op.Add(op.Unsqueeze(q, [-1]), op.const(np.arange(float(_SHIFT)))), op.Unsqueeze(exponent, [-1]))
    w = op.Add(q, float(_SHIFT))
    last = op.Pow(w, exponent)
    tail = op.Add(op.Div(w, op.Sub(s, 1.0)), 0.5)
    # s (s + 1) ... (s + 2k) / w**(2k + 1); above s = 1000 `last` is 0 anyway.
    bounded = op.Min(s, 1000.0)
    factor = op.Div(bounded, w)
    for k, number in enumerate(_BERNOULLI):
        tail = op.Add(tail, op.Mul(factor, number / math.factorial(2 * k + 2)))
        if k + 1 < len(_BERNOULLI):
            rising = op.Mul(op.Add(bounded, float(2 * k + 1)), op.Add(bounded, float(2 * k + 2)))
            factor = op.Mul(factor, op.Div(rising, op.Mul(w, w)))
    return op.Add(op.ReduceSum(terms, [-1], keepdims=0), op.Mul(last, tail))


@translation("aten::special_zeta", "aten::special_zeta.other_scalar", "aten::special_zeta.self_scalar")
def zeta(op: Builder, self: Tensor | float, other: Tensor | float) -> Tensor:
    return in_float64(_zeta, op, *operands(op, self, other, int_to_float=True))


def _zeta(op: Builder, s: Tensor, q: Tensor) -> Tensor:
    """Below 0, for whole s: ``zeta(s, 1 - r) + (-1)**s (zeta(s, r) - zeta(s, 1 - q))`` with ``r = ceil(q) - q``.

    That is, the terms on the negative side, from the one nearest to 0, are mirrored. The three sums are made as one.
    """
    if op.rank(s) > op.rank(q):
        q = op.Expand(q, op.Shape(s))
    negative = op.Less(q, 0.0)
    r = op.Sub(op.Ceil(q), q)
    one = op.const(1.0, _DOUBLE)
    arguments = op.Concat(
        op.Unsqueeze(op.Where(negative, op.Sub(1.0, r), q), [0]),
        op.Unsqueeze(op.Where(negative, r, one), [0]),
        op.Unsqueeze(op.Where(negative, op.Sub(1.0, q), one), [0]),
        axis=0,
    )
    first, second, third = op.Split(_hurwitz(op, s, arguments), axis=0, num_outputs=3, outputs=3)
    parity = op.Sub(1.0, op.Mul(op.Mod(op.Abs(s), 2.0, fmod=1), 2.0))
    mirrored = op.Mul(op.Squeeze(op.Sub(second, third), [0]), parity)
    first = op.Squeeze(first, [0])
    value = op.Where(negative, op.Add(first, mirrored), first)
    whole_s = op.Equal(s, op.Floor(s))
    value = op.Where(op.And(negative, op.Not(whole_s)), math.nan, value)
    value = op.Where(op.And(op.LessOrEqual(q, 0.0), op.Equal(q, op.Floor(q))), math.inf, value)
    value = op.Where(op.Equal(s, 1.0), math.inf, value)
    return op.Where(op.Or(op.Less(s, 1.0), op.Or(op.IsNaN(s), op.IsNaN(q))), math.nan, value)


# The incomplete gamma functions --------------------------------------------------------------------------------------


def _incomplete(op: Builder, a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper regularized function of float64: a power series below ``x = a + 1``, a continued
    fraction (modified Lentz) above, both advanced in one Loop until they stand still.
    """
    shape = op.Shape(op.Add(a, x))
    a, x = op.Expand(a, shape), op.Expand(x, shape)
    sound = op.And(op.And(op.Greater(a, 0.0), op.Less(a, math.inf)), op.And(op.Greater(x, 0.0), op.Less(x, math.inf)))
    one = op.const(1.0, _DOUBLE)
    p, t = op.Where(sound, a, one), op.Where(sound, x, one)
    lower = op.Less(t, op.Add(p, 1.0))
    ones = op.Expand(one, shape)
    base = op.Where(lower, ones, op.Sub(op.Add(t, 1.0), p))
    inverse = op.Reciprocal(base)
    ratio_start = op.Expand(op.const(1e300, _DOUBLE), shape)

    def step(
        i: Tensor, _go: Tensor, term: Tensor, total: Tensor, c: Tensor, d: Tensor, h: Tensor
    ) -> tuple[Tensor, ...]:
        k = op.Add(op.cast(i, _DOUBLE), 1.0)
        term = op.Where(lower, op.Div(op.Mul(term, t), op.Add(p, k)), 0.0)
        total = op.Add(total, term)
        numerator = op.Where(lower, 0.0, op.Mul(k, op.Sub(p, k)))
        denominator = op.Add(base, op.Mul(k, 2.0))
        d = op.Reciprocal(op.Add(op.Mul(numerator, d), denominator))
        c = op.Add(denominator, op.Div(numerator, c))
        change = op.Where(lower, one, op.Mul(c, d))
        moving = op.Or(op.Greater(term, op.Mul(total, 1e-17)), op.Greater(op.Abs(op.Sub(change, 1.0)), 4e-16))
        go = op.ReduceMax(
            op.Concat(op.Reshape(op.cast(moving, DataType.INT32), [-1]), op.const([0], DataType.INT32), axis=0)
        )
        return op.cast(op.Reshape(go, []), DataType.BOOL), term, total, c, d, op.Mul(h, change)

    state = [(_DOUBLE, None)] * 5
    body = op.subgraph(step, [(DataType.INT64, []), (DataType.BOOL, []), *state], name="incomplete")
    start = (ones, ones, ratio_start, inverse, inverse)
    _, total, _, _, fraction = op.Loop(op.const(100_000), op.const(True), *start, body=body, outputs=5)
    front = op.Exp(op.Sub(op.Sub(op.Mul(p, op.Log(t)), t), log_gamma(op, p)))
    series_value = op.Div(op.Mul(front, total), p)
    fraction_value = op.Mul(front, fraction)
    below = op.Where(lower, series_value, op.Sub(1.0, fraction_value))
    above = op.Where(lower, op.Sub(1.0, series_value), fraction_value)

    # The edges: 0 and infinities are limits, where there is one; negative numbers are outside.
    at_zero, at_end = op.Equal(x, 0.0), op.Equal(x, math.inf)
    a_zero, a_end = op.Equal(a, 0.0), op.Equal(a, math.inf)
    full = op.Or(op.And(a_zero, op.Greater(x, 0.0)), op.And(at_end, op.Not(a_end)))
    empty = op.Or(op.And(at_zero, op.Not(a_zero)), op.And(a_end, op.Not(at_end)))
    edge_below = op.Where(full, 1.0, op.Where(empty, op.const(0.0, _DOUBLE), math.nan))
    edge_above = op.Where(full, 0.0, op.Where(empty, one, math.nan))
    outside = op.Or(op.Less(a, 0.0), op.Less(x, 0.0))
    edge_below = op.Where(outside, math.nan, edge_below)
    edge_above = op.Where(outside, math.nan, edge_above)
    return op.Where(sound, below, edge_below), op.Where(sound, above, edge_above)


@translation("aten::igamma", "aten::special_gammainc")
def igamma(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, x = operands(op, self, other)
    return computed_in(_DOUBLE, lambda op, a, x: _incomplete(op, a, x)[0], op, a, x)


@translation("aten::igammac", "aten::special_gammaincc")
def igammac(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, x = operands(op, self, other)
    return computed_in(_DOUBLE, lambda op, a, x: _incomplete(op, a, x)[1], op, a, x)
