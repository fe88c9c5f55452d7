"""Resampling of images: interpolation to another size, with or without antialiasing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import iota

from onnxport_builtin.aten.nearest import Axis, Places

if TYPE_CHECKING:
    from onnxport import Builder

# onnxruntime 1.32 resizes these well; doubles and integers are resampled by Gather.
_NATIVE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
_NATIVE_NEAREST = (*_NATIVE, DataType.UINT8)


@dataclass(frozen=True)
class _Mode:
    """How samples are mixed.

    Attributes:
        name: "nearest", "exact" (nearest to the pixels' centres), "linear", "cubic" or "lanczos".
        align_corners: the centres of the corner pixels coincide.
        antialias: the filter grows with the ratio when shrinking.
    """

    name: str
    align_corners: bool = False
    antialias: bool = False

    @property
    def is_nearest(self) -> bool:
        return self.name in ("nearest", "exact")


# ---- by ONNX Resize


def _resized_natively(op: Builder, x: Tensor, axes: Sequence[Axis], mode: _Mode) -> Tensor | None:
    """The result as one Resize, or None where that node would say something else."""
    if x.dtype not in (_NATIVE_NEAREST if mode.is_nearest else _NATIVE) or mode.name == "lanczos":
        return None
    if mode.antialias and mode.align_corners:
        return None
    options: dict[str, Any] = {}
    if mode.name == "nearest":
        options |= {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif mode.name == "exact":
        options |= {
            "mode": "nearest",
            "coordinate_transformation_mode": "half_pixel",
            "nearest_mode": "round_prefer_ceil",
        }
    else:
        options |= {"mode": mode.name}
        if mode.align_corners:
            options["coordinate_transformation_mode"] = "align_corners"
        if mode.name == "cubic":
            options["cubic_coeff_a"] = -0.5 if mode.antialias else -0.75
        if mode.antialias:
            options |= {"antialias": 1, "exclude_outside": 1}
    if mode.align_corners or all(axis.is_implied for axis in axes):
        return _resize_node(op, x, mode, [axis.out for axis in axes], None, options)
    if not axes[0].copies and not mode.is_nearest and all(axis.size == axis.out or axis.may_stay for axis in axes):
        return None  # onnxruntime copies what keeps all its sizes
    scales = [_native_scale(axis, mode) for axis in axes]
    if any(scale is None for scale in scales):
        return None
    if any(axis.copies and axis.may_stay for axis in axes):
        one = op.const([1.0], DataType.FLOAT)
        parts = [op.Where(_stays(op, axis), one, op.const([scale], one.dtype)) for axis, scale in zip(axes, scales)]
        return _resize_node(op, x, mode, None, op.Concat(one, one, *parts, axis=0), options)
    return _resize_node(op, x, mode, None, op.const([1.0, 1.0, *scales], DataType.FLOAT), options)


def _resize_node(
    op: Builder,
    x: Tensor,
    mode: _Mode,
    out: Sequence[int | Size] | None,
    scales: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """Resize to sizes, or by scales, of which there is one for each axis.

    The attribute `axes` is no choice: where a Transpose before the node makes an image of a channels-last one, the
    optimizer of onnxruntime 1.32 takes the sizes for those of all axes. It also moves the Transpose past Resize where
    its kernels can't follow: those of the cubic mode, and all where the last axes are a width and channels. It doesn't
    where the image has other outer axes.
    """
    batch, channels = x.shape[0], x.shape[1]
    apart = len(x.shape) == 4 and not mode.is_nearest and _transposes_before(x)
    if not apart or (apart == [(0, 3, 1, 2)] and mode.name == "linear"):
        sizes = None if out is None else op.sizes([batch, channels, *out])
        return op.Resize(x, None, scales, sizes, **options)
    if batch == 1 and channels == 1:
        sizes = None if out is None else op.sizes(out)
        scales = None if scales is None else op.Slice(scales, [2], [4])
        return op.Unsqueeze(op.Resize(op.Squeeze(x, [0, 1]), None, scales, sizes, **options), [0, 1])
    planes = [1, -1, 0, 0] if channels == 1 else [-1, 1, 0, 0]
    flat = op.Reshape(x, planes)
    if out is None:
        resized = op.Resize(flat, None, scales, None, **options)
    else:
        outer = [1, batch] if channels == 1 else [batch * channels, 1]
        resized = op.Resize(flat, None, None, op.sizes([*outer, *out]), **options)
    back = [-1, channels] if isinstance(channels, int) else [batch, -1] if isinstance(batch, int) else [batch, channels]
    return op.Reshape(resized, op.sizes([*back, 0, 0]))


def _transposes_before(x: Tensor) -> list[tuple[int, ...]]:
    """The permutations of the Transpose nodes that may be moved to where a value is read."""
    pending, seen, found = [x], {x}, []
    while pending and len(seen) < 500:
        node = pending.pop().producer()
        if node is None or node.domain or node.op_type in ("Conv", "MatMul", "Gemm", "Gather", "Resize"):
            continue
        if node.op_type == "Transpose":
            found.append(tuple(node.attributes["perm"].as_ints()))
        for value in node.inputs:
            if value is not None and value not in seen:
                seen.add(value)
                pending.append(value)
    return found


_TRIED_SIZES = 1 << 16


@functools.cache
def _float_scale(scale: float, size: int | None = None) -> float | None:
    """The float32 next to `scale` by which all sizes, or this one, become torch's, in single and double precision."""
    sizes = np.arange(1, _TRIED_SIZES) if size is None else np.array([size])
    wanted = np.floor(sizes * scale)
    nearest = np.float32(scale)
    for candidate in (nearest, np.nextafter(nearest, np.float32(np.inf)), np.nextafter(nearest, np.float32(0))):
        products = sizes.astype(np.float32) * candidate, sizes * float(candidate)
        if all((np.floor(product) == wanted).all() for product in products):
            return float(candidate)
    return None


def _native_scale(axis: Axis, mode: _Mode) -> float | None:
    """What Resize scales the axis by, so that it gives the size and, but for a rounding, the ratio that torch does."""
    if not axis.has_scale:
        return 1.0 if axis.size == axis.out else None
    scale: float = axis.scale  # type: ignore[assignment]
    if axis.is_static:
        if np.floor(axis.size * scale) != axis.out:  # type: ignore[operator]
            return None
        found = _float_scale(scale, axis.size)  # type: ignore[arg-type]
    else:
        found = _float_scale(scale) if axis.follows_scale else None
    return found if found == np.float32(scale) or not mode.is_nearest else None


def _stays(op: Builder, axis: Axis) -> Tensor:
    return op.Equal(op.tensor(axis.size, DataType.INT64), op.tensor(axis.out, DataType.INT64))


# ---- by Gather, axis by axis

_Tap = tuple[Tensor, Tensor]


def _cubic_weights(t: Any, a: float, multiply: Callable[[Any, Any], Any], add: Callable[[Any, Any], Any]) -> list[Any]:
    """Keys' cubic convolution at the distances 1 + t, t, 1 - t and 2 - t."""

    def horner(x: Any, *coefficients: float) -> Any:
        total: Any = multiply(x, coefficients[0])
        for coefficient in coefficients[1:-1]:
            total = multiply(add(total, coefficient), x)
        return add(total, coefficients[-1])

    def near(x: Any) -> Any:
        return horner(x, a + 2, -(a + 3), 0.0, 1.0)

    def far(x: Any) -> Any:
        return horner(x, a, -5 * a, 8 * a, -4 * a)

    rest = add(multiply(t, -1.0), 1.0)
    return [far(add(t, 1.0)), near(t), near(rest), far(add(rest, 1.0))]


def _static_weights(axis: Axis, mode: _Mode, kind: type) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which samples each output is mixed from, and their weights; of static sizes."""
    ratio = axis.ratio(kind, mode.align_corners)
    places: np.ndarray = np.arange(axis.out, dtype=kind)
    source = places * ratio if mode.align_corners else ratio * (places + kind(0.5)) - kind(0.5)
    last = axis.size - 1
    if mode.name == "linear":
        source = np.maximum(source, 0)
        first = np.minimum(np.floor(source).astype(np.int64), last)
        part = np.clip(source - first, 0, 1)
        return [(first, 1 - part), (np.minimum(first + 1, last), part)]
    floor = np.floor(source)
    weights = _cubic_weights(source - floor, -0.75, np.multiply, np.add)
    index = floor.astype(np.int64)
    return [(np.clip(index + offset, 0, last), weight) for offset, weight in zip((-1, 0, 1, 2), weights)]


def _static_taps(op: Builder, axis: Axis, mode: _Mode, dtype: DataType) -> list[_Tap]:
    kind = np.float64 if dtype == DataType.DOUBLE else np.float32
    return [(op.const(index), op.const(weight, dtype)) for index, weight in _static_weights(axis, mode, kind)]


def _symbolic_ratio(op: Builder, axis: Axis, work: DataType, align_corners: bool) -> Tensor:
    """As `Axis.ratio`, of symbolic sizes."""
    if align_corners:
        steps = op.Max(op.Sub(op.tensor(axis.out, DataType.INT64), 1), 1)
        return op.Div(op.cast(op.Sub(op.tensor(axis.size, DataType.INT64), 1), work), op.cast(steps, work))
    if not axis.has_scale:
        return op.Div(op.cast(axis.size, work), op.cast(axis.out, work))
    ratio = op.const(1.0 / axis.scale, work)  # type: ignore[operator]
    return op.Where(_stays(op, axis), op.const(1.0, work), ratio) if axis.copies and axis.may_stay else ratio


def _dynamic_taps(op: Builder, axis: Axis, mode: _Mode, dtype: DataType) -> list[_Tap]:
    work = DataType.DOUBLE if dtype == DataType.DOUBLE else DataType.FLOAT
    places = op.cast(iota(op, axis.out), work)
    last = op.Sub(op.tensor(axis.size, DataType.INT64), 1)
    ratio = _symbolic_ratio(op, axis, work, mode.align_corners)
    source = op.Mul(places, ratio) if mode.align_corners else op.Sub(op.Mul(op.Add(places, 0.5), ratio), 0.5)
    if mode.name == "linear":
        source = op.Max(source, 0)
    floor = op.Floor(source)
    index, part = op.cast(floor, DataType.INT64), op.Sub(source, floor)
    if mode.name == "linear":
        weights = [op.Sub(op.const(1, work), part), part]
        offsets: tuple[int, ...] = (0, 1)
    else:
        weights = _cubic_weights(part, -0.75, op.Mul, op.Add)
        offsets = (-1, 0, 1, 2)
    zero = op.const(np.int64(0))
    return [
        (op.Max(op.Min(op.Add(index, offset) if offset else index, last), zero), op.cast(weight, dtype))
        for offset, weight in zip(offsets, weights)
    ]


def _resampled(op: Builder, x: Tensor, place: int, rank: int, axis: Axis, mode: _Mode) -> Tensor:
    taps = (_static_taps if axis.is_static else _dynamic_taps)(op, axis, mode, x.dtype)
    trailing = list(range(1, rank - place))
    total: Tensor | None = None
    for index, weight in taps:
        part = op.Gather(x, index, axis=place)
        part = op.Mul(part, op.Unsqueeze(weight, trailing) if trailing else weight)
        total = part if total is None else op.Add(total, part)
    return total


# ---- antialiased, by a matrix a axis


def _filter(name: str) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """Support and values of the antialiasing filters (those of Pillow, which torch follows)."""

    def linear(x: np.ndarray) -> np.ndarray:
        return np.maximum(1 - np.abs(x), 0)

    def cubic(x: np.ndarray) -> np.ndarray:
        a, x = -0.5, np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    def lanczos(x: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)

    return {"linear": (1.0, linear), "cubic": (2.0, cubic), "lanczos": (3.0, lanczos)}[name]


def _antialiased_matrix(axis: Axis, mode: _Mode) -> np.ndarray:
    reach, kernel = _filter(mode.name)
    ratio = float(axis.ratio(np.float64, mode.align_corners))
    stretch = max(ratio, 1.0)
    matrix = np.zeros((int(axis.out), int(axis.size)))
    for i in range(int(axis.out)):
        centre = ratio * (i + 0.5)
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), int(axis.size))
        weights = kernel((np.arange(first, last) - centre + 0.5) / stretch)
        total = weights.sum()
        matrix[i, first:last] = weights / total if total != 0 else weights
    return matrix


def _tap_matrix(axis: Axis, mode: _Mode) -> np.ndarray:
    """The same as :func:`_static_taps`, as a matrix (out, size) of doubles."""
    matrix = np.zeros((int(axis.out), int(axis.size)))
    for index, weight in _static_weights(axis, mode, np.float64):
        np.add.at(matrix, (np.arange(int(axis.out)), index), weight)
    return matrix


def _fixed_point(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights as 16-bit integers and by how many bits they are scaled: how torch resamples bytes."""
    largest, bits = float(matrix.max(initial=0.0)), 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < (1 << 15):
        bits += 1
    scaled = matrix * (1 << bits)
    return np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)), bits


def _times_matrix(op: Builder, x: Tensor, place: int, rank: int, matrix: np.ndarray | Tensor) -> Tensor:
    """`x` with `matrix` (out, size) applied along axis `place`."""
    if place == rank - 1:
        across = op.const(matrix.T, x.dtype) if isinstance(matrix, np.ndarray) else op.Transpose(matrix, perm=[1, 0])
        return op.MatMul(x, op.cast(across, x.dtype))
    if place == rank - 2:
        return op.MatMul(op.cast(op.tensor(matrix), x.dtype), x)
    raise Unsupported("a matrix along an outer axis")


def _symbolic_matrix(op: Builder, axis: Axis, mode: _Mode) -> Tensor:
    """`_antialiased_matrix` or `_tap_matrix` of symbolic sizes: (out, size), in doubles."""
    columns = op.Unsqueeze(iota(op, axis.size), [0])
    zero = op.const(0.0, DataType.DOUBLE)
    if not mode.antialias:
        parts = [
            op.Where(op.Equal(op.Unsqueeze(index, [1]), columns), op.Unsqueeze(weight, [1]), zero)
            for index, weight in _dynamic_taps(op, axis, mode, DataType.DOUBLE)
        ]
        return op.Sum(*parts)
    reach = {"linear": 1.0, "cubic": 2.0}.get(mode.name)
    if reach is None:
        raise Unsupported(f"an antialiased {mode.name} resize of symbolic sizes")
    ratio = _symbolic_ratio(op, axis, DataType.DOUBLE, mode.align_corners)
    stretch = op.Max(ratio, 1.0)
    centre = op.Unsqueeze(op.Mul(op.Add(op.cast(iota(op, axis.out), DataType.DOUBLE), 0.5), ratio), [1])
    wide = op.Mul(stretch, reach)
    first = op.Floor(op.Add(op.Sub(centre, wide), 0.5))
    end = op.Floor(op.Add(op.Add(centre, wide), 0.5))
    places = op.cast(columns, DataType.DOUBLE)
    x = op.Abs(op.Div(op.Add(op.Sub(places, centre), 0.5), stretch))
    if mode.name == "linear":
        weights = op.Max(op.Sub(op.const(1.0, DataType.DOUBLE), x), 0.0)
    else:  # Keys' cubic of a = -1/2, as in `_filter`
        near = op.Add(op.Mul(op.Mul(op.Sub(op.Mul(x, 1.5), 2.5), x), x), 1.0)
        far = op.Add(op.Mul(op.Sub(op.Mul(op.Add(op.Mul(x, -0.5), 2.5), x), 4.0), x), 2.0)
        weights = op.Where(op.Less(x, 1.0), near, op.Where(op.Less(x, 2.0), far, zero))
    inside = op.And(op.GreaterOrEqual(places, first), op.Less(places, end))
    weights = op.Where(inside, weights, zero)
    total = op.ReduceSum(weights, [1], keepdims=1)
    return op.Div(weights, op.Where(op.Equal(total, 0.0), op.const(1.0, DataType.DOUBLE), total))


def _symbolic_fixed_point(op: Builder, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`_fixed_point` of a tensor: whole weights, and what they are multiplied by."""
    powers = op.const([float(1 << bits) for bits in range(23)], DataType.DOUBLE)
    largest = op.Floor(op.Add(op.Mul(op.ReduceMax(matrix, keepdims=0), powers), 0.5))
    fitting = op.Where(op.Less(largest, float(1 << 15)), powers, op.const(1.0, DataType.DOUBLE))
    factor = op.ReduceMax(fitting, keepdims=0)
    scaled = op.Mul(matrix, factor)
    rounded = op.Floor(op.Add(op.Abs(scaled), 0.5))
    return op.Mul(op.Sign(scaled), rounded), factor


def _resize_bytes(op: Builder, x: Tensor, axes: Sequence[Axis], mode: _Mode) -> Tensor:
    """Bytes mixed with integer weights and rounded after each axis, exactly as torch does; in doubles."""
    rank = len(axes) + 2
    y = op.cast(x, DataType.DOUBLE)
    for i in reversed(range(len(axes))):
        axis = axes[i]
        if axis.size == axis.out:
            continue
        if not axis.is_static:
            whole, factor = _symbolic_fixed_point(op, _symbolic_matrix(op, axis, mode))
            y = op.Add(_times_matrix(op, y, 2 + i, rank, whole), op.Floor(op.Div(factor, 2.0)))
            y = op.Clip(op.Floor(op.Div(y, factor)), 0.0, 255.0)
            continue
        matrix, bits = _fixed_point((_antialiased_matrix if mode.antialias else _tap_matrix)(axis, mode))
        y = op.Add(_times_matrix(op, y, 2 + i, rank, matrix), float(1 << (bits - 1)) if bits else 0.0)
        y = op.Clip(op.Floor(op.Div(y, float(1 << bits))), 0.0, 255.0)
    return op.cast(y, x.dtype)


def _nearest(op: Builder, x: Tensor, axes: Sequence[Axis], mode: _Mode) -> Tensor:
    """By Resize where that takes torch's pixels at every size, else by index; where sizes decide, both under an If."""
    places = Places(op, x, axes, mode.name == "exact")
    verdicts = [places.by_resize(axis) for axis in axes]
    if all(verdicts):
        native = _resized_natively(op, x, axes, mode)
        if native is not None:
            return native

    def by_index() -> Tensor:
        y = x
        for i in reversed(range(len(axes))):
            if not axes[i].is_implied or axes[i].size != axes[i].out:
                y = op.Gather(y, places.index(axes[i]), axis=2 + i)
        return y

    if False in verdicts or x.dtype not in _NATIVE_NEAREST or not all(axis.is_implied for axis in axes):
        return by_index()
    alike = [places.is_resized_alike(axis) for axis, verdict in zip(axes, verdicts) if verdict is None]
    condition = functools.reduce(op.And, alike)
    branches = {
        "then_branch": op.subgraph(lambda: _resized_natively(op, x, axes, mode), name="resized"),
        "else_branch": op.subgraph(by_index, name="gathered"),
    }
    return op.If(condition, **branches, outputs=1)


def _resize(op: Builder, x: Tensor, axes: Sequence[Axis], mode: _Mode) -> Tensor:
    if mode.is_nearest:
        return _nearest(op, x, axes, mode)
    if mode.name == "linear" or mode.antialias or x.dtype.is_integer():
        axes = [replace(axis, scale=None if axis.size == axis.out else axis.scale, copies=True) for axis in axes]
    native = _resized_natively(op, x, axes, mode)
    if native is not None:
        return native
    if x.dtype.is_integer():
        return _resize_bytes(op, x, axes, mode)
    rank = len(axes) + 2
    for i in reversed(range(len(axes))):
        axis = axes[i]
        if axis.is_implied and axis.size == axis.out:
            continue
        if not mode.antialias:
            x = _resampled(op, x, 2 + i, rank, axis, mode)
        elif axis.is_static:
            x = _times_matrix(op, x, 2 + i, rank, _antialiased_matrix(axis, mode))
        else:
            x = _times_matrix(op, x, 2 + i, rank, _symbolic_matrix(op, axis, mode))
    return x


def _axes(op: Builder, x: Tensor, scales: Sequence[float | None], scaled: bool) -> list[Axis]:
    spatial = len(x.shape) - 2
    out = list(op.result.shape)[2:]
    listed = list(scales) + [None] * (spatial - len(scales))
    return [Axis(x.shape[2 + i], out[i], listed[i], scaled) for i in range(spatial)]


def _translations(name: str, spatial: int, mode: Callable[[bool], _Mode], corners: bool) -> None:
    """The overloads of one torch operator: sizes with scales, and the ``vec`` one with sizes or scales."""

    def resize(
        op: Builder, x: Tensor, scales: Sequence[float | None] | None, align: bool, scaled: bool = False
    ) -> Tensor:
        return _resize(op, x, _axes(op, x, scales or [], scaled), mode(align))

    if corners:

        @translation(f"aten::{name}.vec")
        def vec(op: Builder, input: Tensor, output_size: Any, align_corners: bool, scale_factors: Any) -> Tensor:
            return resize(op, input, scale_factors, align_corners, scaled=True)

    else:

        @translation(f"aten::{name}.vec")
        def vec_plain(op: Builder, input: Tensor, output_size: Any, scale_factors: Any) -> Tensor:
            return resize(op, input, scale_factors, False, scaled=True)

    if spatial == 1:

        @translation(f"aten::{name}")
        def one(
            op: Builder, self: Tensor, output_size: Any, align_corners: bool = False, scales: float | None = None
        ) -> Tensor:
            return resize(op, self, [scales], align_corners)

    else:

        @translation(f"aten::{name}")
        def several(
            op: Builder,
            self: Tensor,
            output_size: Any,
            align_corners: bool = False,
            scales_d: float | None = None,
            scales_h: float | None = None,
            scales_w: float | None = None,
        ) -> Tensor:
            return resize(op, self, [scales_d, scales_h, scales_w][3 - spatial :], align_corners)


for _spatial in (1, 2, 3):
    _translations(f"upsample_nearest{_spatial}d", _spatial, lambda _align: _Mode("nearest"), False)
    _translations(f"_upsample_nearest_exact{_spatial}d", _spatial, lambda _align: _Mode("exact"), False)
    _word = {1: "linear", 2: "bilinear", 3: "trilinear"}[_spatial]
    _translations(f"upsample_{_word}{_spatial}d", _spatial, lambda align: _Mode("linear", align), True)
_translations("upsample_bicubic2d", 2, lambda align: _Mode("cubic", align), True)
_translations("_upsample_bilinear2d_aa", 2, lambda align: _Mode("linear", align, antialias=True), True)
_translations("_upsample_bicubic2d_aa", 2, lambda align: _Mode("cubic", align, antialias=True), True)
_translations("_upsample_lanczos2d_aa", 2, lambda align: _Mode("lanczos", align, antialias=True), True)
