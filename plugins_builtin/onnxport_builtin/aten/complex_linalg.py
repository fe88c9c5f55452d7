"""Linear algebra of complex matrices, by the real algorithms on matrices of twice the size.

The number ``a + bi`` stands as the block ``[[a, -b], [b, a]]`` in the place of the element, so that sums, products,
inverses, adjoints (as transposes), triangles with a real diagonal, and functions of matrices carry over. Of a pair of
columns the first one holds the real and imaginary parts of the complex column, in turns. Eigenvalues and singular
values come twice each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Size, Tensor, Unsupported

from onnxport_builtin.aten.complex_parts import Pair, complex_translation, pair
from onnxport_builtin.aten.linalg import cutoff, default_rtol, linalg_matrix_exp, linalg_polar, pseudo_inverse, solve
from onnxport_builtin.aten.linalg_decompositions import (
    any_zero,
    cholesky_factor,
    diagonal,
    empty,
    eye,
    first_failure,
    householder,
    last_axis,
    mirrored,
    orthogonal,
    singular,
    smaller,
    svd,
    symmetric_eigen,
    triangle,
    zero_info,
)

if TYPE_CHECKING:
    from onnxport import Builder

Dim = int | Size


_F = TypeVar("_F", bound="Callable[..., Any]")


def linear_algebra(*targets: str) -> Callable[[_F], _F]:
    """`complex_translation` for functions of matrices that have elements: results without any need no computation."""

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def translate(op: Builder, **arguments: Any) -> Any:
            results = op.results
            if all(any_zero(result.shape) or result.dtype is DataType.INT32 for result in results):
                return [_blank(op, index) for index in range(len(results))]
            return function(op, **arguments)

        complex_translation(*targets)(translate)
        return function

    return decorate


def _blank(op: Builder, index: int) -> Tensor:
    """Zeros of the shape and type of a result."""
    result = op.results[index]
    if not result.is_complex:
        return op.Expand(op.const(0, result.dtype), op.sizes(list(result.shape)))
    return op.as_complex(op.Expand(op.const(0, result.dtype), op.sizes([*result.shape, 2])), result.shape)


def _known(value: Tensor, shape: Sequence[Any]) -> Tensor:
    value.shape = ir.Shape(list(shape))
    return value


def _swap(op: Builder, x: Tensor) -> Tensor:
    shape = list(x.shape)
    rank = len(shape)
    order = [*range(rank - 2), rank - 1, rank - 2]
    return _known(op.Transpose(x, perm=order), [shape[a] for a in order])


def matrices(op: Builder, value: Tensor) -> Pair:
    """A complex or real tensor of matrices as float64 parts of known shape. Refuses matrices without elements."""
    if empty(value):
        raise Unsupported("complex matrices without elements")
    found = pair(op, value, DataType.DOUBLE)
    parts = [_known(part, value.shape) for part in (found.re, found.imag)]
    return Pair(op, *parts)


def transposed(value: Pair) -> Pair:
    return Pair(value.op, _swap(value.op, value.re), _swap(value.op, value.imag))


def adjoint(value: Pair) -> Pair:
    op, turned = value.op, transposed(value)
    return Pair(op, turned.re, _known(op.Neg(turned.imag), turned.re.shape))


def columns(value: Pair) -> Tensor:
    """The first column of each pair: [..., m, n] to [..., 2m, n]."""
    op = value.op
    *batch, m, n = list(value.re.shape)
    stacked = op.Concat(op.Unsqueeze(value.re, [-2]), op.Unsqueeze(value.imag, [-2]), axis=-2)
    return _known(op.Reshape(stacked, op.sizes([*batch, m * 2, n])), [*batch, m * 2, n])


def blocks(value: Pair) -> Tensor:
    """The real matrices of twice the size: [..., m, n] to [..., 2m, 2n]."""
    op = value.op
    *batch, m, n = list(value.re.shape)
    first = columns(value)
    second = columns(_times_i(value))
    stacked = op.Concat(op.Unsqueeze(first, [-1]), op.Unsqueeze(second, [-1]), axis=-1)
    return _known(op.Reshape(stacked, op.sizes([*batch, m * 2, n * 2])), [*batch, m * 2, n * 2])


def _times_i(value: Pair) -> Pair:
    op, shape = value.op, value.re.shape
    return Pair(op, _known(op.Neg(value.imag), shape), value.re)


def from_columns(op: Builder, value: Tensor, shape: Sequence[Dim]) -> Pair:
    """The complex matrices of `shape` whose `columns` are given."""
    *batch, m, n = shape
    split = op.Reshape(value, op.sizes([*batch, m, 2, n]))
    return Pair(op, *(_known(op.Gather(split, op.const(i), axis=-2), shape) for i in (0, 1)))


def even(op: Builder, value: Tensor, axis: int, count: Dim) -> Tensor:
    """Every other element along an axis, `count` in all."""
    return op.Slice(value, [0], op.sizes([count * 2]), [axis], [2])


def from_blocks(op: Builder, value: Tensor, shape: Sequence[Dim]) -> Pair:
    return from_columns(op, even(op, value, -1, shape[-1]), shape)


def complex_result(value: Pair, dtype: DataType) -> Tensor:
    value = value.cast(dtype)
    return value.op.complex(value.re, value.imag)


def hermitian(value: Pair, *, upper: bool = False) -> Pair:
    """The Hermitian matrices of which one half, and the real parts of the diagonal, are read."""
    op = value.op
    half = triangle(op, value.imag, upper=upper, diagonal=1 if upper else -1)
    half.shape = value.re.shape
    shape = value.re.shape
    return Pair(op, _known(mirrored(op, value.re, upper=upper), shape), _known(op.Sub(half, _swap(op, half)), shape))


def solution(op: Builder, a: Pair, b: Pair, batch: Sequence[Dim], *, left: bool) -> tuple[Pair, Tensor]:
    """X of ``a @ X = b`` (or ``X @ a = b``), and the pivots of the real system."""
    if not left:
        found, pivots = solution(op, transposed(a), transposed(b), batch, left=True)
        return transposed(found), pivots
    found, pivots = solve(op, blocks(a), columns(b), batch, left=True)
    return from_columns(op, found, [*batch, *list(b.re.shape)[-2:]]), pivots


@linear_algebra("aten::_linalg_solve_ex")
def linalg_solve_ex(op: Builder, A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    if any(user.args[1] in (1, 2) for user in op.node.users if len(user.args) > 1):
        raise Unsupported("the factors of a complex system")
    vector = len(B.shape) == 1 or (len(A.shape) - 1 == len(B.shape) and list(A.shape)[:-1] == list(B.shape))
    a, b = matrices(op, A), matrices(op, B)
    if vector:
        b = Pair(op, *(_known(op.Unsqueeze(part, [-1]), [*B.shape, 1]) for part in (b.re, b.imag)))
    batch = list(op.results[0].shape)[: -1 if vector else -2]
    found, _ = solution(op, a, b, batch, left=left or vector)
    if vector:
        found = Pair(op, *(op.Squeeze(part, [-1]) for part in (found.re, found.imag)))
    return complex_result(found, A.dtype), None, None, zero_info(op, 3)


@linear_algebra("aten::linalg_inv_ex")
def linalg_inv_ex(op: Builder, A: Tensor, *, check_errors: bool = False) -> Any:
    n = A.shape[-1]
    a = matrices(op, A)
    unit = _known(op.Expand(eye(op, n), op.sizes(list(A.shape))), A.shape)
    identity = Pair(op, unit, _known(op.Mul(unit, 0.0), A.shape))
    found, pivots = solution(op, a, identity, list(A.shape)[:-2], left=True)
    return complex_result(found, A.dtype), first_failure(op, op.Equal(pivots, 0.0))


def _triangular(op: Builder, A: Tensor, *, upper: bool, unit: bool) -> Pair:
    a = matrices(op, A)
    keep = (1 if upper else -1) if unit else 0
    re, im = (triangle(op, part, upper=upper, diagonal=keep) for part in (a.re, a.imag))
    if unit:
        re = op.Add(re, eye(op, A.shape[-1]))
    return Pair(op, _known(re, A.shape), _known(im, A.shape))


@linear_algebra("aten::linalg_solve_triangular")
def solve_triangular(
    op: Builder, self: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    a = _triangular(op, self, upper=upper, unit=unitriangular)
    batch = list(op.result.shape)[:-2]
    return complex_result(solution(op, a, matrices(op, B), batch, left=left)[0], self.dtype)


@linear_algebra("aten::triangular_solve")
def triangular_solve(
    op: Builder, self: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    a = _triangular(op, A, upper=upper, unit=unitriangular)
    if transpose:
        a = transposed(a)
    batch = list(op.results[0].shape)[:-2]
    found = complex_result(solution(op, a, matrices(op, self), batch, left=True)[0], A.dtype)
    if list(A.shape) != list(op.results[1].shape):
        raise Unsupported("triangular_solve of a broadcast complex matrix")
    return found, A


def _gram(a: Pair, *, upper: bool) -> Pair:
    """``L L^H`` of a lower factor, ``U^H U`` of an upper one."""
    op = a.op
    first, second = (adjoint(a), a) if upper else (a, adjoint(a))
    shape = a.re.shape
    re = op.Sub(op.MatMul(first.re, second.re), op.MatMul(first.imag, second.imag))
    im = op.Add(op.MatMul(first.re, second.imag), op.MatMul(first.imag, second.re))
    return Pair(op, _known(re, shape), _known(im, shape))


@linear_algebra("aten::cholesky_solve")
def cholesky_solve(op: Builder, self: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    a = _gram(_triangular(op, input2, upper=upper, unit=False), upper=upper)
    batch = list(op.result.shape)[:-2]
    return complex_result(solution(op, a, matrices(op, self), batch, left=True)[0], self.dtype)


@linear_algebra("aten::cholesky_inverse")
def cholesky_inverse(op: Builder, self: Tensor, upper: bool = False) -> Tensor:
    a = _gram(_triangular(op, self, upper=upper, unit=False), upper=upper)
    unit = _known(op.Expand(eye(op, self.shape[-1]), op.sizes(list(self.shape))), self.shape)
    identity = Pair(op, unit, _known(op.Mul(unit, 0.0), self.shape))
    return complex_result(solution(op, a, identity, list(self.shape)[:-2], left=True)[0], self.dtype)


@linear_algebra("aten::linalg_cholesky_ex")
def cholesky_ex(op: Builder, self: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    a = matrices(op, self)
    lower = cholesky_factor(op, blocks(hermitian(a, upper=upper)))
    n = self.shape[-1]
    info = first_failure(op, op.Not(op.Greater(even(op, diagonal(op, lower), -1, n), 0.0)))
    found = from_blocks(op, lower, self.shape)
    return complex_result(adjoint(found) if upper else found, self.dtype), info


@linear_algebra("aten::linalg_qr")
def linalg_qr(op: Builder, A: Tensor, mode: str = "reduced") -> Any:
    """The diagonal of R is real, with LAPACK's signs."""
    if mode not in ("reduced", "complete"):
        raise Unsupported("the R of complex matrices alone")
    a = blocks(matrices(op, A))
    compact, taus = householder(op, a)
    *batch, m, n = list(A.shape)
    count = op.results[0].shape[-1]
    q = orthogonal(op, compact, last_axis(op, taus, len(A.shape)), smaller(op, m * 2, n * 2), count * 2)
    if mode == "complete" and m != n:
        raise Unsupported("a complete basis of complex columns")
    upper = op.Slice(triangle(op, compact, upper=True), [0], op.sizes([count * 2]), [-2], [2])
    rows = op.Reshape(upper, op.sizes([*batch, count, n, 2]))
    r = Pair(op, op.Gather(rows, op.const(0), axis=-1), op.Neg(op.Gather(rows, op.const(1), axis=-1)))
    return complex_result(from_blocks(op, q, [*batch, m, count]), A.dtype), complex_result(r, A.dtype)


@linear_algebra("aten::_linalg_eigh")
def linalg_eigh(op: Builder, A: Tensor, UPLO: str = "L", compute_v: bool = True) -> Any:
    """Eigenvalues, and of each pair of equal ones the first eigenvector."""
    values, vectors = symmetric_eigen(op, blocks(hermitian(matrices(op, A), upper=UPLO.upper() == "U")))
    found = op.cast(even(op, values, -1, A.shape[-1]), A.dtype)
    if not compute_v:
        return found, _blank(op, 1)
    return found, complex_result(from_blocks(op, vectors, A.shape), A.dtype)


def completed(value: Pair) -> Pair:
    """Orthonormal columns [..., m, k] and m - k more.

    These are eigenvectors of ``P D P`` for the projection P on the rest of the space and a diagonal matrix D, which
    tells its directions apart: of a plain projection, the first columns of equal pairs need not be orthogonal.
    """
    op = value.op
    *batch, m, k = list(value.re.shape)
    x = blocks(value)
    rest = op.Sub(eye(op, m * 2), op.MatMul(x, _swap(op, x)))
    weights = op.const(np.repeat(np.arange(1.0, m + 1.0), 2))
    product = op.MatMul(op.Mul(rest, weights), rest)
    _, vectors = symmetric_eigen(op, _known(product, [*batch, m * 2, m * 2]))
    more = from_columns(op, op.Slice(vectors, [k * 2], [m * 2], [-1], [2]), [*batch, m, m - k])
    parts = [op.Concat(a, b, axis=-1) for a, b in ((value.re, more.re), (value.imag, more.imag))]
    return Pair(op, *(_known(part, [*batch, m, m]) for part in parts))


@linear_algebra("aten::_linalg_svd")
def linalg_svd(
    op: Builder, A: Tensor, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None
) -> Any:
    *batch, m, n = list(A.shape)
    if not (isinstance(m, int) and isinstance(n, int)):
        raise Unsupported("singular values of complex matrices of symbolic size")
    a = blocks(matrices(op, A))
    k = min(m, n)
    if not compute_uv:
        values = singular(op, _swap(op, a) if n > m else a)[1]
        return _blank(op, 0), op.cast(even(op, values, -1, k), A.dtype), _blank(op, 2)
    u, values, vh = svd(op, a, 2 * k, full=False)
    left = from_blocks(op, u, [*batch, m, k])
    right = from_blocks(op, _swap(op, _known(vh, [*batch, 2 * k, 2 * n])), [*batch, n, k])
    if full_matrices and m > k:
        left = completed(left)
    if full_matrices and n > k:
        right = completed(right)
    found = op.cast(even(op, values, -1, k), A.dtype)
    return complex_result(left, A.dtype), found, complex_result(adjoint(right), A.dtype)


@linear_algebra("aten::linalg_pinv.atol_rtol_tensor")
def linalg_pinv(
    op: Builder, self: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    *batch, m, n = list(self.shape)
    a = matrices(op, self)
    if hermitian:
        a = _hermitian(a)
    default = default_rtol(op, self) if rtol is None else 0.0
    found = pseudo_inverse(op, blocks(a), lambda values: cutoff(op, values, atol, rtol, default))
    return complex_result(from_blocks(op, found, [*batch, n, m]), self.dtype)


_hermitian = hermitian


@linear_algebra("aten::linalg_matrix_exp")
def matrix_exp(op: Builder, self: Tensor) -> Tensor:
    return complex_result(from_blocks(op, linalg_matrix_exp(op, blocks(matrices(op, self))), self.shape), self.dtype)


@linear_algebra("aten::linalg_matrix_sqrth")
def matrix_sqrth(op: Builder, self: Tensor) -> Tensor:
    a = blocks(_hermitian(matrices(op, self)))
    values, vectors = symmetric_eigen(op, a)
    vectors = _known(vectors, a.shape)
    found = op.MatMul(op.Mul(vectors, op.Unsqueeze(op.Sqrt(values), [-2])), _swap(op, vectors))
    return complex_result(from_blocks(op, found, self.shape), self.dtype)


@linear_algebra("aten::linalg_polar")
def polar(op: Builder, A: Tensor) -> Any:
    *batch, _m, n = list(A.shape)
    unitary, positive = linalg_polar(op, blocks(matrices(op, A)))
    return (
        complex_result(from_blocks(op, unitary, A.shape), A.dtype),
        complex_result(from_blocks(op, positive, [*batch, n, n]), A.dtype),
    )
