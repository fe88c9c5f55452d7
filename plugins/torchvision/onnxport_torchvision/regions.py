"""Regions of interest: aligned and pooled, each also position-sensitive.

Regions come as rows (k, 5) of batch index, x1, y1, x2, y2. Arithmetic follows torchvision's order of operations, since
one rounding more or less decides which pixels a window covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, translation
from onnxport.authoring import Dim, iota, is_used, static

from onnxport_torchvision.sampling import clamped, rounded, working_dtype

if TYPE_CHECKING:
    from onnxport import Builder

# onnxruntime 1.32 has RoiAlign and MaxRoiPool, but not as revised at this opset.
_WITHOUT_KERNELS = 22
_LOWEST = {DataType.FLOAT: np.finfo(np.float32).min, DataType.DOUBLE: np.finfo(np.float64).min}

Row = Callable[[Tensor], Tensor]


def _images(op: Builder, rois: Tensor) -> Tensor:
    """Which image each region lies in: int64 (k,)."""
    return op.cast(op.Gather(rois, op.const(np.int64(0)), axis=1), DataType.INT64)


def _corners(op: Builder, rois: Tensor, spatial_scale: float, dtype: DataType) -> Tensor:
    """The regions' corners (k, 4) in pixels of the feature map."""
    corners = op.Slice(op.cast(rois, dtype), [1], [5], [1])
    return corners if spatial_scale == 1 else op.Mul(corners, spatial_scale)


def _axis(op: Builder, pairs: Tensor, axis: int) -> Tensor:
    """A column of (k, 2) pairs x, y as (k, 1); axis 0 is y, as in images."""
    return op.Slice(pairs, [1 - axis], [2 - axis], [1])


def each(op: Builder, count: Dim, body: Callable[[Row], Sequence[Tensor]], shape: Sequence[Dim]) -> list[Tensor]:
    """What `body` gives for each region, stacked: (count, *shape).

    ``body(row)`` runs inside a loop, where ``row(x)`` is the region's part (1, ...) of an `x` (count, ...). Windows
    differ in size between regions; a loop needs no more memory than the largest.
    """

    def step(i: Tensor, going: Tensor) -> list[Tensor]:
        at = op.Unsqueeze(i, [0])
        return [going, *body(lambda x: op.Gather(x, at, axis=0))]

    graph = op.subgraph(step, [(DataType.INT64, []), (DataType.BOOL, [])], name="region")
    stacked = op.Loop(op.tensor(count, DataType.INT64), True, body=graph)
    # where there are no regions, the loop alone doesn't know the shape
    whole = op.sizes([count, *shape])
    return [op.Reshape(x, whole, allowzero=1) for x in (stacked if isinstance(stacked, tuple) else (stacked,))]


class _Table:
    """The feature map as rows of channels, and how its windows are gathered.

    With `sensitive`, each place of the output has channels of its own.
    """

    def __init__(self, op: Builder, input: Tensor, pooled: tuple[int, int], dtype: DataType, sensitive: bool) -> None:
        self.op = op
        self.pooled = pooled
        self.size: list[Dim] = list(input.shape)[2:]
        places = pooled[0] * pooled[1]
        self.channels: Dim = input.shape[1] // places if sensitive else input.shape[1]
        x = op.cast(input, dtype)
        if sensitive:
            x = op.Reshape(x, op.sizes([-1, self.channels, *pooled, *self.size]))
        x = op.Transpose(x, perm=[0, 2, 3, 4, 5, 1] if sensitive else [0, 2, 3, 1])
        self.rows = op.Reshape(x, op.sizes([-1, self.channels]))
        area = self.size[0] * self.size[1]
        self.stride = op.tensor(area * places if sensitive else area, DataType.INT64)
        self.groups: Tensor | None = None
        if sensitive:
            group = op.const(np.arange(places, dtype=np.int64).reshape(1, *pooled, 1, 1))
            self.groups = op.Mul(group, op.tensor(area, DataType.INT64))

    @property
    def shape(self) -> list[Dim]:
        """Of one region's result."""
        return [self.channels, *self.pooled]

    def positions(self, y: Tensor, x: Tensor) -> Tensor:
        """Places within an image (k, ph, pw, ty, tx) from rows (k, ph, ty) and columns (k, pw, tx)."""
        op = self.op
        rows = op.Unsqueeze(op.Mul(y, op.tensor(self.size[1], DataType.INT64)), [2, 4])
        return op.Add(rows, op.Unsqueeze(x, [1, 3]))

    def windows(self, images: Tensor, positions: Tensor, taps: int) -> Tensor:
        """Pixels at `positions` of each region's image: (k, ph, pw, taps, channels). Taps may be -1 where k is 1."""
        op = self.op
        first = op.Unsqueeze(op.Mul(images, self.stride), [1, 2, 3, 4])
        if self.groups is not None:
            first = op.Add(first, self.groups)
        return op.Gather(self.rows, self.flat(op.Add(positions, first), taps), axis=0)

    def flat(self, x: Tensor, taps: int) -> Tensor:
        """(k, ph, pw, ty, tx) as (k, ph, pw, ty * tx)."""
        return self.op.Reshape(x, [1 if taps < 0 else -1, *self.pooled, taps])

    def summed(self, windows: Tensor, y: Tensor, x: Tensor, taps: int) -> Tensor:
        """Sums weighted by (k, ph, ty) and (k, pw, tx): (k, channels, ph, pw)."""
        op = self.op
        weights = self.flat(op.Mul(op.Unsqueeze(y, [2, 4]), op.Unsqueeze(x, [1, 3])), taps)
        product = op.MatMul(op.Unsqueeze(weights, [3]), windows)
        return op.Transpose(op.Squeeze(product, [3]), perm=[0, 3, 1, 2])


# ---- aligned


def _bilinear(op: Builder, at: Tensor, size: Dim) -> tuple[Tensor, Tensor]:
    """Pixels (..., 2s) and weights (..., 2s) for samples at places (..., s) on an axis.

    Up to one pixel outside of the image, a sample takes the value at the border; further out, 0.
    """
    inside = op.And(op.GreaterOrEqual(at, -1), op.LessOrEqual(at, op.cast(size, at.dtype)))
    last = op.cast(size - 1, at.dtype)
    place = clamped(op, op.Where(inside, at, 0), 0, last)
    low = op.Floor(place)
    part = op.Sub(place, low)
    index = op.cast(op.Concat(low, op.Min(op.Add(low, 1), last), axis=-1), DataType.INT64)
    weight = op.Concat(op.Where(inside, op.Sub(1, part), 0), op.Where(inside, part, 0), axis=-1)
    return index, weight


def _samples(op: Builder, start: Tensor, bin_size: Tensor, pooled: int, count: int | Tensor) -> Tensor:
    """Where the samples of each bin lie on an axis: (k, pooled, count) from starts and bin sizes (k, 1)."""
    dtype = start.dtype
    bins = op.Add(start, op.Mul(iota(op, pooled, dtype), bin_size))
    centers = op.Mul(op.Add(iota(op, count, dtype), 0.5), op.Unsqueeze(bin_size, [2]))
    return op.Add(op.Unsqueeze(bins, [2]), op.Div(centers, op.cast(count, dtype)))


def _align(
    op: Builder,
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    sensitive: bool,
) -> Tensor:
    dtype = working_dtype(input.dtype)
    table = _Table(op, input, pooled, dtype, sensitive)
    images = _images(op, rois)
    corners = _corners(op, rois, spatial_scale, dtype)
    if aligned:
        corners = op.Sub(corners, 0.5)
    starts = op.Slice(corners, [0], [2], [1])
    extents = op.Sub(op.Slice(corners, [2], [4], [1]), starts)
    if not aligned:
        extents = op.Max(extents, 1)
    bins = op.Div(extents, op.const([pooled[1], pooled[0]], dtype))

    def pool(row: Row, grid: Sequence[int | Tensor], factor: float | Tensor, taps: int) -> Tensor:
        axes = []
        for axis in (0, 1):
            start, bin_size = _axis(op, row(starts), axis), _axis(op, row(bins), axis)
            at = _samples(op, start, bin_size, pooled[axis], grid[axis])
            axes.append(_bilinear(op, at, table.size[axis]))
        (rows, y), (columns, x) = axes
        windows = table.windows(row(images), table.positions(rows, columns), taps)
        return table.summed(windows, op.Mul(y, factor), x, taps)

    if sampling_ratio > 0:
        count = sampling_ratio**2
        result = pool(lambda x: x, [sampling_ratio] * 2, 1 / count, 4 * count)
        return op.cast(result, input.dtype)

    grids = op.Ceil(bins)

    def adaptive(row: Row) -> list[Tensor]:
        grid = row(grids)
        # A region without extent has no samples: 0, or 0 / 0 in ps_roi_align, which divides by their number.
        count = op.ReduceProd(grid, keepdims=0)
        some = op.cast(op.Greater(op.ReduceMin(grid, keepdims=0), 0), dtype)
        factor = op.Div(some, count if sensitive else op.Max(count, 1))
        counts = op.cast(op.Max(grid, 1), DataType.INT64)
        result = pool(row, [op.Squeeze(_axis(op, counts, axis), [0, 1]) for axis in (0, 1)], factor, -1)
        return [op.Squeeze(result, [0])]

    (result,) = each(op, rois.shape[0], adaptive, table.shape)
    return op.cast(result, input.dtype)


@translation("torchvision::roi_align")
def roi_align(
    op: Builder,
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: Dim,
    pooled_width: Dim,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """(k, C, pooled_height, pooled_width): the mean of bilinear samples in each bin of each region."""
    height, width = static("the output size of roi_align", pooled_height, pooled_width)
    if op.opset >= _WITHOUT_KERNELS:
        return _align(op, input, rois, spatial_scale, (height, width), sampling_ratio, aligned, False)
    corners = op.Slice(rois, [1], [5], [1])
    if rois.dtype == DataType.DOUBLE and float(np.float32(spatial_scale)) != spatial_scale:
        # the attribute is a float32
        corners, spatial_scale = op.Mul(corners, spatial_scale), 1.0
    return op.RoiAlign(
        input,
        corners,
        _images(op, rois),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        output_height=height,
        output_width=width,
        sampling_ratio=max(sampling_ratio, 0),
        spatial_scale=spatial_scale,
    )


@translation("torchvision::ps_roi_align")
def ps_roi_align(
    op: Builder,
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: Dim,
    pooled_width: Dim,
    sampling_ratio: int,
) -> tuple[Tensor, Tensor | None]:
    """As roi_align (aligned), each place of the output from channels of its own; and which channels these are."""
    height, width = static("the output size of ps_roi_align", pooled_height, pooled_width)
    result = _align(op, input, rois, spatial_scale, (height, width), sampling_ratio, True, True)
    return result, _channel_mapping(op) if is_used(op, 1) else None


def _channel_mapping(op: Builder) -> Tensor:
    """The channel of the input that each element of the output comes from: int32 (k, C, ph, pw)."""
    shape = op.results[1].shape
    order = iota(op, shape[1] * shape[2] * shape[3], DataType.INT32)
    return op.Expand(op.Reshape(order, op.sizes(list(shape)[1:])), op.sizes(list(shape)))


# ---- pooled


def _pooled(
    op: Builder,
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled: tuple[int, int],
    sensitive: bool,
    with_places: bool = False,
) -> list[Tensor]:
    """Maxima, and where they lie, of whole pixels in each bin; with `sensitive` the means instead."""
    dtype = working_dtype(input.dtype)
    table = _Table(op, input, pooled, dtype, sensitive)
    images = _images(op, rois)
    corners = rounded(op, _corners(op, rois, spatial_scale, dtype))
    starts = op.Slice(corners, [0], [2], [1])
    extents = op.Sub(op.Slice(corners, [2], [4], [1]), starts)
    # The last pixel belongs to the region of a maximum, and not to that of a mean.
    extents = op.Max(extents if sensitive else op.Add(extents, 1), 1)
    bins = op.Div(extents, op.const([pooled[1], pooled[0]], dtype))
    limits = []
    for axis in (0, 1):
        start, bin_size = _axis(op, starts, axis), _axis(op, bins, axis)
        edges = iota(op, pooled[axis] + 1, dtype)
        scaled = op.Mul(edges, bin_size)  # (k, pooled + 1)
        low = op.Add(op.Floor(op.Slice(scaled, [0], [-1], [1])), start)
        high = op.Add(op.Ceil(op.Slice(scaled, [1], [pooled[axis] + 1], [1])), start)
        # torchvision keeps clear of the last row and column of the image when it takes means
        last = op.cast(table.size[axis] - 1 if sensitive else table.size[axis], dtype)
        limits.append([op.cast(clamped(op, edge, 0, last), DataType.INT64) for edge in (low, high)])

    def region(row: Row) -> list[Tensor]:
        index, inside, lengths = [], [], []
        for axis, (low, high) in enumerate(limits):
            begin, end = op.Unsqueeze(row(low), [2]), op.Unsqueeze(row(high), [2])
            length = op.Sub(end, begin)
            longest = op.Max(op.ReduceMax(length, keepdims=0), 1)
            at = op.Add(begin, iota(op, longest))
            inside.append(op.Less(at, end))
            index.append(op.Min(at, op.tensor(table.size[axis] - 1, DataType.INT64)))
            lengths.append(length)
        positions = table.positions(*index)
        windows = table.windows(row(images), positions, -1)
        if sensitive:
            y, x = (op.Div(op.cast(m, dtype), op.cast(op.Max(n, 1), dtype)) for m, n in zip(inside, lengths))
            return [op.Squeeze(table.summed(windows, y, x, -1), [0])]
        covered = op.And(op.Unsqueeze(inside[0], [2, 4]), op.Unsqueeze(inside[1], [1, 3]))
        covered = op.Unsqueeze(table.flat(covered, -1), [4])
        windows = op.Where(covered, windows, op.const(_LOWEST[dtype], dtype))
        # the first pixel of a window is in it, if any is
        empty = op.Not(op.Squeeze(op.Slice(covered, [0], [1], [3]), [0, 3]))
        largest = op.Where(empty, 0, op.ReduceMax(windows, [0, 3], keepdims=0))
        results = [op.Transpose(largest, perm=[2, 0, 1])]
        if with_places:
            which = op.ArgMax(windows, axis=3, keepdims=0)
            places = op.GatherElements(table.flat(positions, -1), which, axis=3)
            places = op.Where(empty, -1, op.Squeeze(places, [0]))
            results.append(op.Transpose(op.cast(places, DataType.INT32), perm=[2, 0, 1]))
        return results

    values, *places = each(op, rois.shape[0], region, table.shape)
    return [op.cast(values, input.dtype), *places]


@translation("torchvision::roi_pool")
def roi_pool(
    op: Builder, input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: Dim, pooled_width: Dim
) -> tuple[Tensor, Tensor | None]:
    """The maximum of each bin of each region (k, C, ph, pw); and where in the image it lies, int32, -1 if nowhere."""
    height, width = static("the output size of roi_pool", pooled_height, pooled_width)
    with_places = is_used(op, 1)
    if op.opset < _WITHOUT_KERNELS and input.dtype != DataType.DOUBLE and not with_places:
        return op.MaxRoiPool(input, rois, pooled_shape=[height, width], spatial_scale=spatial_scale), None
    values, *places = _pooled(op, input, rois, spatial_scale, (height, width), False, with_places)
    return values, places[0] if places else None


@translation("torchvision::ps_roi_pool")
def ps_roi_pool(
    op: Builder, input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: Dim, pooled_width: Dim
) -> tuple[Tensor, Tensor | None]:
    """The mean of each bin of each region, each place of the output from channels of its own; and which these are."""
    height, width = static("the output size of ps_roi_pool", pooled_height, pooled_width)
    (values,) = _pooled(op, input, rois, spatial_scale, (height, width), True)
    return values, _channel_mapping(op) if is_used(op, 1) else None
