"""Eigenvalues and eigenvectors of matrices that are not symmetric, real and complex.

The matrix becomes upper Hessenberg by reflections and then upper triangular by QR sweeps with a complex shift for each
block that has not fallen apart yet (Wilkinson's, of the block's last two rows; J. G. F. Francis, "The QR
transformation", 1961, and LAPACK's lahqr, whose test for small subdiagonals and occasional other shifts these are).
Eigenvectors come by back substitution, as in LAPACK's trevc. A sweep is a loop of plane rotations inside the loop of
sweeps, both batched; during the sweeps real and imaginary parts stand in turns, so that a rotation is a real product of
a few rows or columns. All of it computes in float64 and is backward stable: the residual of ``A v = l v`` is a few
units of float64's precision times the norm of A. Eigenvalues come in the order in which they stand on the diagonal,
which need not be LAPACK's; eigenvectors have length 1 and a real largest element, as LAPACK's have.

Nodes of one call on a real (a complex) matrix of static size, loop bodies included: eigvals 243 (314), eig 354 (432).
A sweep takes ``n - 1`` rotations and an eigenvalue three or four sweeps, of all blocks at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, translation

from onnxport_builtin.aten.complex_elementwise import root
from onnxport_builtin.aten.complex_parts import Pair, matrix_product
from onnxport_builtin.aten.linalg_decompositions import column_squares
from onnxport_builtin.aten.linalg_parts import (
    WIDE,
    across,
    blank,
    down,
    empty,
    eye,
    is_zero,
    loop,
    masked,
    narrowed,
    numbers,
    shaped,
    taxicab,
    unit_of,
    used,
    wide_pair,
)
from onnxport_builtin.aten.linalg_qr import reflected, reflection

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPSILON = 2.0**-52
#: Two or three sweeps an eigenvalue are usual; LAPACK allows as many as this.
_SWEEPS = 30
#: After so many sweeps, one with another shift: some matrices, such as permutations, stand still under the usual one.
_UNUSUAL = 10


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """From a unit vector (x, y) of two complex numbers, as four reals, to the rotation G = ``[[x', y'], [-y, x]]``,
    which takes it to (1, 0).

    Returns: of the real parts of G beside its imaginary ones (2, 4); of ``G^H`` as it acts from the right on rows of
    real and imaginary parts in turns (4, 4).
    """
    left, right = np.zeros((4, 2, 4)), np.zeros((4, 4, 4))
    # row and column of G, where its number begins in the vector, signs of its real and imaginary parts
    for row, column, source, real, imag in ((0, 0, 0, 1, -1), (0, 1, 2, 1, -1), (1, 0, 2, -1, -1), (1, 1, 0, 1, 1)):
        left[source, row, column], left[source + 1, row, column + 2] = real, imag
        for part in (0, 1):
            right[source, 2 * column + part, 2 * row + part] = real
            right[source + 1, 2 * column + part, 2 * row + 1 - part] = imag if part else -imag
    return left.reshape(4, 8), right.reshape(4, 16)


def hessenberg(op: Any, a: Pair, *, vectors: bool) -> tuple[Pair, Pair | None]:
    """H of ``A = Q H Q^H``, whose elements below the first subdiagonal are noise, and Q if asked for."""
    shape = a.re.shape
    n, count = shape[-1], len(a.parts)
    rows = numbers(op, n)
    unit = unit_of(op, a).parts if vectors else []

    def from_right(whole: Pair, tau: Pair, target: Pair) -> Pair:
        projected = matrix_product(target, whole.each(lambda x: down(op, x)))
        return target - projected * (whole.conj().each(lambda x: across(op, x)) * tau)

    def step(k: Tensor, *states: Tensor) -> list[Tensor]:
        work, basis = Pair(op, *states[:count]), states[count:]
        column = work.each(lambda x: op.Gather(x, k, axis=-1))
        whole, tau, _ = reflection(op, column, op.Add(k, 1), rows)
        tau = tau.each(lambda x: op.Unsqueeze(x, [-1]))
        results = from_right(whole, tau, reflected(whole, tau.conj(), work)).parts
        return [*results, *(from_right(whole, tau, Pair(op, *basis)).parts if basis else [])]

    trips = max(n - 2, 0) if isinstance(n, int) else op.Max(op.Sub(op.cast(n, DataType.INT64), 2), 0)
    results = [shaped(x, shape) for x in loop(op, trips, [*a.parts, *unit], step)]
    return Pair(op, *results[:count]), Pair(op, *results[count:]) if vectors else None


def in_turns(op: Any, value: Pair) -> Tensor:
    """Real and imaginary parts in turns: (..., m, n) to (..., m, 2n)."""
    *batch, m, n = list(value.re.shape)
    shape = [*batch, m, n * 2]
    pairs = op.Concat(op.Unsqueeze(value.re, [-1]), op.Unsqueeze(value.imag, [-1]), axis=-1)
    return shaped(op.Reshape(pairs, op.sizes(shape)), shape)


class Sweeps:
    """The QR sweeps over matrices (..., r, 2n): the n rows of H and, under it, those of Q, their parts in turns.

    Indices are those of the flattened matrix: element i of the diagonal is at ``place[i]``.
    """

    def __init__(self, op: Any, batch: Sequence[Any], n: int | Size, rows: int | Size) -> None:
        self.op, self.batch, self.n, self.rows = op, list(batch), n, rows
        self.steps = numbers(op, n - 1)
        self.width: Any = n * 2
        self.place = op.Mul(self.steps, op.cast(self.width + 2, DataType.INT64))
        self.offsets = {"left": 0, "right": self.width + 2, "below": self.width, "above": 2}
        row, column = down(op, numbers(op, rows)), op.Div(numbers(op, self.width), 2)
        self.column = op.Min(column, op.cast(n - 2, DataType.INT64))
        in_basis = op.GreaterOrEqual(row, op.cast(n, DataType.INT64))
        self.upper = op.Or(op.LessOrEqual(row, across(op, column)), in_basis)
        self.under = op.Equal(row, op.Add(across(op, column), 1))
        self.left_unit, self.right_unit = eye(op, rows, n), eye(op, self.width)
        self.times_i = self._times_i()
        self.left, self.right = (op.const(table, WIDE) for table in _tables())

    def _times_i(self) -> Tensor:
        """What multiplies rows of parts in turns by i, from the right: (2n, 2n)."""
        op, places = self.op, numbers(self.op, self.width)
        odd = op.Mod(places, 2)
        source = op.Add(places, op.Sub(1, op.Mul(odd, 2)))
        sign = op.cast(op.Sub(op.Mul(odd, 2), 1), WIDE)
        return op.Mul(op.Gather(self.right_unit, source, axis=1), across(op, sign))

    def _elements(self, flat: Tensor, name: str) -> Pair:
        op, offset = self.op, self.offsets[name]
        places = [op.Add(self.place, op.cast(offset + part, DataType.INT64)) for part in (0, 1)]
        shape = [*self.batch, self.n - 1]
        return Pair(op, *(shaped(op.Gather(flat, place, axis=-1), shape) for place in places))

    def shifts(self, turn: Tensor, left: Pair, above: Pair, below: Pair, right: Pair) -> Pair:
        """The eigenvalue of each ``[[left, above], [below, right]]`` that is closer to ``right``."""
        op = self.op
        half, product = (left - right) * 0.5, above * below
        other = root(half * half + product)
        towards = op.Less((half.conj() * other).re, 0.0)
        far = half + (-other).where(towards, other)
        near = right - product / Pair(op, op.Where(is_zero(far), 1.0, far.re), far.im)
        unusual = op.Equal(op.Mod(turn, _UNUSUAL + 1), _UNUSUAL)
        return (right + Pair(op, op.Mul(taxicab(below), 0.75))).where(unusual, near)

    def sweep(self, turn: Tensor, work: Tensor) -> list[Tensor]:
        """Whether something is left to do, and the matrices after one sweep."""
        op, steps = self.op, self.steps
        flat = op.Reshape(work, op.sizes([*self.batch, self.rows * self.width]))
        left, above, below, right = (self._elements(flat, name) for name in ("left", "above", "below", "right"))
        near = op.Max(op.Add(taxicab(left), taxicab(right)), 1e-18)
        active = op.Greater(taxicab(below), op.Mul(near, _EPSILON))  # not where it is NaN: that is for ever
        more = op.ReduceMax(op.cast(active, DataType.INT64), keepdims=0)
        before = op.Gather(active, op.Max(op.Sub(steps, 1), 0), axis=-1)
        starts = op.And(active, op.Not(op.And(before, op.Greater(steps, 0))))
        # The last rotation of the block that begins here: the one ahead of the next that is idle.
        idle_ahead = op.And(across(op, op.Not(active)), op.GreaterOrEqual(across(op, steps), down(op, steps)))
        last = op.cast(self.n - 1, DataType.INT64)
        end = op.Sub(op.ReduceMin(op.Where(idle_ahead, across(op, steps), last), [-1], keepdims=0), 1)
        shifts = self.shifts(turn, left, above, below, right)
        shift = op.Concat(*(down(op, op.GatherElements(part, end, axis=-1)) for part in shifts.parts), axis=-1)
        kept = op.And(self.under, across(op, op.Gather(active, self.column, axis=-1)))
        shape = [*self.batch, self.rows, self.width]
        work = shaped(op.Where(op.Or(self.upper, kept), work, 0.0), shape)

        def rotate(k: Tensor, work: Tensor) -> list[Tensor]:
            return [self.rotated(k, work, shift, starts, active)]

        trips = op.Mul(more, last)
        return [op.cast(more, DataType.BOOL), shaped(loop(op, trips, [work], rotate)[0], shape)]

    def rotated(self, k: Tensor, work: Tensor, shift: Tensor, starts: Tensor, active: Tensor) -> Tensor:
        """Rows and columns k and k + 1 rotated: at a block's start by the shifted matrix's first column, else so that
        the element outside the Hessenberg form, which the rotation before has made, vanishes."""
        op = self.op
        one, first = op.Reshape(k, [1]), op.Mul(k, 2)
        four = op.Add(op.const([0, 1, 2, 3], DataType.INT64), first)
        two = op.Add(op.const([0, 1], DataType.INT64), k)
        rows = op.Gather(work, two, axis=-2)
        pair_of = op.Add(op.const([0, 1], DataType.INT64), first)
        own = op.Gather(rows, pair_of, axis=-1)
        own = op.Sub(own, op.Mul(op.const([[1.0], [0.0]], WIDE), op.Gather(shift, one, axis=-2)))
        before = op.Gather(rows, op.Max(op.Sub(pair_of, 2), 0), axis=-1)
        vector = op.Where(down(op, op.Gather(starts, one, axis=-1)), own, before)
        vector = op.Reshape(vector, op.sizes([*self.batch, 4]))
        length = op.ReduceL2(vector, [-1], keepdims=1)
        busy = op.And(op.Gather(active, one, axis=-1), op.Greater(length, 0.0))
        vector = op.Where(busy, op.Div(vector, length), op.const([1.0, 0.0, 0.0, 0.0], WIDE))
        left = op.Reshape(op.MatMul(vector, self.left), op.sizes([*self.batch, 2, 4]))
        right = op.Reshape(op.MatMul(vector, self.right), op.sizes([*self.batch, 4, 4]))
        rows = op.Concat(rows, op.MatMul(rows, self.times_i), axis=-2)
        change = op.MatMul(op.Sub(left, eye(op, 2, 4)), rows)
        work = op.Add(work, op.MatMul(op.Gather(self.left_unit, two, axis=-1), change))
        change = op.MatMul(op.Gather(work, four, axis=-1), op.Sub(right, eye(op, 4)))
        return op.Add(work, op.MatMul(change, op.Gather(self.right_unit, four, axis=0)))


def triangular(op: Any, h: Pair, q: Pair | None) -> tuple[Pair, Pair | None]:
    """T of ``H = Z T Z^H``, of which the upper half counts, and ``Q Z``."""
    *batch, n, _ = list(h.re.shape)
    if n == 1:
        return Pair(op, h.re, h.imag), q
    start, rows = in_turns(op, h), n
    if q is not None:
        rows = n * 2
        start = shaped(op.Concat(start, in_turns(op, q), axis=-2), [*batch, rows, n * 2])
    sweeps = Sweeps(op, batch, n, rows)
    trips = op.cast((n - 1) * _SWEEPS, DataType.INT64)
    result = loop(op, trips, [start], sweeps.sweep, until=True)[0]
    pairs = op.Reshape(result, op.sizes([*batch, rows, n, 2]))
    whole = [op.Gather(pairs, op.const(i), axis=-1) for i in (0, 1)]
    if q is None:
        return Pair(op, *(shaped(x, h.re.shape) for x in whole)), None
    halves = [op.Slice(x, op.sizes([a]), op.sizes([b]), [-2]) for a, b in ((0, n), (n, rows)) for x in whole]
    parts = [shaped(x, h.re.shape) for x in halves]
    return Pair(op, *parts[:2]), Pair(op, *parts[2:])


def triangular_vectors(op: Any, t: Pair, values: Pair) -> Pair:
    """Eigenvectors, as columns, of upper triangular matrices of norm about 1."""
    shape = t.re.shape
    n, count = shape[-1], 2
    places = numbers(op, n)
    unit = unit_of(op, t)

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        vectors = Pair(op, *states)
        i = op.Sub(op.Sub(op.cast(n, DataType.INT64), 1), turn)
        later = op.Greater(places, i)
        row = masked(t.each(lambda x: op.Gather(x, i, axis=-2)), later)
        total = matrix_product(row.each(lambda x: across(op, x)), vectors)
        distance = values - values.each(lambda x: op.Gather(x, op.Reshape(i, [1]), axis=-1))
        # Equal eigenvalues, with or without vectors of their own, are taken for a little apart.
        equal = op.Less(taxicab(distance), _EPSILON)
        distance = Pair(op, op.Where(equal, _EPSILON, distance.re), op.Where(equal, 0.0, distance.imag))
        found = total / distance.each(lambda x: across(op, x))
        vectors = masked(found, op.And(down(op, op.Equal(places, i)), later), vectors)
        largest = op.ReduceMax(taxicab(vectors), [-2], keepdims=1)
        return (vectors / op.Where(op.Greater(largest, 1e50), largest, 1.0)).parts

    return Pair(op, *(shaped(x, shape) for x in loop(op, n, unit.parts, step)[:count]))


def with_real_largest(op: Any, vectors: Pair) -> Pair:
    """Columns of length 1 whose largest element is real and positive."""
    shape = vectors.re.shape
    place = op.ArgMax(vectors.square_norm(), axis=-2, keepdims=1)
    largest = vectors.each(lambda x: op.GatherElements(x, place, axis=-2))
    turned = vectors * (largest.conj() / op.Sqrt(largest.square_norm()))
    found = turned / op.Sqrt(column_squares(op, turned))
    return found.each(lambda x: shaped(x, shape))


def eigen(op: Any, a: Pair, *, vectors: bool) -> tuple[Pair, Pair | None]:
    """Eigenvalues (..., n) and, if asked for, eigenvectors (..., n, n) of float64 matrices."""
    shape = a.re.shape
    size = op.ReduceMax(taxicab(a), [-1, -2], keepdims=1)
    size = op.Where(op.Equal(size, 0.0), 1.0, size)
    scaled = (a / size).each(lambda x: shaped(x, shape))
    t, basis = triangular(op, *hessenberg(op, scaled, vectors=vectors))
    own = op.cast(eye(op, shape[-1]), DataType.BOOL)
    values = t.each(lambda x: op.ReduceSum(op.Where(own, x, 0.0), [-1], keepdims=0))
    imag = values.imag
    if a.im is None:  # what is noise in real matrices is 0 in LAPACK's results
        noise = op.Mul(op.cast(shape[-1], WIDE), 4 * _EPSILON)
        imag = op.Where(op.LessOrEqual(op.Abs(imag), noise), 0.0, imag)
    found = Pair(op, values.re, imag) * op.Squeeze(size, [-1])
    if basis is None:
        return found, None
    columns = with_real_largest(op, matrix_product(basis, triangular_vectors(op, t, values)))
    if a.im is None:
        columns = Pair(op, columns.re, op.Where(across(op, op.Equal(imag, 0.0)), 0.0, columns.imag))
    return found, columns


@translation("aten::linalg_eig", complex=True)
def linalg_eig(op: Any, self: Tensor) -> Any:
    if empty(self):
        return blank(op, 0), blank(op, 1)
    values, vectors = eigen(op, wide_pair(op, self), vectors=used(op, 1))
    return narrowed(values, self.dtype), blank(op, 1) if vectors is None else narrowed(vectors, self.dtype)


@translation("aten::linalg_eigvals", "aten::_linalg_eigvals", complex=True)
def linalg_eigvals(op: Any, self: Tensor) -> Tensor:
    if empty(self):
        return blank(op, 0)
    return narrowed(eigen(op, wide_pair(op, self), vectors=False)[0], self.dtype)
