"""Sorted sequences, sets and counts: searchsorted, isin, unique, bincount, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport import DataType, Tensor, Unsupported, promote, translation
from onnxport.authoring import filled, flat, is_static, product, reshape, unsqueeze

from .indexing import END, as_vector, compress

if TYPE_CHECKING:
    from onnxport import Builder


# ---- sorted sequences


def insertion_point(op: Builder, ordered: Tensor, values: Tensor, right: bool) -> Tensor:
    """Where `values` [..., m] go in `ordered` [..., n] (or any values in a vector), as int64: how many are before.

    A NaN is after everything, as in torch: hence the negated comparisons.
    """
    if ordered.dtype == DataType.BOOL:
        ordered, values = op.cast(ordered, DataType.UINT8), op.cast(values, DataType.UINT8)
    is_vector = len(ordered.shape) == 1
    row = ordered if is_vector else op.Unsqueeze(ordered, [-2])
    column = op.Unsqueeze(values, [-1]) if values.shape else values
    after = op.Greater(row, column) if right else op.GreaterOrEqual(row, column)
    return op.ReduceSum(op.cast(op.Not(after), DataType.INT64), [-1], keepdims=0)


def _search(op: Builder, ordered: Tensor, values: Any, right: bool) -> Tensor:
    dtype = promote(ordered, values)
    return op.cast(insertion_point(op, op.cast(ordered, dtype), op.cast(values, dtype), right), op.result.dtype)


@translation("aten::searchsorted.Tensor", "aten::searchsorted.Scalar")
def searchsorted(
    op: Builder,
    sorted_sequence: Tensor,
    self: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    if 0 in list(op.result.shape):
        return filled(op, list(op.result.shape), 0, op.result.dtype)
    ordered = sorted_sequence
    if sorter is not None:
        ordered = op.GatherElements(ordered, sorter, axis=len(ordered.shape) - 1)
    return _search(op, ordered, self, right or side == "right")


@translation("aten::bucketize.Tensor", "aten::bucketize.Scalar")
def bucketize(op: Builder, self: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    if 0 in list(op.result.shape):
        return filled(op, list(op.result.shape), 0, op.result.dtype)
    return _search(op, boundaries, self, right)


# ---- membership


def _is_in(op: Builder, elements: Any, tests: Any, invert: bool) -> Tensor:
    dtype = promote(elements, tests)
    left, right = op.cast(elements, dtype), op.cast(tests, dtype)
    shape = list(op.result.shape)
    if isinstance(tests, Tensor) and 0 in list(tests.shape):
        return filled(op, shape, invert, DataType.BOOL)
    count = product(tests.shape) if isinstance(tests, Tensor) else 1
    if count == 1:
        if isinstance(tests, Tensor) and tests.shape:
            right = op.Reshape(right, op.const([], DataType.INT64))
        found = op.Equal(left, right)
    else:
        equal = op.Equal(op.Unsqueeze(left, [-1]) if shape else left, flat(op, right))
        # ReduceMax has uint8, and bool from opset 20 only
        found = op.cast(op.ReduceMax(op.cast(equal, DataType.UINT8), [-1], keepdims=0), DataType.BOOL)
    return op.Not(found) if invert else found


@translation("aten::isin.Tensor_Tensor")
def isin(
    op: Builder, elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    return _is_in(op, elements, test_elements, invert)


@translation("aten::isin.Tensor_Scalar")
def isin_scalar(
    op: Builder, elements: Tensor, test_element: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    return _is_in(op, elements, test_element, invert)


@translation("aten::isin.Scalar_Tensor")
def scalar_isin(
    op: Builder, element: Any, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    return _is_in(op, element, test_elements, invert)


# ---- unique


def _absent(op: Builder, tensor: Tensor, wanted: bool) -> Tensor:
    """A result that was not asked for is empty."""
    return tensor if wanted else op.const(np.zeros(0, np.int64))


def _unique_kernel(op: Builder, x: Tensor) -> Tensor:
    """`x` in a type for which onnxruntime 1.32 has Unique."""
    if x.dtype in (DataType.FLOAT, DataType.DOUBLE, DataType.INT64, DataType.INT8):
        return x
    return op.cast(x, DataType.FLOAT if x.dtype.is_floating_point() else DataType.INT64)


def _unique_floats(op: Builder, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`unique` of a vector in which every NaN is a value of its own: sorted, then compared with its neighbour."""
    wide = x if x.dtype in (DataType.FLOAT, DataType.DOUBLE) else op.cast(x, DataType.FLOAT)
    n = op.Shape(wide)
    # TopK wants NaN nowhere: NaNs are sorted as infinities, behind them by a second key
    is_nan = op.IsNaN(wide)
    plain = op.Where(is_nan, op.const(np.inf, wide.dtype), wide)
    _, by_value = op.TopK(plain, n, axis=0, largest=0, outputs=2)
    nan_sorted = op.cast(op.Gather(is_nan, by_value, axis=0), DataType.INT32)
    _, by_nan = op.TopK(nan_sorted, n, axis=0, largest=0, outputs=2)
    order = op.Gather(by_value, by_nan, axis=0)
    ordered = op.Gather(x, order, axis=0)
    return _runs(op, ordered, _vector_changes(op, ordered), order)


def _vector_changes(op: Builder, ordered: Tensor) -> Tensor:
    """Whether each element of a vector differs from the one before; the first does."""
    before, after = op.Slice(ordered, [0], [-1], [0]), op.Slice(ordered, [1], [END], [0])
    head = op.Greater(op.Slice(op.Shape(ordered), [0], [1], [0]), 0)  # no first element in an empty vector
    head = op.Compress(op.const([True]), head, axis=0)
    return op.Concat(head, op.Not(op.Equal(before, after)), axis=0)


def _runs(op: Builder, values: Tensor, starts: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The first of each run of `values`, the run of each element (in the original `order`), and the runs' lengths."""
    unique = compress(op, values, starts, 0)
    runs = op.Sub(op.CumSum(op.cast(starts, DataType.INT64), op.const(0, DataType.INT64)), 1)
    inverse = runs if order is None else op.ScatterElements(runs, order, runs, axis=0)
    places = op.Squeeze(op.NonZero(starts), [0])
    ends = op.Concat(op.Slice(places, [1], [END], [0]), op.Shape(runs), axis=0)
    return unique, inverse, op.Sub(ends, places)


@translation("aten::_unique2")
def unique2(
    op: Builder, self: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    return _unique(op, self, return_inverse, return_counts)


@translation("aten::_unique")
def unique(op: Builder, self: Tensor, sorted: bool = True, return_inverse: bool = False) -> tuple[Tensor, Tensor]:
    values, inverse, _ = _unique(op, self, return_inverse, False)
    return values, inverse


def _unique(op: Builder, x: Tensor, return_inverse: bool, return_counts: bool) -> tuple[Tensor, Tensor, Tensor]:
    if 0 in list(x.shape):
        return tuple(filled(op, list(r.shape), 0, r.dtype) for r in op.results)
    vector = flat(op, x)
    if x.dtype.is_floating_point():
        values, inverse, counts = _unique_floats(op, vector)
    else:
        found, _, inverse, counts = op.Unique(_unique_kernel(op, vector), outputs=4)
        values = op.cast(found, x.dtype)
    if return_inverse:
        inverse = reshape(op, inverse, x.shape)
    return values, _absent(op, inverse, return_inverse), _absent(op, counts, return_counts)


@translation("aten::unique_dim")
def unique_dim(
    op: Builder,
    self: Tensor,
    dim: int,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    if 0 in list(self.shape):
        none = op.const(np.zeros(0, np.int64))
        return self, none, none
    found, _, inverse, counts = op.Unique(_unique_kernel(op, self), axis=dim % max(len(self.shape), 1), outputs=4)
    values = op.cast(found, self.dtype)
    # torch gives both whatever is asked for
    return values, inverse, counts


@translation("aten::unique_consecutive")
def unique_consecutive(
    op: Builder, self: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    return _unique_consecutive(op, self, return_inverse, return_counts, dim)


@translation("aten::unique_dim_consecutive")
def unique_dim_consecutive(
    op: Builder, self: Tensor, dim: int, return_inverse: bool = False, return_counts: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    return _unique_consecutive(op, self, return_inverse, return_counts, dim)


def _unique_consecutive(
    op: Builder, x: Tensor, return_inverse: bool, return_counts: bool, dim: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    if 0 in list(x.shape):
        if all(is_static(r.shape) for r in op.results):
            return tuple(filled(op, list(r.shape), 0, r.dtype) for r in op.results)
        raise Unsupported("unique_consecutive of an empty tensor")
    if dim is not None and len(op.results[0].shape) != len(x.shape):
        raise Unsupported("torch captures a wrong shape where dim is negative: count it from the front")
    if dim is None or len(x.shape) == 1:
        vector = flat(op, as_vector(op, x))
        values, inverse, counts = _runs(op, vector, _vector_changes(op, vector), None)
        if dim is None and return_inverse:
            inverse = reshape(op, inverse, x.shape)
        whole = dim is not None
        return values, _absent(op, inverse, return_inverse or whole), _absent(op, counts, return_counts or whole)
    axis = dim % len(x.shape)
    before, after = op.Slice(x, [0], [-1], [axis]), op.Slice(x, [1], [END], [axis])
    differs = op.cast(op.Not(op.Equal(before, after)), DataType.UINT8)
    others = [a for a in range(len(x.shape)) if a != axis]
    changes = op.cast(op.ReduceMax(differs, others, keepdims=0), DataType.BOOL)
    starts = op.Concat(op.const([True]), changes, axis=0)
    _, inverse, counts = _runs(op, starts, starts, None)
    return compress(op, x, starts, axis), inverse, counts


# ---- counts


@translation("aten::bincount")
def bincount(op: Builder, self: Tensor, weights: Tensor | None = None, minlength: Any = 0) -> Tensor:
    dtype = op.result.dtype
    if 0 in list(self.shape):
        return filled(op, [minlength], 0, dtype)
    index = op.cast(self, DataType.INT64)
    length = op.Add(op.ReduceMax(index, keepdims=1), 1)
    if not (isinstance(minlength, int) and minlength == 0):
        length = op.Max(length, op.sizes([minlength]))
    counts = op.Expand(op.const(0, dtype), length)
    if weights is None:
        added = filled(op, list(self.shape), 1, dtype)
    else:
        added = op.cast(weights, dtype)
    return op.ScatterElements(counts, index, added, axis=0, reduction="add")


@translation("aten::histc")
def histc(op: Builder, self: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Tensor:
    """Equal bins from `min` to `max`; what lies outside isn't counted."""
    dtype = self.dtype
    if 0 in list(self.shape):
        return filled(op, [bins], 0, dtype)
    work = dtype if dtype.is_floating_point() else DataType.DOUBLE  # torch rounds every step to the half types too
    x = op.cast(op.Reshape(self, [-1]), work)
    if min == max:
        low, high = op.ReduceMin(x, keepdims=0), op.ReduceMax(x, keepdims=0)
        single = op.cast(op.Equal(low, high), work)
        low, high = op.Sub(low, single), op.Add(high, single)
    else:
        low, high = op.const(min, work), op.const(max, work)
    place = op.Div(op.Mul(op.Sub(x, low), op.const(bins, work)), op.Sub(high, low))
    # the last bin holds its upper end
    place = op.Min(op.Floor(place), op.const(bins - 1, work))
    inside = op.And(op.GreaterOrEqual(x, low), op.LessOrEqual(x, high))
    kept = op.cast(compress(op, place, inside, 0), DataType.INT64)
    counts = op.ScatterElements(
        filled(op, [bins], 0, DataType.INT64),
        kept,
        op.Expand(op.const(1, DataType.INT64), op.Shape(kept)),
        axis=0,
        reduction="add",
    )
    return op.cast(counts, dtype)


def _density(op: Builder, histogram: Tensor, edges: Sequence[Tensor]) -> Tensor:
    """Counts divided by their sum and by the volume of their bins."""
    result = op.Div(histogram, op.ReduceSum(histogram, keepdims=0))
    rank = len(edges)
    for axis, edge in enumerate(edges):
        widths = op.Sub(op.Slice(edge, [1], [END], [0]), op.Slice(edge, [0], [-1], [0]))
        result = op.Div(result, unsqueeze(op, widths, *range(1, rank - axis)))
    return result


def _count(
    op: Builder, columns: Sequence[Tensor], edges: Sequence[Tensor], bins: Sequence[int], weight: Tensor | None
) -> Tensor:
    """How many points, given by one vector for each dimension, lie between the edges."""
    linear: Tensor | None = None
    inside: Tensor | None = None
    for column, edge, count in zip(columns, edges, bins, strict=True):
        first, last = op.Gather(edge, 0, axis=0), op.Gather(edge, count, axis=0)
        within = op.And(op.GreaterOrEqual(column, first), op.LessOrEqual(column, last))
        place = op.Sub(insertion_point(op, edge, column, True), 1)
        place = op.Min(place, op.const(count - 1, DataType.INT64))
        linear = place if linear is None else op.Add(op.Mul(linear, count), place)
        inside = within if inside is None else op.And(inside, within)
    kept = op.Compress(linear, inside, axis=0)
    dtype = columns[0].dtype
    added = op.Expand(op.const(1, dtype), op.Shape(kept)) if weight is None else op.Compress(weight, inside, axis=0)
    zeros = filled(op, [int(np.prod(bins))], 0, dtype)
    counts = op.ScatterElements(zeros, kept, added, axis=0, reduction="add")
    return counts if len(bins) == 1 else op.Reshape(counts, list(bins))


def _even_edges(op: Builder, column: Tensor, bins: int, ends: Sequence[float] | None, size: Any) -> Tensor:
    """`bins + 1` edges from one end to the other: those given, or those of the data (0 and 1 without data)."""
    dtype = column.dtype
    if ends is None and size == 0:
        ends = (0.0, 1.0)
    if ends is not None:
        low, high = float(ends[0]), float(ends[1])
        if low == high:
            low, high = low - 0.5, high + 0.5
        torch_dtype = torch.float64 if dtype == DataType.DOUBLE else torch.float32
        return op.const(torch.linspace(low, high, bins + 1, dtype=torch_dtype))
    low_, high_ = op.ReduceMin(column, keepdims=0), op.ReduceMax(column, keepdims=0)
    apart = op.Mul(op.cast(op.Equal(low_, high_), dtype), 0.5)
    low_, high_ = op.Sub(low_, apart), op.Add(high_, apart)
    steps = np.arange(bins + 1)
    step = op.Div(op.Sub(high_, low_), op.const(bins, dtype))
    rising = op.Add(low_, op.Mul(step, op.const(steps, dtype)))
    falling = op.Sub(high_, op.Mul(step, op.const(bins - steps, dtype)))
    return op.Where(op.const(steps < (bins + 1) // 2), rising, falling)


@translation("aten::histogram.bin_ct")
def histogram(
    op: Builder,
    self: Tensor,
    bins: int = 100,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> tuple[Tensor, Tensor]:
    column = flat(op, as_vector(op, self))
    edges = _even_edges(op, column, bins, range, product(self.shape))
    counts = _count(op, [column], [edges], [bins], None if weight is None else flat(op, as_vector(op, weight)))
    return (_density(op, counts, [edges]) if density else counts), edges


@translation("aten::histogram.bins_tensor")
def histogram_edges(
    op: Builder, self: Tensor, bins: Tensor, *, weight: Tensor | None = None, density: bool = False
) -> tuple[Tensor, Tensor]:
    count = bins.shape[0]
    if not isinstance(count, int):
        raise Unsupported("histogram with a symbolic number of bins")
    column = flat(op, as_vector(op, self))
    weights = None if weight is None else flat(op, as_vector(op, weight))
    counts = _count(op, [column], [bins], [count - 1], weights)
    return (_density(op, counts, [bins]) if density else counts), bins


def _columns(op: Builder, points: Tensor) -> list[Tensor]:
    """The coordinates of points [..., d], one vector each."""
    dims = points.shape[-1]
    if not isinstance(dims, int):
        raise Unsupported("histogramdd of a symbolic number of dimensions")
    table = op.Reshape(points, [-1, dims])
    return [op.Gather(table, i, axis=1) for i in range(dims)]


def _edges_of(op: Builder, points: Tensor, bins: Sequence[int], ends: Sequence[float] | None) -> list[Tensor]:
    size = product(points.shape)
    return [
        _even_edges(op, column, count, None if ends is None else ends[2 * i : 2 * i + 2], size)
        for i, (column, count) in enumerate(zip(_columns(op, points), bins, strict=True))
    ]


@translation("aten::_histogramdd_bin_edges")
def histogramdd_bin_edges(
    op: Builder,
    self: Tensor,
    bins: list[int],
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> list[Tensor]:
    return _edges_of(op, self, bins, range)


@translation("aten::_histogramdd_from_bin_cts")
def histogramdd_from_bin_cts(
    op: Builder,
    self: Tensor,
    bins: list[int],
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Tensor:
    return _histogramdd(op, self, bins, _edges_of(op, self, bins, range), weight, density)


@translation("aten::_histogramdd_from_bin_tensors")
def histogramdd_from_bin_tensors(
    op: Builder, self: Tensor, bins: list[Tensor], *, weight: Tensor | None = None, density: bool = False
) -> Tensor:
    return _histogramdd(op, self, [edge.shape[0] - 1 for edge in bins], bins, weight, density)


def _histogramdd(
    op: Builder, points: Tensor, bins: Sequence[int], edges: Sequence[Tensor], weight: Tensor | None, density: bool
) -> Tensor:
    weights = None if weight is None else flat(op, as_vector(op, weight))
    counts = _count(op, _columns(op, points), edges, bins, weights)
    return _density(op, counts, edges) if density else counts


@translation("aten::histogramdd", "aten::histogramdd.int_bins", "aten::histogramdd.TensorList_bins")
def histogramdd(
    op: Builder,
    self: Tensor,
    bins: Any,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    if isinstance(bins, int):
        bins = [bins] * int(self.shape[-1])
    if isinstance(bins[0], Tensor):
        edges, counts = list(bins), [edge.shape[0] - 1 for edge in bins]
    else:
        edges, counts = _edges_of(op, self, bins, range), list(bins)
    return _histogramdd(op, self, counts, edges, weight, density), edges
