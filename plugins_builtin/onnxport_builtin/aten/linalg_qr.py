"""QR factors of real and complex matrices by Householder's reflections, one a turn of a loop.

Signs are LAPACK's; the diagonal of R is real. Nodes of one call on a real (a complex) matrix of static size, loop
bodies included: the reflections alone 38 (107), with Q 55 (149).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Size, Tensor, translation

from onnxport_builtin.aten.complex_parts import Pair, matrix_product
from onnxport_builtin.aten.linalg_parts import (
    across,
    adjoint_of,
    any_zero,
    blank,
    down,
    empty,
    eye,
    head,
    identities,
    last_axis,
    loop,
    masked,
    narrowed,
    numbers,
    shaped,
    smaller,
    triangle,
    wide_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def reflection(op: Any, column: Pair, k: Tensor, rows: Tensor) -> tuple[Pair, Pair, Pair]:
    """LAPACK's larfg: what annuls a column (..., m) below row k.

    Returns: the vector, 1 at k and 0 above it; tau (..., 1); the column it leaves, real at k, with the vector below.
    """
    alpha = column.each(lambda x: op.Unsqueeze(op.Gather(x, k, axis=-1), [-1]))
    below = masked(column, op.Greater(rows, k))
    squares = [op.ReduceSumSquare(part, [-1], keepdims=1) for part in below.parts]
    tail = squares[0] if len(squares) == 1 else op.Add(*squares)
    still = op.Equal(tail, 0.0)  # nothing to reflect: tau is 0
    if alpha.im is not None:
        still = op.And(still, op.Equal(alpha.im, 0.0))
    length = op.Sqrt(op.Add(alpha.square_norm(), tail))
    beta = op.Where(op.Less(alpha.re, 0.0), length, op.Neg(length))
    beta = op.Where(still, alpha.re, beta)
    divisor = op.Where(still, 1.0, beta)
    tau = (Pair(op, beta) - alpha) / divisor
    distance = alpha - Pair(op, beta)
    vector = below / Pair(op, op.Where(still, 1.0, distance.re), distance.im)
    here = op.Equal(rows, k)
    whole = masked(Pair(op, op.const(1.0, vector.re.dtype)), here, vector)
    left = masked(vector, op.Greater(rows, k), column)
    return whole, tau, masked(Pair(op, beta), here, left)


def reflected(whole: Pair, tau: Pair, target: Pair) -> Pair:
    """``(1 - tau v v^H) @ target``; tau is (..., 1, 1)."""
    op = target.op
    projected = matrix_product(whole.conj().each(lambda x: across(op, x)), target)
    return target - whole.each(lambda x: down(op, x)) * (projected * tau)


def householder(op: Any, a: Pair) -> tuple[Pair, Pair]:
    """LAPACK's geqrf on float64 matrices (..., m, n): compact factors and tau as (steps, ..., 1)."""
    *batch, m, n = list(a.re.shape)
    rows, columns = numbers(op, m), numbers(op, n)

    def step(k: Tensor, *states: Tensor) -> list[Tensor]:
        work = Pair(op, *states)
        whole, tau, kept = reflection(op, work.each(lambda x: op.Gather(x, k, axis=-1)), k, rows)
        changed = reflected(whole, tau.conj().each(lambda x: op.Unsqueeze(x, [-1])), work)
        work = masked(changed, op.Greater(columns, k), work)
        here = op.Equal(columns, k)
        return [*masked(kept.each(lambda x: down(op, x)), here, work).parts, *tau.parts]

    count = len(a.parts)
    results = loop(op, smaller(op, m, n), a.parts, step, stacked=count)
    return Pair(op, *(shaped(x, [*batch, m, n]) for x in results[:count])), Pair(op, *results[count:])


def apply_reflections(op: Any, compact: Pair, taus: Pair, target: Pair, steps: Any, *, adjoint: bool = False) -> Pair:
    """``H_1 ... H_k @ target``, or with the adjoint of that product.

    Args:
        compact: (..., m, n), vectors below the diagonal.
        taus: (..., k).
        target: (..., m, c), of the batch of the result.
    """
    rows = numbers(op, compact.re.shape[-2])
    if adjoint:
        taus = taus.conj()

    def step(turn: Tensor, *states: Tensor) -> list[Tensor]:
        k = turn if adjoint else op.Sub(op.Sub(op.cast(steps, DataType.INT64), 1), turn)
        vector = masked(compact.each(lambda x: op.Gather(x, k, axis=-1)), op.Greater(rows, k))
        whole = masked(Pair(op, op.const(1.0, vector.re.dtype)), op.Equal(rows, k), vector)
        tau = taus.each(lambda x: op.Unsqueeze(op.Gather(x, k, axis=-1), [-1, -2]))
        return reflected(whole, tau, Pair(op, *states)).parts

    return Pair(op, *(shaped(x, target.re.shape) for x in loop(op, steps, target.parts, step)))


def orthogonal(op: Any, compact: Pair, taus: Pair, steps: Any, columns: int | Size) -> Pair:
    """The first ``columns`` columns of ``H_1 ... H_k``; ``taus`` is (..., k)."""
    *batch, m, _ = list(compact.re.shape)
    shape = [*batch, m, columns]
    start = Pair(op, shaped(op.Expand(eye(op, m, columns), shape), shape))
    if compact.im is not None:
        start = Pair(op, start.re, shaped(op.Mul(start.re, 0.0), shape))
    return apply_reflections(op, compact, taus, start, steps)


def along_last(taus: Pair, rank: int) -> Pair:
    return taus.each(lambda x: last_axis(taus.op, x, rank))


@translation("aten::geqrf", complex=True)
def geqrf(op: Any, self: Tensor) -> Any:
    if empty(self):
        return blank(op, 0), blank(op, 1)
    compact, taus = householder(op, wide_pair(op, self))
    return narrowed(compact, self.dtype), narrowed(along_last(taus, len(self.shape)), self.dtype)


@translation("aten::linalg_qr", complex=True)
def linalg_qr(op: Any, A: Tensor, mode: str = "reduced") -> Any:
    if empty(A):
        return identities(op, 0), blank(op, 1)
    m, n = A.shape[-2], A.shape[-1]
    steps = smaller(op, m, n)
    compact, taus = householder(op, wide_pair(op, A))
    rows: Callable[[Tensor], Tensor] = (lambda x: x) if mode == "complete" else (lambda x: head(op, x, steps, -2))
    upper = narrowed(compact.each(lambda x: triangle(op, rows(x), upper=True)), A.dtype)
    if mode == "r":
        return blank(op, 0), upper
    columns = m if mode == "complete" else op.results[0].shape[-1]
    return narrowed(orthogonal(op, compact, along_last(taus, len(A.shape)), steps, columns), A.dtype), upper


@translation("aten::linalg_householder_product", complex=True)
def householder_product(op: Any, input: Tensor, tau: Tensor) -> Tensor:  # the schema's name
    if empty(input) or any_zero(tau.shape):
        return identities(op, 0)
    vectors, taus = wide_pair(op, input), wide_pair(op, tau)
    return narrowed(orthogonal(op, vectors, taus, tau.shape[-1], input.shape[-1]), input.dtype)


@translation("aten::orgqr", complex=True)
def orgqr(op: Any, self: Tensor, input2: Tensor) -> Tensor:
    return householder_product(op, self, input2)


@translation("aten::ormqr", complex=True)
def ormqr(op: Any, self: Tensor, input2: Tensor, input3: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """``Q @ C``, or ``C @ Q``; ``transpose`` takes Q's adjoint."""
    if empty(input3) or any_zero(input2.shape):
        return input3
    target = wide_pair(op, input3)
    if not left:
        target = adjoint_of(target)
    vectors, taus = wide_pair(op, self), wide_pair(op, input2)
    # From the right everything is seen as its adjoint.
    result = apply_reflections(op, vectors, taus, target, input2.shape[-1], adjoint=left is transpose)
    return narrowed(result if left else adjoint_of(result), self.dtype)
