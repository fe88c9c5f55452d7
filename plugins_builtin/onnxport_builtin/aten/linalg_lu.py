"""Linear systems, real and complex: LU factors, determinants, inverses, triangular substitution.

All are loops over the columns, batched, of any static or symbolic size, in float64. Nodes of one call on a real (a
complex) matrix of static size, loop bodies included: LU and its pivots 37 (81), det 48 (103), slogdet 52 (123),
inverse and solve 28 (71), triangular solve 17 (54), solve by LU factors 45 (97).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Size, Tensor, Unsupported, translation

from onnxport_builtin.aten.complex_parts import Pair, as_complex_tensor
from onnxport_builtin.aten.linalg_parts import (
    WIDE,
    across,
    adjoint_of,
    any_zero,
    blank,
    broadcast,
    constant,
    down,
    empty,
    exchanged,
    eye,
    first_failure,
    flipped,
    head,
    identities,
    is_zero,
    last_axis,
    loop,
    masked,
    narrowed,
    numbers,
    picked,
    shaped,
    smaller,
    taxicab,
    transposed,
    triangle,
    unit_of,
    used,
    wide_pair,
    zero_info,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def lu_factor(op: Any, a: Pair, *, pivot: bool = True) -> tuple[Pair, Tensor, Tensor, Pair]:
    """Gaussian elimination of float64 matrices (..., m, n).

    Returns: the compact factors; the rows' order (..., m), so that ``a[order] = L @ U``; for each step the row that
    was swapped in, (steps, ..., 1), from 0; and the pivot, in the same form.
    """
    *batch, m, n = list(a.re.shape)
    rows, columns = numbers(op, m), numbers(op, n)
    start = shaped(op.Expand(rows, [*batch, m]), [*batch, m])

    def step(k: Tensor, *states: Tensor) -> list[Tensor]:
        work, order = Pair(op, *states[:-1]), states[-1]
        if pivot:
            size = taxicab(work.each(lambda x: op.Gather(x, k, axis=-1)))
            best = op.ArgMax(op.Where(op.GreaterOrEqual(rows, k), size, -1.0), axis=-1, keepdims=1)
            swapped = shaped(exchanged(op, rows, k, best), [*batch, m])
            order = picked(op, order, swapped, -1)
            work = work.each(lambda x: picked(op, x, swapped, -2))
        else:
            best = op.Expand(op.Reshape(k, [1] * (len(batch) + 1)), [*batch, 1])
        row = work.each(lambda x: op.Gather(x, k, axis=-2))
        column = work.each(lambda x: op.Gather(x, k, axis=-1))
        first = row.each(lambda x: op.Unsqueeze(op.Gather(x, k, axis=-1), [-1]))
        under = op.Greater(rows, k)
        # A zero pivot has only zeros below it: nothing to divide.
        divisor = Pair(op, op.Where(is_zero(first), 1.0, first.re), first.im)
        factors = masked(column / divisor, under).each(lambda x: down(op, x))
        right = masked(row, op.Greater(columns, k)).each(lambda x: across(op, x))
        work = work - factors * right
        here = op.And(down(op, under), across(op, op.Equal(columns, k)))
        return [*masked(factors, here, work).parts, order, best, *first.parts]

    count = len(a.parts)
    results = loop(op, smaller(op, m, n), [*a.parts, start], step, stacked=1 + count)
    compact = Pair(op, *(shaped(part, [*batch, m, n]) for part in results[:count]))
    order, swaps, *pivots = results[count:]
    return compact, shaped(order, [*batch, m]), swaps, Pair(op, *pivots)


def lapack_pivots(op: Any, pivots: Tensor, rank: int) -> Tensor:
    return op.cast(op.Add(last_axis(op, pivots, rank), 1), DataType.INT32)


@translation("aten::linalg_lu_factor_ex", complex=True)
def linalg_lu_factor_ex(op: Any, A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    if empty(A):
        return [blank(op, i) for i in range(3)]
    compact, _, swaps, pivots = lu_factor(op, wide_pair(op, A), pivot=pivot)
    info = first_failure(op, last_axis(op, is_zero(pivots), len(A.shape)))
    return narrowed(compact, A.dtype), lapack_pivots(op, swaps, len(A.shape)), info


def unpack_factors(op: Any, compact: Pair) -> tuple[Pair, Pair]:
    """The compact factors (..., m, n) as L (..., m, k) with a unit diagonal and U (..., k, n)."""
    m, n = list(compact.re.shape)[-2:]
    steps = smaller(op, m, n)
    lower = compact.each(lambda x: triangle(op, head(op, x, steps, -1), upper=False, diagonal=-1))
    dtype = compact.re.dtype
    ones = head(op, eye(op, m, dtype=dtype), steps, -1) if isinstance(steps, Tensor) else eye(op, m, steps, dtype)
    unit = op.Add(lower.re, ones)
    upper = compact.each(lambda x: triangle(op, head(op, x, steps, -2), upper=True))
    return Pair(op, shaped(unit, lower.re.shape), lower.im), upper


def permutation(op: Any, order: Tensor, index: int) -> Tensor:
    """P of ``P @ L @ U = A``, a result of that number: one where the row number is ``order[column]``."""
    result = op.results[index]
    rows = down(op, numbers(op, order.shape[-1]))
    matrix = op.cast(op.Equal(rows, across(op, order)), result.dtype)
    if not result.is_complex:
        return matrix
    return as_complex_tensor(op, shaped(matrix, result.shape), result.dtype)


@translation("aten::linalg_lu", complex=True)
def linalg_lu(op: Any, A: Tensor, *, pivot: bool = True) -> Any:
    if empty(A):
        return [identities(op, i) for i in range(3)]
    compact, order, _, _ = lu_factor(op, wide_pair(op, A), pivot=pivot)
    lower, upper = unpack_factors(op, compact)
    return (permutation(op, order, 0) if pivot else blank(op, 0)), narrowed(lower, A.dtype), narrowed(upper, A.dtype)


@translation("aten::lu_unpack", complex=True)
def lu_unpack(op: Any, LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    if empty(LU_data):
        return [identities(op, i) for i in range(3)]
    results = [blank(op, i) if any_zero(r.shape) else None for i, r in enumerate(op.results)]
    if unpack_data:
        results[1:] = [narrowed(factor, LU_data.dtype) for factor in unpack_factors(op, own_pair(op, LU_data))]
    if unpack_pivots:
        results[0] = permutation(op, order_of(op, LU_pivots, LU_data.shape[-2]), 0)
    return results


def own_pair(op: Any, x: Tensor) -> Pair:
    """Matrices in their own precision."""
    parts = [op.real(x), op.imag(x)] if x.is_complex else [x]
    return Pair(op, *(shaped(part, x.shape) if x.is_complex else part for part in parts))


def order_of(op: Any, pivots: Tensor, m: int | Size) -> Tensor:
    """LAPACK's pivots (..., k), which are swaps one after the other, as the order of m rows."""
    *batch, steps = list(pivots.shape)
    rows = numbers(op, m)
    start = shaped(op.Expand(rows, [*batch, m]), [*batch, m])
    swaps = op.Sub(op.cast(pivots, DataType.INT64), 1)

    def step(k: Tensor, order: Tensor) -> tuple[Tensor]:
        other = op.Unsqueeze(op.Gather(swaps, k, axis=-1), [-1])
        return (op.GatherElements(order, exchanged(op, rows, k, other), axis=-1),)

    return shaped(loop(op, steps, [start], step)[0], [*batch, m])


@translation("aten::linalg_lu_solve", complex=True)
def linalg_lu_solve(
    op: Any, LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    batch = list(op.result.shape)[:-2]
    b = wide_pair(op, B).each(lambda x: broadcast(op, x, batch))
    if not left:
        b = b.each(lambda x: flipped(op, x))
    factors = unpack_factors(op, wide_pair(op, LU))
    lower, upper = (factor.conj() if adjoint else factor for factor in factors)
    n = LU.shape[-1]
    order = order_of(op, pivots, n)
    shape = [*batch, n]
    order = order if list(order.shape) == shape else shaped(op.Expand(order, shape), shape)
    if left is not adjoint:  # A = P L U, so L U X = P' B
        x = b.each(lambda x: picked(op, x, order, -2))
        x = substitute(op, lower, x, upper=False, unit=True)
        x = substitute(op, upper, x, upper=True, unit=False)
    else:  # A' = U' L' P'
        x = substitute(op, transposed(upper), b, upper=False, unit=False)
        x = substitute(op, transposed(lower), x, upper=True, unit=True)
        # Row order[i] of the solution is row i here; the inverse order is the order's own argsort.
        back = shaped(op.TopK(order, [n], axis=-1, largest=0)[1], shape)
        x = x.each(lambda x: picked(op, x, back, -2))
    return narrowed(x if left else transposed(x), B.dtype)


# --- determinants --------------------------------------------------------------------------------------------------


def parity(op: Any, pivots: Tensor, rank: int) -> Tensor:
    """+1.0 or -1.0: the sign of the row permutation, shape (...)."""
    swaps = last_axis(op, pivots, rank)
    steps = op.Shape(pivots, start=0, end=1)
    own = op.Range(op.const(0, DataType.INT64), op.Squeeze(steps), op.const(1, DataType.INT64))
    moved = op.ReduceSum(op.cast(op.Not(op.Equal(swaps, own)), DataType.INT64), [-1], keepdims=0)
    return op.cast(op.Sub(1, op.Mul(op.Mod(moved, 2), 2)), WIDE)


def signed_product(op: Any, a: Tensor, swaps: Tensor, factors: Pair) -> Pair:
    """The product of (steps, ..., 1) factors, negative for an odd permutation: of shape (...)."""
    sign = parity(op, swaps, len(a.shape))
    if factors.im is None:
        return Pair(op, op.Mul(sign, op.ReduceProd(factors.re, [0, -1], keepdims=0)))
    shape = list(a.shape)[:-2]

    def step(k: Tensor, *total: Tensor) -> list[Tensor]:
        factor = factors.each(lambda x: op.Squeeze(op.Gather(x, k, axis=0), [-1]))
        return (Pair(op, *total) * factor).parts

    start = [shaped(x, shape) for x in (sign, op.Mul(sign, 0.0))]
    return Pair(op, *(shaped(x, shape) for x in loop(op, a.shape[-1], start, step)))


@translation("aten::linalg_det", "aten::det", complex=True)
def det(op: Any, A: Tensor | None = None, self: Tensor | None = None) -> Tensor:
    x = self if A is None else A
    if x is None:
        raise Unsupported("no matrix")
    if x.dtype is DataType.FLOAT and not x.is_complex:  # onnxruntime 1.32 has no other kernel
        return op.Det(x)
    if empty(x):
        return constant(op, 0, 1)
    _, _, swaps, pivots = lu_factor(op, wide_pair(op, x))
    return narrowed(signed_product(op, x, swaps, pivots), x.dtype)


@translation("aten::_linalg_det", complex=True)
def linalg_det(op: Any, A: Tensor) -> Any:
    if empty(A):
        return constant(op, 0, 1), blank(op, 1), blank(op, 2)
    compact, _, swaps, pivots = lu_factor(op, wide_pair(op, A))
    value = signed_product(op, A, swaps, pivots)
    return narrowed(value, A.dtype), narrowed(compact, A.dtype), lapack_pivots(op, swaps, len(A.shape))


@translation("aten::_linalg_slogdet", complex=True)
def linalg_slogdet(op: Any, A: Tensor) -> Any:
    if empty(A):
        return constant(op, 0, 1), constant(op, 1, 0), blank(op, 2), blank(op, 3)
    compact, _, swaps, pivots = lu_factor(op, wide_pair(op, A))
    sizes = pivots.abs()
    if pivots.im is None:
        directions = Pair(op, op.Sign(pivots.re))
    else:
        directions = pivots / op.Where(op.Equal(sizes, 0.0), 1.0, sizes)
    return (
        narrowed(signed_product(op, A, swaps, directions), A.dtype),
        op.cast(op.ReduceSum(op.Log(sizes), [0, -1], keepdims=0), A.dtype),
        narrowed(compact, A.dtype),
        lapack_pivots(op, swaps, len(A.shape)),
    )


# --- systems -------------------------------------------------------------------------------------------------------


def eliminate(op: Any, a: Pair, b: Pair) -> tuple[Pair, Pair]:
    """Gauss-Jordan elimination with partial pivoting: X of ``a @ X = b`` and the pivots (..., n).

    Args:
        a: float64, (..., n, n).
        b: float64, (..., n, k), of the same batch; real or complex as ``a`` is.
    """
    *batch, n, k = list(b.re.shape)
    rows = numbers(op, n)
    whole = [*batch, n, n + k]
    start = [shaped(op.Concat(x, y, axis=-1), whole) for x, y in zip(a.parts, b.parts, strict=True)]
    count = len(start)

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        work = Pair(op, *states)
        size = taxicab(work.each(lambda x: op.Gather(x, turn, axis=-1)))
        best = op.ArgMax(op.Where(op.GreaterOrEqual(rows, turn), size, -1.0), axis=-1, keepdims=1)
        swapped = shaped(exchanged(op, rows, turn, best), [*batch, n])
        work = work.each(lambda x: picked(op, x, swapped, -2))
        row = work.each(lambda x: op.Gather(x, turn, axis=-2))
        pivot = row.each(lambda x: op.Unsqueeze(op.Gather(x, turn, axis=-1), [-1]))
        row = (row / pivot).each(lambda x: across(op, x))
        own = down(op, op.Equal(rows, turn))
        factors = work.each(lambda x: op.Where(own, 0.0, down(op, op.Gather(x, turn, axis=-1))))
        return [*masked(row, own, work - factors * row).parts, *pivot.parts]

    results = loop(op, n, start, step, stacked=count)
    solution = [shaped(op.Slice(part, [n], [n + k], [-1]), [*batch, n, k]) for part in results[:count]]
    return Pair(op, *solution), Pair(op, *(last_axis(op, x, len(whole)) for x in results[count:]))


def substitute(op: Any, a: Pair, b: Pair, *, upper: bool, unit: bool) -> Pair:
    """X of ``a @ X = b`` for triangular ``a``: float64 (..., n, n) and (..., n, k), whose batches broadcast to b's."""
    n = a.re.shape[-1]
    rows = numbers(op, n)

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        work = Pair(op, *states)
        k = op.Sub(op.Sub(op.cast(n, DataType.INT64), 1), turn) if upper else turn
        column = a.each(lambda x: op.Gather(x, k, axis=-1))
        row = work.each(lambda x: across(op, op.Gather(x, k, axis=-2)))
        if not unit:
            row = row / column.each(lambda x: op.Unsqueeze(op.Gather(x, k, axis=-1), [-1, -2]))
        ahead = op.Less(rows, k) if upper else op.Greater(rows, k)
        rest = work - masked(column, ahead).each(lambda x: down(op, x)) * row
        return masked(row, down(op, op.Equal(rows, k)), rest).parts

    return Pair(op, *(shaped(x, b.re.shape) for x in loop(op, n, b.parts, step)))


def solve(op: Any, a: Pair, b: Pair, batch: Sequence[Any], *, left: bool) -> tuple[Pair, Pair]:
    if not left:
        solution, pivots = solve(op, transposed(a), transposed(b), batch, left=True)
        return transposed(solution), pivots
    return eliminate(op, *(m.each(lambda x: broadcast(op, x, batch)) for m in (a, b)))


@translation("aten::_linalg_solve_ex", complex=True)
def linalg_solve_ex(op: Any, A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    results = op.results
    if any_zero(results[0].shape):
        return [blank(op, 0), *(blank(op, i) if any_zero(results[i].shape) else None for i in (1, 2)), zero_info(op, 3)]
    vector = len(B.shape) == 1 or (len(A.shape) - 1 == len(B.shape) and list(A.shape)[:-1] == list(B.shape))
    a, b = wide_pair(op, A), wide_pair(op, B)
    if vector:
        b = b.each(lambda x: shaped(down(op, x), [*list(B.shape), 1]))
    batch = list(results[0].shape)[: -1 if vector else -2]
    solution, pivots = solve(op, a, b, batch, left=left or vector)
    if vector:
        solution = solution.each(lambda x: op.Squeeze(x, [-1]))
    info = zero_info(op, 3)
    if used(op, 3) and len(results[3].shape) == len(batch):
        info = first_failure(op, is_zero(pivots))
    compact: Tensor | None = None
    swaps: Tensor | None = None
    if used(op, 1) or used(op, 2):
        factors, _, steps, _ = lu_factor(op, a if left else transposed(a))
        compact, swaps = narrowed(factors, A.dtype), lapack_pivots(op, steps, len(A.shape))
    return narrowed(solution, A.dtype), compact, swaps, info


@translation("aten::linalg_inv_ex", complex=True)
def linalg_inv_ex(op: Any, A: Tensor, *, check_errors: bool = False) -> Any:
    if empty(A):
        return A, zero_info(op, 1)
    a = wide_pair(op, A)
    inverse, pivots = eliminate(op, a, unit_of(op, a))
    return narrowed(inverse, A.dtype), first_failure(op, is_zero(pivots))


@translation("aten::linalg_solve_triangular", complex=True)
def linalg_solve_triangular(
    op: Any, self: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    batch = list(op.result.shape)[:-2]
    a, b = wide_pair(op, self), wide_pair(op, B).each(lambda x: broadcast(op, x, batch))
    if left:
        return narrowed(substitute(op, a, b, upper=upper, unit=unitriangular), B.dtype)
    solution = substitute(op, transposed(a), transposed(b), upper=not upper, unit=unitriangular)
    return narrowed(transposed(solution), B.dtype)


@translation("aten::triangular_solve", complex=True)
def triangular_solve(
    op: Any, self: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    results = op.results
    cloned, shape = A, list(results[1].shape)
    if list(A.shape) != shape:
        cloned = op.as_complex(op.Expand(A, [*shape, 2])) if A.is_complex else op.Expand(A, shape)
    if any_zero(results[0].shape):
        return blank(op, 0), cloned
    batch = list(results[0].shape)[:-2]
    a, b = wide_pair(op, A), wide_pair(op, self).each(lambda x: broadcast(op, x, batch))
    a = transposed(a) if transpose else a
    return narrowed(substitute(op, a, b, upper=upper is not transpose, unit=unitriangular), self.dtype), cloned


def cholesky_substitute(op: Any, factor: Pair, b: Pair, *, upper: bool) -> Pair:
    """X of ``A @ X = b`` where ``factor`` is A's Cholesky factor."""
    lower = adjoint_of(factor) if upper else factor
    first = substitute(op, lower, b, upper=False, unit=False)
    return substitute(op, factor if upper else adjoint_of(factor), first, upper=True, unit=False)


@translation("aten::cholesky_solve", complex=True)
def cholesky_solve(op: Any, self: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    if any_zero(op.result.shape):
        return blank(op, 0)
    batch = list(op.result.shape)[:-2]
    b = wide_pair(op, self).each(lambda x: broadcast(op, x, batch))
    return narrowed(cholesky_substitute(op, wide_pair(op, input2), b, upper=upper), self.dtype)


@translation("aten::_cholesky_solve_helper", complex=True)
def cholesky_solve_helper(op: Any, self: Tensor, A: Tensor, upper: bool) -> Tensor:
    return cholesky_solve(op, self, A, upper)


@translation("aten::cholesky_inverse", complex=True)
def cholesky_inverse(op: Any, self: Tensor, upper: bool = False) -> Tensor:
    if empty(self):
        return self
    factor = wide_pair(op, self)
    return narrowed(cholesky_substitute(op, factor, unit_of(op, factor), upper=upper), self.dtype)
