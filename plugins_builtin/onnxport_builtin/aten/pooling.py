"""Pools: maximum, average, adaptive, fractional, and the inverse of the maximum's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy
from onnxport import DataType, Tensor, translation
from onnxport.authoring import Dim, expand, iota, is_used, product, reshape

from onnxport_builtin.aten.windows import batched, gather_windows, pad_spatial, positions, spread
from onnxport_builtin.capture import pools as _operators  # noqa: F401  # defines onnxport::adaptive_max_pool

if TYPE_CHECKING:
    from onnxport import Builder


# Kernels of onnxruntime 1.32 (bfloat16 runs elsewhere).
_MAX_POOL = (
    DataType.FLOAT,
    DataType.DOUBLE,
    DataType.FLOAT16,
    DataType.BFLOAT16,
    DataType.INT8,
    DataType.UINT8,
)
_AVERAGE_POOL = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
_LOWEST = {
    DataType.INT64: -(2**63),
    DataType.INT32: -(2**31),
    DataType.INT8: -128,
    DataType.UINT8: 0,
}


def _lowest(dtype: DataType) -> float | int:
    return _LOWEST.get(dtype, -float("inf"))


def _window(kernel_size: Any, stride: Any, padding: Any, dilation: Any, spatial: int) -> tuple[list[int], ...]:
    kernel = spread(kernel_size, spatial, "kernel_size")
    steps = kernel if stride is None or stride == [] or stride == () else spread(stride, spatial, "stride")
    return kernel, steps, spread(padding, spatial, "padding"), spread(dilation, spatial, "dilation")


def _overhang(
    size: Sequence[Dim],
    counts: Sequence[Dim],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int] | None:
    """How far the last window reaches over the padded end of each axis (ceil_mode); None where not static."""
    if not all(isinstance(d, int) for d in (*size, *counts)):
        return None
    return [
        max(0, (counts[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size[i] - 2 * padding[i])
        for i in range(len(size))
    ]


# ---- maximum


def _flat_positions(op: Builder, at: Sequence[Tensor], size: Sequence[Dim]) -> Tensor:
    """Indices into the flattened spatial axes from positions on each of them."""
    index = at[0]
    for i in range(1, len(at)):
        index = op.Add(op.Mul(index, op.tensor(size[i], DataType.INT64)), at[i])
    return index


def _lead(x: Tensor, spatial: int) -> list[Dim]:
    """Batch and channels of a pool's argument."""
    return [1, x.shape[0]] if len(x.shape) == spatial + 1 else [x.shape[0], x.shape[1]]


def _max_of_windows(
    op: Builder,
    x: Tensor,
    indices: Sequence[Tensor | None],
    starts: Sequence[Tensor],
    extents: Sequence[Dim],
    dilation: Sequence[int],
    size: Sequence[Dim],
    counts: Sequence[Dim],
    lead: Sequence[Dim],
) -> tuple[Tensor, Tensor]:
    """Maxima of gathered windows, and where they lie in the flattened spatial axes of `size`.

    ``indices[i]``: positions in `x` of each window's elements on axis i, (extent_i, count_i), None for windows of one
    element each; ``starts[i]``: the first of them on the axis without its padding; ``lead``: batch and channels.
    """
    spatial = len(indices)
    dtype = x.dtype
    if dtype == DataType.INT16:
        x = op.cast(x, DataType.INT32)
    windows = gather_windows(op, x, indices)
    shape = [lead[0], lead[1], product(extents), *counts]
    if all(isinstance(count, int) or count.expr.is_Symbol for count in counts):  # an expression may be 0
        shape[0] = -1
    windows = op.Reshape(windows, op.sizes(shape), allowzero=None if shape[0] == -1 else 1)
    values = op.cast(op.ReduceMax(windows, [2], keepdims=0), dtype)
    which = op.ArgMax(windows, axis=2, keepdims=0)
    at: list[Tensor] = []
    for i in reversed(range(spatial)):
        extent = op.tensor(extents[i], DataType.INT64)
        offset = which if i == 0 else op.Mod(which, extent)
        which = which if i == 0 else op.Div(which, extent)
        if dilation[i] != 1:
            offset = op.Mul(offset, dilation[i])
        axes = list(range(1, spatial - i))
        start = op.Unsqueeze(starts[i], axes) if axes else starts[i]
        at.insert(0, op.Add(offset, start))
    return values, _flat_positions(op, at, size)


def _max_pool(
    op: Builder,
    self: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    spatial: int,
    *,
    with_indices: bool,
) -> tuple[Tensor, Tensor | None]:
    kernel, steps, pads, dilation = _window(kernel_size, stride, padding, dilation, spatial)
    x, added = batched(op, self, spatial)
    size = list(self.shape)[-spatial:]
    counts = list(op.results[0].shape)[-spatial:]
    over = _overhang(size, counts, kernel, steps, pads, dilation) if ceil_mode else [0] * spatial
    indices: Tensor | None = None
    if x.dtype in _MAX_POOL and not _pads_too_wide(kernel, pads, over):
        end = pads if over is None else [pads[i] + over[i] for i in range(spatial)]
        pooled = op.MaxPool(
            x,
            kernel_shape=kernel,
            strides=steps,
            pads=[*pads, *end] if any(pads) or any(end) else None,
            dilations=dilation if any(d != 1 for d in dilation) else None,
            ceil_mode=1 if over is None else None,
            outputs=2 if with_indices else 1,
        )
        if with_indices:
            values, indices = pooled
            indices = op.Mod(indices, op.tensor(product(size), DataType.INT64))
        else:
            values = pooled
    else:
        reach = over if over is not None else [kernel[i] * dilation[i] + steps[i] for i in range(spatial)]
        end = [pads[i] + reach[i] for i in range(spatial)]
        padded = pad_spatial(op, x, pads, end, _lowest(x.dtype))
        values, indices = _max_of_windows(
            op,
            padded,
            [positions(op, kernel[i], counts[i], steps[i], dilation[i]) for i in range(spatial)],
            [_window_starts(op, counts[i], steps[i], pads[i]) for i in range(spatial)],
            kernel,
            dilation,
            size,
            counts,
            _lead(self, spatial),
        )
    if added:
        values = op.Squeeze(values, [0])
        indices = None if indices is None else op.Squeeze(indices, [0])
    return values, indices


def _pads_too_wide(kernel: Sequence[int], pads: Sequence[int], over: Sequence[int] | None) -> bool:
    # onnxruntime 1.32 refuses pads that are not smaller than the kernel
    return over is not None and any(pads[i] + over[i] >= kernel[i] for i in range(len(kernel)) if pads[i] + over[i])


def _window_starts(op: Builder, count: Dim, stride: int, pad: int) -> Tensor:
    if isinstance(count, int):
        return op.const(np.arange(count, dtype=np.int64) * stride - pad)
    return op.Sub(op.Mul(iota(op, count), stride), pad)


# ---- average


def _axis_counts(
    op: Builder, size: Dim, count: Dim, kernel: int, stride: int, pad: int, include_pad: bool
) -> Tensor | np.ndarray:
    """By how much torch divides along one axis: the window's extent within the input, or within the padded one."""
    low, beyond = (-pad, pad) if include_pad else (0, 0)
    if isinstance(size, int) and isinstance(count, int):
        starts = np.arange(count, dtype=np.int64) * stride - pad
        ends = np.minimum(starts + kernel, size + pad)
        return np.minimum(ends, size + beyond) - np.maximum(starts, low)
    starts = op.Sub(op.Mul(iota(op, count), stride), pad)
    ends = op.Min(op.Add(starts, kernel), op.tensor(size + beyond, DataType.INT64))
    return op.Sub(ends, op.Max(starts, low))


def _divisor(op: Builder, factors: Sequence[Tensor | np.ndarray], dtype: DataType) -> Tensor:
    """The outer product of the axes' divisors, in `dtype`."""
    spatial = len(factors)
    result: Tensor | np.ndarray | None = None
    for i, factor in enumerate(factors):
        trailing = list(range(1, spatial - i))
        if isinstance(factor, np.ndarray):
            shaped: Tensor | np.ndarray = factor.reshape([-1, *[1] * len(trailing)])
        else:
            shaped = op.Unsqueeze(factor, trailing) if trailing else factor
        if result is None:
            result = shaped
        elif isinstance(result, np.ndarray) and isinstance(shaped, np.ndarray):
            result = result * shaped
        else:
            result = op.Mul(op.tensor(result), op.tensor(shaped))
    return op.cast(op.const(result) if isinstance(result, np.ndarray) else result, dtype)


def _avg_pool(
    op: Builder,
    self: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    spatial: int,
) -> Tensor:
    kernel, steps, pads, dilation = _window(kernel_size, stride, padding, 1, spatial)
    x, added = batched(op, self, spatial)
    size = list(self.shape)[-spatial:]
    counts = list(op.result.shape)[-spatial:]
    over = _overhang(size, counts, kernel, steps, pads, dilation) if ceil_mode else [0] * spatial
    plain = over is not None and not any(over) and divisor_override is None
    native = x.dtype in _AVERAGE_POOL and all(pads[i] < kernel[i] for i in range(spatial))
    if plain and native:
        y = op.AveragePool(
            x,
            kernel_shape=kernel,
            strides=steps,
            pads=pads * 2 if any(pads) else None,
            count_include_pad=int(count_include_pad) if any(pads) else None,
        )
        return op.Squeeze(y, [0]) if added else y
    # The sum over each window of the zero-padded input, then torch's own divisors.
    reach = over if over is not None else [kernel[i] + steps[i] for i in range(spatial)]
    padded = pad_spatial(op, x, pads, [pads[i] + reach[i] for i in range(spatial)])
    if native and over is not None:
        mean = op.AveragePool(padded, kernel_shape=kernel, strides=steps)
        sums = op.Mul(mean, product(kernel))
    else:
        indices = [positions(op, kernel[i], counts[i], steps[i], 1) for i in range(spatial)]
        windows = gather_windows(op, padded, indices)
        sums = op.ReduceSum(windows, list(range(2, 2 + spatial)), keepdims=0)
    if divisor_override is not None:
        y = op.Div(sums, divisor_override)
    else:
        include = count_include_pad
        factors = [_axis_counts(op, size[i], counts[i], kernel[i], steps[i], pads[i], include) for i in range(spatial)]
        y = op.Div(sums, _divisor(op, factors, x.dtype))
    return op.Squeeze(y, [0]) if added else y


# ---- adaptive


class _Adaptive:
    """The windows of an adaptive pool on one axis: window i is floor(i*size/out) up to ceil((i+1)*size/out).

    Attributes:
        starts, lengths: of each window, (out,).
        extent: no window is longer.
        index: positions of the windows' elements, (extent, out), the last one repeated; None for one element each.
    """

    index: Tensor | None

    def __init__(self, op: Builder, size: Dim, out: Dim) -> None:
        self.uniform = False
        if size == out:
            self.uniform, self.extent, self.index = True, 1, None
            self.starts = iota(op, out)
            return
        if isinstance(size, int) and isinstance(out, int):
            i = np.arange(out, dtype=np.int64)
            starts = i * size // max(out, 1)
            ends = -(-(i + 1) * size // max(out, 1))
            self.extent = int((ends - starts).max(initial=1))
            self.uniform = bool((ends - starts == self.extent).all())
            index = starts + np.arange(self.extent, dtype=np.int64)[:, None]
            self.starts = op.const(starts)
            self.lengths = op.const(ends - starts)
            self.inside = op.const(index < ends)
            self.index = op.const(np.minimum(index, np.maximum(ends - 1, 0)))
            return
        steps = iota(op, out)
        # an expression of sizes may be 0, and then there is no window
        count = out if isinstance(out, int) or out.expr.is_Symbol else op.symbols.size(sympy.Max(out.expr, 1))
        length, windows = (op.tensor(n, DataType.INT64) for n in (size, count))
        self.starts = op.Div(op.Mul(steps, length), windows)
        ends = op.Div(op.Add(op.Mul(op.Add(steps, 1), length), op.Sub(windows, 1)), windows)
        self.lengths = op.Sub(ends, self.starts)
        # no window is longer: it starts less than one before i*size/out and ends less than one after (i+1)*size/out
        self.extent = (size + (count - 1)) // count + 1
        index = op.Add(op.Unsqueeze(iota(op, self.extent), [1]), self.starts)
        self.inside = op.Less(index, ends)
        self.index = op.Min(index, op.Sub(ends, 1))


def _adaptive_avg_axis(op: Builder, x: Tensor, axis: int, rank: int, size: Dim, out: Dim) -> Tensor:
    window = _Adaptive(op, size, out)
    gathered = op.Gather(x, window.index, axis=axis)
    if window.uniform:
        return op.ReduceMean(gathered, [axis], keepdims=0)
    trailing = list(range(rank - axis - 1))
    inside, lengths = window.inside, op.cast(window.lengths, x.dtype)
    if trailing:
        inside = op.Unsqueeze(inside, [2 + i for i in trailing])
        lengths = op.Unsqueeze(lengths, [1 + i for i in trailing])
    return op.Div(op.ReduceSum(op.Where(inside, gathered, 0), [axis], keepdims=0), lengths)


def _kernel(size: Sequence[Dim], out: Sequence[Dim]) -> list[int] | None:
    """The windows' lengths where all of an axis are equally long: it is kept, or divides by the number of windows."""
    kernel = []
    for s, o in zip(size, out):
        if s == o:
            kernel.append(1)
        elif isinstance(s, int) and isinstance(o, int) and o > 0 and s % o == 0 and s > 0:
            kernel.append(s // o)
        else:
            return None
    return kernel


def _adaptive_avg(op: Builder, self: Tensor, output_size: Any, spatial: int) -> Tensor:
    size = list(self.shape)[-spatial:]
    out = list(op.result.shape)[-spatial:]
    x, added = batched(op, self, spatial)
    rank = spatial + 2
    if all(o == 1 for o in out):
        if x.dtype in _AVERAGE_POOL:
            y = op.GlobalAveragePool(x)
        else:
            y = op.ReduceMean(x, list(range(2, rank)), keepdims=1)
    elif list(size) == list(out):
        return self
    elif (kernel := _kernel(size, out)) is not None and x.dtype in _AVERAGE_POOL:
        y = op.AveragePool(x, kernel_shape=kernel, strides=kernel)
    else:
        y = x
        for i in range(spatial):
            if size[i] != out[i]:
                y = _adaptive_avg_axis(op, y, 2 + i, rank, size[i], out[i])
    return op.Squeeze(y, [0]) if added else y


def _adaptive_max(op: Builder, self: Tensor, output_size: Any, spatial: int) -> tuple[Tensor, Tensor]:
    size = list(self.shape)[-spatial:]
    out = list(op.results[0].shape)[-spatial:]
    x, added = batched(op, self, spatial)
    kernel = _kernel(size, out)
    if kernel is None and all(o == 1 for o in out):
        axes = list(range(2, 2 + spatial))
        values = op.GlobalMaxPool(x) if x.dtype in _AVERAGE_POOL else op.ReduceMax(x, axes, keepdims=1)
        indices = op.ArgMax(op.Reshape(x, [0, 0, -1]), axis=2)
        indices = op.Unsqueeze(indices, axes[1:]) if spatial > 1 else indices
    elif kernel is not None and x.dtype in _MAX_POOL:
        values, indices = op.MaxPool(x, kernel_shape=kernel, strides=kernel, outputs=2)
        indices = op.Mod(indices, op.tensor(product(size), DataType.INT64))
    else:
        windows = [_Adaptive(op, size[i], out[i]) for i in range(spatial)]
        values, indices = _max_of_windows(
            op,
            x,
            [window.index for window in windows],
            [window.starts for window in windows],
            [window.extent for window in windows],
            [1] * spatial,
            size,
            out,
            _lead(self, spatial),
        )
    return (op.Squeeze(values, [0]), op.Squeeze(indices, [0])) if added else (values, indices)


# ---- the translations of one, two and three spatial axes


def _pool_translations(spatial: int) -> None:
    @translation(f"aten::max_pool{spatial}d")
    def max_pool(
        op: Builder,
        self: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Tensor:
        window = (kernel_size, stride, padding, dilation)
        return _max_pool(op, self, *window, ceil_mode, spatial, with_indices=False)[0]

    @translation(f"aten::max_pool{spatial}d_with_indices")
    def max_pool_with_indices(
        op: Builder,
        self: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        window = (kernel_size, stride, padding, dilation)
        return _max_pool(op, self, *window, ceil_mode, spatial, with_indices=is_used(op, 1))

    @translation(f"aten::avg_pool{spatial}d")
    def avg_pool(
        op: Builder,
        self: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor:
        options = (ceil_mode, count_include_pad, divisor_override)
        return _avg_pool(op, self, kernel_size, stride, padding, *options, spatial)

    names = [f"aten::adaptive_avg_pool{spatial}d"] + ([f"aten::_adaptive_avg_pool{spatial}d"] if spatial > 1 else [])

    @translation(*names)
    def adaptive_avg_pool(op: Builder, self: Tensor, output_size: Any) -> Tensor:
        return _adaptive_avg(op, self, output_size, spatial)

    @translation(f"aten::adaptive_max_pool{spatial}d")
    def adaptive_max_pool(op: Builder, self: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
        return _adaptive_max(op, self, output_size, spatial)


for _spatial in (1, 2, 3):
    _pool_translations(_spatial)


@translation("onnxport::adaptive_max_pool")
def adaptive_max_pool_of_sizes(op: Builder, self: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    return _adaptive_max(op, self, output_size, len(output_size))


# ---- fractional, and the inverse


def _fractional_positions(op: Builder, sample: Tensor, size: Dim, out: int, kernel: int) -> Tensor:
    """First positions of the windows of a fractional pool on one axis.

    `sample` is (N, C, 1) in [0, 1); returns int64 (N, C, out). Source: Graham, "Fractional Max-Pooling", as torch has
    it: ``floor((i + sample) * alpha) - floor(sample * alpha)``, the last one ``size - kernel``, rounded to the
    sample's precision at each step.
    """
    last = op.tensor(size - kernel, DataType.INT64)
    dtype = sample.dtype
    if out == 1:
        return op.Add(op.cast(op.Mul(sample, 0), DataType.INT64), last)
    work = DataType.DOUBLE if dtype == DataType.DOUBLE else DataType.FLOAT

    def rounded(x: Tensor) -> Tensor:  # a runtime may compute a chain of half precision in single precision
        return x if dtype == work else op.cast(op.cast(x, dtype), work)

    sample = op.cast(sample, work)
    alpha = rounded(op.Div(rounded(op.cast(op.tensor(size - kernel), work)), rounded(op.const(out - 1, work))))
    steps = op.const(np.arange(out), work)
    first = op.cast(rounded(op.Mul(rounded(op.Add(steps, sample)), alpha)), DataType.INT64)
    starts = op.Sub(first, op.cast(rounded(op.Mul(sample, alpha)), DataType.INT64))
    return op.Where(op.const(np.arange(out) == out - 1), last, starts)


def _fractional_max_pool(
    op: Builder, self: Tensor, kernel_size: Any, output_size: Any, random_samples: Tensor, spatial: int
) -> tuple[Tensor, Tensor]:
    kernel = spread(kernel_size, spatial, "kernel_size")
    x, added = batched(op, self, spatial)
    size = list(self.shape)[-spatial:]
    out = spread(output_size, spatial, "output_size")
    lead = [1 if added else self.shape[0], self.shape[-spatial - 1]]
    windows, at = x, []
    for i in range(spatial):
        # torch draws the sample of the last axis first in two dimensions, and time, height, width in three
        column = spatial - 1 - i if spatial == 2 else i
        sample = op.Slice(random_samples, [column], [column + 1], [2], [1])
        starts = _fractional_positions(op, sample, size[i], out[i], kernel[i])
        offsets = op.const(np.arange(kernel[i], dtype=np.int64))
        index = op.Add(op.Unsqueeze(starts, [3]), offsets)  # N, C, out, kernel
        at.append(index)
        done = [kernel[j] * out[j] for j in range(i)]
        rest = size[i + 1 :]
        flat = op.Reshape(index, op.sizes([*lead, *[1] * i, out[i] * kernel[i], *[1] * len(rest)]))
        windows = op.GatherElements(
            windows, op.Expand(flat, op.sizes([*lead, *done, out[i] * kernel[i], *rest])), axis=2 + i
        )
    split = [d for i in range(spatial) for d in (out[i], kernel[i])]
    windows = op.Reshape(windows, op.sizes([*lead, *split]))
    outer = [2 + 2 * i for i in range(spatial)]
    windows = op.Transpose(windows, perm=[0, 1, *outer, *(axis + 1 for axis in outer)])
    windows = op.Reshape(windows, op.sizes([*lead, *out, product(kernel)]))
    values = op.ReduceMax(windows, [-1], keepdims=0)
    which = op.ArgMax(windows, axis=2 + spatial, keepdims=0)
    positions_: list[Tensor] = []
    for i in reversed(range(spatial)):
        offset = which if i == 0 else op.Mod(which, kernel[i])
        which = which if i == 0 else op.Div(which, kernel[i])
        first = op.Squeeze(op.Slice(at[i], [0], [1], [3], [1]), [3])
        first = op.Reshape(first, op.sizes([*lead, *(out[j] if j == i else 1 for j in range(spatial))]))
        positions_.insert(0, op.Add(offset, first))
    indices = _flat_positions(op, positions_, size)
    return (op.Squeeze(values, [0]), op.Squeeze(indices, [0])) if added else (values, indices)


@translation("aten::fractional_max_pool2d")
def fractional_max_pool2d(
    op: Builder, self: Tensor, kernel_size: Any, output_size: Any, random_samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _fractional_max_pool(op, self, kernel_size, output_size, random_samples, 2)


@translation("aten::fractional_max_pool3d")
def fractional_max_pool3d(
    op: Builder, self: Tensor, kernel_size: Any, output_size: Any, random_samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _fractional_max_pool(op, self, kernel_size, output_size, random_samples, 3)


def _max_unpool(op: Builder, self: Tensor, indices: Tensor, spatial: int) -> Tensor:
    shape = list(op.result.shape)
    lead, out = shape[:-spatial], shape[-spatial:]
    empty = expand(op, op.const(0, self.dtype), [*lead, product(out)])
    flat = [*lead, product(list(self.shape)[-spatial:])]
    scattered = op.ScatterElements(empty, reshape(op, indices, flat), reshape(op, self, flat), axis=len(lead))
    return reshape(op, scattered, shape)


@translation("aten::max_unpool2d")
def max_unpool2d(op: Builder, self: Tensor, indices: Tensor, output_size: Any) -> Tensor:
    return _max_unpool(op, self, indices, 2)


@translation("aten::max_unpool3d")
def max_unpool3d(op: Builder, self: Tensor, indices: Tensor, output_size: Any, stride: Any, padding: Any) -> Tensor:
    return _max_unpool(op, self, indices, 3)
