"""Symmetric and Hermitian indefinite matrices as ``L D L^T``, by the pivots of Bunch and Kaufman, and their systems.

J. R. Bunch and L. Kaufman, "Some stable methods for calculating inertia and solving symmetric linear systems", 1977, in
the form of LAPACK's sytrf and hetrf: factors, swaps and their numbers are LAPACK's (where two pivots are as good to
float32's precision, the choice may be another: all of it computes in float64). A turn of the loop is a column; of a
block of two columns the second is idle, so that the matrices of a batch may have their blocks in different places.

Nodes of one call on a real (a complex) matrix of static size, loop bodies included: factors 121 (307), solve 59
(139).
"""

from __future__ import annotations

from typing import Any

from onnxport import DataType, Tensor, translation

from onnxport_builtin.aten.complex_parts import Pair, matrix_product
from onnxport_builtin.aten.linalg_parts import (
    WIDE,
    across,
    any_zero,
    blank,
    broadcast,
    diagonal,
    down,
    empty,
    exchanged,
    first_failure,
    is_zero,
    last_axis,
    loop,
    masked,
    mirrored,
    narrowed,
    numbers,
    picked,
    shaped,
    taxicab,
    triangle,
    wide_pair,
    zero_info,
)

#: The bound that lets elements grow alike by one block of two and by two of one.
_ALPHA = (1 + 17**0.5) / 8


def symmetric(op: Any, x: Tensor, *, hermitian: bool) -> Pair:
    """The matrices of which the lower half is read."""
    a = wide_pair(op, x)
    if hermitian:
        return mirrored(op, a)
    return a.each(lambda part: mirrored(op, Pair(op, part)).re)


class Factors:
    """The loop over the columns of matrices (..., n, n), which stay whole and symmetric, or Hermitian."""

    def __init__(self, op: Any, a: Pair, *, hermitian: bool) -> None:
        self.op, self.hermitian, self.a = op, hermitian, a
        self.shape = list(a.re.shape)
        self.rows = numbers(op, self.shape[-1])

    def run(self) -> tuple[Pair, Tensor, Tensor]:
        """L with the blocks of D on its diagonal, LAPACK's numbers of the swaps (..., n), and its info (...)."""
        op, parts, shape = self.op, self.a.parts, self.shape
        count = len(parts)
        zeros = shaped(op.Expand(op.const(0.0, WIDE), shape), shape)
        no_swaps = shaped(op.Expand(op.const(0, DataType.INT64), shape[:-1]), shape[:-1])
        idle = shaped(op.Expand(op.const(False), [*shape[:-2], 1]), [*shape[:-2], 1])

        def step(k: Tensor, *states: Tensor) -> list[Tensor]:
            work, done = Pair(op, *states[:count]), Pair(op, *states[count : 2 * count])
            return self.step(k, work, done, *states[2 * count :])

        start = [*parts, *[zeros] * count, no_swaps, idle]
        results = loop(op, shape[-1], start, step, stacked=1)
        info = first_failure(op, last_axis(op, results[-1], len(shape)))
        return Pair(op, *results[count : 2 * count]), op.cast(results[2 * count], DataType.INT32), info

    def step(self, k: Tensor, work: Pair, done: Pair, swaps: Tensor, idle: Tensor) -> list[Tensor]:
        op, rows = self.op, self.rows
        double, place, failed = self.pivot(work, k)
        active = op.Not(idle)
        double = op.And(double, active)
        begin = op.Add(k, op.cast(double, DataType.INT64))  # the row that is swapped, the block's last
        order = shaped(exchanged(op, rows, begin, op.Where(active, place, begin)), self.shape[:-1])
        work = work.each(lambda x: picked(op, picked(op, x, order, -2), order, -1))
        following = op.Min(op.Add(k, 1), op.Sub(op.cast(self.shape[-1], DataType.INT64), 1))
        here, there = op.Equal(rows, k), op.And(op.Equal(rows, following), double)
        x, y = (work.each(lambda part, i=i: op.Gather(part, i, axis=-1)) for i in (k, following))  # type: ignore[misc]
        p, q = (x.each(lambda part, i=i: self.element(part, i)) for i in (k, following))  # type: ignore[misc]
        r = y.each(lambda part: self.element(part, following))
        past = op.And(op.Greater(rows, begin), active)
        first, second, work = self.eliminated(work, masked(x, past), masked(y, op.And(past, double)), double, (p, q, r))
        first = masked(p, here, masked(q, there, first))
        done = masked(first.each(lambda v: down(op, v)), op.And(across(op, here), down(op, active)), done)
        second = masked(r, there, second)
        done = masked(second.each(lambda v: down(op, v)), across(op, there), done)
        number = op.Add(place, 1)
        number = op.Where(double, op.Neg(number), number)
        swaps = op.Where(op.Or(op.And(here, active), there), number, swaps)
        return [*work.parts, *done.parts, swaps, double, op.And(failed, active)]

    def element(self, vector: Tensor, place: Tensor) -> Tensor:
        return self.op.Gather(vector, self.op.Reshape(place, [1]), axis=-1)

    def weight(self, value: Pair) -> Tensor:
        """The size of an element of the diagonal, which is real in Hermitian matrices."""
        return self.op.Abs(value.re) if self.hermitian else taxicab(value)

    def pivot(self, work: Pair, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether column k begins a block of two, the row to swap in, and whether the column is 0; (..., 1)."""
        op, rows = self.op, self.rows
        column = work.each(lambda x: op.Gather(x, k, axis=-1))
        own = self.weight(column.each(lambda x: self.element(x, k)))
        below = op.Where(op.Greater(rows, k), taxicab(column), 0.0)
        largest = op.ReduceMax(below, [-1], keepdims=1)
        place = op.ArgMax(below, axis=-1, keepdims=1)
        index = shaped(place, [*self.shape[:-2], 1])
        chosen = work.each(lambda x: op.Squeeze(picked(op, x, index, -2), [-2]))
        others = op.And(op.GreaterOrEqual(rows, k), op.Not(op.Equal(rows, place)))
        beside = op.ReduceMax(op.Where(others, taxicab(chosen), 0.0), [-1], keepdims=1)
        # Either beats alpha * largest, or own * beside does alpha * largest**2, which could overflow.
        growth = op.Min(op.Div(largest, op.Where(op.Equal(beside, 0.0), 1.0, beside)), 1.0)
        stays = op.GreaterOrEqual(own, op.Mul(op.Mul(largest, _ALPHA), growth))
        found = self.weight(chosen.each(lambda x: op.GatherElements(x, place, axis=-1)))
        moves = op.GreaterOrEqual(found, op.Mul(beside, _ALPHA))
        nothing = op.Equal(op.Max(own, largest), 0.0)
        return op.Not(op.Or(stays, moves)), op.Where(stays, k, place), nothing

    def eliminated(
        self, work: Pair, x: Pair, y: Pair, double: Tensor, block: tuple[Pair, Pair, Pair]
    ) -> tuple[Pair, Pair, Pair]:
        """The columns of L below the block, the second 0 in blocks of one, and what is left of ``work``.

        With ``D = [[p, q'], [q, r]]`` they are ``[x, y] D**-1``, the terms divided by q and q' first.
        """
        op = self.op
        p, q, r = block
        one = Pair(op, op.const(1.0, WIDE))
        q = masked(q, double, one)
        other = self.mirror(q)
        low, high = p / q, r / other
        bottom = masked(low * high - 1.0, double, one)
        # A zero pivot has only zeros below it: nothing to divide.
        single = x / masked(one, is_zero(p), p)
        first = masked((x * high / q - y / other) / bottom, double, single)
        second = masked((y * low / other - x / q) / bottom, double)
        for column, source in ((first, x), (second, y)):
            row = self.mirror(source).each(lambda v: across(op, v))
            work = work - column.each(lambda v: down(op, v)) * row
        return first, second, work

    def mirror(self, value: Pair) -> Pair:
        """What stands across the diagonal."""
        return value.conj() if self.hermitian else value


@translation("aten::linalg_ldl_factor_ex", complex=True)
def linalg_ldl_factor_ex(op: Any, self: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    if empty(self):
        return blank(op, 0), blank(op, 1), zero_info(op, 2)
    factors, swaps, info = Factors(op, symmetric(op, self, hermitian=hermitian), hermitian=hermitian).run()
    return narrowed(factors.each(lambda x: shaped(x, self.shape)), self.dtype), swaps, info


@translation("aten::linalg_ldl_solve", complex=True)
def linalg_ldl_solve(op: Any, LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """The rows are swapped as the columns of L are passed, since each swap leaves the columns before it as they are."""
    if any_zero(op.result.shape):
        return blank(op, 0)
    shape = list(op.result.shape)
    n = shape[-2]
    rows = numbers(op, n)
    factors = wide_pair(op, LD)
    numbered = op.cast(pivots, DataType.INT64)
    in_pair = op.Less(numbered, 0)
    # In a run of negative numbers every other one begins a block.
    single_before = op.And(across(op, op.Not(in_pair)), op.LessOrEqual(across(op, rows), down(op, rows)))
    last_single = op.ReduceMax(op.Where(single_before, across(op, rows), -1), [-1], keepdims=0)
    odd = op.Equal(op.Mod(op.Sub(rows, last_single), 2), 1)
    begins, ends = op.And(in_pair, odd), op.And(in_pair, op.Not(odd))
    own = op.Add(rows, op.cast(begins, DataType.INT64))
    other = op.Where(ends, own, op.Sub(op.Abs(numbered), 1))

    under = op.Equal(down(op, rows), op.Add(across(op, rows), 1))
    lower = factors.each(lambda x: triangle(op, x, upper=False, diagonal=-1))
    lower = masked(lower, op.Not(op.And(under, across(op, begins))))
    beside = masked(factors, under).each(lambda x: op.ReduceSum(x, [-2], keepdims=0))

    def swapped(k: Tensor, work: Pair) -> Pair:
        first, second = (op.Gather(x, op.Reshape(k, [1]), axis=-1) for x in (own, other))
        order = down(op, exchanged(op, rows, first, second))
        return work.each(lambda x: op.GatherElements(x, op.Expand(order, shape), axis=-2))

    def forward(k: Tensor, *states: Tensor) -> list[Tensor]:
        work = swapped(k, Pair(op, *states))
        column = lower.each(lambda x: down(op, op.Gather(x, k, axis=-1)))
        return (work - column * work.each(lambda x: across(op, op.Gather(x, k, axis=-2)))).parts

    def backward(turn: Tensor, *states: Tensor) -> list[Tensor]:
        k = op.Sub(op.Sub(op.cast(n, DataType.INT64), 1), turn)
        work = Pair(op, *states)
        column = lower.each(lambda x: across(op, op.Gather(x, k, axis=-1)))
        total = matrix_product(column.conj() if hermitian else column, work)
        return swapped(k, masked(work - total, down(op, op.Equal(rows, k)), work)).parts

    b = wide_pair(op, B).each(lambda x: broadcast(op, x, shape[:-2]))
    known = Pair(op, *(shaped(x, shape) for x in loop(op, n, b.parts, forward)))

    # D: each row by itself, or with its partner's
    partner = op.Add(rows, op.Sub(op.cast(begins, DataType.INT64), op.cast(ends, DataType.INT64)))
    across_ = beside.each(lambda x: op.GatherElements(x, op.Min(partner, op.Where(ends, partner, rows)), axis=-1))
    pivot = factors.each(lambda x: diagonal(op, x))
    if hermitian:
        pivot = Pair(op, pivot.re)
        size = across_.square_norm()
        off, product = masked(across_.conj(), begins, across_), Pair(op, size)
    else:
        off, product = across_, across_ * across_
    mate = pivot.each(lambda x: op.GatherElements(x, partner, axis=-1))
    order = op.Expand(down(op, partner), shape)
    theirs = known.each(lambda x: op.GatherElements(x, order, axis=-2))
    top = known * mate.each(lambda x: down(op, x)) - theirs * off.each(lambda x: down(op, x))
    top = masked(top, down(op, in_pair), known)
    bottom = masked(pivot * mate - product, in_pair, pivot)
    solved = top / bottom.each(lambda x: down(op, x))

    start = [shaped(x, shape) for x in solved.parts]
    return narrowed(Pair(op, *(shaped(x, shape) for x in loop(op, n, start, backward))), B.dtype)
