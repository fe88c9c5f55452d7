"""What follows from eigenvalues and singular values: pseudo-inverses, polar factors, functions of matrices.

The loops are those of :mod:`onnxport_builtin.aten.linalg_decompositions`: batched, of any static or symbolic size,
in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, translation

from onnxport_builtin.aten.complex_parts import Pair, matrix_product
from onnxport_builtin.aten.linalg_decompositions import is_wider, singular, svd, symmetric_eigen
from onnxport_builtin.aten.linalg_parts import (
    WIDE,
    across,
    adjoint_of,
    blank,
    empty,
    loop,
    mirrored,
    narrowed,
    shaped,
    taxicab,
    unit_of,
    wide_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def cutoff(op: Any, values: Tensor, atol: Any, rtol: Any, default: Any) -> Tensor:
    """``max(atol, rtol * largest)`` over singular values (..., k), as (..., 1)."""
    largest = op.ReduceMax(values, [-1], keepdims=1)

    def level(x: Any) -> Tensor:
        tensor = op.cast(x, values.dtype)
        return op.Unsqueeze(tensor, [-1]) if isinstance(x, Tensor) and len(x.shape) else tensor

    if rtol is None:
        relative = op.cast(default, values.dtype)
        if atol is not None:
            relative = op.Where(op.Greater(level(atol), 0.0), op.const(0.0, values.dtype), relative)
    else:
        relative = level(rtol)
    limit = op.Mul(relative, largest)
    return limit if atol is None else op.Max(limit, level(atol))


_EPSILON = {DataType.FLOAT: 2.0**-23, DataType.DOUBLE: 2.0**-52}


def default_rtol(op: Any, x: Tensor) -> float | Tensor:
    """The larger side times the precision of the element type."""
    m, n, precision = x.shape[-2], x.shape[-1], _EPSILON[x.dtype]
    if isinstance(m, int) and isinstance(n, int):
        return max(m, n) * precision
    side = op.cast(m, WIDE) if m == n else op.Max(op.cast(m, WIDE), op.cast(n, WIDE))
    return op.Mul(side, precision)


def pseudo_inverse(op: Any, a: Pair, limit: Callable[[Tensor], Tensor]) -> Pair:
    """pinv of float64 matrices; singular values up to ``limit(values)`` don't count.

    With ``a @ V = U S`` it is ``V S**-2 (a @ V)^H``.
    """
    *batch, m, n = list(a.re.shape)
    if is_wider(m, n):
        return adjoint_of(pseudo_inverse(op, adjoint_of(a), limit))
    rotated, values, vectors = singular(op, a)
    counted = op.Greater(values, limit(values))
    inverse = op.Where(counted, op.Div(op.const(1.0, WIDE), op.Where(counted, op.Mul(values, values), 1.0)), 0.0)
    product = matrix_product(vectors * across(op, inverse), adjoint_of(rotated))
    return product.each(lambda x: shaped(x, [*batch, n, m]))


@translation("aten::linalg_pinv.atol_rtol_tensor", complex=True)
def linalg_pinv(
    op: Any, self: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    """By the singular values, which for a hermitian matrix are the sizes of its eigenvalues."""
    if empty(self):
        return blank(op, 0)
    a = wide_pair(op, self)
    if hermitian:  # only the lower half counts
        a = mirrored(op, a)
    default = default_rtol(op, self) if rtol is None else 0.0
    return narrowed(pseudo_inverse(op, a, lambda values: cutoff(op, values, atol, rtol, default)), self.dtype)


@translation("aten::linalg_matrix_sqrth", complex=True)
def linalg_matrix_sqrth(op: Any, self: Tensor) -> Tensor:
    """The square root of a Hermitian positive definite matrix, of which the lower half is read, by its eigenvalues."""
    if empty(self):
        return self
    values, vectors = symmetric_eigen(op, mirrored(op, wide_pair(op, self)))
    scaled = vectors * across(op, op.Sqrt(values))
    return narrowed(matrix_product(scaled, adjoint_of(vectors)), self.dtype)


@translation("aten::linalg_polar", complex=True)
def linalg_polar(op: Any, A: Tensor) -> Any:
    """``A = U S Vh`` gives the unitary factor ``U Vh`` and the Hermitian one ``V S Vh``."""
    if empty(A):
        return blank(op, 0), blank(op, 1)
    u, values, vh = svd(op, wide_pair(op, A), A.shape[-1], full=False)
    second = matrix_product(adjoint_of(vh) * across(op, values), vh)
    return narrowed(matrix_product(u, vh), A.dtype), narrowed(second, A.dtype)


@translation("aten::linalg_matrix_exp", complex=True)
def linalg_matrix_exp(op: Any, self: Tensor) -> Tensor:
    """Scaling and squaring around a Taylor polynomial of degree 18 (truncation below 1e-22 for norms up to 1/2)."""
    if empty(self):
        return self
    a = wide_pair(op, self)
    norm = op.ReduceMax(op.ReduceSum(taxicab(a), [-1], keepdims=0), keepdims=0)
    # The number of halvings that brings every matrix of the batch to a norm of at most 1/2.
    halvings = op.Max(op.Ceil(op.Div(op.Log(op.Max(norm, 1e-300)), 0.6931471805599453)), -1.0)
    halvings = op.Min(op.Add(halvings, 1.0), 1000.0)
    scaled = a / op.Pow(op.const(2.0, WIDE), halvings)
    identity = unit_of(op, a)

    def horner(turn: Tensor, *total: Tensor) -> list[Tensor]:
        degree = op.cast(op.Sub(op.const(18, DataType.INT64), turn), WIDE)
        product = matrix_product(scaled, Pair(op, *total)) / degree
        return Pair(op, op.Add(identity.re, product.re), product.im).parts

    def square(_turn: Tensor, *total: Tensor) -> list[Tensor]:
        return matrix_product(Pair(op, *total), Pair(op, *total)).parts

    polynomial = [shaped(x, self.shape) for x in loop(op, 18, identity.parts, horner)]
    squared = loop(op, op.cast(halvings, DataType.INT64), polynomial, square)
    return narrowed(Pair(op, *(shaped(x, self.shape) for x in squared)), self.dtype)


@translation("aten::linalg_cross")
def linalg_cross(op: Any, self: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    dtype = op.result.dtype
    a, b = op.cast(self, dtype), op.cast(other, dtype)
    axis = dim % len(op.result.shape) - len(op.result.shape)
    ahead, behind = op.const([1, 2, 0], DataType.INT64), op.const([2, 0, 1], DataType.INT64)

    def product(first: Tensor, second: Tensor) -> Tensor:
        return op.Mul(op.Gather(a, first, axis=axis), op.Gather(b, second, axis=axis))

    return op.Sub(product(ahead, behind), product(behind, ahead))
