"""Taking elements out of a tensor: slices, selections, advanced indexing, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import (
    Dim,
    axis_of,
    broadcast_shape,
    choose,
    expand,
    filled,
    flat,
    permute,
    product,
    reshape,
    unsqueeze,
)

from .joining import concat
from .shape import CONSTANT_INDEX

if TYPE_CHECKING:
    from onnxport import Builder

END = np.iinfo(np.int64).max


# ---- slices


def static_range(n: int, start: Dim | None, end: Dim | None) -> tuple[int, int] | None:
    """Python's start and end of a slice of `n` elements, or None if they aren't all static."""
    if not (isinstance(start, int | None) and isinstance(end, int | None)):
        return None
    first, last, _ = slice(start, end).indices(n)
    return first, max(first, last)


@translation("aten::slice.Tensor", "aten::slice_copy.Tensor")
def slice_(
    op: Builder, self: Tensor, dim: int = 0, start: Dim | None = None, end: Dim | None = None, step: Dim = 1
) -> Tensor:
    axis = axis_of(self, dim)
    n = self.shape[axis]
    if isinstance(n, int) and (bounds := static_range(n, start, end)):
        if bounds == (0, n) and step == 1:
            return self
        return op.Slice(self, [bounds[0]], [bounds[1]], [axis], None if step == 1 else [step])
    first: Dim = 0 if start is None else start
    last: Dim = END if end is None else end
    if first == 0 and last in (END, n) and step == 1:
        return self
    return op.Slice(self, [first], [last], [axis], None if step == 1 else [step])


@translation("aten::narrow", "aten::narrow_copy")
def narrow(op: Builder, self: Tensor, dim: int, start: Dim, length: Dim) -> Tensor:
    axis = axis_of(self, dim)
    n = self.shape[axis]
    if length == n:
        return self
    if isinstance(start, int) and start < 0:
        start = start + n
    elif isinstance(start, Size) and not start.expr.is_nonnegative:  # an end of 0 would be the front
        return op.Slice(op.Slice(self, [start], [END], [axis]), [0], [length], [axis])
    return op.Slice(self, [start], [start + length], [axis])


@translation("aten::narrow.Tensor")
def narrow_tensor(op: Builder, self: Tensor, dim: int, start: Tensor, length: Dim) -> Tensor:
    axis = axis_of(self, dim)
    first = op.sizes([start])
    n = op.sizes([self.shape[axis]])
    first = op.Where(op.Less(first, 0), op.Add(first, n), first)
    return op.Slice(self, first, op.Add(first, op.sizes([length])), [axis])


@translation("aten::select.int", "aten::select_copy.int")
def select(op: Builder, self: Tensor, dim: int, index: Dim) -> Tensor:
    axis = axis_of(self, dim)
    if self.shape[axis] == 1:
        return op.Squeeze(self, [axis])
    return op.Gather(self, index, axis=axis)


@translation("aten::flip")
def flip(op: Builder, self: Tensor, dims: list[int]) -> Tensor:
    return _flip(op, self, dims)


@translation("aten::fliplr")
def fliplr(op: Builder, self: Tensor) -> Tensor:
    return _flip(op, self, [1])


@translation("aten::flipud")
def flipud(op: Builder, self: Tensor) -> Tensor:
    return _flip(op, self, [0])


def _flip(op: Builder, x: Tensor, dims: Sequence[int]) -> Tensor:
    axes = [axis_of(x, d) for d in dims]
    axes = [a for a in axes if x.shape and x.shape[a] != 1]
    if not axes:
        return x
    n = len(axes)
    return op.Slice(x, [-1] * n, [-END] * n, axes, [-1] * n)


@translation("aten::rot90")
def rot90(op: Builder, self: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    first, second = (axis_of(self, d) for d in dims)
    turns = k % 4
    if turns == 2:
        return _flip(op, self, [first, second])
    if turns == 0:
        return self
    order = list(range(len(self.shape)))
    order[first], order[second] = second, first
    turned = op.Transpose(self, perm=order)
    return _flip(op, turned, [first if turns == 1 else second])


@translation("aten::roll")
def roll(op: Builder, self: Tensor, shifts: list[Dim], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        n = product(self.shape)
        return reshape(op, _roll(op, reshape(op, self, [n]), shifts[0], 0, n), self.shape)
    result = self
    for shift, dim in zip(shifts, dims, strict=True):
        if self.shape:
            axis = axis_of(self, dim)
            result = _roll(op, result, shift, axis, self.shape[axis])
    return result


def _roll(op: Builder, x: Tensor, shift: Dim, axis: int, n: Dim) -> Tensor:
    """`x` rotated by `shift` along `axis`, of size `n`."""
    if isinstance(n, int) and isinstance(shift, int):
        if n == 0 or shift % n == 0:
            return x
        if n <= CONSTANT_INDEX:
            return op.Gather(x, op.const(np.roll(np.arange(n, dtype=np.int64), shift)), axis=axis)
    start = op.Mod(op.sizes([shift * -1]), op.sizes([n]))
    return op.Concat(op.Slice(x, start, [END], [axis]), op.Slice(x, [0], start, [axis]), axis=axis)


# ---- advanced indexing


def _as_index(op: Builder, index: Tensor) -> Tensor:
    return index if index.dtype in (DataType.INT64, DataType.INT32) else op.cast(index, DataType.INT64)


def is_mask(index: Tensor) -> bool:
    return index.dtype in (DataType.BOOL, DataType.UINT8)


def nonzero_rows(op: Builder, mask: Tensor) -> Tensor:
    """The indices of the true elements of `mask`, as onnx's NonZero gives them: [rank, count]."""
    # onnxruntime 1.32 has no NonZero for float64 and the narrow integers
    kernels = (DataType.BOOL, DataType.FLOAT, DataType.INT32, DataType.INT64, DataType.UINT8)
    return op.NonZero(mask if mask.dtype in kernels else op.cast(mask, DataType.BOOL))


def compress(op: Builder, x: Tensor, condition: Tensor, axis: int) -> Tensor:
    """The slices of `x` for which the vector `condition` holds."""
    if x.dtype == DataType.BFLOAT16:  # ONNX defines Compress for every type but this
        return op.cast(op.Compress(op.cast(x, DataType.FLOAT), condition, axis=axis), x.dtype)
    return op.Compress(x, condition, axis=axis)


class Advanced:
    """The index tensors of `x[indices]`, in torch's terms.

    Attributes:
        dims: the dims of `x` that are indexed, ascending.
        tensors: an integer index for each of them, broadcastable to one another.
        adjacent: the dims follow one another, so that the indexed dimensions stay in their place in the result;
            else they come first.
        shape: what the indices broadcast to: sizes, or a 1-D tensor where masks make it known at run time only.
        rank: the number of dimensions they broadcast to.
        uniform: they have that shape already.
    """

    def __init__(self, op: Builder, x: Tensor, indices: Sequence[Tensor | None]) -> None:
        self.dims: list[int] = []
        self.tensors: list[Tensor] = []
        dim = 0
        masks = False
        for index in indices:
            if index is None:
                dim += 1
            elif is_mask(index):
                masks = True
                count = len(index.shape)
                if count == 0:
                    raise Unsupported("advanced indexing with a 0-d mask")
                rows = nonzero_rows(op, op.cast(index, DataType.BOOL))
                parts = [op.Squeeze(rows, [0])] if count == 1 else [op.Gather(rows, i, axis=0) for i in range(count)]
                self.tensors += parts
                self.dims += range(dim, dim + count)
                dim += count
            else:
                self.tensors.append(_as_index(op, index))
                self.dims.append(dim)
                dim += 1
        if not self.dims:
            raise Unsupported("advanced indexing without an index")
        self.adjacent = self.dims == list(range(self.dims[0], self.dims[0] + len(self.dims)))
        self.others = [d for d in range(len(x.shape)) if d not in self.dims]
        self.rank = max(len(t.shape) for t in self.tensors)
        self.shape: list[Dim] | Tensor
        if masks:
            self.uniform = sum(index is not None for index in indices) == 1
            total = self.tensors[0]
            for t in [] if self.uniform else self.tensors[1:]:
                total = op.Add(op.cast(total, DataType.INT64), op.cast(t, DataType.INT64))
            self.shape = op.Shape(total)
        else:
            self.shape = broadcast_shape(*(t.shape for t in self.tensors))
            self.uniform = all(list(t.shape) == self.shape for t in self.tensors)

    def stacked(self, op: Builder) -> Tensor:
        """The indices as GatherND and ScatterND take them: int64, [*shape, number of dims]."""
        columns = []
        for t in self.tensors:
            index = op.cast(t, DataType.INT64)
            if not self.uniform:
                index = (
                    op.Expand(index, self.shape) if isinstance(self.shape, Tensor) else expand(op, index, self.shape)
                )
            columns.append(op.Unsqueeze(index, [-1]))
        rows = concat(op, columns, -1)
        known = [None] * self.rank if isinstance(self.shape, Tensor) else self.shape
        rows.shape = ir.Shape([*known, len(columns)])
        return rows


@translation(
    "aten::index.Tensor",
    "aten::_unsafe_index.Tensor",
    "aten::index.Tensor_hacked_twin",
    "aten::_unsafe_index.Tensor_hacked_twin",
)
def index(op: Builder, self: Tensor, indices: list[Tensor | None]) -> Tensor:
    given = [(d, i) for d, i in enumerate(indices) if i is not None]
    if len(given) == 1 and not is_mask(given[0][1]):
        dim, only = given[0]
        return op.Gather(self, _as_index(op, only), axis=dim)
    if len(given) == 1 and given[0][1].shape:
        return _index_mask(op, self, *given[0])
    if not any(is_mask(i) for _, i in given) and (outer := _index_outer(op, self, given)) is not None:
        return outer
    advanced = Advanced(op, self, indices)
    source = permute(op, self, [*advanced.dims, *advanced.others])
    taken = op.GatherND(source, advanced.stacked(op))
    first = advanced.dims[0]
    if not advanced.adjacent or first == 0:
        return taken
    b = advanced.rank
    rank = b + len(advanced.others)
    return op.Transpose(taken, perm=[*range(b, b + first), *range(b), *range(b + first, rank)])


def _index_mask(op: Builder, x: Tensor, dim: int, mask: Tensor) -> Tensor:
    """`x[:, mask]` with one mask: its dims merged, then Compress."""
    count = len(mask.shape)
    condition = op.cast(mask, DataType.BOOL)
    shape = list(x.shape)
    if count == 1:
        return compress(op, x, condition, dim)
    condition = op.Reshape(condition, [-1])
    if count == len(shape) and x.dtype != DataType.BFLOAT16:
        return op.Compress(x, condition)
    merged = reshape(op, x, [*shape[:dim], product(shape[dim : dim + count]), *shape[dim + count :]])
    return compress(op, merged, condition, dim)


def _index_outer(op: Builder, x: Tensor, given: list[tuple[int, Tensor]]) -> Tensor | None:
    """`x[:, rows[:, None], columns]`: adjacent indices that each vary along axes of their own, as one Gather each."""
    dims = [d for d, _ in given]
    if dims != list(range(dims[0], dims[0] + len(dims))):
        return None
    rank = max(len(i.shape) for _, i in given)
    shapes = [[1] * (rank - len(i.shape)) + list(i.shape) for _, i in given]
    # where the axes of each index begin: at the first axis along which it, or an index after it, varies
    starts = [0]
    for n in range(1, len(shapes)):
        varying = [axis for axis in range(rank) if any(shape[axis] != 1 for shape in shapes[n:])]
        starts.append(min(varying, default=rank))
    ends = [*starts[1:], rank]
    for shape, start, end in zip(shapes, starts, ends, strict=True):
        if start > end or any(shape[axis] != 1 for axis in range(rank) if not start <= axis < end):
            return None
    result = x
    for (dim, i), shape, start, end in reversed(list(zip(given, shapes, starts, ends, strict=True))):
        result = op.Gather(result, reshape(op, _as_index(op, i), shape[start:end]), axis=dim)
    return result


@translation("aten::_unsafe_masked_index")
def unsafe_masked_index(op: Builder, self: Tensor, mask: Tensor, indices: list[Tensor | None], fill: Any) -> Tensor:
    """`self[indices]` where the mask holds, else `fill`; indices outside are allowed where it doesn't."""
    if 0 in list(self.shape):
        return filled(op, list(op.result.shape), fill, self.dtype)
    taken = index(op, self, clamped(op, self, indices))
    if self.dtype.is_integer() and isinstance(fill, float):
        fill = int(fill)
    return choose(op, mask, taken, fill)


def clamped(op: Builder, x: Tensor, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices brought inside `x`."""
    return [
        None if i is None else op.Clip(op.cast(i, DataType.INT64), 0, _last(op, x.shape[dim]))
        for dim, i in enumerate(indices)
    ]


def _last(op: Builder, size: Dim) -> Tensor | int:
    return size - 1 if isinstance(size, int) else op.cast(size - 1, DataType.INT64)


# ---- gathers


def as_vector(op: Builder, x: Tensor) -> Tensor:
    """A 0-d tensor as [1]; others as they are."""
    return x if x.shape else op.Reshape(x, [1])


@translation("aten::index_select")
def index_select(op: Builder, self: Tensor, dim: int, index: Tensor) -> Tensor:
    if not self.shape:
        return self
    return op.Gather(self, as_vector(op, index), axis=axis_of(self, dim))


@translation("aten::gather")
def gather(op: Builder, self: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    if 0 in list(op.result.shape):
        return filled(op, list(op.result.shape), 0, self.dtype)
    taken = op.GatherElements(as_vector(op, self), as_vector(op, index), axis=axis_of(self, dim))
    return taken if index.shape else op.Squeeze(taken, [0])


@translation("aten::take")
def take(op: Builder, self: Tensor, index: Tensor) -> Tensor:
    if 0 in list(op.result.shape):
        return filled(op, list(op.result.shape), 0, self.dtype)
    return op.Gather(flat(op, self), index, axis=0)


@translation("aten::take_along_dim")
def take_along_dim(op: Builder, self: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        return op.Gather(flat(op, self), flat(op, indices), axis=0)
    axis = axis_of(self, dim)
    common = broadcast_shape(
        [1 if a == axis else d for a, d in enumerate(self.shape)],
        [1 if a == axis else d for a, d in enumerate(indices.shape)],
    )
    if 0 in list(op.result.shape):
        return filled(op, list(op.result.shape), 0, self.dtype)
    source = expand(op, self, [d if a == axis else c for a, (c, d) in enumerate(zip(common, self.shape, strict=True))])
    places = expand(
        op, indices, [d if a == axis else c for a, (c, d) in enumerate(zip(common, indices.shape, strict=True))]
    )
    return op.GatherElements(source, places, axis=axis)


@translation("aten::masked_select")
def masked_select(op: Builder, self: Tensor, mask: Tensor) -> Tensor:
    common = broadcast_shape(self.shape, mask.shape)
    condition = expand(op, op.cast(mask, DataType.BOOL), common)
    return compress(op, flat(op, expand(op, self, common)), flat(op, condition), 0)


# ---- places of elements


@translation("aten::nonzero", "aten::argwhere")
def nonzero(op: Builder, self: Tensor) -> Tensor:
    if not self.shape:  # [count, 0]
        rows = op.Transpose(nonzero_rows(op, op.Reshape(self, [1])), perm=[1, 0])
        return op.Slice(rows, [0], [0], [1])
    return op.Transpose(nonzero_rows(op, self), perm=[1, 0])


@translation("aten::nonzero_numpy")
def nonzero_numpy(op: Builder, self: Tensor) -> list[Tensor]:
    return _nonzero_vectors(op, self)


@translation("aten::where")
def where_indices(op: Builder, condition: Tensor) -> list[Tensor]:
    return _nonzero_vectors(op, condition)


def _nonzero_vectors(op: Builder, self: Tensor) -> list[Tensor]:
    rows = nonzero_rows(op, as_vector(op, self))
    rank = max(len(self.shape), 1)
    return [op.Squeeze(rows, [0])] if rank == 1 else [op.Gather(rows, i, axis=0) for i in range(rank)]


@translation("aten::nonzero_static")
def nonzero_static(op: Builder, self: Tensor, *, size: Dim, fill_value: int = -1) -> Tensor:
    """The first `size` rows of `nonzero`, filled up with `fill_value`."""
    rank = len(self.shape)
    if rank == 0 or size == 0:
        return filled(op, [size, rank], fill_value, DataType.INT64)
    found = op.Transpose(nonzero_rows(op, self), perm=[1, 0])
    rest = filled(op, [size, rank], fill_value, DataType.INT64)
    return op.Slice(op.Concat(found, rest, axis=0), [0], [size], [0])


def repeated_index(op: Builder, repeats: Tensor) -> Tensor:
    """0 `repeats[0]` times, 1 `repeats[1]` times, ...: the rows of a triangular mask, read in order."""
    longest = op.ReduceMax(op.cast(repeats, DataType.INT64), keepdims=0)
    steps = op.Range(0, longest, 1)
    mask = op.Less(steps, op.Unsqueeze(op.cast(repeats, DataType.INT64), [1]))
    return op.Gather(op.NonZero(mask), 0, axis=0)


@translation("aten::repeat_interleave.Tensor")
def repeat_interleave_index(op: Builder, repeats: Tensor, *, output_size: Dim | None = None) -> Tensor:
    if 0 in list(repeats.shape):
        return filled(op, [0], 0, op.result.dtype)
    return op.cast(repeated_index(op, repeats), op.result.dtype)


@translation("aten::repeat_interleave.self_Tensor")
def repeat_interleave(
    op: Builder, self: Tensor, repeats: Tensor, dim: int | None = None, *, output_size: Dim | None = None
) -> Tensor:
    source = flat(op, self) if dim is None else as_vector(op, self)
    n = product(self.shape) if dim is None or not self.shape else self.shape[axis_of(self, dim)]
    axis = 0 if dim is None else axis_of(self, dim)
    if n == 0:
        return self if dim is not None else source
    counts = expand(op, as_vector(op, repeats), [n]) if list(repeats.shape) != [n] else repeats
    return op.Gather(source, repeated_index(op, counts), axis=axis)


@translation("aten::repeat_interleave.self_int")
def repeat_interleave_int(
    op: Builder, self: Tensor, repeats: Dim, dim: int | None = None, *, output_size: Dim | None = None
) -> Tensor:
    source = reshape(op, self, [product(self.shape)]) if dim is None else as_vector(op, self)
    axis = 0 if dim is None else axis_of(self, dim)
    shape: list[Dim] = [product(self.shape)] if dim is None else list(self.shape) or [1]
    n = shape[axis]
    if repeats == 1:
        return source
    if isinstance(n, int) and isinstance(repeats, int) and n * repeats <= CONSTANT_INDEX:
        return op.Gather(source, op.const(np.repeat(np.arange(n, dtype=np.int64), repeats)), axis=axis)
    columns = unsqueeze(op, source, axis + 1)
    factors = [1] * (len(shape) + 1)
    factors[axis + 1] = repeats
    spread = op.Expand(columns, factors)
    spread.shape = ir.Shape([*shape[: axis + 1], repeats, *shape[axis + 1 :]])
    return reshape(op, spread, op.result.shape)
