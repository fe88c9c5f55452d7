"""Matrix factorizations as ONNX Loops: LU, Cholesky, QR (Householder), symmetric eigenvalues and SVD (Jacobi).

Every algorithm treats a batch at once and works for static and symbolic sizes. One turn of a loop handles one column
(LU, Cholesky, QR) or one round of disjoint plane rotations (Jacobi). All compute in float64, so that float32 results
are at least as accurate as LAPACK's. Signs and pivots are LAPACK's; eigenvectors are unique up to sign, as always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, translation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE = DataType.DOUBLE
#: A sweep rotates every pair once; Jacobi converges quadratically, in 6 to 10 sweeps for float64.
_SWEEPS = 16
_PRECISION = 1e-15


def loop(
    op: Any,
    trips: int | Size | Tensor,
    states: Sequence[Tensor],
    step: Callable[..., Any],
    *,
    stacked: int = 0,
    until: bool = False,
) -> list[Tensor]:
    """Run ``step(turn, *states) -> (*states, *stacked)``; the final states and the stacked results.

    Args:
        trips: the number of turns (the greatest number with ``until``).
        stacked: how many further results ``step`` gives, to be stacked along a new axis 0.
        until: ``step`` gives one more result, in front: a 0-d bool that says whether to go on.
    """

    def turn(index: Tensor, condition: Tensor, *values: Tensor) -> list[Tensor]:
        results = list(step(index, *values))
        return results if until else [condition, *results]

    inputs = [(DataType.INT64, []), (DataType.BOOL, []), *((state.dtype, state.shape) for state in states)]
    body = op.subgraph(turn, inputs)
    results = op.Loop(trips, op.const(True), *states, body=body, outputs=len(states) + stacked)
    return list(results) if isinstance(results, tuple) else [results]


def shaped(x: Tensor, shape: Sequence[Any], template: Tensor) -> Tensor:
    """Tell a temporary's shape."""
    x.shape = type(template.shape)(list(shape))
    return x


def numbers(op: Any, n: int | Size) -> Tensor:
    """0 ... n - 1."""
    if isinstance(n, int):
        return op.const(list(range(n)), DataType.INT64)
    return op.Range(op.const(0, DataType.INT64), op.cast(n, DataType.INT64), op.const(1, DataType.INT64))


def down(op: Any, vector: Tensor) -> Tensor:
    """A vector as a column, to be broadcast over the columns of a matrix."""
    return op.Unsqueeze(vector, [-1])


def across(op: Any, vector: Tensor) -> Tensor:
    """A vector as a row."""
    return op.Unsqueeze(vector, [-2])


def eye(op: Any, n: int | Size, m: int | Size | None = None, dtype: DataType = WIDE) -> Tensor:
    """The identity matrix."""
    m = n if m is None else m
    if isinstance(n, int) and isinstance(m, int) and n * m <= 4096:
        return op.const(np.eye(n, m), dtype)
    return op.cast(op.Equal(down(op, numbers(op, n)), across(op, numbers(op, m))), dtype)


def flipped(op: Any, x: Tensor) -> Tensor:
    """Swap the last two axes."""
    rank = len(x.shape)
    result = op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])
    return shaped(result, [*list(x.shape)[:-2], x.shape[-1], x.shape[-2]], x)


def triangle(op: Any, x: Tensor, *, upper: bool, diagonal: int = 0) -> Tensor:
    return shaped(op.Trilu(x, op.const(diagonal, DataType.INT64), upper=int(upper)), x.shape, x)


def mirrored(op: Any, x: Tensor, *, upper: bool = False) -> Tensor:
    """The symmetric matrices of which one half is given."""
    strict = triangle(op, x, upper=upper, diagonal=1 if upper else -1)
    return shaped(op.Add(triangle(op, x, upper=upper), flipped(op, strict)), x.shape, x)


def diagonal(op: Any, x: Tensor) -> Tensor:
    """The main diagonal of the last two axes of square matrices; a product with the identity would spread NaN."""
    on = eye(op, x.shape[-1], dtype=DataType.BOOL)
    return op.ReduceSum(op.Where(on, x, 0.0), [-1], keepdims=0)


def smaller(op: Any, m: int | Size, n: int | Size) -> int | Size | Tensor:
    if isinstance(m, int) and isinstance(n, int):
        return min(m, n)
    if m == n:
        return m
    return op.Min(op.cast(m, DataType.INT64), op.cast(n, DataType.INT64))


def head(op: Any, x: Tensor, count: int | Size | Tensor, axis: int) -> Tensor:
    """The first ``count`` elements along an axis."""
    if isinstance(count, Tensor):
        return op.Slice(x, [0], op.Reshape(count, [1]), [axis])
    if count == x.shape[axis]:
        return x
    shape = list(x.shape)
    shape[axis] = count
    return shaped(op.Slice(x, [0], [count], [axis]), shape, x)


def wide(op: Any, x: Tensor) -> Tensor:
    return op.cast(x, WIDE)


# --- LU ------------------------------------------------------------------------------------------------------------


def lu_factor(op: Any, a: Tensor, *, pivot: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaussian elimination of float64 matrices (..., m, n).

    Returns: the compact factors; the rows' order (..., m), so that ``a[order] = L @ U``; for each step the row that
    was swapped in, (steps, ..., 1), from 0; and the pivot, in the same form.
    """
    *batch, m, n = list(a.shape)
    rows, columns = numbers(op, m), numbers(op, n)
    order = shaped(op.Expand(rows, [*batch, m]), [*batch, m], a)

    def step(k: Tensor, work: Tensor, order: Tensor) -> tuple[Tensor, ...]:
        if pivot:
            below = op.GreaterOrEqual(rows, k)
            size = op.Where(below, op.Abs(op.Gather(work, k, axis=-1)), -1.0)
            best = op.ArgMax(size, axis=-1, keepdims=1)
            swapped = op.Where(op.Equal(rows, k), best, op.Where(op.Equal(rows, best), k, rows))
            order = op.GatherElements(order, swapped, axis=-1)
            work = op.GatherElements(work, op.Expand(down(op, swapped), [*batch, m, n]), axis=-2)
        else:
            best = op.Expand(op.Reshape(k, [1] * (len(batch) + 1)), [*batch, 1])
        row = op.Gather(work, k, axis=-2)
        column = op.Gather(work, k, axis=-1)
        head_ = op.Unsqueeze(op.Gather(row, k, axis=-1), [-1])
        under = op.Greater(rows, k)
        # A zero pivot has only zeros below it: nothing to divide.
        factors = op.Where(under, op.Div(column, op.Where(op.Equal(head_, 0.0), 1.0, head_)), 0.0)
        right = op.Where(op.Greater(columns, k), row, 0.0)
        work = op.Sub(work, op.Mul(down(op, factors), across(op, right)))
        here = op.And(down(op, under), across(op, op.Equal(columns, k)))
        return op.Where(here, down(op, factors), work), order, best, head_

    compact, order, swaps, pivots = loop(op, smaller(op, m, n), [a, order], step, stacked=2)
    return shaped(compact, [*batch, m, n], a), shaped(order, [*batch, m], a), swaps, pivots


def last_axis(op: Any, stacked: Tensor, rank: int) -> Tensor:
    """(steps, ..., 1) as (..., steps); ``rank`` counts all axes of the former."""
    return op.Squeeze(op.Transpose(stacked, perm=[*range(1, rank), 0]), [rank - 2])


def lapack_pivots(op: Any, pivots: Tensor, rank: int) -> Tensor:
    return op.cast(op.Add(last_axis(op, pivots, rank), 1), DataType.INT32)


def parity(op: Any, pivots: Tensor, rank: int) -> Tensor:
    """+1.0 or -1.0: the sign of the row permutation, shape (...)."""
    swaps = last_axis(op, pivots, rank)
    steps = op.Shape(pivots, start=0, end=1)
    own = op.Range(op.const(0, DataType.INT64), op.Squeeze(steps), op.const(1, DataType.INT64))
    moved = op.ReduceSum(op.cast(op.Not(op.Equal(swaps, own)), DataType.INT64), [-1], keepdims=0)
    return op.cast(op.Sub(1, op.Mul(op.Mod(moved, 2), 2)), WIDE)


def zero_info(op: Any, index: int) -> Tensor:
    result = op.results[index]
    return op.Expand(op.const(0, DataType.INT32), list(result.shape))


def first_failure(op: Any, bad: Tensor) -> Tensor:
    """LAPACK's info: 1 + the first position where ``bad`` (..., n) is true, 0 where there is none."""
    number = op.cast(bad, DataType.INT32)
    place = op.Add(op.cast(op.ArgMax(number, axis=-1, keepdims=0), DataType.INT32), 1)
    return op.Mul(place, op.ReduceMax(number, [-1], keepdims=0))


def empty(x: Tensor) -> bool:
    return any(dim == 0 for dim in x.shape)


def blank(op: Any, index: int) -> Tensor:
    """An expected result that has no elements."""
    result = op.results[index]
    return op.Expand(op.const(0, result.dtype), list(result.shape))


@translation("aten::linalg_lu_factor_ex")
def linalg_lu_factor_ex(op: Any, A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    if empty(A):
        return [blank(op, i) for i in range(3)]
    compact, _, swaps, pivots = lu_factor(op, wide(op, A), pivot=pivot)
    info = first_failure(op, op.Equal(last_axis(op, pivots, len(A.shape)), 0.0))
    return op.cast(compact, A.dtype), lapack_pivots(op, swaps, len(A.shape)), info


def unpack_factors(op: Any, compact: Tensor) -> tuple[Tensor, Tensor]:
    """The compact factors (..., m, n) as L (..., m, k) with a unit diagonal and U (..., k, n)."""
    m, n = compact.shape[-2], compact.shape[-1]
    steps = smaller(op, m, n)
    strict = triangle(op, head(op, compact, steps, -1), upper=False, diagonal=-1)
    width = steps if isinstance(steps, (int, Size)) else m
    lower = shaped(op.Add(strict, eye(op, m, width, compact.dtype)), strict.shape, compact)
    return lower, triangle(op, head(op, compact, steps, -2), upper=True)


def permutation(op: Any, order: Tensor, dtype: DataType) -> Tensor:
    """P of ``P @ L @ U = A``: one where the row number is ``order[column]``."""
    rows = down(op, numbers(op, order.shape[-1]))
    return op.cast(op.Equal(rows, across(op, order)), dtype)


@translation("aten::linalg_lu")
def linalg_lu(op: Any, A: Tensor, *, pivot: bool = True) -> Any:
    if empty(A):
        results = [blank(op, i) for i in range(3)]
        for i, result in enumerate(op.results):
            if not any_zero(result.shape):
                m, n = result.shape[-2], result.shape[-1]
                results[i] = op.Expand(eye(op, m, n, A.dtype), list(result.shape))
        return results
    compact, order, _, _ = lu_factor(op, wide(op, A), pivot=pivot)
    lower, upper = unpack_factors(op, cast_keeping_shape(op, compact, A.dtype))
    return (permutation(op, order, A.dtype) if pivot else blank(op, 0)), lower, upper


def any_zero(shape: Any) -> bool:
    return any(dim == 0 for dim in shape)


def cast_keeping_shape(op: Any, x: Tensor, dtype: DataType) -> Tensor:
    return shaped(op.cast(x, dtype), x.shape, x)


@translation("aten::lu_unpack")
def lu_unpack(op: Any, LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    expected = op.results
    if empty(LU_data):
        return [
            blank(op, i) if any_zero(r.shape) else op.Expand(eye(op, r.shape[-2], r.shape[-1], r.dtype), list(r.shape))
            for i, r in enumerate(expected)
        ]
    lower, upper = unpack_factors(op, LU_data) if unpack_data else (blank(op, 1), blank(op, 2))
    if not unpack_pivots:
        return blank(op, 0), lower, upper
    order = order_of(op, LU_pivots, LU_data.shape[-2])
    return permutation(op, order, LU_data.dtype), lower, upper


def order_of(op: Any, pivots: Tensor, m: int | Size) -> Tensor:
    """LAPACK's pivots (..., k), which are swaps one after the other, as the order of m rows."""
    *batch, steps = list(pivots.shape)
    rows = numbers(op, m)
    start = op.Expand(rows, [*batch, m])
    start.shape = type(pivots.shape)([*batch, m])
    swaps = op.Sub(op.cast(pivots, DataType.INT64), 1)

    def step(k: Tensor, order: Tensor) -> tuple[Tensor]:
        other = op.Unsqueeze(op.Gather(swaps, k, axis=-1), [-1])
        swapped = op.Where(op.Equal(rows, k), other, op.Where(op.Equal(rows, other), k, rows))
        return (op.GatherElements(order, swapped, axis=-1),)

    return shaped(loop(op, steps, [start], step)[0], [*batch, m], pivots)


# --- Cholesky ------------------------------------------------------------------------------------------------------


def cholesky_factor(op: Any, a: Tensor) -> Tensor:
    """L of float64 matrices ``a = L @ L.T``, of which the lower half is read; NaN from the first bad pivot on."""
    rows = numbers(op, a.shape[-1])
    start = shaped(op.Expand(op.const(0.0, WIDE), list(a.shape)), a.shape, a)

    def step(k: Tensor, work: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        column = op.Gather(work, k, axis=-1)
        pivot = op.Unsqueeze(op.Gather(column, k, axis=-1), [-1])
        column = op.Where(op.GreaterOrEqual(rows, k), op.Div(column, op.Sqrt(pivot)), 0.0)
        work = op.Sub(work, op.Mul(down(op, column), across(op, column)))
        return work, op.Where(op.Equal(rows, k), down(op, column), factor)

    return shaped(loop(op, a.shape[-1], [a, start], step)[1], a.shape, a)


@translation("aten::linalg_cholesky_ex")
def linalg_cholesky_ex(op: Any, self: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    if empty(self):
        return self, zero_info(op, 1)
    a = wide(op, self)
    factor = cholesky_factor(op, flipped(op, a) if upper else a)
    pivots = diagonal(op, factor)
    info = first_failure(op, op.Not(op.Greater(pivots, 0.0)))
    return op.cast(flipped(op, factor) if upper else factor, self.dtype), info


# --- QR ------------------------------------------------------------------------------------------------------------


def householder(op: Any, a: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK's geqrf on float64 matrices (..., m, n): compact factors and tau as (steps, ..., 1)."""
    *batch, m, n = list(a.shape)
    rows, columns = numbers(op, m), numbers(op, n)

    def step(k: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
        column = op.Gather(work, k, axis=-1)
        alpha = op.Unsqueeze(op.Gather(column, k, axis=-1), [-1])
        below = op.Where(op.Greater(rows, k), column, 0.0)
        tail = op.ReduceL2(below, [-1], keepdims=1)
        still = op.Equal(tail, 0.0)  # nothing to reflect: tau is 0
        length = op.Sqrt(op.Add(op.Mul(alpha, alpha), op.Mul(tail, tail)))
        beta = op.Where(still, alpha, op.Where(op.Less(alpha, 0.0), length, op.Neg(length)))
        tau = op.Where(still, 0.0, op.Div(op.Sub(beta, alpha), op.Where(still, 1.0, beta)))
        vector = op.Div(below, op.Where(still, 1.0, op.Sub(alpha, beta)))
        whole = op.Where(op.Equal(rows, k), 1.0, vector)
        projected = op.MatMul(across(op, whole), work)
        change = op.Mul(op.Mul(down(op, whole), projected), op.Unsqueeze(tau, [-1]))
        work = op.Where(op.Greater(columns, k), op.Sub(work, change), work)
        # The column itself keeps beta and, below it, the vector.
        kept = op.Where(op.Equal(rows, k), beta, op.Where(op.Greater(rows, k), vector, column))
        return op.Where(op.Equal(columns, k), down(op, kept), work), tau

    compact, taus = loop(op, smaller(op, m, n), [a], step, stacked=1)
    return shaped(compact, [*batch, m, n], a), taus


def apply_reflections(op: Any, compact: Tensor, taus: Tensor, target: Tensor, steps: Any, *, backward: bool) -> Tensor:
    """``H_1 ... H_k @ target`` (backward: the last reflection first), or its reverse order.

    Args:
        compact: (..., m, n), vectors below the diagonal.
        taus: (..., k).
        target: (..., m, c), of the batch of the result.
    """
    rows = numbers(op, compact.shape[-2])

    def step(turn: Tensor, work: Tensor) -> tuple[Tensor]:
        k = op.Sub(op.Sub(op.cast(steps, DataType.INT64), 1), turn) if backward else turn
        column = op.Gather(compact, k, axis=-1)
        whole = op.Where(op.Equal(rows, k), 1.0, op.Where(op.Greater(rows, k), column, 0.0))
        tau = op.Unsqueeze(op.Gather(taus, k, axis=-1), [-1, -2])
        projected = op.Mul(op.MatMul(across(op, whole), work), tau)
        return (op.Sub(work, op.Mul(down(op, whole), projected)),)

    return shaped(loop(op, steps, [target], step)[0], target.shape, target)


def orthogonal(op: Any, compact: Tensor, taus: Tensor, steps: Any, columns: int | Size) -> Tensor:
    """The first ``columns`` columns of ``H_1 ... H_k``."""
    *batch, m, _ = list(compact.shape)
    shape = [*batch, m, columns]
    start = shaped(op.Expand(eye(op, m, columns), shape), shape, compact)
    return apply_reflections(op, compact, taus, start, steps, backward=True)


def identities(op: Any, index: int) -> Tensor:
    """An expected result without a computation behind it: identity matrices (of no elements, too)."""
    result = op.results[index]
    if any_zero(result.shape) or len(result.shape) < 2:
        return blank(op, index)
    return op.Expand(eye(op, result.shape[-2], result.shape[-1], result.dtype), list(result.shape))


@translation("aten::geqrf")
def geqrf(op: Any, self: Tensor) -> Any:
    if empty(self):
        return blank(op, 0), blank(op, 1)
    compact, taus = householder(op, wide(op, self))
    return op.cast(compact, self.dtype), op.cast(last_axis(op, taus, len(self.shape)), self.dtype)


@translation("aten::linalg_qr")
def linalg_qr(op: Any, A: Tensor, mode: str = "reduced") -> Any:
    if empty(A):
        return identities(op, 0), blank(op, 1)
    m, n = A.shape[-2], A.shape[-1]
    steps = smaller(op, m, n)
    compact, taus = householder(op, wide(op, A))
    upper = triangle(op, compact if mode == "complete" else head(op, compact, steps, -2), upper=True)
    if mode == "r":
        return blank(op, 0), op.cast(upper, A.dtype)
    columns = m if mode == "complete" else op.results[0].shape[-1]
    q = orthogonal(op, compact, last_axis(op, taus, len(A.shape)), steps, columns)
    return op.cast(q, A.dtype), op.cast(upper, A.dtype)


@translation("aten::linalg_householder_product")
def householder_product(op: Any, input: Tensor, tau: Tensor) -> Tensor:  # the schema's name
    if empty(input) or any_zero(tau.shape):
        return identities(op, 0)
    return op.cast(orthogonal(op, wide(op, input), wide(op, tau), tau.shape[-1], input.shape[-1]), input.dtype)


@translation("aten::orgqr")
def orgqr(op: Any, self: Tensor, input2: Tensor) -> Tensor:
    return householder_product(op, self, input2)


@translation("aten::ormqr")
def ormqr(op: Any, self: Tensor, input2: Tensor, input3: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    if empty(input3) or any_zero(input2.shape):
        return input3
    target = wide(op, input3)
    target = target if left else flipped(op, target)
    # From the right everything is seen transposed, which reverses the order of the reflections.
    backward = left is not transpose
    result = apply_reflections(op, wide(op, self), wide(op, input2), target, input2.shape[-1], backward=backward)
    return op.cast(result if left else flipped(op, result), self.dtype)


# --- Jacobi --------------------------------------------------------------------------------------------------------


def round_of_pairs(op: Any, turn: Tensor, n: int | Size) -> Tensor:
    """The partner of each index in one round of a round robin over n players: ``i + j = turn`` modulo the rounds.

    The number of rounds is odd; an index without a partner is its own.
    """
    rounds = odd(op, n)
    players = numbers(op, n)
    partner = op.Mod(op.Sub(turn, players), rounds)
    return op.Where(op.Less(partner, op.cast(n, DataType.INT64)), partner, players)


def odd(op: Any, n: int | Size) -> Tensor:
    """n, or n + 1 where n is even."""
    if isinstance(n, int):
        return op.const(n | 1, DataType.INT64)
    size = op.cast(n, DataType.INT64)
    return op.Add(size, op.Sub(1, op.Mod(size, 2)))


def rotations(op: Any, gram: Tensor, partner: Tensor, n: int | Size) -> Tensor:
    """Disjoint plane rotations (..., n, n) that annul ``gram[i, partner[i]]``; ``gram`` is symmetric."""
    players = numbers(op, n)
    chosen = op.cast(op.Equal(down(op, partner), across(op, players)), WIDE)
    identity = eye(op, n)
    own = op.ReduceSum(op.Mul(gram, identity), [-1], keepdims=0)
    cross = op.ReduceSum(op.Mul(gram, chosen), [-1], keepdims=0)
    other = op.Squeeze(op.MatMul(chosen, down(op, own)), [-1])
    idle = op.Or(op.Equal(partner, players), op.Equal(cross, 0.0))
    theta = op.Div(op.Sub(other, own), op.Mul(op.Where(idle, 1.0, cross), 2.0))
    sense = op.Where(op.Less(players, partner), op.const(1.0, WIDE), op.const(-1.0, WIDE))
    sign = op.Where(op.Equal(theta, 0.0), sense, op.Sign(theta))
    root = op.Sqrt(op.Add(op.Mul(theta, theta), 1.0))
    tangent = op.Where(idle, 0.0, op.Div(sign, op.Add(op.Abs(theta), root)))
    cosine = op.Div(op.const(1.0, WIDE), op.Sqrt(op.Add(op.Mul(tangent, tangent), 1.0)))
    sine = op.Mul(tangent, cosine)
    # Row i holds the cosine on the diagonal and the sine at its partner.
    return op.Add(op.Mul(identity, down(op, cosine)), op.Mul(chosen, down(op, sine)))


def symmetric_eigen(op: Any, a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), ascending, and eigenvectors of symmetric float64 matrices."""
    n = a.shape[-1]
    off = op.Sub(op.const(1.0, WIDE), eye(op, n))
    largest = op.ReduceMax(op.Abs(a), [-1, -2], keepdims=1)
    limit = op.Mul(largest, _PRECISION)
    start = shaped(op.Expand(eye(op, n), list(a.shape)), a.shape, a)

    def step(turn: Tensor, work: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
        rotation = rotations(op, work, round_of_pairs(op, turn, n), n)
        back = op.Transpose(rotation, perm=[*range(len(a.shape) - 2), len(a.shape) - 1, len(a.shape) - 2])
        # Symmetric to the last bit: what is rounding noise in both halves would turn each by another angle.
        work = mirrored(op, shaped(op.MatMul(op.MatMul(back, work), rotation), a.shape, a))
        rest = op.Greater(op.Abs(op.Mul(work, off)), limit)
        more = op.ReduceMax(op.cast(rest, DataType.INT32), keepdims=0)
        return op.cast(more, DataType.BOOL), work, op.MatMul(vectors, rotation)

    trips = op.Mul(odd(op, n), _SWEEPS)
    diagonalized, vectors = loop(op, trips, [a, start], step, until=True)
    values = op.ReduceSum(op.Mul(diagonalized, eye(op, n)), [-1], keepdims=0)
    values, order = op.TopK(values, [n], axis=-1, largest=0)
    index = op.Expand(across(op, order), list(a.shape))
    return values, op.GatherElements(vectors, index, axis=-1)


@translation("aten::_linalg_eigh")
def linalg_eigh(op: Any, A: Tensor, UPLO: str = "L", compute_v: bool = True) -> Any:
    if empty(A):
        return blank(op, 0), blank(op, 1)
    values, vectors = symmetric_eigen(op, mirrored(op, wide(op, A), upper=UPLO.upper() == "U"))
    return op.cast(values, A.dtype), op.cast(vectors, A.dtype) if compute_v else blank(op, 1)


def singular(op: Any, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One-sided Jacobi on float64 matrices (..., m, n), m >= n.

    Returns: ``a @ V`` with its columns by descending norm, these norms (..., n), and V (..., n, n).
    """
    *batch, m, n = list(a.shape)
    off = op.Sub(op.const(1.0, WIDE), eye(op, n))
    square = [*batch, n, n]
    start = shaped(op.Expand(eye(op, n), square), square, a)
    rank = len(a.shape)
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    total = op.ReduceSumSquare(a, [-1, -2], keepdims=1)

    def step(turn: Tensor, work: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
        gram = op.MatMul(op.Transpose(work, perm=swapped), work)
        rotation = rotations(op, gram, round_of_pairs(op, turn, n), n)
        norms = op.ReduceSumSquare(work, [-2], keepdims=1)
        scale = op.Sqrt(op.Mul(norms, op.Transpose(norms, perm=swapped)))
        # Orthogonal to working precision, or too small to matter beside the whole matrix.
        limit = op.Add(op.Mul(scale, _PRECISION), op.Mul(total, 1e-32))
        rest = op.Greater(op.Abs(op.Mul(gram, off)), limit)
        more = op.ReduceMax(op.cast(rest, DataType.INT32), keepdims=0)
        return op.cast(more, DataType.BOOL), op.MatMul(work, rotation), op.MatMul(vectors, rotation)

    work, vectors = loop(op, op.Mul(odd(op, n), _SWEEPS), [a, start], step, until=True)
    values, order = op.TopK(op.ReduceL2(work, [-2], keepdims=0), [n], axis=-1)
    columns = across(op, order)
    work = op.GatherElements(work, op.Expand(columns, [*batch, m, n]), axis=-1)
    vectors = op.GatherElements(vectors, op.Expand(columns, square), axis=-1)
    return shaped(work, [*batch, m, n], a), values, shaped(vectors, square, a)


def svd(op: Any, a: Tensor, steps: int | Size, *, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vh of float64 matrices; ``steps`` is the smaller of their sides.

    ``a @ V`` has orthogonal columns, so its QR factorization has U as Q up to signs, completed to a whole basis.
    """
    m, n = a.shape[-2], a.shape[-1]
    if is_wider(m, n):
        u, s, vh = svd(op, flipped(op, a), steps, full=full)
        return flipped(op, vh), s, flipped(op, u)
    rotated, values, vectors = singular(op, a)
    compact, taus = householder(op, rotated)
    q = orthogonal(op, compact, last_axis(op, taus, len(a.shape)), steps, m if full else steps)
    lengths = op.ReduceSum(op.Mul(compact, eye(op, m, n)), [-1], keepdims=0)
    signs = op.Where(op.Less(lengths, 0.0), op.const(-1.0, WIDE), op.const(1.0, WIDE))
    signs = shaped(signs, list(a.shape)[:-1], a)
    u = op.Mul(q, across(op, signs if full else head(op, signs, steps, -1)))
    vectors = vectors if full else head(op, vectors, steps, -1)
    return shaped(u, q.shape, a), head(op, shaped(values, [*list(a.shape)[:-2], n], a), steps, -1), flipped(op, vectors)


def is_wider(m: int | Size, n: int | Size) -> bool:
    """Whether there are surely more columns than rows: then the transpose has fewer columns to rotate."""
    return isinstance(m, int) and isinstance(n, int) and n > m


@translation("aten::_linalg_svd")
def linalg_svd(
    op: Any, A: Tensor, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None
) -> Any:
    if empty(A):
        return identities(op, 0), blank(op, 1), identities(op, 2)
    a = wide(op, A)
    if not compute_uv:
        tall = flipped(op, a) if is_wider(A.shape[-2], A.shape[-1]) else a
        values = shaped(singular(op, tall)[1], [*list(tall.shape)[:-2], tall.shape[-1]], a)
        return blank(op, 0), op.cast(head(op, values, op.results[1].shape[-1], -1), A.dtype), blank(op, 2)
    parts = svd(op, a, op.results[1].shape[-1], full=full_matrices)
    return [op.cast(part, A.dtype) for part in parts]
