"""Padding: with a constant, by reflection, by replication, and around the circle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, iota

if TYPE_CHECKING:
    from onnxport import Builder


# onnxruntime 1.32 pads no int16.
_WIDENED = {DataType.INT16: DataType.INT32, DataType.UINT16: DataType.INT32}
# The order of torch's own enumeration of modes.
_MODES = ("reflect", "replicate", "circular", "constant")


def _by_axis(pad: Sequence[Dim], rank: int) -> dict[int, tuple[Dim, Dim]]:
    """torch lists (before, after) from the last axis on; this gives them by axis, without the zeros."""
    pairs = {rank - 1 - i // 2: (pad[i], pad[i + 1]) for i in range(0, len(pad) - 1, 2)}
    return {axis: pair for axis, pair in sorted(pairs.items()) if not (pair[0] == 0 and pair[1] == 0)}


def _static(pairs: dict[int, tuple[Dim, Dim]]) -> bool:
    return all(isinstance(amount, int) for pair in pairs.values() for amount in pair)


def pad_axes(
    op: Builder,
    x: Tensor,
    rank: int,
    pairs: Mapping[int, tuple[Dim | Tensor, Dim | Tensor]],
    fill: Tensor | None = None,
    mode: str = "constant",
) -> Tensor:
    """`x` padded on some of its axes, before and after, with ONNX's `mode`.

    The node has pads for all axes. Its input `axes` is no choice: between two Transpose nodes, the optimizer of
    onnxruntime 1.32 takes whatever pads there are for those of all axes.

    Args:
        rank: that of the ONNX tensor; for a complex one, with the axis of its parts.
        fill: of the element type of `x`; 0 by default.
    """
    amounts = [pairs.get(axis, (0, 0)) for axis in range(rank)]
    pads = op.sizes([*(before for before, _ in amounts), *(after for _, after in amounts)])
    return op.Pad(x, pads, fill, mode=None if mode == "constant" else mode)


def _pad_node(op: Builder, x: Tensor, pairs: dict[int, tuple[Dim, Dim]], mode: str, fill: Tensor | None) -> Tensor:
    if not pairs:
        return x
    wide = _WIDENED.get(x.dtype, x.dtype)
    padded = pad_axes(op, op.cast(x, wide), op.rank(x), pairs, fill, mode)
    return op.cast(padded, x.dtype)


def _constant(op: Builder, x: Tensor, pad: Sequence[Dim], value: Any) -> Tensor:
    pairs = _by_axis(pad, len(x.shape))
    wide = _WIDENED.get(x.dtype, x.dtype)
    if isinstance(value, Size):
        fill: Tensor | None = op.cast(value, wide)
    elif value is None or (value == 0 and x.dtype != DataType.BOOL):
        fill = None
    elif x.dtype == DataType.BOOL:
        fill = op.const(bool(value), DataType.BOOL)
    else:
        fill = op.const(int(value) if wide.is_integer() else float(value), wide)
    return _pad_node(op, x, pairs, "constant", fill)


def _source_places(op: Builder, size: Dim, before: int, after: int, mode: str) -> Tensor:
    """Where on an axis of `size` each element of the padded axis comes from; negative pads crop."""
    if isinstance(size, int):
        places = np.arange(-before, size + after, dtype=np.int64)
        if mode == "circular":
            first, last = max(-before, 0), size + min(after, 0)
            return op.const((places - first) % (last - first) + first)
        if mode == "reflect":
            places = np.abs(places)
            places = size - 1 - np.abs(size - 1 - places)
        return op.const(np.clip(places, 0, size - 1))
    length = op.tensor(size, DataType.INT64)
    places = op.Sub(iota(op, size + before + after), before)
    if mode == "circular":
        first, cut = max(-before, 0), max(-before, 0) + max(-after, 0)
        around = op.Mod(op.Sub(places, first) if first else places, op.Sub(length, cut) if cut else length)
        return op.Add(around, first) if first else around
    end = op.Sub(length, 1)
    if mode == "reflect":
        places = op.Abs(places)
        places = op.Sub(end, op.Abs(op.Sub(end, places)))
    return op.Max(op.Min(places, end), op.const(np.int64(0)))


def _borrowed(op: Builder, x: Tensor, pad: Sequence[Dim], mode: str) -> Tensor:
    """Padding whose content comes from `x` itself."""
    pairs = _by_axis(pad, len(x.shape))
    shape = list(op.result.shape)
    if 0 in shape:
        return expand(op, op.const(0, x.dtype), shape)
    named = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    if not _static(pairs):
        return _pad_node(op, x, pairs, named, None)
    # ONNX crops before it mirrors or repeats, torch after; and it knows no wrapping below opset 19
    gathered = mode == "circular" and op.opset < 19
    plain = {axis: pair for axis, pair in pairs.items() if min(pair) >= 0 and not gathered}
    for axis, (before, after) in pairs.items():
        if axis not in plain:
            x = op.Gather(x, _source_places(op, x.shape[axis], before, after, mode), axis=axis)
    return _pad_node(op, x, plain, named, None)


def _pad(op: Builder, x: Tensor, pad: Sequence[Dim], mode: str, value: Any) -> Tensor:
    if mode == "constant":
        return _constant(op, x, pad, 0.0 if value is None else value)
    if mode not in _MODES:
        raise Unsupported(f"padding mode {mode!r}")
    return _borrowed(op, x, pad, mode)


@translation("aten::constant_pad_nd")
def constant_pad_nd(op: Builder, self: Tensor, pad: Sequence[Dim], value: Any = 0) -> Tensor:
    return _constant(op, self, pad, value)


@translation("aten::pad")
def pad_(op: Builder, self: Tensor, pad: Sequence[Dim], mode: str = "constant", value: float | None = None) -> Tensor:
    return _pad(op, self, pad, mode, value)


@translation("aten::_pad_enum")
def pad_enum(op: Builder, self: Tensor, pad: Sequence[Dim], mode: int, value: float | None = None) -> Tensor:
    return _pad(op, self, pad, _MODES[mode], value)


@translation("aten::_pad_circular")
def pad_circular(op: Builder, self: Tensor, pad: Sequence[Dim]) -> Tensor:
    return _borrowed(op, self, pad, "circular")


@translation("aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d")
def reflection_pad(op: Builder, self: Tensor, padding: Sequence[Dim]) -> Tensor:
    return _borrowed(op, self, padding, "reflect")


@translation("aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d")
def replication_pad(op: Builder, self: Tensor, padding: Sequence[Dim]) -> Tensor:
    return _borrowed(op, self, padding, "replicate")
