"""Bessel and Airy functions, computed in float64 from tables of their smooth parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnxport import DataType, Tensor, translation

from onnxport_builtin.aten.kernels import as_float, in_float64
from onnxport_builtin.aten.tables import piecewise

if TYPE_CHECKING:
    from onnxport import Builder

_DOUBLE = DataType.DOUBLE
_LARGE = 8.0  # where the tables of J and Y change to amplitude and phase


# Modified Bessel functions -------------------------------------------------------------------------------------------


def _scaled_i(op: Builder, size: Tensor, order: int) -> Tensor:
    """``exp(-x) I(x)`` for x >= 0."""
    part = piecewise(op, op.Div(8.0, op.Add(size, 8.0)), "i0e" if order == 0 else "i1e_over_x")
    root = op.Sqrt(op.Add(size, 1.0))
    if order == 0:
        return op.Div(part, root)
    return op.Mul(op.Div(part, root), op.Div(size, op.Add(size, 1.0)))


def _signed(op: Builder, x: Tensor, value: Tensor) -> Tensor:
    return op.Where(op.Less(x, 0.0), op.Neg(value), value)


def _i0e(op: Builder, x: Tensor) -> Tensor:
    return _scaled_i(op, op.Abs(x), 0)


def _i1e(op: Builder, x: Tensor) -> Tensor:
    size = op.Min(op.Abs(x), 1e300)  # inf / inf
    return _signed(op, x, _scaled_i(op, size, 1))


def _i0(op: Builder, x: Tensor) -> Tensor:
    size = op.Abs(x)
    return _grown(op, size, _scaled_i(op, size, 0))


def _i1(op: Builder, x: Tensor) -> Tensor:
    size = op.Abs(x)
    return _signed(op, x, _grown(op, size, _scaled_i(op, size, 1)))


def _grown(op: Builder, size: Tensor, scaled: Tensor) -> Tensor:
    """``exp(size) * scaled``, without overflow before its time; NaN at infinity, as torch has it."""
    root = op.Exp(op.Mul(size, 0.5))
    return op.Mul(op.Mul(root, scaled), root)


@translation("aten::special_i0e")
def i0e(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_i0e, op, as_float(op, self))


@translation("aten::special_i1e")
def i1e(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_i1e, op, as_float(op, self))


@translation("aten::i0", "aten::special_i0", "aten::special_modified_bessel_i0")
def i0(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_i0, op, as_float(op, self))


@translation("aten::special_i1", "aten::special_modified_bessel_i1")
def i1(op: Builder, self: Tensor) -> Tensor:
    return in_float64(_i1, op, as_float(op, self))


def _k(op: Builder, x: Tensor, order: int, scaled: bool) -> Tensor:
    """K, times ``exp(x)`` if scaled; infinite at 0, NaN below."""
    near = op.Min(x, 2.0)
    logarithm = op.Log(op.Mul(near, 0.5))
    growing = (_i0 if order == 0 else _i1)(op, near)
    if order == 0:
        small = op.Sub(piecewise(op, near, "k0"), op.Mul(logarithm, growing))
    else:
        small = op.Add(op.Mul(piecewise(op, near, "k1_over_x"), near), op.Mul(logarithm, growing))
        small = op.Add(small, op.Reciprocal(near))
    far = op.Max(x, 2.0)
    large = op.Div(piecewise(op, op.Div(2.0, far), f"k{order}e"), op.Sqrt(far))
    if scaled:
        small = op.Mul(small, op.Exp(near))
    else:
        large = op.Mul(large, op.Exp(op.Neg(far)))
    value = op.Where(op.LessOrEqual(x, 2.0), small, large)
    return _from_zero(op, x, value, math.inf)


def _from_zero(op: Builder, x: Tensor, value: Tensor, pole: float) -> Tensor:
    """A function of positive numbers with a pole at 0, and NaN below."""
    return op.Where(op.Greater(x, 0.0), value, op.Where(op.Equal(x, 0.0), op.const(pole, _DOUBLE), math.nan))


@translation("aten::special_modified_bessel_k0")
def modified_bessel_k0(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _k(op, x, 0, False), op, as_float(op, self))


@translation("aten::special_modified_bessel_k1")
def modified_bessel_k1(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _k(op, x, 1, False), op, as_float(op, self))


@translation("aten::special_scaled_modified_bessel_k0")
def scaled_modified_bessel_k0(op: Builder, x: Tensor) -> Tensor:
    return in_float64(lambda op, x: _k(op, x, 0, True), op, as_float(op, x))


@translation("aten::special_scaled_modified_bessel_k1")
def scaled_modified_bessel_k1(op: Builder, x: Tensor) -> Tensor:
    return in_float64(lambda op, x: _k(op, x, 1, True), op, as_float(op, x))


# Bessel functions ----------------------------------------------------------------------------------------------------


def _wave(op: Builder, size: Tensor, order: int, second: bool) -> Tensor:
    """J, or Y if ``second``, for x >= 8: ``sqrt(2 / (pi x)) (P cos t - Q sin t)``, ``t = x - (2 order + 1) pi / 4``."""
    x = op.Max(size, _LARGE)
    u = op.Div(_LARGE, x)
    p, q = piecewise(op, u, f"j{order}_p"), piecewise(op, u, f"j{order}_q")
    angle = op.Sub(x, (2 * order + 1) * math.pi / 4)
    cosine, sine = op.Cos(angle), op.Sin(angle)
    if second:
        wave = op.Add(op.Mul(p, sine), op.Mul(q, cosine))
    else:
        wave = op.Sub(op.Mul(p, cosine), op.Mul(q, sine))
    return op.Mul(wave, op.Sqrt(op.Div(2 / math.pi, x)))


def _j_near(op: Builder, near: Tensor, order: int) -> Tensor:
    return piecewise(op, near, "j0") if order == 0 else op.Mul(near, piecewise(op, near, "j1_over_x"))


def _j(op: Builder, x: Tensor, order: int) -> Tensor:
    size = op.Abs(x)
    value = op.Where(op.Less(size, _LARGE), _j_near(op, op.Min(size, _LARGE), order), _wave(op, size, order, False))
    return _signed(op, x, value) if order else value


def _y(op: Builder, x: Tensor, order: int) -> Tensor:
    near = op.Min(x, _LARGE)
    oscillating = op.Mul(op.Mul(op.Log(near), _j_near(op, near, order)), 2 / math.pi)
    if order == 0:
        small = op.Add(piecewise(op, near, "y0"), oscillating)
    else:
        regular = op.Mul(near, piecewise(op, near, "y1_over_x"))
        small = op.Add(regular, op.Sub(oscillating, op.Div(2 / math.pi, near)))
    value = op.Where(op.Less(x, _LARGE), small, _wave(op, x, order, True))
    return _from_zero(op, x, value, -math.inf)


@translation("aten::special_bessel_j0")
def bessel_j0(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _j(op, x, 0), op, as_float(op, self))


@translation("aten::special_bessel_j1")
def bessel_j1(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _j(op, x, 1), op, as_float(op, self))


@translation("aten::special_bessel_y0")
def bessel_y0(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _y(op, x, 0), op, as_float(op, self))


@translation("aten::special_bessel_y1")
def bessel_y1(op: Builder, self: Tensor) -> Tensor:
    return in_float64(lambda op, x: _y(op, x, 1), op, as_float(op, self))


@translation("aten::special_spherical_bessel_j0")
def spherical_bessel_j0(op: Builder, x: Tensor) -> Tensor:
    """``sin(x) / x``; 1 at 0, and 0 at infinity."""

    def formula(op: Builder, x: Tensor) -> Tensor:
        finite = op.Where(op.IsInf(x), 1.0, x)
        value = op.Where(op.Equal(x, 0.0), 1.0, op.Div(op.Sin(finite), finite))
        return op.Where(op.IsInf(x), 0.0, value)

    return in_float64(formula, op, as_float(op, x))


# The Airy function ---------------------------------------------------------------------------------------------------


@translation("aten::special_airy_ai")
def airy_ai(op: Builder, x: Tensor) -> Tensor:
    return in_float64(_airy, op, as_float(op, x))


def _airy(op: Builder, x: Tensor) -> Tensor:
    """A table from -8 to 2; decaying as ``exp(-2/3 x**1.5)`` above, amplitude and phase below."""
    middle = piecewise(op, x, "airy")

    far = op.Clip(x, 2.0, 1e10)
    power = op.Mul(far, op.Sqrt(far))
    part = piecewise(op, op.Div(math.sqrt(8), power), "airy_decaying")
    decaying = op.Div(op.Mul(part, op.Exp(op.Mul(power, -2 / 3))), op.Sqrt(op.Sqrt(far)))

    size = op.Max(op.Neg(x), _LARGE)
    power = op.Mul(size, op.Sqrt(size))
    w = op.Div(_LARGE * math.sqrt(_LARGE), power)
    angle = op.Sub(op.Mul(power, 2 / 3), math.pi / 4)
    wave = op.Add(op.Mul(op.Cos(angle), piecewise(op, w, "airy_p")), op.Mul(op.Sin(angle), piecewise(op, w, "airy_q")))
    wave = op.Div(wave, op.Mul(op.Sqrt(op.Sqrt(size)), math.sqrt(math.pi)))
    decaying = op.Where(op.Equal(x, math.inf), math.nan, decaying)  # torch's choice; the limit is 0
    return op.Where(op.Greater(x, 2.0), decaying, op.Where(op.Less(x, -_LARGE), wave, middle))
