"""Sums and products of 64-bit integers, exact modulo 2**64 as torch's are.

onnxruntime 1.32 computes ReduceSum and ReduceProd of int64 in doubles, so that they lose digits above 2**53, and
saturate instead of wrapping around; its MatMul, Mul, Scan and Add of int64 are exact. A sum is a product with ones:
for the last axes one node, which takes a tenth of ReduceSum's time (a million elements: 0.8 ms for 8 ms), for others up
to three, which take between half and three times its time. A product is a tree of halves, or a Scan over an axis of
unknown size. What can't get that large keeps its reduction: bools, narrower integers, sizes and indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Size, Tensor
from onnxport.authoring import may_be_zero, permute, product, reshape

from onnxport_builtin.aten.scan import initial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxport import Builder

#: values of them are sizes or positions
_SMALL_RESULTS = ("ArgMax", "ArgMin", "NonZero", "Shape", "Size")
_BITS = {
    DataType.BOOL: 1,
    DataType.INT8: 7,
    DataType.UINT8: 8,
    DataType.INT16: 15,
    DataType.UINT16: 16,
    DataType.INT32: 31,
    DataType.UINT32: 32,
}
#: longer rows of ones are made when the model runs: the file needn't carry them
_STORED_ONES = 4096


def whole_sum(op: Builder, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
    """The sum of integers or bools over `axes` (non-negative, in order), as int64."""
    rank = len(x.shape)
    wide = op.cast(x, DataType.INT64)
    if not axes or not rank:
        return wide
    n = product(x.shape[axis] for axis in axes)
    if n == 0 or _bits(x) + (n.bit_length() if isinstance(n, int) else 0) <= 53:
        return op.ReduceSum(wide, list(axes), keepdims=int(keepdims))
    ones = op.const(np.ones(n, np.int64)) if isinstance(n, int) and n <= _STORED_ONES else op.Expand(op.const(1), [n])
    if rank > 1 and list(axes) == [rank - 2]:
        row = op.MatMul(op.Unsqueeze(ones, [0]), wide)
        return row if keepdims else op.Squeeze(row, [rank - 2])
    summed = op.MatMul(_in_one(op, wide, axes, n), ones)
    summed.shape = type(x.shape)([dim for axis, dim in enumerate(x.shape) if axis not in axes])
    return op.Unsqueeze(summed, list(axes)) if keepdims else summed


def whole_product(op: Builder, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
    """The product of integers or bools over `axes` (non-negative, in order), as int64."""
    rank = len(x.shape)
    wide = op.cast(x, DataType.INT64)
    if not axes or not rank:
        return wide
    n = product(x.shape[axis] for axis in axes)
    if n == 0 or (isinstance(n, int) and _bits(x) * n <= 53) or _bits(x) == 1:
        return op.ReduceProd(wide, list(axes), keepdims=int(keepdims))
    flat = _in_one(op, wide, axes, n)
    last = len(flat.shape) - 1
    result = _tree(op, flat, last, n) if isinstance(n, int) else _scanned(op, flat, last, may_be_zero(n))
    return op.Unsqueeze(result, list(axes)) if keepdims else result


def _bits(x: Tensor) -> int:
    """How many bits the values' magnitudes have at most."""
    producer = x.producer()
    if producer is not None and not producer.domain:
        if producer.op_type in _SMALL_RESULTS:
            return 31
        if producer.op_type == "Cast" and producer.inputs[0] is not None:
            return min(_BITS.get(x.dtype, 64), _BITS.get(producer.inputs[0].dtype, 64))  # type: ignore[arg-type]
    return _BITS.get(x.dtype, 64)


def _in_one(op: Builder, x: Tensor, axes: Sequence[int], n: int | Size) -> Tensor:
    """`x` with `axes` put last, as one axis of size `n`."""
    rank = len(x.shape)
    kept = [axis for axis in range(rank) if axis not in axes]
    moved = permute(op, x, [*kept, *axes])
    return moved if len(axes) == 1 else reshape(op, moved, [*(x.shape[axis] for axis in kept), n])


def _tree(op: Builder, x: Tensor, axis: int, n: int) -> Tensor:
    """The product over an axis of size `n`, by halves: as many steps as the size has bits."""
    while n > 1:
        half = n // 2
        sizes = [half, half, 1] if n % 2 else [half, half]
        first, second, *odd = op.Split(x, sizes, axis=axis, outputs=len(sizes))
        x = op.Mul(first, second)
        if odd:
            x = op.Concat(x, *odd, axis=axis)
        n = half + len(odd)
    return op.Squeeze(x, [axis])


def _scanned(op: Builder, x: Tensor, axis: int, padded: bool) -> Tensor:
    """The product over the last axis, of any size: the final state of a Scan along it."""

    def step(so_far: Tensor, item: Tensor) -> Tensor:
        return op.Mul(so_far, item)

    start = initial(op, x, axis, 1, DataType.INT64)
    if padded:  # onnxruntime 1.32 has no Scan over nothing
        x = op.Concat(x, op.Unsqueeze(start, [axis]), axis=axis)
    body = op.subgraph(step, [(DataType.INT64, start.shape)] * 2)
    return op.Scan(start, x, body=body, num_scan_inputs=1, scan_input_axes=[axis])
