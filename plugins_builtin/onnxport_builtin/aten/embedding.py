"""Embeddings: rows of a table, sums and maxima of bags of rows, and the renormalization of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, flat, iota, is_used

from onnxport_builtin.aten.reduction import norm

if TYPE_CHECKING:
    from onnxport import Builder

_SUM, _MEAN, _MAX = range(3)
# onnxruntime 1.32 has no ScatterND with a reduction for these.
_NO_SCATTER = (DataType.FLOAT16, DataType.BFLOAT16)


@translation("aten::embedding")
def embedding(
    op: Builder,
    weight: Tensor,
    indices: Tensor,
    padding_idx: Any = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    return op.Gather(weight, indices)


def _within(op: Builder, x: Tensor, axes: list[int], p: float | Size, limit: float | Size) -> Tensor:
    """`x` scaled down where its p-norm over `axes` exceeds `limit`; torch adds 1e-7 to the norm it divides by."""
    norms = norm(op, x, p, axes, keepdim=True)
    largest = op.cast(limit, x.dtype) if isinstance(limit, Size) else op.const(float(limit), x.dtype)
    factor = op.Where(op.Greater(norms, largest), op.Div(largest, op.Add(norms, 1e-7)), 1)
    return op.Mul(x, factor)


@translation("aten::embedding_renorm")
def embedding_renorm(op: Builder, self: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    rows = op.cast(flat(op, indices), DataType.INT64)
    scaled = _within(op, op.Gather(self, rows), [1], norm_type, max_norm)
    return op.ScatterND(self, op.Unsqueeze(rows, [1]), scaled)


@translation("aten::renorm")
def renorm(op: Builder, self: Tensor, p: Any, dim: int, maxnorm: Any) -> Tensor:
    rank = len(self.shape)
    return _within(op, self, [axis for axis in range(rank) if axis != dim % rank], p, maxnorm)


def _uniform_bags(offsets: Tensor, count: Dim, include_last_offset: bool) -> int | None:
    """The size of every bag, where constant offsets make them all alike."""
    if offsets.const_value is None or not isinstance(count, int):
        return None
    starts = offsets.const_value.numpy()
    ends = starts if include_last_offset else np.append(starts, count)
    sizes = np.diff(ends)
    if len(sizes) == 0 or starts[0] != 0 or ends[-1] != count or sizes[0] == 0 or (sizes != sizes[0]).any():
        return None
    return int(sizes[0])


def _bag_of_each(op: Builder, indices: Tensor, offsets: Tensor, bags: Dim, last: bool) -> Tensor:
    """For each index the bag it belongs to, int64: one less than the number of offsets up to its place."""
    starts = op.cast(offsets, DataType.INT64)
    if last:
        starts = op.Slice(starts, [0], [-1], [0])
    places = iota(op, op.size(indices, 0))
    reached = op.GreaterOrEqual(op.Unsqueeze(places, [1]), op.Unsqueeze(starts, [0]))
    return op.Sub(op.ReduceSum(op.cast(reached, DataType.INT64), [1], keepdims=0), 1)


def _bag_results(op: Builder, reduced: Tensor) -> list[Tensor | None]:
    # offset2bag, bag_size and max_indices are there for the backward pass
    for i in (1, 2, 3):
        if is_used(op, i):
            raise Unsupported("only the first result of embedding_bag is translated")
    return [reduced, None, None, None]


def _embedding_bag(
    op: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None,
) -> list[Tensor | None]:
    shape = list(op.results[0].shape)
    bags, width = shape
    dtype = weight.dtype
    rows = op.Gather(weight, indices)
    if per_sample_weights is not None:
        rows = op.Mul(rows, op.Unsqueeze(per_sample_weights, [1]))
    padded = padding_idx is not None and padding_idx >= 0
    size = _uniform_bags(offsets, op.size(indices, 0), include_last_offset)
    if size is not None and not padded:
        grouped = op.Reshape(rows, op.sizes([bags, size, width]))
        reduce = {_SUM: op.ReduceSum, _MEAN: op.ReduceMean, _MAX: op.ReduceMax}[mode]
        return _bag_results(op, reduce(grouped, [1], keepdims=0))
    work = DataType.FLOAT if dtype in _NO_SCATTER else dtype
    rows = op.cast(rows, work)
    bag = _bag_of_each(op, indices, offsets, bags, include_last_offset)
    kept = op.Not(op.Equal(indices, padding_idx)) if padded else None
    # What belongs to no bag (its offset is -1 then), or to none because it is padding, goes to a bag of its own.
    if kept is not None:
        bag = op.Where(kept, bag, -1)
    bag = op.Add(bag, 1)
    target = op.Unsqueeze(bag, [1])
    first = -float("inf") if mode == _MAX else 0
    start = expand(op, op.const(first, work), [bags + 1, width])
    reduced = op.ScatterND(start, target, rows, reduction="max" if mode == _MAX else "add")
    reduced = op.Slice(reduced, [1], [2**62], [0])
    if mode in (_MAX, _MEAN):
        ones = expand(op, op.const(1, work), [op.size(indices, 0)])
        counts = op.ScatterND(expand(op, op.const(0, work), [bags + 1]), target, ones, reduction="add")
        counts = op.Unsqueeze(op.Slice(counts, [1], [2**62], [0]), [1])
        if mode == _MEAN:
            reduced = op.Div(reduced, op.Max(counts, 1))
        else:
            reduced = op.Where(op.Greater(counts, 0), reduced, 0)
    return _bag_results(op, op.cast(reduced, dtype))


@translation("aten::embedding_bag", "aten::embedding_bag.padding_idx")
def embedding_bag(
    op: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> list[Tensor | None]:
    if padding_idx is not None and padding_idx < 0:
        padding_idx += int(weight.shape[0])
    return _embedding_bag(op, weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx)


@translation("aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def underscore_embedding_bag(
    op: Builder,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> list[Tensor | None]:
    return _embedding_bag(op, weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx)
