"""Sliding windows over spatial axes by Gather: what convolutions and pools are made of where ONNX has no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import Tensor, Unsupported
from onnxport.authoring import Dim, iota

from onnxport_builtin.aten.padding import pad_axes

if TYPE_CHECKING:
    from onnxport import Builder


def spread(values: Any, count: int, name: str = "argument") -> list[int]:
    """`values` as `count` static ints: one int stands for all, as torch's ``int[2]`` arguments allow.

    Raises Unsupported where a value is a symbolic size, which an ONNX attribute can't hold.
    """
    listed = list(values) if isinstance(values, list | tuple) else [values]
    if len(listed) == 1:
        listed = listed * count
    if any(not isinstance(value, int) for value in listed):
        raise Unsupported(f"{name} must be static, not {listed}")
    return listed


def batched(op: Builder, x: Tensor, spatial: int) -> tuple[Tensor, bool]:
    """`x` with a batch axis: (batch, channel, spatial...), and whether it had to be added."""
    if len(x.shape) == spatial + 1:
        return op.Unsqueeze(x, [0]), True
    return x, False


def positions(op: Builder, kernel: Dim, count: Dim, stride: int, dilation: int) -> Tensor:
    """Where each element of each window lies on its axis: int64, (kernel, count)."""
    if isinstance(kernel, int):
        steps = np.arange(kernel, dtype=np.int64)[:, None] * dilation
        if isinstance(count, int):
            return op.const(steps + np.arange(count, dtype=np.int64) * stride)
        offsets = op.const(steps)
    else:
        offsets = op.Unsqueeze(iota(op, kernel), [1])
        if dilation != 1:
            offsets = op.Mul(offsets, dilation)
    starts = iota(op, count)
    if stride != 1:
        starts = op.Mul(starts, stride)
    return op.Add(starts, offsets)


def gather_windows(op: Builder, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """The windows of `x` (N, C, spatial...).

    ``indices[i]`` are the positions (kernel_i, out_i) on spatial axis i; None for windows of one element each.
    Returns (N, C, kernel..., out...).
    """
    spatial = len(indices)
    for i, index in enumerate(indices):
        x = op.Unsqueeze(x, [2 + 2 * i]) if index is None else op.Gather(x, index, axis=2 + 2 * i)
    if spatial == 1:
        return x
    kernels = [2 + 2 * i for i in range(spatial)]
    return op.Transpose(x, perm=[0, 1, *kernels, *(axis + 1 for axis in kernels)])


def pad_spatial(op: Builder, x: Tensor, begin: Sequence[Dim], end: Sequence[Dim], value: Any = None) -> Tensor:
    """`x` (N, C, spatial...) padded with `value` (default 0) on its spatial axes; negative pads crop."""
    if all(isinstance(pad, int) and pad == 0 for pad in (*begin, *end)):
        return x
    fill = None if value is None else op.const(value, x.dtype)
    pairs = {2 + i: pair for i, pair in enumerate(zip(begin, end, strict=True))}
    return pad_axes(op, x, 2 + len(begin), pairs, fill)


def window_count(size: Dim, kernel: Dim, stride: int, dilation: int, begin: Dim, end: Dim) -> Dim:
    """How many whole windows lie in an axis of `size` with the pads `begin` and `end`."""
    return (size + (begin + end - (kernel - 1) * dilation - 1)) // stride + 1
