"""Writing elements into a tensor: scatters, index_put and their kin, all functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import (
    Dim,
    axis_of,
    broadcast_shape,
    choose,
    expand,
    filled,
    flat,
    iota,
    may_be_one,
    permute,
    product,
    reshape,
    unsqueeze,
)
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .indexing import END, Advanced, as_vector, clamped, is_mask, static_range
from .joining import concat
from .shape import int32_if_lacking, strided_index

if TYPE_CHECKING:
    from onnxport import Builder


Bound = Dim | Tensor
"""A bound of a slice: a number, a size, or an integer tensor of one element."""

# ---- scatters along one dimension

_REDUCTIONS = {
    "sum": "add",
    "add": "add",
    "mean": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
}


def _kernel_dtype(dtype: DataType, reduction: str) -> DataType:
    """A type for which onnxruntime 1.32 has ScatterElements and ScatterND with this reduction."""
    if reduction != "none" and dtype in (DataType.FLOAT16, DataType.BFLOAT16):
        return DataType.FLOAT
    if reduction in ("max", "min") and dtype == DataType.BOOL:
        return DataType.UINT8
    return dtype


def scatter_elements(
    op: Builder, x: Tensor, index: Tensor, source: Tensor, axis: int, reduction: str = "none"
) -> Tensor:
    work = _kernel_dtype(x.dtype, reduction)
    attribute = None if reduction == "none" else reduction
    written = op.ScatterElements(op.cast(x, work), index, op.cast(source, work), axis=axis, reduction=attribute)
    return op.cast(written, x.dtype)


def scatter_nd(op: Builder, x: Tensor, index: Tensor, source: Tensor, reduction: str = "none") -> Tensor:
    work = _kernel_dtype(x.dtype, reduction)
    attribute = None if reduction == "none" else reduction
    return op.cast(op.ScatterND(op.cast(x, work), index, op.cast(source, work), reduction=attribute), x.dtype)


def _cut(op: Builder, source: Tensor, shape: Sequence[Dim]) -> Tensor:
    """`source` cut to `shape`: torch lets it be larger than the index."""
    axes = [a for a, (d, wanted) in enumerate(zip(source.shape, shape, strict=True)) if d != wanted]
    if not axes:
        return source
    return op.Slice(source, [0] * len(axes), [shape[a] for a in axes], axes)


def _scatter(op: Builder, x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str = "none") -> Tensor:
    if 0 in list(index.shape):
        return x
    vector, places = as_vector(op, x), as_vector(op, index)
    values = as_vector(op, op.cast(source, x.dtype))
    values = _cut(op, values, places.shape)
    written = scatter_elements(op, vector, places, values, axis_of(x, dim), _REDUCTIONS.get(reduce, reduce))
    return written if x.shape else op.Reshape(written, op.const([], DataType.INT64))


@translation("aten::scatter.src")
def scatter(op: Builder, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return _scatter(op, self, dim, index, src)


@translation("aten::scatter.value")
def scatter_value(op: Builder, self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    return _scatter(op, self, dim, index, _number(op, value, index.shape, self.dtype))


@translation("aten::scatter.reduce")
def scatter_with(op: Builder, self: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str) -> Tensor:
    return _scatter(op, self, dim, index, src, reduce)


@translation("aten::scatter.value_reduce")
def scatter_value_with(op: Builder, self: Tensor, dim: int, index: Tensor, value: Any, *, reduce: str) -> Tensor:
    return _scatter(op, self, dim, index, _number(op, value, index.shape, self.dtype), reduce)


@translation("aten::scatter_add")
def scatter_add(op: Builder, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return _scatter(op, self, dim, index, src, "add")


def _number(op: Builder, value: Any, shape: Sequence[Dim], dtype: DataType) -> Tensor:
    """`value` in `shape`, converted to `dtype` as torch converts a number: truncated for integers."""
    if dtype.is_integer() and isinstance(value, float):
        value = int(value)
    return filled(op, list(shape), value, dtype)


@translation("aten::scatter_reduce.two")
def scatter_reduce(
    op: Builder, self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if 0 in list(index.shape):
        return self
    vector, places = as_vector(op, self), as_vector(op, index)
    values = _cut(op, as_vector(op, src), places.shape)
    result = _reduce_into(op, vector, places, values, axis_of(self, dim), reduce, include_self)
    return result if self.shape else op.Reshape(result, op.const([], DataType.INT64))


def _identity(reduce: str, dtype: DataType) -> float | int | bool:
    """What leaves a reduction as it is."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    if dtype == DataType.BOOL:
        return reduce == "amin"
    if dtype.is_integer():
        limits = np.iinfo(dtype.numpy())
        return int(limits.min if reduce == "amax" else limits.max)
    return -np.inf if reduce == "amax" else np.inf


def _reduce_into(
    op: Builder, x: Tensor, index: Tensor, source: Tensor, axis: int, reduce: str, include_self: bool
) -> Tensor:
    """`source` reduced into `x` at the elements `index` (of the shape of `source`) names along `axis`."""
    dtype = x.dtype
    start = x
    if not include_self:
        neutral = filled(op, list(index.shape), _identity(reduce, dtype), dtype)
        start = scatter_elements(op, x, index, neutral, axis)
    result = scatter_elements(op, start, index, source, axis, _REDUCTIONS[reduce])
    if reduce in ("amax", "amin") and dtype.is_floating_point():
        # onnxruntime 1.32 forgets a NaN when the next element is a number; torch keeps it
        nan = op.ScatterElements(op.IsNaN(start), index, op.IsNaN(source), axis=axis, reduction="add")
        result = op.Where(nan, op.const(np.nan, dtype), result)
    if reduce == "mean":
        work = DataType.FLOAT if dtype in (DataType.FLOAT16, DataType.BFLOAT16) else dtype
        ones = filled(op, list(index.shape), 1, work)
        counts = filled(op, list(x.shape), int(include_self), work)
        count = op.ScatterElements(counts, index, ones, axis=axis, reduction="add")
        if not include_self:
            # Max has no int16 in onnxruntime 1.32
            wide = int32_if_lacking(op, count, (DataType.INT16,))
            count = op.cast(op.Max(wide, 1), work)
        total = op.cast(result, work)
        if dtype.is_integer():  # rounded down
            total = op.Sub(total, op.Mod(total, count))
        result = op.cast(op.Div(total, count), dtype)
    return result


# ---- whole slices along one dimension


def _along(op: Builder, index: Tensor, axis: int, shape: Sequence[Dim]) -> Tensor:
    """A vector of indices along `axis`, in the full `shape` that ScatterElements wants."""
    column = unsqueeze(op, index, *range(1, len(shape) - axis))
    return op.Expand(column, [*shape])


def _write_slices(op: Builder, x: Tensor, dim: int, index: Tensor, source: Tensor, reduction: str = "none") -> Tensor:
    """The slices of `source` written at `index` along `dim`."""
    axis = axis_of(x, dim)
    if 0 in list(index.shape) or 0 in list(source.shape):
        return x
    places = as_vector(op, index)
    values = op.cast(source, x.dtype)
    if not x.shape:
        written = scatter_elements(op, as_vector(op, x), places, as_vector(op, values), 0, reduction)
        return op.Reshape(written, op.const([], DataType.INT64))
    if not source.shape:
        values = as_vector(op, values)
    if axis == 0:
        return scatter_nd(op, x, op.Unsqueeze(op.cast(places, DataType.INT64), [1]), values, reduction)
    return scatter_elements(op, x, _along(op, places, axis, source.shape), values, axis, reduction)


@translation("aten::index_add")
def index_add(op: Builder, self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    added = source
    if alpha != 1 and source.dtype == DataType.BOOL:
        added = source if alpha else op.And(source, op.const(False))
    elif alpha != 1:
        added = op.Mul(source, op.cast(alpha, source.dtype))
    return _write_slices(op, self, dim, index, added, "add")


@translation("aten::index_copy")
def index_copy(op: Builder, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return _write_slices(op, self, dim, index, source)


@translation("aten::index_fill.int_Scalar", "aten::index_fill.int_Tensor")
def index_fill(op: Builder, self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """The rows to fill as a mask along `dim`, which then chooses."""
    if 0 in list(index.shape):
        return self
    axis = axis_of(self, dim)
    element = op.cast(value, self.dtype) if isinstance(value, (Tensor, Size)) else _number(op, value, [], self.dtype)
    if not self.shape:
        return element
    places = as_vector(op, index)
    n = self.shape[axis]
    mask = op.ScatterElements(
        filled(op, [n], False, DataType.BOOL), places, filled(op, list(places.shape), True, DataType.BOOL), axis=0
    )
    return choose(op, unsqueeze(op, mask, *range(1, len(self.shape) - axis)), element, self)


@translation("aten::index_reduce")
def index_reduce(
    op: Builder, self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    if 0 in list(index.shape) or 0 in list(source.shape):
        return self
    axis = axis_of(self, dim)
    vector, values, places = as_vector(op, self), as_vector(op, source), as_vector(op, index)
    full = _along(op, places, axis, values.shape)
    full.shape = values.shape
    result = _reduce_into(op, vector, full, values, axis, reduce, include_self)
    return result if self.shape else op.Reshape(result, op.const([], DataType.INT64))


# ---- index_put


@translation(
    "aten::index_put", "aten::_unsafe_index_put", "aten::index_put.hacked_twin", "aten::_unsafe_index_put.hacked_twin"
)
def index_put(
    op: Builder, self: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    return _index_put(op, self, indices, values, accumulate)


@translation("aten::_index_put_impl")
def index_put_impl(
    op: Builder,
    self: Tensor,
    indices: list[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Tensor:
    return _index_put(op, self, indices, values, accumulate)


def _index_put(op: Builder, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool) -> Tensor:
    given = [(d, i) for d, i in enumerate(indices) if i is not None]
    if 0 in list(x.shape) or any(0 in list(i.shape) for _, i in given):
        return x
    written = op.cast(values, x.dtype)
    reduction = "add" if accumulate else "none"
    if len(given) == 1:
        dim, only = given[0]
        if is_mask(only) and (chosen := _put_mask(op, x, dim, only, written, accumulate)) is not None:
            return chosen
        if not is_mask(only) and len(only.shape) == 1 and dim > 0:
            shape = list(x.shape)
            shape[dim] = only.shape[0]
            full = expand(op, written, shape)
            return scatter_elements(op, x, _along(op, op.cast(only, DataType.INT64), dim, shape), full, dim, reduction)
    advanced = Advanced(op, x, indices)
    first, b = advanced.dims[0], advanced.rank
    keep = [x.shape[d] for d in advanced.others]
    before = first if advanced.adjacent else 0
    picked: list[Any] = [advanced.shape] if isinstance(advanced.shape, Tensor) else list(advanced.shape)
    target = [*keep[:before], *picked, *keep[before:]]
    if isinstance(advanced.shape, Tensor):
        complete = len(written.shape) == b + len(keep) and list(written.shape[before + b :]) == keep[before:]
        # a length that data decide may be 1, which is broadcast
        counted = complete and not any(may_be_one(d) for d in written.shape[before : before + b])
        if not (counted and list(written.shape[:before]) == keep[:before]):
            sizes = [op.sizes(part) for part in (keep[:before], keep[before:]) if part]
            joined = [*sizes[: 1 if before else 0], advanced.shape, *sizes[1 if before else 0 :]]
            written = op.Expand(written, concat(op, joined, 0))
    else:
        written = expand(op, written, target)
    rank = b + len(keep)
    if before:
        written = op.Transpose(written, perm=[*range(before, before + b), *range(before), *range(before + b, rank)])
    order = [*advanced.dims, *advanced.others]
    result = scatter_nd(op, permute(op, x, order), advanced.stacked(op), written, reduction)
    if order == sorted(order):
        return result
    return op.Transpose(result, perm=[order.index(a) for a in range(len(order))])


def _put_mask(op: Builder, x: Tensor, dim: int, mask: Tensor, values: Tensor, accumulate: bool) -> Tensor | None:
    """`x[mask] = values` where the values don't depend on how many elements the mask has: a choice, no scatter."""
    count = len(mask.shape)
    rest = len(x.shape) - dim - count
    shape = list(values.shape)
    if len(shape) > rest:
        if shape[len(shape) - rest - 1] != 1:
            return None
        place = len(shape) - rest
        if count > 1:
            values = op.Unsqueeze(values, list(range(place, place + count - 1)))
    condition = unsqueeze(op, op.cast(mask, DataType.BOOL), *range(count, count + rest))
    if accumulate:
        values = op.Or(x, values) if x.dtype == DataType.BOOL else op.Add(x, values)
    return choose(op, condition, values, x)


@translation("aten::_unsafe_masked_index_put_accumulate")
def unsafe_masked_index_put(
    op: Builder, self: Tensor, mask: Tensor, indices: list[Tensor | None], values: Tensor
) -> Tensor:
    """`values` added at `indices` where the mask holds; indices outside are allowed where it doesn't."""
    if 0 in list(self.shape):
        return self
    added = choose(op, mask, values, 0)
    return _index_put(op, self, clamped(op, self, indices), added, True)


@translation("aten::put")
def put(op: Builder, self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    if 0 in list(index.shape):
        return self
    vector = reshape(op, self, [product(self.shape)])
    values = flat(op, op.cast(source, self.dtype))
    written = scatter_elements(op, vector, flat(op, index), values, 0, "add" if accumulate else "none")
    return reshape(op, written, self.shape)


# ---- writing through views


@translation("aten::select_scatter")
def select_scatter(op: Builder, self: Tensor, src: Tensor, dim: int, index: Dim) -> Tensor:
    axis = axis_of(self, dim)
    n = self.shape[axis]
    if n == 1:
        return expand(op, op.Unsqueeze(op.cast(src, self.dtype), [axis]), self.shape)
    if axis == 0 and list(src.shape) == list(self.shape[1:]):
        return op.ScatterND(self, op.Reshape(op.sizes([index]), [1, 1]), op.Unsqueeze(op.cast(src, self.dtype), [0]))
    trailing = len(self.shape) - axis - 1
    if isinstance(n, int) and isinstance(index, int):
        mask = np.zeros([n] + [1] * trailing, dtype=np.bool_)
        mask[index] = True
        condition = op.const(mask)
    else:
        condition = unsqueeze(op, op.Equal(iota(op, n), _counted(op, n, index)), *range(1, trailing + 1))
    written = op.cast(_unexpanded(op, src), self.dtype)
    inner = len(written.shape) - trailing  # what was broadcast may lack the dims before the axis
    return choose(op, condition, op.Unsqueeze(written, [inner]) if inner > 0 else written, self)


@translation("aten::slice_scatter")
def slice_scatter(
    op: Builder,
    self: Tensor,
    src: Tensor,
    dim: int = 0,
    start: Bound | None = None,
    end: Bound | None = None,
    step: Dim = 1,
) -> Tensor:
    """What precedes the slice, `src`, what follows; with a step, `src` is appended and the rows are picked in order.

    Bounds are Python's: they count from the end where they are negative, they end at the ends of the axis, and where
    they cross nothing is written. Where sizes are symbolic that is seen at run time.
    """
    axis = axis_of(self, dim)
    n = self.shape[axis]
    bounds = static_range(n, start, end) if isinstance(n, int) else None
    if bounds is not None and isinstance(step, int):
        return _static_slice_scatter(op, self, op.cast(src, self.dtype), axis, range(*bounds, step))
    first: Bound = 0 if start is None else start
    whole = end is None or (isinstance(end, int) and end >= END) or (isinstance(end, int | Size) and end == n)
    last: Bound | None = None if whole else end
    if (isinstance(last, int) and last == 0) or (_are_ints_of_one_sign(first, last) and last <= first):
        return self
    repeated = _unexpanded(op, src)
    place = axis - len(self.shape) + len(repeated.shape)
    is_repeated = repeated is not src and (place < 0 or repeated.shape[place] == 1)
    if is_repeated and (first != 0 or last is not None or step != 1):
        mask = unsqueeze(op, _within(op, n, first, last, step), *range(1, len(self.shape) - axis))
        return choose(op, mask, op.cast(repeated, self.dtype), self)
    if src.const_value is not None and src.shape[axis] == 0:
        return self
    if step != 1:
        rows = op.Div(op.Sub(iota(op, n), op.Max(_counted(op, n, first), [0])), op.sizes([step]))
        order = op.Where(_within(op, n, first, last, step), op.Add(rows, op.sizes([n])), iota(op, n))
        return op.Gather(op.Concat(self, op.cast(src, self.dtype), axis=axis), order, axis=axis)
    parts = [] if first == 0 else [op.Slice(self, [0], [first], [axis])]
    parts.append(op.cast(src, self.dtype))
    if last is not None:
        parts.append(op.Slice(self, _later(op, n, first, last), [END], [axis]))
    return concat(op, parts, axis)


def _static_slice_scatter(op: Builder, x: Tensor, written: Tensor, axis: int, rows: range) -> Tensor:
    if not rows:
        return x
    n = x.shape[axis]
    written = expand(op, written, [len(rows) if a == axis else d for a, d in enumerate(x.shape)])
    if rows.step == 1:
        parts = [op.Slice(x, [0], [rows.start], [axis])] if rows.start else []
        parts.append(written)
        parts += [op.Slice(x, [rows.stop], [n], [axis])] if rows.stop < n else []
        return concat(op, parts, axis)
    order = np.arange(n, dtype=np.int64)
    order[rows.start : rows.stop : rows.step] = n + np.arange(len(rows))
    return op.Gather(op.Concat(x, written, axis=axis), op.const(order), axis=axis)


def _unexpanded(op: Builder, src: Tensor) -> Tensor:
    """What was broadcast to `src`, which the node at hand writes: it fits whatever the size at run time."""
    node = op.node.args[1] if op.node is not None and len(op.node.args) > 1 else None
    if node is not None and getattr(node, "target", None) in _FULL and isinstance(node.args[1], (bool, int, float)):
        return op.const(node.args[1], src.dtype)
    producer, data = src.producer(), src.const_value
    is_expanded = getattr(node, "target", None) is torch.ops.aten.expand.default
    if is_expanded and producer is not None and producer.op_type in ("Expand", "Unsqueeze") and not src.is_complex:
        return src if producer.inputs[0].shape is None else producer.inputs[0]
    if data is None or getattr(data, "is_weight", False) or 0 in list(src.shape):
        return src
    array = data.numpy()
    for axis in range(array.ndim):
        one = array.take([0], axis=axis)
        array = one if ((array == one) | (array != array) & (one != one)).all() else array
    return op.const(array, src.dtype) if array.size < data.size else src


_FULL = (torch.ops.aten.full.default, torch.ops.aten.full_like.default)


def _are_ints_of_one_sign(first: Bound, last: Bound | None) -> bool:
    return isinstance(first, int) and isinstance(last, int) and (first < 0) == (last < 0)


def _is_nonnegative(op: Builder, bound: Bound) -> bool:
    if not isinstance(bound, Size):
        return isinstance(bound, int) and bound >= 0
    if bound.expr.is_nonnegative or not free_unbacked_symbols(bound.expr):
        return bool(bound.expr.is_nonnegative)
    mode = getattr(op.node.meta.get("val"), "fake_mode", None)  # what torch._check has said of an item
    return mode is not None and bool(mode.shape_env.bound_sympy(bound.expr).lower >= 0)


def _counted(op: Builder, n: Dim, bound: Bound) -> Tensor:
    """A bound of a slice, or an index, as a vector of one element that is counted from the front."""
    if isinstance(bound, int) or _is_nonnegative(op, bound):
        return op.sizes([bound + n if isinstance(bound, int) and bound < 0 else bound])
    place = op.sizes([bound])
    return op.Where(op.Less(place, 0), op.Add(place, op.sizes([n])), place)


def _within(op: Builder, n: Dim, first: Bound, last: Bound | None, step: Dim) -> Tensor:
    """For each of `n` places whether the slice takes it."""
    places = iota(op, n)
    taken: list[Tensor] = []
    if first != 0:
        begin = _counted(op, n, first)
        taken.append(op.GreaterOrEqual(places, begin))
        places = op.Sub(places, op.Max(begin, [0])) if step != 1 else places
    if last is not None:
        taken.append(op.Less(iota(op, n), _counted(op, n, last)))
    if step != 1:
        taken.append(op.Equal(op.Mod(places, op.sizes([step])), 0))
    return taken[0] if len(taken) == 1 else op.And(taken[0], taken[1] if len(taken) == 2 else op.And(*taken[1:]))


def _later(op: Builder, n: Dim, first: Bound, last: Bound) -> Tensor | list[Dim]:
    """Where what follows a slice begins: at its end, or at its start where the bounds cross."""
    if isinstance(first, int) and first == 0:
        return [last]
    if _are_ints_of_one_sign(first, last):
        return [max(first, last)]
    if _is_nonnegative(op, first) and isinstance(last, Size) and _is_nonnegative(op, last - first):
        return [last]
    return op.Max(_counted(op, n, first), _counted(op, n, last), [0])


@translation("aten::as_strided_scatter")
def as_strided_scatter(
    op: Builder, self: Tensor, src: Tensor, size: list[Dim], stride: list[Dim], storage_offset: Dim | None = None
) -> Tensor:
    index = flat(op, strided_index(op, size, stride, storage_offset))
    values = flat(op, expand(op, op.cast(src, self.dtype), size))
    written = op.ScatterElements(flat(op, self), index, values, axis=0)
    return reshape(op, written, self.shape)


# ---- masks


@translation("aten::masked_scatter")
def masked_scatter(op: Builder, self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The n-th true element of the mask takes the n-th element of `source`."""
    shape = broadcast_shape(self.shape, mask.shape)
    if 0 in shape or 0 in list(source.shape):
        return expand(op, self, shape)
    condition = expand(op, op.cast(mask, DataType.BOOL), shape)
    order = op.CumSum(op.cast(flat(op, condition), DataType.INT64), op.const(0, DataType.INT64))
    values = flat(op, op.cast(source, self.dtype))
    if not all(isinstance(size, int) for size in source.shape):  # of no element, nothing can be gathered
        values = op.Concat(values, op.const([0], self.dtype), axis=0)
    taken = op.Gather(values, op.Sub(order, 1), axis=0)
    return choose(op, condition, reshape(op, taken, shape), self)


# ---- segments


@translation("aten::segment_reduce")
def segment_reduce(
    op: Builder,
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Tensor:
    """Segments along `axis`, by their lengths or by the offsets of their ends; batched along the dims before."""
    if indices is not None or (lengths is None and offsets is None):
        raise Unsupported("segment_reduce needs lengths or offsets")
    dim = axis_of(data, axis)
    if lengths is None:
        count = offsets.shape[-1]
        last = len(offsets.shape) - 1
        lengths = op.Sub(op.Slice(offsets, [1], [END], [last]), op.Slice(offsets, [0], [count - 1], [last]))
    shape = list(op.result.shape)
    n = data.shape[dim]
    segments = shape[dim]
    batch = data.shape[:dim]
    # the segment of every element: in each row, how many segments end at or before its place
    ends = op.CumSum(op.cast(lengths, DataType.INT64), op.const(dim, DataType.INT64))
    passed = op.LessOrEqual(op.Unsqueeze(ends, [-2]), op.Unsqueeze(iota(op, n), [-1]))
    ids = op.ReduceSum(op.cast(passed, DataType.INT64), [-1], keepdims=0)
    trailing = len(data.shape) - dim - 1
    index = unsqueeze(op, ids, *range(dim + 1, dim + 1 + trailing))
    index = op.Expand(index, [*batch, n, *data.shape[dim + 1 :]])
    index.shape = data.shape
    kind = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    start = _identity(kind, data.dtype) if initial is None else initial
    # elements past the last segment go to one of their own, which is cut off
    extended = [segments + 1 if a == dim else d for a, d in enumerate(shape)]
    into = filled(op, extended, start, data.dtype)
    if kind != "mean":
        reduced = _reduce_into(op, into, index, data, dim, kind, True)
        return op.Slice(reduced, [0], [segments], [dim])
    total = op.Slice(scatter_elements(op, into, index, data, dim, "add"), [0], [segments], [dim])
    counts = unsqueeze(op, op.cast(lengths, data.dtype), *range(dim + 1, dim + 1 + trailing))
    mean = op.Div(total, counts)
    return mean if initial is None else op.Where(op.Equal(counts, 0), total, mean)
