"""Orthogonal polynomials of a degree given as a tensor: three-term recurrences in one Loop, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, translation

from onnxport_builtin.aten.kernels import computed_in, operands

if TYPE_CHECKING:
    from onnxport import Builder

_DOUBLE, _LONG = DataType.DOUBLE, DataType.INT64
Operand = Tensor | float
Step = Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]


def _double(op: Builder, x: Tensor) -> Tensor:
    return op.Mul(x, 2.0)


def _chebyshev_step(op: Builder, x: Tensor, k: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """``p[k+1] = 2 x p[k] - p[k-1]``."""
    return op.Sub(op.Mul(_double(op, x), p), before)


def _hermite_step(op: Builder, x: Tensor, k: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """``H[k+1] = 2 x H[k] - 2 k H[k-1]``."""
    return op.Mul(op.Sub(op.Mul(x, p), op.Mul(k, before)), 2.0)


def _hermite_e_step(op: Builder, x: Tensor, k: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """``He[k+1] = x He[k] - k He[k-1]``."""
    return op.Sub(op.Mul(x, p), op.Mul(k, before))


def _laguerre_step(op: Builder, x: Tensor, k: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """``(k + 1) L[k+1] = (2 k + 1 - x) L[k] - k L[k-1]``."""
    factor = op.Sub(op.Add(_double(op, k), 1.0), x)
    return op.Div(op.Sub(op.Mul(factor, p), op.Mul(k, before)), op.Add(k, 1.0))


def _legendre_step(op: Builder, x: Tensor, k: Tensor, p: Tensor, before: Tensor) -> Tensor:
    """``(k + 1) P[k+1] = (2 k + 1) x P[k] - k P[k-1]``."""
    factor = op.Mul(op.Add(_double(op, k), 1.0), x)
    return op.Div(op.Sub(op.Mul(factor, p), op.Mul(k, before)), op.Add(k, 1.0))


def _polynomial(
    op: Builder, x: Operand, n: Operand, first: Callable[[Any, Tensor], Tensor], step: Step, shifted: bool = False
) -> Tensor:
    """The polynomial of degree n (rounded to zero; 0 below 0) at x.

    Args:
        first: the polynomial of degree 1.
        step: the next polynomial, of ``(op, x, k, p[k], p[k-1])``.
        shifted: in ``2 x - 1`` instead of x.
    """

    def formula(op: Builder, x: Tensor, n: Tensor) -> Tensor:
        shape = op.Shape(op.Add(x, n))
        x = op.Sub(_double(op, x), 1.0) if shifted else x
        degree = op.cast(n, _LONG)
        ones = op.Expand(op.const(1.0, _DOUBLE), shape)
        one = op.Expand(first(op, x), shape)

        def body(k: Tensor, go: Tensor, before: Tensor, p: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
            index = op.Add(k, 1)
            following = step(op, x, op.cast(index, _DOUBLE), p, before)
            return op.Identity(go), p, following, op.Where(op.Equal(degree, op.Add(index, 1)), following, chosen)

        chosen = op.Where(op.Equal(degree, 0), ones, op.Where(op.Equal(degree, 1), one, 0.0))
        highest = op.ReduceMax(op.Concat(op.Reshape(degree, [-1]), [1], axis=0), keepdims=0)
        graph = op.subgraph(body, [(_LONG, []), (DataType.BOOL, []), *[(_DOUBLE, None)] * 3], name="recurrence")
        trips = op.Sub(highest, 1)
        return op.Loop(trips, op.const(True), ones, one, chosen, body=graph, outputs=3)[2]

    return computed_in(_DOUBLE, formula, op, *operands(op, x, n, int_to_float=True))


def _names(name: str) -> tuple[str, str, str]:
    return f"aten::special_{name}", f"aten::special_{name}.x_scalar", f"aten::special_{name}.n_scalar"


@translation(*_names("chebyshev_polynomial_t"))
def chebyshev_t(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: x, _chebyshev_step)


@translation(*_names("chebyshev_polynomial_u"))
def chebyshev_u(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, _double, _chebyshev_step)


@translation(*_names("chebyshev_polynomial_v"))
def chebyshev_v(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: op.Sub(_double(op, x), 1.0), _chebyshev_step)


@translation(*_names("chebyshev_polynomial_w"))
def chebyshev_w(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: op.Add(_double(op, x), 1.0), _chebyshev_step)


@translation(*_names("shifted_chebyshev_polynomial_t"))
def shifted_chebyshev_t(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: x, _chebyshev_step, shifted=True)


@translation(*_names("shifted_chebyshev_polynomial_u"))
def shifted_chebyshev_u(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, _double, _chebyshev_step, shifted=True)


@translation(*_names("shifted_chebyshev_polynomial_v"))
def shifted_chebyshev_v(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: op.Sub(_double(op, x), 1.0), _chebyshev_step, shifted=True)


@translation(*_names("shifted_chebyshev_polynomial_w"))
def shifted_chebyshev_w(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: op.Add(_double(op, x), 1.0), _chebyshev_step, shifted=True)


@translation(*_names("hermite_polynomial_h"))
def hermite_h(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, _double, _hermite_step)


@translation(*_names("hermite_polynomial_he"))
def hermite_he(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: x, _hermite_e_step)


@translation(*_names("laguerre_polynomial_l"))
def laguerre_l(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: op.Sub(1.0, x), _laguerre_step)


@translation(*_names("legendre_polynomial_p"))
def legendre_p(op: Builder, x: Operand, n: Operand) -> Tensor:
    return _polynomial(op, x, n, lambda op, x: x, _legendre_step)
