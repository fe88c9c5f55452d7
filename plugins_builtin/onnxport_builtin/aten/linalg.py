"""Linear systems and what follows from them: solve, inverse, determinant, pseudo-inverse, matrix functions.

The loops are those of :mod:`onnxport_builtin.aten.linalg_decompositions`: batched, of any static or symbolic size,
in float64.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, Unsupported, translation

from onnxport_builtin.aten.linalg_decompositions import (
    WIDE,
    across,
    any_zero,
    blank,
    cast_keeping_shape,
    down,
    empty,
    eye,
    first_failure,
    flipped,
    is_wider,
    lapack_pivots,
    last_axis,
    loop,
    lu_factor,
    mirrored,
    numbers,
    order_of,
    parity,
    shaped,
    singular,
    svd,
    symmetric_eigen,
    unpack_factors,
    wide,
    zero_info,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def used(op: Any, index: int) -> bool:
    """Whether the node's result of this number is asked for."""
    users = op.node.users if op.node is not None else ()
    return any(user.target is not operator.getitem or user.args[1] == index for user in users)


def broadcast(op: Any, x: Tensor, batch: Sequence[Any]) -> Tensor:
    """Matrices expanded to batch dimensions."""
    have = list(x.shape)
    shape = [*batch, *have[-2:]]
    return x if have == shape else shaped(op.Expand(x, shape), shape, x)


def eliminate(op: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Jordan elimination with partial pivoting: X of ``a @ X = b`` and the pivots (..., n).

    Args:
        a: float64, (..., n, n).
        b: float64, (..., n, k), of the same batch.
    """
    *batch, n, k = list(b.shape)
    rows = numbers(op, n)
    start = shaped(op.Concat(a, b, axis=-1), [*batch, n, n + k], a)

    def step(turn: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
        column = op.Gather(work, turn, axis=-1)
        size = op.Where(op.GreaterOrEqual(rows, turn), op.Abs(column), -1.0)
        best = op.ArgMax(size, axis=-1, keepdims=1)
        swapped = op.Where(op.Equal(rows, turn), best, op.Where(op.Equal(rows, best), turn, rows))
        work = op.GatherElements(work, op.Expand(down(op, swapped), [*batch, n, n + k]), axis=-2)
        row = op.Gather(work, turn, axis=-2)
        pivot = op.Unsqueeze(op.Gather(row, turn, axis=-1), [-1])
        row = across(op, op.Div(row, pivot))
        own = op.Equal(rows, turn)
        factors = op.Where(own, 0.0, op.Gather(work, turn, axis=-1))
        rest = op.Sub(work, op.Mul(down(op, factors), row))
        return op.Where(down(op, own), row, rest), pivot

    work, pivots = loop(op, n, [start], step, stacked=1)
    solution = shaped(op.Slice(work, [n], [n + k], [-1]), [*batch, n, k], a)
    return solution, last_axis(op, pivots, len(start.shape))


def substitute(op: Any, a: Tensor, b: Tensor, *, upper: bool, unit: bool) -> Tensor:
    """X of ``a @ X = b`` for triangular ``a``: float64 (..., n, n) and (..., n, k), whose batches broadcast to b's."""
    n = a.shape[-1]
    rows = numbers(op, n)

    def step(turn: Tensor, work: Tensor) -> tuple[Tensor]:
        k = op.Sub(op.Sub(op.cast(n, DataType.INT64), 1), turn) if upper else turn
        column = op.Gather(a, k, axis=-1)
        row = across(op, op.Gather(work, k, axis=-2))
        if not unit:
            row = op.Div(row, op.Unsqueeze(op.Gather(column, k, axis=-1), [-1, -2]))
        ahead = op.Less(rows, k) if upper else op.Greater(rows, k)
        rest = op.Sub(work, op.Mul(down(op, op.Where(ahead, column, 0.0)), row))
        return (op.Where(down(op, op.Equal(rows, k)), row, rest),)

    return shaped(loop(op, n, [b], step)[0], b.shape, b)


def solve(op: Any, a: Tensor, b: Tensor, batch: Sequence[Any], *, left: bool) -> tuple[Tensor, Tensor]:
    if not left:
        solution, pivots = solve(op, flipped(op, a), flipped(op, b), batch, left=True)
        return flipped(op, solution), pivots
    return eliminate(op, broadcast(op, a, batch), broadcast(op, b, batch))


@translation("aten::_linalg_solve_ex")
def linalg_solve_ex(op: Any, A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    results = op.results
    if any_zero(results[0].shape):
        return [blank(op, 0), *(blank(op, i) if any_zero(results[i].shape) else None for i in (1, 2)), zero_info(op, 3)]
    vector = len(B.shape) == 1 or (len(A.shape) - 1 == len(B.shape) and list(A.shape)[:-1] == list(B.shape))
    a, b = wide(op, A), wide(op, B)
    if vector:
        b = shaped(down(op, b), [*list(B.shape), 1], b)
    batch = list(results[0].shape)[: -1 if vector else -2]
    solution, pivots = solve(op, a, b, batch, left=left or vector)
    solution = op.cast(op.Squeeze(solution, [-1]) if vector else solution, A.dtype)
    info = zero_info(op, 3)
    if used(op, 3) and len(results[3].shape) == len(batch):
        info = first_failure(op, op.Equal(pivots, 0.0))
    compact: Tensor | None = None
    swaps: Tensor | None = None
    if used(op, 1) or used(op, 2):
        compact, _, steps, _ = lu_factor(op, a if left else flipped(op, a))
        compact, swaps = op.cast(compact, A.dtype), lapack_pivots(op, steps, len(A.shape))
    return solution, compact, swaps, info


@translation("aten::linalg_inv_ex")
def linalg_inv_ex(op: Any, A: Tensor, *, check_errors: bool = False) -> Any:
    if empty(A):
        return A, zero_info(op, 1)
    identity = op.Expand(eye(op, A.shape[-1]), list(A.shape))
    inverse, pivots = eliminate(op, wide(op, A), shaped(identity, A.shape, A))
    return op.cast(inverse, A.dtype), first_failure(op, op.Equal(pivots, 0.0))


def determinant(op: Any, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sign of the row permutation, the diagonal of U, the compact factors and the swaps."""
    compact, _, swaps, pivots = lu_factor(op, wide(op, a))
    return parity(op, swaps, len(a.shape)), last_axis(op, pivots, len(a.shape)), compact, swaps


@translation("aten::linalg_det", "aten::det")
def det(op: Any, A: Tensor | None = None, self: Tensor | None = None) -> Tensor:
    x = self if A is None else A
    if x is None:
        raise Unsupported("no matrix")
    if x.dtype is DataType.FLOAT:  # onnxruntime 1.32 has no other kernel
        return op.Det(x)
    if empty(x):
        return op.Expand(op.const(1, x.dtype), list(op.result.shape))
    sign, factors, _, _ = determinant(op, x)
    return op.cast(op.Mul(sign, op.ReduceProd(factors, [-1], keepdims=0)), x.dtype)


@translation("aten::_linalg_det")
def linalg_det(op: Any, A: Tensor) -> Any:
    if empty(A):
        return op.Expand(op.const(1, A.dtype), list(op.results[0].shape)), blank(op, 1), blank(op, 2)
    sign, factors, compact, pivots = determinant(op, A)
    value = op.Mul(sign, op.ReduceProd(factors, [-1], keepdims=0))
    return op.cast(value, A.dtype), op.cast(compact, A.dtype), lapack_pivots(op, pivots, len(A.shape))


@translation("aten::_linalg_slogdet")
def linalg_slogdet(op: Any, A: Tensor) -> Any:
    if empty(A):
        ones = op.Expand(op.const(1, A.dtype), list(op.results[0].shape))
        return ones, op.Expand(op.const(0, A.dtype), list(op.results[1].shape)), blank(op, 2), blank(op, 3)
    parity_sign, factors, compact, pivots = determinant(op, A)
    sign = op.Mul(parity_sign, op.ReduceProd(op.Sign(factors), [-1], keepdims=0))
    size = op.ReduceSum(op.Log(op.Abs(factors)), [-1], keepdims=0)
    return (
        op.cast(sign, A.dtype),
        op.cast(size, A.dtype),
        op.cast(compact, A.dtype),
        lapack_pivots(op, pivots, len(A.shape)),
    )


@translation("aten::linalg_solve_triangular")
def linalg_solve_triangular(
    op: Any, self: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    a, b = wide(op, self), broadcast(op, wide(op, B), list(op.result.shape)[:-2])
    if left:
        return op.cast(substitute(op, a, b, upper=upper, unit=unitriangular), B.dtype)
    solution = substitute(op, flipped(op, a), flipped(op, b), upper=not upper, unit=unitriangular)
    return op.cast(flipped(op, solution), B.dtype)


@translation("aten::triangular_solve")
def triangular_solve(
    op: Any, self: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    results = op.results
    cloned = broadcast(op, A, list(results[1].shape)[:-2])
    if any_zero(results[0].shape):
        return blank(op, 0), cloned
    a, b = wide(op, A), broadcast(op, wide(op, self), list(results[0].shape)[:-2])
    a = flipped(op, a) if transpose else a
    return op.cast(substitute(op, a, b, upper=upper is not transpose, unit=unitriangular), self.dtype), cloned


def cholesky_substitute(op: Any, factor: Tensor, b: Tensor, *, upper: bool) -> Tensor:
    """X of ``A @ X = b`` where ``factor`` is A's Cholesky factor."""
    lower = flipped(op, factor) if upper else factor
    first = substitute(op, lower, b, upper=False, unit=False)
    return substitute(op, flipped(op, lower), first, upper=True, unit=False)


@translation("aten::cholesky_solve")
def cholesky_solve(op: Any, self: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    b = broadcast(op, wide(op, self), list(op.result.shape)[:-2])
    return op.cast(cholesky_substitute(op, wide(op, input2), b, upper=upper), self.dtype)


@translation("aten::_cholesky_solve_helper")
def cholesky_solve_helper(op: Any, self: Tensor, A: Tensor, upper: bool) -> Tensor:
    return cholesky_solve(op, self, A, upper)


@translation("aten::cholesky_inverse")
def cholesky_inverse(op: Any, self: Tensor, upper: bool = False) -> Tensor:
    if empty(self):
        return self
    identity = shaped(op.Expand(eye(op, self.shape[-1]), list(self.shape)), self.shape, self)
    return op.cast(cholesky_substitute(op, wide(op, self), identity, upper=upper), self.dtype)


@translation("aten::linalg_lu_solve")
def linalg_lu_solve(
    op: Any, LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    batch = list(op.result.shape)[:-2]
    b = broadcast(op, wide(op, B), batch)
    if not left:
        b = flipped(op, b)
    lower, upper = unpack_factors(op, wide(op, LU))
    order = order_of(op, pivots, LU.shape[-1])
    if left is not adjoint:  # A = P L U, so L U X = P' B
        b = rows_in_order(op, b, order, batch)
        x = substitute(op, lower, b, upper=False, unit=True)
        x = substitute(op, upper, x, upper=True, unit=False)
    else:  # A' = U' L' P'
        x = substitute(op, flipped(op, upper), b, upper=False, unit=False)
        x = substitute(op, flipped(op, lower), x, upper=True, unit=True)
        # Row order[i] of the solution is row i here; the inverse order is the order's own argsort.
        x = rows_in_order(op, x, op.TopK(order, [LU.shape[-1]], axis=-1, largest=0)[1], batch)
    return op.cast(x if left else flipped(op, x), B.dtype)


def rows_in_order(op: Any, x: Tensor, order: Tensor, batch: Sequence[Any]) -> Tensor:
    shape = [*batch, *list(x.shape)[-2:]]
    return shaped(op.GatherElements(x, op.Expand(down(op, order), shape), axis=-2), shape, x)


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


def pseudo_inverse(op: Any, a: Tensor, limit: Callable[[Tensor], Tensor]) -> Tensor:
    """pinv of float64 matrices; singular values up to ``limit(values)`` don't count.

    With ``a @ V = U S`` it is ``V S**-2 (a @ V).T``.
    """
    if is_wider(a.shape[-2], a.shape[-1]):
        return flipped(op, pseudo_inverse(op, flipped(op, a), limit))
    rotated, values, vectors = singular(op, a)
    counted = op.Greater(values, limit(values))
    inverse = op.Where(counted, op.Div(op.const(1.0, WIDE), op.Where(counted, op.Mul(values, values), 1.0)), 0.0)
    product = op.MatMul(op.Mul(vectors, across(op, inverse)), flipped(op, rotated))
    return shaped(product, [*list(a.shape)[:-2], a.shape[-1], a.shape[-2]], a)


@translation("aten::linalg_pinv.atol_rtol_tensor")
def linalg_pinv(
    op: Any, self: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    """By the singular values, which for a hermitian matrix are the sizes of its eigenvalues."""
    if empty(self):
        return blank(op, 0)
    a = wide(op, self)
    if hermitian:  # only the lower half counts
        a = mirrored(op, a)
    default = default_rtol(op, self) if rtol is None else 0.0
    return op.cast(pseudo_inverse(op, a, lambda values: cutoff(op, values, atol, rtol, default)), self.dtype)


@translation("aten::linalg_matrix_sqrth")
def linalg_matrix_sqrth(op: Any, self: Tensor) -> Tensor:
    """The square root of a symmetric positive definite matrix, of which the lower half is read, by its eigenvalues."""
    if empty(self):
        return self
    a = wide(op, self)
    values, vectors = symmetric_eigen(op, mirrored(op, a))
    vectors = shaped(vectors, a.shape, a)
    scaled = op.Mul(vectors, across(op, op.Sqrt(values)))
    return op.cast(op.MatMul(scaled, flipped(op, vectors)), self.dtype)


@translation("aten::linalg_polar")
def linalg_polar(op: Any, A: Tensor) -> Any:
    """``A = U S Vh`` gives the orthogonal factor ``U Vh`` and the symmetric one ``V S Vh``."""
    if empty(A):
        return blank(op, 0), blank(op, 1)
    u, values, vh = svd(op, wide(op, A), A.shape[-1], full=False)
    second = op.MatMul(op.Mul(flipped(op, vh), across(op, values)), vh)
    return op.cast(op.MatMul(u, vh), A.dtype), op.cast(second, A.dtype)


@translation("aten::linalg_matrix_exp")
def linalg_matrix_exp(op: Any, self: Tensor) -> Tensor:
    """Scaling and squaring around a Taylor polynomial of degree 18 (truncation below 1e-22 for norms up to 1/2)."""
    if empty(self):
        return self
    a = wide(op, self)
    norm = op.ReduceMax(op.ReduceSum(op.Abs(a), [-1], keepdims=0), keepdims=0)
    # The number of halvings that brings every matrix of the batch to a norm of at most 1/2.
    halvings = op.Max(op.Ceil(op.Div(op.Log(op.Max(norm, 1e-300)), 0.6931471805599453)), -1.0)
    halvings = op.Min(op.Add(halvings, 1.0), 1000.0)
    scaled = shaped(op.Div(a, op.Pow(op.const(2.0, WIDE), halvings)), a.shape, a)
    identity = shaped(op.Expand(eye(op, a.shape[-1]), list(a.shape)), a.shape, a)

    def horner(turn: Tensor, total: Tensor) -> tuple[Tensor]:
        degree = op.cast(op.Sub(op.const(18, DataType.INT64), turn), WIDE)
        return (op.Add(identity, op.Div(op.MatMul(scaled, total), degree)),)

    polynomial = shaped(loop(op, 18, [identity], horner)[0], a.shape, a)
    squared = loop(op, op.cast(halvings, DataType.INT64), [polynomial], lambda _turn, x: (op.MatMul(x, x),))[0]
    return cast_keeping_shape(op, shaped(squared, a.shape, a), self.dtype)


@translation("aten::linalg_cross")
def linalg_cross(op: Any, self: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    dtype = op.result.dtype
    a, b = op.cast(self, dtype), op.cast(other, dtype)
    axis = dim % len(op.result.shape) - len(op.result.shape)
    ahead, behind = op.const([1, 2, 0], DataType.INT64), op.const([2, 0, 1], DataType.INT64)

    def product(first: Tensor, second: Tensor) -> Tensor:
        return op.Mul(op.Gather(a, first, axis=axis), op.Gather(b, second, axis=axis))

    return op.Sub(product(ahead, behind), product(behind, ahead))


