"""How ONNX operators are written at opsets 13 to 17, for toolchains that stop there.

Translations write the form that opset 18 has. Each function here writes the same with what an older opset has; one
that an older opset can't express raises ``Unsupported`` and names the opset that can. ``native`` is the operator as the
target opset has it, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Tensor, Unsupported
from onnxport.authoring import choose, filled, iota
from onnxport.kit import Form

if TYPE_CHECKING:
    from onnxport import Builder

Native = Callable[..., Any]
_END = np.iinfo(np.int64).max


def _needs(opset: int, what: str) -> Unsupported:
    return Unsupported(f"needs opset {opset}: {what}")


def _ints(value: Any) -> list[int] | None:
    """The content of a list of ints or of a constant; None for what is computed in the model."""
    if isinstance(value, Tensor):
        return None if value.const_value is None else [int(v) for v in value.const_value.numpy().reshape(-1)]
    if isinstance(value, int):
        return [value]
    return list(value) if all(isinstance(v, int) for v in value) else None


def _rank(name: str, x: Tensor) -> int:
    if x.shape is None:
        raise _needs(18, f"{name} with axes, of a tensor whose rank isn't known")
    return len(x.shape) + x.is_complex


# ---- Inputs that were attributes, or weren't there


def _reduction(name: str) -> Form:
    """Axes became an input in opset 18."""

    def reduce(
        op: Builder,
        native: Native,
        data: Any,
        axes: Any = None,
        *,
        outputs: int | None = None,
        keepdims: int | None = None,
        noop_with_empty_axes: int | None = None,
    ) -> Any:
        places = [] if axes is None else _ints(axes)
        if places is None:
            raise _needs(18, f"{name} over axes that the model computes")
        if not places and noop_with_empty_axes:
            return op.Identity(data)
        return native(data, axes=places or None, keepdims=keepdims)

    return Form(name, 18, reduce)


def shape(
    op: Builder,
    native: Native,
    data: Any,
    *,
    outputs: int | None = None,
    start: int | None = None,
    end: int | None = None,
) -> Any:
    """The part of a shape: ``start`` and ``end`` are of opset 15."""
    whole = native(data)
    if not start and end is None:
        return whole
    return op.Slice(whole, [start or 0], [_END if end is None else end], [0])


def split(
    op: Builder,
    native: Native,
    data: Any,
    lengths: Any = None,
    *,
    outputs: int | None = None,
    axis: int | None = None,
    num_outputs: int | None = None,
) -> Any:
    """A number of parts, the last of which may be shorter: ``num_outputs`` is of opset 18."""
    if lengths is None and num_outputs is not None:
        size = op.size(data, axis or 0)
        part = (size + num_outputs - 1) // num_outputs
        lengths = [part] * (num_outputs - 1) + [size - part * (num_outputs - 1)]
    count = outputs if num_outputs is None else num_outputs
    return native(data, lengths, axis=axis, outputs=count)


def pad(
    op: Builder,
    native: Native,
    data: Any,
    pads: Any,
    value: Any = None,
    axes: Any = None,
    *,
    outputs: int | None = None,
    mode: str | None = None,
) -> Any:
    """Pads of some axes: without ``axes``, which is of opset 18, all axes have theirs."""
    if mode == "wrap":
        raise _needs(19, "Pad with mode='wrap'")
    if axes is not None:
        places = _ints(axes)
        if places is None:
            raise _needs(18, "Pad of axes that the model computes")
        rank, count = _rank("Pad", data), len(places)
        order = {axis % rank: i for i, axis in enumerate(places)}
        given = op.Concat([0], op.tensor(pads, DataType.INT64), axis=0)  # at 0 for the axes that aren't named
        before = [order[axis] + 1 if axis in order else 0 for axis in range(rank)]
        pads = op.Gather(given, [i and i for i in before] + [i and i + count for i in before], axis=0)
    return native(data, pads, value, mode=mode)


def resize(
    op: Builder,
    native: Native,
    data: Any,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    outputs: int | None = None,
    axes: Sequence[int] | None = None,
    antialias: int | None = None,
    keep_aspect_ratio_policy: str | None = None,
    **attributes: Any,
) -> Any:
    """Some axes, antialiasing and the aspect ratio are of opset 18."""
    if antialias:
        raise _needs(18, "Resize with antialias=1")
    if keep_aspect_ratio_policy not in (None, "stretch"):
        raise _needs(18, f"Resize with keep_aspect_ratio_policy={keep_aspect_ratio_policy!r}")
    if axes is not None:
        rank = _rank("Resize", data)
        order = [next((i for i, axis in enumerate(axes) if axis % rank == place), None) for place in range(rank)]
        if scales is not None:
            factors = op.Concat([1.0], op.tensor(scales, DataType.FLOAT), axis=0)
            scales = op.Gather(factors, [0 if i is None else i + 1 for i in order], axis=0)
        if sizes is not None:
            wanted = op.tensor(sizes, DataType.INT64)
            wanted = op.Concat(op.shape(data), wanted, axis=0)
            sizes = op.Gather(wanted, [place if i is None else rank + i for place, i in enumerate(order)], axis=0)
    return native(data, roi, scales, sizes, **attributes)


def reshape(
    op: Builder, native: Native, data: Any, target: Any, *, outputs: int | None = None, allowzero: int | None = None
) -> Any:
    """A 0 that is meant (``allowzero``, of opset 14): the result is empty, so it is made without the input."""
    if not allowzero:
        return native(data, target)
    places = _ints(target)
    sizes = list(target) if isinstance(target, (list, tuple)) else places
    if sizes is None or (0 not in sizes and places is None):
        raise _needs(14, "Reshape to sizes that may be 0")
    if 0 not in sizes:
        return native(data, target)
    if -1 in sizes:
        raise _needs(14, "Reshape to a size of 0 beside one that isn't given")
    return filled(op, sizes, 0, data.dtype)


def batch_norm(
    op: Builder, native: Native, *inputs: Any, outputs: int | None = None, training_mode: int | None = None, **rest: Any
) -> Any:
    """Statistics of the batch: ``training_mode`` is of opset 14, and before it results were other ones."""
    if training_mode:
        raise _needs(14, "BatchNormalization with training_mode=1")
    return native(*inputs, outputs=outputs, **rest)


def roi_align(
    op: Builder,
    native: Native,
    *inputs: Any,
    outputs: int | None = None,
    coordinate_transformation_mode: str | None = None,
    **rest: Any,
) -> Any:
    """Below opset 16 there are the coordinates of ``output_half_pixel`` only."""
    if coordinate_transformation_mode != "output_half_pixel":
        raise _needs(16, "RoiAlign with aligned boxes")
    return native(*inputs, **rest)


_LARGEST = 1 << 26
"""The number of elements up to which a reduction compares every index with every place."""


def _neutral(reduction: str, dtype: DataType) -> Any:
    """What a reduction leaves a value unchanged with."""
    if reduction in ("add", "mul"):
        return 0 if reduction == "add" else 1
    lowest = reduction == "max"
    if dtype.is_floating_point():
        return -math.inf if lowest else math.inf
    limits = np.iinfo(dtype.numpy())
    return int(limits.min if lowest else limits.max)


def _whole_sum(op: Builder, x: Tensor, axis: int, rank: int) -> Tensor:
    """A product with ones: onnxruntime 1.32 sums int64 as floats of 64 bits."""
    order = [place for place in range(rank) if place != axis]
    last = op.Transpose(x, perm=[*order, axis]) if axis != rank - 1 else x
    return op.MatMul(last, op.Expand(op.const(1), op.Shape(last, start=rank - 1, end=rank)))


def _reduced(
    op: Builder,
    reduction: str,
    data: Tensor,
    is_here: Tensor,
    updates: Tensor,
    axis: int,
    rank: int,
    rests: Tensor | None = None,
) -> Tensor:
    """``data``, and the updates where ``is_here`` on an axis that is reduced. The operands broadcast.

    Args:
        rank: of the operands.
        rests: pads that bring the updates to the size of ``data``; None where they have it.
    """
    wide = data.dtype if data.dtype.is_floating_point() else DataType.INT64
    data, updates = op.cast(data, wide), op.cast(updates, wide)
    neutral = op.const(_neutral(reduction, wide), wide)
    kinds = {"add": ("ReduceSum", "Add"), "mul": ("ReduceProd", "Mul")}
    of_parts, of_both = kinds.get(reduction, (f"Reduce{reduction.capitalize()}", reduction.capitalize()))
    chosen = choose(op, is_here, updates, neutral)
    if reduction == "add" and wide is DataType.INT64:
        parts = _whole_sum(op, chosen, axis, rank)
    else:
        parts = getattr(op, of_parts)(chosen, [axis], keepdims=0)
    if rests is not None:
        parts = op.Pad(parts, rests, neutral)
    return getattr(op, of_both)(data, parts)


def _require_small(name: str, needed: int, sizes: Sequence[Any]) -> None:
    static = math.prod(size for size in sizes if isinstance(size, int))
    if static > _LARGEST:
        raise _needs(
            needed, f"{name} with a reduction; older opsets would compare {static} pairs of indices and places"
        )


def scatter_elements(
    op: Builder,
    native: Native,
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    outputs: int | None = None,
    axis: int | None = None,
    reduction: str | None = None,
) -> Any:
    """Sums and products are of opset 16, extremes of opset 18: each place takes the updates whose index it is."""
    if reduction in (None, "none"):
        return native(data, indices, updates, axis=axis)
    needed = 16 if reduction in ("add", "mul") else 18
    if op.opset >= needed:
        return native(data, indices, updates, axis=axis, reduction=reduction)
    rank = _rank("ScatterElements", data if data.shape is not None else indices)
    place, sizes = (axis or 0) % rank, [None] * rank if data.shape is None else list(data.shape)
    lengths: Sequence[Any] = [None] * rank if indices.shape is None else list(indices.shape)
    shorter = [i != place and (length is None or length != sizes[i]) for i, length in enumerate(lengths)]
    rests = None
    if any(shorter):  # of these axes the updates are of the first places
        missing = op.Mul(op.Sub(op.shape(data), op.shape(indices)), op.const(np.array(shorter, np.int64)))
        rests = op.Concat(op.const([0] * rank, DataType.INT64), missing, axis=0)
    _require_small("ScatterElements", needed, [*sizes, lengths[place]])
    size = op.Squeeze(op.Shape(data, start=place, end=place + 1), [0])
    found = choose(op, op.Less(indices, 0), op.Add(indices, size), indices)
    own = op.Reshape(op.Range(0, size, 1), [-1, *[1] * (rank - place)])  # [D, 1, 1, ...] beside [..., 1, N, ...]
    is_here = op.Equal(op.Unsqueeze(found, [place]), own)
    result = _reduced(op, reduction, data, is_here, op.Unsqueeze(updates, [place]), place + 1, rank + 1, rests)
    return op.cast(result, data.dtype)


def scatter_nd(
    op: Builder,
    native: Native,
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    outputs: int | None = None,
    reduction: str | None = None,
) -> Any:
    """As :func:`scatter_elements`; the leading axes that the indices are of are one."""
    if reduction in (None, "none"):
        return native(data, indices, updates)
    needed = 16 if reduction in ("add", "mul") else 18
    if op.opset >= needed:
        return native(data, indices, updates, reduction=reduction)
    rank, depth = _rank("ScatterND", data), None if indices.shape is None else indices.shape[-1]
    if not isinstance(depth, int):
        raise _needs(needed, f"ScatterND with reduction={reduction!r} and indices whose shape isn't known")
    sizes, shape = list(data.shape), op.shape(data)
    # a shape that isn't known has one element at least
    count = math.prod(d for d in updates.shape if isinstance(d, int)) if updates.shape is not None else 1
    _require_small("ScatterND", needed, [count, *sizes[:depth]])
    extents = [op.size(data, axis) for axis in range(depth)]
    strides: list[Any] = [1] * depth
    for axis in reversed(range(depth - 1)):
        strides[axis] = strides[axis + 1] * extents[axis + 1]
    limits = op.sizes(extents)
    found = choose(op, op.Less(indices, 0), op.Add(indices, limits), indices)
    flat = op.Reshape(op.ReduceSum(op.Mul(found, op.sizes(strides)), [-1], keepdims=0), [-1, 1, 1])
    inner = op.const([1], DataType.INT64) if depth == rank else op.Slice(shape, [depth], [rank], [0])
    width = op.ReduceProd(inner, [0], keepdims=1)
    places = op.ReduceProd(op.Slice(shape, [0], [depth], [0]), [0], keepdims=1)
    rows = op.Reshape(updates, op.Concat([-1, 1], width, axis=0))
    own = op.Reshape(op.Range(0, op.Squeeze(places, [0]), 1), [1, -1, 1])
    whole = op.Reshape(data, op.Concat(places, width, axis=0))
    result = _reduced(op, reduction, whole, op.Equal(flat, own), rows, 0, 3)
    return op.cast(op.Reshape(result, shape), data.dtype)


# ---- Operators that weren't there


def layer_norm(
    op: Builder,
    _native: None,
    x: Tensor,
    scale: Any = None,
    bias: Any = None,
    *,
    outputs: int | None = None,
    axis: int | None = None,
    epsilon: float | None = None,
    stash_type: int | None = None,
) -> Any:
    """As onnxruntime fuses it: ``(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias``."""
    if outputs not in (None, 1):
        raise _needs(17, "LayerNormalization with its mean and deviation as results")
    rank, first = _rank("LayerNormalization", x), -1 if axis is None else axis
    axes = list(range(first - rank if first >= 0 else first, 0))
    narrow = x.dtype in (DataType.FLOAT16, DataType.BFLOAT16) and stash_type in (None, 1)
    wide = op.cast(x, DataType.FLOAT) if narrow else x
    centred = op.Sub(wide, op.ReduceMean(wide, axes, keepdims=1))
    variance = op.ReduceMean(op.Pow(centred, op.const(2, wide.dtype)), axes, keepdims=1)
    normal = op.Div(centred, op.Sqrt(op.Add(variance, 1e-5 if epsilon is None else epsilon)))
    result = op.Mul(op.cast(normal, x.dtype), scale)
    return result if bias is None else op.Add(result, bias)


def trilu(
    op: Builder, _native: None, x: Tensor, k: Any = None, *, outputs: int | None = None, upper: int | None = None
) -> Any:
    """The triangle of a matrix: where the column is at least, or at most, ``k`` places from the row."""
    rank = _rank("Trilu", x)
    columns, rows = (iota(op, op.size(x, axis)) for axis in (rank - 1, rank - 2))
    first = op.Unsqueeze(rows, [1]) if k is None else op.Add(op.Unsqueeze(rows, [1]), k)
    is_kept = op.GreaterOrEqual(columns, first) if upper in (None, 1) else op.LessOrEqual(columns, first)
    return choose(op, is_kept, x, filled(op, [1] * rank, 0, x.dtype))


def cast_like(op: Builder, _native: None, x: Any, like: Any, *, outputs: int | None = None, **_: Any) -> Any:
    """A cast to the other's type, which has to be known."""
    if like.dtype is None:
        raise _needs(15, "CastLike of a type that isn't known")
    return op.cast(x, like.dtype)


def hard_swish(op: Builder, _native: None, x: Any, *, outputs: int | None = None) -> Any:
    """``x * max(0, min(1, x / 6 + 0.5))``."""
    return op.Mul(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5))


def mish(op: Builder, _native: None, x: Any, *, outputs: int | None = None) -> Any:
    """``x * tanh(softplus(x))``."""
    return op.Mul(x, op.Tanh(op.Softplus(x)))


def relu(op: Builder, native: Native, x: Any, *, outputs: int | None = None) -> Any:
    """Integers are of opset 14."""
    if isinstance(x, Tensor) and x.dtype is not None and x.dtype.is_integer():
        return op.Max(x, op.const(0, x.dtype))
    return native(x)


def col2im(
    op: Builder,
    _native: None,
    x: Tensor,
    image_shape: Any,
    block_shape: Any,
    *,
    outputs: int | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """A transposed convolution, whose kernels have a 1 at one place each, adds each column at its place."""
    image, block = _ints(image_shape), _ints(block_shape)
    channels = None if x.shape is None else x.shape[1]
    if image is None or block is None or not isinstance(channels, int):
        raise _needs(18, "Col2Im of dynamic sizes")
    axes = len(image)
    dilations, strides, pads = dilations or [1] * axes, strides or [1] * axes, pads or [0] * (2 * axes)
    spans = [d * (b - 1) + 1 for d, b in zip(dilations, block)]
    counts = [
        (size + pads[i] + pads[i + axes] - span) // stride + 1
        for i, (size, span, stride) in enumerate(zip(image, spans, strides))
    ]
    size = math.prod(block)
    kernels = np.eye(size, dtype=np.float32).reshape(size, 1, *block)
    weight = op.const(np.tile(kernels, (channels // size, *[1] * (axes + 1))), x.dtype)
    # the places at the end of an axis that no column reaches
    rests = [
        s + pads[i] + pads[i + axes] - span - (count - 1) * stride
        for i, (s, span, stride, count) in enumerate(zip(image, spans, strides, counts))
    ]
    return op.ConvTranspose(
        op.Reshape(x, [0, channels, *counts]),
        weight,
        dilations=list(dilations),
        group=channels // size,
        output_padding=rests,
        pads=list(pads),
        strides=list(strides),
    )


# ---- Bits of integers


def _bits(op: Builder, x: Tensor) -> Tensor:
    """The bits of integers, the lowest first, on a last axis; those of negative ones in two's complement."""
    width = x.dtype.bitwidth
    wide = op.Unsqueeze(op.cast(x, DataType.INT64), [-1])
    powers = op.const(np.array([1 << k for k in range(min(width, 63))], np.int64))
    bits = op.Mod(op.Div(op.Sub(wide, op.Mod(wide, powers)), powers), 2)
    return bits if width < 64 else op.Concat(bits, op.cast(op.Less(wide, 0), DataType.INT64), axis=-1)


def _number(op: Builder, bits: Tensor, dtype: DataType) -> Tensor:
    """The integers that :func:`_bits` took apart."""
    width = dtype.bitwidth
    weights = [1 << k for k in range(width)]
    if dtype.is_signed() or width == 64:
        weights[-1] -= 1 << width
    # a product: onnxruntime 1.32 sums int64 as floats of 64 bits
    return op.cast(op.MatMul(bits, op.const(np.array(weights, np.int64))), dtype)


def _bitwise(name: str, combine: Callable[[Any, Any, Any], Any]) -> Form:
    def function(op: Builder, _native: None, a: Any, b: Any, *, outputs: int | None = None) -> Any:
        dtype = next(x.dtype for x in (a, b) if isinstance(x, Tensor))
        left, right = (_bits(op, op.tensor(x, dtype)) for x in (a, b))
        return _number(op, combine(op, left, right), dtype)

    return Form(name, 18, function)


def bitwise_not(op: Builder, _native: None, x: Tensor, *, outputs: int | None = None) -> Any:
    """-1 - x, and the largest number less x for unsigned types."""
    last = -1 if x.dtype.is_signed() else (1 << x.dtype.bitwidth) - 1
    return op.Sub(op.const(last, x.dtype), x)


FORMS = [
    *map(
        _reduction,
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        ),
    ),
    Form("ScatterElements", 18, scatter_elements),
    Form("ScatterND", 18, scatter_nd),
    Form("Split", 18, split),
    Form("Pad", 18, pad),
    Form("Resize", 18, resize),
    Form("Col2Im", 18, col2im),
    Form("Mish", 18, mish),
    _bitwise("BitwiseAnd", lambda op, a, b: op.Mul(a, b)),
    _bitwise("BitwiseOr", lambda op, a, b: op.Max(a, b)),
    _bitwise("BitwiseXor", lambda op, a, b: op.Mod(op.Add(a, b), 2)),
    Form("BitwiseNot", 18, bitwise_not),
    Form("LayerNormalization", 17, layer_norm),
    Form("RoiAlign", 16, roi_align),
    Form("Shape", 15, shape),
    Form("CastLike", 15, cast_like),
    Form("BatchNormalization", 14, batch_norm),
    Form("HardSwish", 14, hard_swish),
    Form("Relu", 14, relu),
    Form("Reshape", 14, reshape),
    Form("Trilu", 14, trilu),
]
"""The forms, by the opset that has the operator as translations write it."""
