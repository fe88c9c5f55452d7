"""Cholesky factors, and symmetric eigenvalues and singular values by Jacobi's rotations, as ONNX Loops.

Every algorithm treats a batch at once and works for static and symbolic sizes. One turn of a loop handles one column
(Cholesky) or one round of disjoint plane rotations (Jacobi). All compute in float64, so that float32 results are at
least as accurate as LAPACK's. Eigenvectors are unique up to sign or phase, as always. Nodes of one call on a real
(a complex) matrix of static size, loop bodies included: Cholesky 16 (36), eigh 71 (137), svd 136 (293), svdvals 112
(235).
"""

from __future__ import annotations

from typing import Any

from onnxport import DataType, Size, Tensor, translation

from onnxport_builtin.aten.complex_parts import Pair, matrix_product
from onnxport_builtin.aten.linalg_parts import (
    WIDE,
    across,
    adjoint_of,
    blank,
    diagonal,
    down,
    empty,
    eye,
    first_failure,
    flipped,
    head,
    identities,
    loop,
    masked,
    mirrored,
    narrowed,
    numbers,
    picked,
    shaped,
    size_of,
    taxicab,
    unit_of,
    wide_pair,
    zero_info,
)
from onnxport_builtin.aten.linalg_qr import along_last, householder, orthogonal

#: A sweep rotates every pair once; Jacobi converges quadratically, in 6 to 10 sweeps for float64.
_SWEEPS = 16
_PRECISION = 1e-15


def cholesky_factor(op: Any, a: Pair) -> Pair:
    """L of float64 matrices ``a = L @ L^H``, of which the lower half is read; NaN from the first bad pivot on."""
    shape = a.re.shape
    rows = numbers(op, shape[-1])
    zeros = shaped(op.Expand(op.const(0.0, WIDE), list(shape)), shape)
    count = len(a.parts)

    def step(k: Tensor, *states: Tensor) -> list[Tensor]:
        work, factor = Pair(op, *states[:count]), Pair(op, *states[count:])
        column = work.each(lambda x: op.Gather(x, k, axis=-1))
        pivot = op.Sqrt(op.Unsqueeze(op.Gather(column.re, k, axis=-1), [-1]))
        column = masked(column / pivot, op.Greater(rows, k))
        column = masked(Pair(op, pivot), op.Equal(rows, k), column)
        product = column.each(lambda x: down(op, x)) * column.conj().each(lambda x: across(op, x))
        here = op.Equal(rows, k)
        return [*(work - product).parts, *masked(column.each(lambda x: down(op, x)), here, factor).parts]

    results = loop(op, shape[-1], [*a.parts, *([zeros] * count)], step)
    return Pair(op, *(shaped(x, shape) for x in results[count:]))


@translation("aten::linalg_cholesky_ex", complex=True)
def linalg_cholesky_ex(op: Any, self: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    if empty(self):
        return self, zero_info(op, 1)
    a = wide_pair(op, self)
    factor = cholesky_factor(op, adjoint_of(a) if upper else a)
    info = first_failure(op, op.Not(op.Greater(diagonal(op, factor.re), 0.0)))
    return narrowed(adjoint_of(factor) if upper else factor, self.dtype), info


@translation("aten::cholesky", complex=True)
def cholesky(op: Any, self: Tensor, upper: bool = False) -> Tensor:
    """The operator of ``torch.cholesky`` until torch 2.13."""
    return linalg_cholesky_ex(op, self, upper=upper)[0]


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


def rotations(op: Any, gram: Pair, partner: Tensor, n: int | Size) -> Pair:
    """Disjoint plane rotations (..., n, n) that annul ``gram[i, partner[i]]`` of symmetric or Hermitian matrices.

    They are real but for the phase of what they annul.
    """
    players = numbers(op, n)
    chosen = op.cast(op.Equal(down(op, partner), across(op, players)), WIDE)
    identity = eye(op, n)
    own = op.ReduceSum(op.Mul(gram.re, identity), [-1], keepdims=0)
    cross = gram.each(lambda x: op.ReduceSum(op.Mul(x, chosen), [-1], keepdims=0))
    size = cross.re if cross.im is None else cross.abs()
    other = op.Squeeze(op.MatMul(chosen, down(op, own)), [-1])
    idle = op.Or(op.Equal(partner, players), op.Equal(size, 0.0))
    size = op.Where(idle, 1.0, size)
    theta = op.Div(op.Sub(other, own), op.Mul(size, 2.0))
    sense = op.Where(op.Less(players, partner), op.const(1.0, WIDE), op.const(-1.0, WIDE))
    sign = op.Where(op.Equal(theta, 0.0), sense, op.Sign(theta))
    root = op.Sqrt(op.Add(op.Mul(theta, theta), 1.0))
    tangent = op.Where(idle, 0.0, op.Div(sign, op.Add(op.Abs(theta), root)))
    cosine = op.Div(op.const(1.0, WIDE), op.Sqrt(op.Add(op.Mul(tangent, tangent), 1.0)))
    sine = Pair(op, op.Mul(tangent, cosine))
    if cross.im is not None:
        sine = sine * (cross / size)
    # Row i holds the cosine on the diagonal and the sine at its partner.
    found = sine.each(lambda x: op.Mul(chosen, down(op, x)))
    return Pair(op, op.Add(op.Mul(identity, down(op, cosine)), found.re), found.im)


def symmetric_eigen(op: Any, a: Pair) -> tuple[Tensor, Pair]:
    """Eigenvalues (..., n), ascending, and eigenvectors of symmetric or Hermitian float64 matrices."""
    shape = a.re.shape
    n, count = shape[-1], len(a.parts)
    off = op.Sub(op.const(1.0, WIDE), eye(op, n))
    limit = op.Mul(op.ReduceMax(taxicab(a), [-1, -2], keepdims=1), _PRECISION)

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        work, vectors = Pair(op, *states[:count]), Pair(op, *states[count:])
        rotation = rotations(op, work, round_of_pairs(op, turn, n), n).each(lambda x: shaped(x, shape))
        work = matrix_product(matrix_product(adjoint_of(rotation), work), rotation)
        # Symmetric to the last bit: what is rounding noise in both halves would turn each by another angle.
        work = mirrored(op, work.each(lambda x: shaped(x, shape)))
        rest = op.Greater(op.Mul(size_of(work), off), limit)
        more = op.ReduceMax(op.cast(rest, DataType.INT32), keepdims=0)
        return [op.cast(more, DataType.BOOL), *work.parts, *matrix_product(vectors, rotation).parts]

    trips = op.Mul(odd(op, n), _SWEEPS)
    results = loop(op, trips, [*a.parts, *unit_of(op, a).parts], step, until=True)
    values = op.ReduceSum(op.Mul(results[0], eye(op, n)), [-1], keepdims=0)
    values, order = op.TopK(values, [n], axis=-1, largest=0)
    order = shaped(order, list(shape)[:-1])
    return values, Pair(op, *(picked(op, shaped(x, shape), order, -1) for x in results[count:]))


@translation("aten::_linalg_eigh", complex=True)
def linalg_eigh(op: Any, A: Tensor, UPLO: str = "L", compute_v: bool = True) -> Any:
    if empty(A):
        return blank(op, 0), blank(op, 1)
    values, vectors = symmetric_eigen(op, mirrored(op, wide_pair(op, A), upper=UPLO.upper() == "U"))
    return op.cast(values, A.dtype), narrowed(vectors, A.dtype) if compute_v else blank(op, 1)


def column_squares(op: Any, a: Pair) -> Tensor:
    """The squares of the columns' lengths, as a row (..., 1, n)."""
    squares = [op.ReduceSumSquare(part, [-2], keepdims=1) for part in a.parts]
    return squares[0] if len(squares) == 1 else op.Add(*squares)


def singular(op: Any, a: Pair) -> tuple[Pair, Tensor, Pair]:
    """One-sided Jacobi on float64 matrices (..., m, n), m >= n.

    Returns: ``a @ V`` with its columns by descending norm, these norms (..., n), and V (..., n, n).
    """
    shape = a.re.shape
    *batch, _, n = list(shape)
    count, square = len(a.parts), [*batch, n, n]
    off = op.Sub(op.const(1.0, WIDE), eye(op, n))
    unit = shaped(op.Expand(eye(op, n), square), square)
    start = [unit] if a.im is None else [unit, op.Mul(unit, 0.0)]
    total = op.ReduceSum(column_squares(op, a), [-1], keepdims=1)

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        work, vectors = Pair(op, *states[:count]), Pair(op, *states[count:])
        gram = matrix_product(adjoint_of(work), work).each(lambda x: shaped(x, square))
        gram = mirrored(op, gram)
        rotation = rotations(op, gram, round_of_pairs(op, turn, n), n)
        norms = op.ReduceSum(op.Mul(gram.re, eye(op, n)), [-2], keepdims=1)
        scale = op.Sqrt(op.Mul(norms, flipped(op, shaped(norms, [*batch, 1, n]))))
        # Orthogonal to working precision, or too small to matter beside the whole matrix.
        limit = op.Add(op.Mul(scale, _PRECISION), op.Mul(total, 1e-32))
        rest = op.Greater(op.Mul(size_of(gram), off), limit)
        more = op.ReduceMax(op.cast(rest, DataType.INT32), keepdims=0)
        turned = (matrix_product(x, rotation) for x in (work, vectors))
        return [op.cast(more, DataType.BOOL), *(part for value in turned for part in value.parts)]

    results = loop(op, op.Mul(odd(op, n), _SWEEPS), [*a.parts, *start], step, until=True)
    work = Pair(op, *(shaped(x, shape) for x in results[:count]))
    values, order = op.TopK(op.Sqrt(op.Squeeze(column_squares(op, work), [-2])), [n], axis=-1)
    order = shaped(order, [*batch, n])
    vectors = Pair(op, *(picked(op, shaped(x, square), order, -1) for x in results[count:]))
    return work.each(lambda x: picked(op, x, order, -1)), values, vectors


def svd(op: Any, a: Pair, steps: int | Size, *, full: bool) -> tuple[Pair, Tensor, Pair]:
    """U, S, Vh of float64 matrices; ``steps`` is the smaller of their sides.

    ``a @ V`` has orthogonal columns, so its QR factorization has U as Q up to signs, completed to a whole basis.
    """
    shape = list(a.re.shape)
    m, n = shape[-2:]
    if is_wider(m, n):
        u, s, vh = svd(op, adjoint_of(a), steps, full=full)
        return adjoint_of(vh), s, adjoint_of(u)
    rotated, values, vectors = singular(op, a)
    compact, taus = householder(op, rotated)
    q = orthogonal(op, compact, along_last(taus, len(shape)), steps, m if full else steps)
    lengths = op.ReduceSum(op.Mul(compact.re, eye(op, m, n)), [-1], keepdims=0)
    signs = op.Where(op.Less(lengths, 0.0), op.const(-1.0, WIDE), op.const(1.0, WIDE))
    signs = shaped(signs, shape[:-1])
    signs = across(op, signs if full else head(op, signs, steps, -1))
    u = q.each(lambda x: shaped(op.Mul(x, signs), x.shape))
    vectors = vectors if full else vectors.each(lambda x: head(op, x, steps, -1))
    return u, head(op, shaped(values, [*shape[:-2], n]), steps, -1), adjoint_of(vectors)


def is_wider(m: int | Size, n: int | Size) -> bool:
    """Whether there are surely more columns than rows: then the transpose has fewer columns to rotate."""
    return isinstance(m, int) and isinstance(n, int) and n > m


@translation("aten::_linalg_svd", complex=True)
def linalg_svd(
    op: Any, A: Tensor, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None
) -> Any:
    if empty(A):
        return identities(op, 0), blank(op, 1), identities(op, 2)
    a = wide_pair(op, A)
    if not compute_uv:
        tall = adjoint_of(a) if is_wider(A.shape[-2], A.shape[-1]) else a
        shape = list(tall.re.shape)
        values = shaped(singular(op, tall)[1], [*shape[:-2], shape[-1]])
        return blank(op, 0), op.cast(head(op, values, op.results[1].shape[-1], -1), A.dtype), blank(op, 2)
    u, values, vh = svd(op, a, op.results[1].shape[-1], full=full_matrices)
    return narrowed(u, A.dtype), op.cast(values, A.dtype), narrowed(vh, A.dtype)
