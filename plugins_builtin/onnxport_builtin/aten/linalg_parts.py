"""What matrix algorithms share: loops, index vectors, triangles, results without elements.

Matrices are computed in float64, so that float32 results are at least as accurate as LAPACK's; complex ones as a `Pair`
of two real tensors, so that one algorithm serves real and complex matrices: the imaginary parts of real ones are None
and cost no nodes.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Size, Tensor

from onnxport_builtin.aten.complex_parts import Pair, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDE = DataType.DOUBLE


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


def shaped(x: Tensor, shape: Sequence[Any]) -> Tensor:
    """Tell a temporary's shape."""
    x.shape = ir.Shape(list(shape))
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
    return shaped(result, [*list(x.shape)[:-2], x.shape[-1], x.shape[-2]])


def triangle(op: Any, x: Tensor, *, upper: bool, diagonal: int = 0) -> Tensor:
    return shaped(op.Trilu(x, op.const(diagonal, DataType.INT64), upper=int(upper)), x.shape)


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
    return shaped(op.Slice(x, [0], [count], [axis]), shape)


def wide(op: Any, x: Tensor) -> Tensor:
    return op.cast(x, WIDE)


def cast_keeping_shape(op: Any, x: Tensor, dtype: DataType) -> Tensor:
    return shaped(op.cast(x, dtype), x.shape)


def broadcast(op: Any, x: Tensor, batch: Sequence[Any]) -> Tensor:
    """Matrices expanded to batch dimensions."""
    have = list(x.shape)
    shape = [*batch, *have[-2:]]
    return x if have == shape else shaped(op.Expand(x, shape), shape)


def last_axis(op: Any, stacked: Tensor, rank: int) -> Tensor:
    """(steps, ..., 1) as (..., steps); ``rank`` counts all axes of the former."""
    return op.Squeeze(op.Transpose(stacked, perm=[*range(1, rank), 0]), [rank - 2])


def picked(op: Any, x: Tensor, index: Tensor, axis: int) -> Tensor:
    """The elements of a vector (-1), or the rows (-2) or columns (-1) of matrices, in an order of each batch's own.

    Args:
        index: int64, (..., k), of x's batch; for elements of the rank of x, for rows and columns of one less.
    """
    if len(index.shape) == len(x.shape):
        return shaped(op.GatherElements(x, index, axis=axis), index.shape)
    shape = list(x.shape)
    shape[axis] = index.shape[-1]
    order = (down if axis == -2 else across)(op, index)
    return shaped(op.GatherElements(x, op.Expand(order, shape), axis=axis), shape)


def exchanged(op: Any, rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The numbers ``rows`` with two of them exchanged; the order of what is swapped, per batch.

    Args:
        first, second: int64, (..., 1) or, for all batches alike, 0-d.
    """
    return op.Where(op.Equal(rows, first), second, op.Where(op.Equal(rows, second), first, rows))


# --- pairs ---------------------------------------------------------------------------------------------------------


def wide_pair(op: Any, x: Tensor) -> Pair:
    """Real or complex matrices in float64, of known shape."""
    return pair(op, x, WIDE).each(lambda part: shaped(part, x.shape))


def narrowed(value: Pair, dtype: DataType) -> Tensor:
    """A result of real numbers or, where there are imaginary parts, of complex ones."""
    op = value.op
    parts = [op.cast(part, dtype) for part in value.parts]
    return parts[0] if len(parts) == 1 else op.complex(*parts)


def mirrored(op: Any, a: Pair, *, upper: bool = False) -> Pair:
    """The symmetric, or Hermitian, matrices of which one half is read."""
    shape, away = a.re.shape, 1 if upper else -1
    strict = [triangle(op, part, upper=upper, diagonal=away) for part in a.parts]
    re = op.Add(triangle(op, a.re, upper=upper), flipped(op, strict[0]))
    im = [op.Sub(part, flipped(op, part)) for part in strict[1:]]
    return Pair(op, *(shaped(part, shape) for part in (re, *im)))


def transposed(a: Pair) -> Pair:
    return a.each(lambda x: flipped(a.op, x))


def adjoint_of(a: Pair) -> Pair:
    """The conjugate transpose."""
    shape = a.re.shape
    return transposed(a.conj().each(lambda x: shaped(x, shape)))


def unit_of(op: Any, a: Pair) -> Pair:
    """Identity matrices of the shape of ``a``, complex if it is."""
    shape = a.re.shape
    unit = shaped(op.Expand(eye(op, shape[-1]), list(shape)), shape)
    return Pair(op, unit) if a.im is None else Pair(op, unit, shaped(op.Mul(unit, 0.0), shape))


def size_of(value: Pair) -> Tensor:
    """The absolute values."""
    return value.op.Abs(value.re) if value.im is None else value.abs()


def is_zero(value: Pair) -> Tensor:
    """Where all parts are 0."""
    op = value.op
    zero = op.Equal(value.re, 0.0)
    return zero if value.im is None else op.And(zero, op.Equal(value.im, 0.0))


def taxicab(value: Pair) -> Tensor:
    """The sizes that LAPACK compares pivots by: the sum of the parts' sizes."""
    op = value.op
    size = op.Abs(value.re)
    return size if value.im is None else op.Add(size, op.Abs(value.im))


def masked(value: Pair, condition: Tensor, other: Pair | float = 0.0) -> Pair:
    """``value`` where ``condition`` holds, else ``other``; real where both are."""
    op = value.op
    if value.im is None and not (isinstance(other, Pair) and other.im is not None):
        return Pair(op, op.Where(condition, value.re, other.re if isinstance(other, Pair) else other))
    return value.where(condition, other)


# --- results -------------------------------------------------------------------------------------------------------


def used(op: Any, index: int) -> bool:
    """Whether the node's result of this number is asked for."""
    users = op.node.users if op.node is not None else ()
    return any(user.target is not operator.getitem or user.args[1] == index for user in users)


def any_zero(shape: Any) -> bool:
    return any(dim == 0 for dim in shape)


def empty(x: Tensor) -> bool:
    return any_zero(x.shape)


def constant(op: Any, index: int, value: float) -> Tensor:
    """An expected result, real or complex, filled with one real number."""
    result = op.results[index]
    if not result.is_complex:
        return op.Expand(op.const(value, result.dtype), list(result.shape))
    return op.as_complex(op.Expand(op.const([value, 0.0], result.dtype), [*result.shape, 2]), result.shape)


def blank(op: Any, index: int) -> Tensor:
    """An expected result that has no elements, or that nobody asked for."""
    return constant(op, index, 0)


def identities(op: Any, index: int) -> Tensor:
    """An expected result without a computation behind it: identity matrices (of no elements, too)."""
    result = op.results[index]
    if any_zero(result.shape) or len(result.shape) < 2:
        return blank(op, index)
    unit = op.Expand(eye(op, result.shape[-2], result.shape[-1], result.dtype), list(result.shape))
    return op.complex(unit, op.Mul(unit, 0.0)) if result.is_complex else unit


def zero_info(op: Any, index: int) -> Tensor:
    return constant(op, index, 0)


def first_failure(op: Any, bad: Tensor) -> Tensor:
    """LAPACK's info: 1 + the first position where ``bad`` (..., n) is true, 0 where there is none."""
    number = op.cast(bad, DataType.INT32)
    place = op.Add(op.cast(op.ArgMax(number, axis=-1, keepdims=0), DataType.INT32), 1)
    return op.Mul(place, op.ReduceMax(number, [-1], keepdims=0))
