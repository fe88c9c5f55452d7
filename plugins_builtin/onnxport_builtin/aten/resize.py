"""Resampling of images: interpolation to another size, with or without antialiasing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported, translation

from onnxport_builtin.aten.shape import iota, is_static

if TYPE_CHECKING:
    from onnxport import Builder

Dim = int | Size
# onnxruntime 1.32 resizes these well; doubles and integers are resampled by Gather.
_NATIVE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
_NATIVE_NEAREST = (*_NATIVE, DataType.UINT8)


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: its sizes, and the user's scale factor where that decides the ratio."""

    size: Dim
    out: Dim
    scale: float | None

    @property
    def is_static(self) -> bool:
        return is_static([self.size, self.out])

    def ratio(self, kind: type, align_corners: bool) -> Any:
        """Input steps for each output step, in torch's own precision; of static sizes."""
        if align_corners:
            return kind(self.size - 1) / kind(self.out - 1) if self.out > 1 else kind(0)
        if self.scale is not None and self.scale > 0:
            return kind(1.0 / self.scale)
        return kind(self.size) / kind(self.out)


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


# ---- by ONNX Resize


def _same_places(mode: _Mode, axis: _Axis) -> bool:
    """Whether onnxruntime's float arithmetic picks the neighbours that torch's does."""
    if mode.name not in ("nearest", "exact") or not axis.is_static or axis.size == 0 or axis.out == 0:
        return True
    scale = np.float32(axis.out) / np.float32(axis.size)
    if axis.scale is not None and not _implied(axis):
        scale = np.float32(axis.scale)
    places = np.arange(axis.out, dtype=np.float32)
    if mode.name == "nearest":
        theirs = np.floor(places / scale)
    else:
        theirs = np.floor((places + np.float32(0.5)) / scale - np.float32(0.5) + np.float32(0.5))
    return bool((np.clip(theirs, 0, axis.size - 1) == _nearest_places(mode, axis)).all())


def _nearest_places(mode: _Mode, axis: _Axis) -> np.ndarray:
    ratio = axis.ratio(np.float32, False)
    places = np.arange(axis.out, dtype=np.float32)
    if mode.name == "exact":
        places = places + np.float32(0.5)
    return np.clip(np.floor(places * ratio), 0, axis.size - 1).astype(np.int64)


def _implied(axis: _Axis) -> bool:
    """Whether the scale factor says no more than the two sizes do."""
    if axis.scale is None or axis.scale <= 0:
        return True
    return axis.is_static and axis.size * axis.scale == axis.out


def _resized_natively(op: Builder, x: Tensor, axes: Sequence[_Axis], mode: _Mode) -> Tensor | None:
    """The result as one Resize, or None where that node would say something else."""
    if x.dtype not in (_NATIVE_NEAREST if mode.name in ("nearest", "exact") else _NATIVE) or mode.name == "lanczos":
        return None
    if mode.antialias and mode.align_corners:
        return None
    if not all(_same_places(mode, axis) for axis in axes):
        return None
    rank = len(axes) + 2
    spatial = list(range(2, rank))
    options: dict[str, Any] = {"axes": spatial}
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
    if mode.align_corners or all(_implied(axis) for axis in axes):
        return op.Resize(x, None, None, op.sizes([axis.out for axis in axes]), **options)
    scales = [axis.scale for axis in axes]
    if any(scale is None for scale in scales):
        return None
    for axis, scale in zip(axes, scales):
        if axis.is_static and int(np.floor(np.float32(scale) * np.float32(axis.size))) != axis.out:
            return None
    return op.Resize(x, None, op.const(scales, DataType.FLOAT), None, **options)


# ---- by Gather, axis by axis

_Tap = tuple[Tensor, "Tensor | None"]


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


def _static_weights(axis: _Axis, mode: _Mode, kind: type) -> list[tuple[np.ndarray, np.ndarray]]:
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


def _static_taps(op: Builder, axis: _Axis, mode: _Mode, dtype: DataType) -> list[_Tap]:
    if mode.name in ("nearest", "exact"):
        return [(op.const(_nearest_places(mode, axis)), None)]
    kind = np.float64 if dtype == DataType.DOUBLE else np.float32
    return [(op.const(index), op.const(weight, dtype)) for index, weight in _static_weights(axis, mode, kind)]


def _dynamic_taps(op: Builder, axis: _Axis, mode: _Mode, dtype: DataType) -> list[_Tap]:
    exact = mode.name in ("nearest", "exact")
    work = DataType.FLOAT if exact or dtype != DataType.DOUBLE else dtype
    places = op.cast(iota(op, axis.out), work)
    last = op.Sub(op.tensor(axis.size, DataType.INT64), 1)
    if mode.align_corners:
        steps = op.cast(op.Max(op.Sub(op.tensor(axis.out, DataType.INT64), 1), 1), work)
        source = op.Mul(places, op.Div(op.cast(last, work), steps))
    else:
        if axis.scale is not None and axis.scale > 0:
            ratio = op.const(1.0 / axis.scale, work)
        else:
            ratio = op.Div(op.cast(axis.size, work), op.cast(axis.out, work))
        if exact:
            source = op.Mul(op.Add(places, 0.5) if mode.name == "exact" else places, ratio)
        else:
            source = op.Sub(op.Mul(op.Add(places, 0.5), ratio), 0.5)
    if exact:
        return [(op.Min(op.cast(op.Floor(source), DataType.INT64), last), None)]
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


def _resampled(op: Builder, x: Tensor, place: int, rank: int, axis: _Axis, mode: _Mode) -> Tensor:
    taps = (_static_taps if axis.is_static else _dynamic_taps)(op, axis, mode, x.dtype)
    trailing = list(range(1, rank - place))
    total: Tensor | None = None
    for index, weight in taps:
        part = op.Gather(x, index, axis=place)
        if weight is not None:
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


def _antialiased_matrix(axis: _Axis, mode: _Mode) -> np.ndarray:
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


def _tap_matrix(axis: _Axis, mode: _Mode) -> np.ndarray:
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


def _symbolic_ratio(op: Builder, axis: _Axis, align_corners: bool) -> Tensor:
    """As `_Axis.ratio`, of symbolic sizes, in doubles."""
    if align_corners:
        steps = op.Max(op.Sub(op.tensor(axis.out, DataType.INT64), 1), 1)
        last = op.Sub(op.tensor(axis.size, DataType.INT64), 1)
        return op.Div(op.cast(last, DataType.DOUBLE), op.cast(steps, DataType.DOUBLE))
    if axis.scale is not None and axis.scale > 0:
        return op.const(1.0 / axis.scale, DataType.DOUBLE)
    return op.Div(op.cast(axis.size, DataType.DOUBLE), op.cast(axis.out, DataType.DOUBLE))


def _symbolic_matrix(op: Builder, axis: _Axis, mode: _Mode) -> Tensor:
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
    ratio = _symbolic_ratio(op, axis, mode.align_corners)
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


def _resize_bytes(op: Builder, x: Tensor, axes: Sequence[_Axis], mode: _Mode) -> Tensor:
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


def _resize(op: Builder, x: Tensor, axes: Sequence[_Axis], mode: _Mode) -> Tensor:
    native = _resized_natively(op, x, axes, mode)
    if native is not None:
        return native
    if x.dtype.is_integer() and mode.name not in ("nearest", "exact"):
        return _resize_bytes(op, x, axes, mode)
    rank = len(axes) + 2
    for i in reversed(range(len(axes))):
        axis = axes[i]
        if _implied(axis) and axis.size == axis.out:
            continue
        if not mode.antialias:
            x = _resampled(op, x, 2 + i, rank, axis, mode)
        elif axis.is_static:
            x = _times_matrix(op, x, 2 + i, rank, _antialiased_matrix(axis, mode))
        else:
            x = _times_matrix(op, x, 2 + i, rank, _symbolic_matrix(op, axis, mode))
    return x


def _axes(op: Builder, x: Tensor, scales: Sequence[float | None]) -> list[_Axis]:
    spatial = len(x.shape) - 2
    out = list(op.result.shape)[2:]
    listed = list(scales) + [None] * (spatial - len(scales))
    return [_Axis(x.shape[2 + i], out[i], listed[i]) for i in range(spatial)]


def _translations(name: str, spatial: int, mode: Callable[[bool], _Mode], corners: bool) -> None:
    """The overloads of one torch operator: sizes with scales, and the ``vec`` one with sizes or scales."""

    def resize(op: Builder, x: Tensor, scales: Sequence[float | None] | None, align: bool) -> Tensor:
        return _resize(op, x, _axes(op, x, scales or []), mode(align))

    if corners:

        @translation(f"aten::{name}.vec")
        def vec(op: Builder, input: Tensor, output_size: Any, align_corners: bool, scale_factors: Any) -> Tensor:
            return resize(op, input, scale_factors, align_corners)

    else:

        @translation(f"aten::{name}.vec")
        def vec_plain(op: Builder, input: Tensor, output_size: Any, scale_factors: Any) -> Tensor:
            return resize(op, input, scale_factors, False)

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
