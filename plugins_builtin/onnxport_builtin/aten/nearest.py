"""Which pixel each output of a nearest resize takes: torch's float arithmetic, rounding by rounding.

torch has two kernels. The generic one computes in the precision of the tensor (float32 at least); the one for small or
channels-last images in float32, and it knows the sizes that are equal or twice as large. Both are followed, since an
index that is a whole number but for a rounding is another pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport import DataType, Tensor
from onnxport.authoring import Dim, iota, is_static

if TYPE_CHECKING:
    from onnxport import Builder


_SMALL_IMAGE = 128
"""Height and width together, up to which torch 2.14 takes the kernel for small images."""
_WIDE = 3
"""Channels above which it takes that kernel for a channels-last layout."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis: its sizes, and the user's scale factor where that decides the ratio.

    Attributes:
        follows_scale: where there is a scale factor, ``out`` is the size times it, rounded down.
        copies: where the size stays, torch copies along the axis, whatever the scale factor says.
    """

    size: Dim
    out: Dim
    scale: float | None
    follows_scale: bool = False
    copies: bool = False

    @property
    def is_static(self) -> bool:
        return is_static([self.size, self.out])

    @property
    def has_scale(self) -> bool:
        """The scale factor counts; torch ignores those that aren't positive."""
        return self.scale is not None and self.scale > 0

    @property
    def is_implied(self) -> bool:
        """The scale factor says no more than the two sizes do."""
        if not self.has_scale:
            return True
        if self.is_static:
            return self.size * self.scale == self.out  # type: ignore[operator]
        scale = int(self.scale)  # type: ignore[arg-type]
        return scale == self.scale and self.size * scale == self.out

    @property
    def may_stay(self) -> bool:
        """The scale factor may leave a dynamic size, of 2 or more, as it is."""
        return self.has_scale and not self.is_static and 1 < self.scale < 1.5  # type: ignore[operator]

    def ratio(self, kind: type, align_corners: bool) -> Any:
        """Input steps for each output step, in torch's own precision; of static sizes."""
        if align_corners:
            return kind(self.size - 1) / kind(self.out - 1) if self.out > 1 else kind(0)
        if self.has_scale:
            return kind(1.0 / self.scale)  # type: ignore[operator]
        return kind(self.size) / kind(self.out)


class Places:
    """The source indices of the axes of one nearest resize.

    Args:
        x: (N, C, ...), which is resized.
        exact: nearest to the pixels' centres ("nearest-exact").
    """

    def __init__(self, op: Builder, x: Tensor, axes: Sequence[Axis], exact: bool) -> None:
        self._op = op
        self._axes = axes
        self._exact = exact
        self._work = DataType.DOUBLE if x.dtype == DataType.DOUBLE else DataType.FLOAT
        #: torch takes the kernel for small and channels-last images; None where the sizes at run time decide
        self._small: bool | None = len(axes) > 1 and _is_channels_last(op, x)
        if not self._small and len(axes) == 2:
            total = self._extent()
            self._small = total <= _SMALL_IMAGE if isinstance(total, int) else None

    def _extent(self) -> Dim:
        return self._axes[0].out + self._axes[1].out

    def _is_small(self) -> Tensor:
        return self._op.LessOrEqual(self._op.tensor(self._extent()), _SMALL_IMAGE)

    def static(self, axis: Axis, *, small: bool) -> np.ndarray:
        """The indices of static sizes by one of the kernels."""
        if small and not self._exact and axis.out in (axis.size, 2 * axis.size):  # type: ignore[operator]
            return np.arange(axis.out) // (axis.out // axis.size)  # type: ignore[operator]
        kind = np.float64 if self._work == DataType.DOUBLE and not small else np.float32
        ratio = axis.ratio(kind, False)
        at = np.arange(axis.out, dtype=kind)
        if self._exact:
            at = (at + kind(0.5)) * ratio if small or kind is np.float64 else _fused(at + kind(0.5), ratio)
        else:
            at = at * ratio
        return np.clip(np.floor(at.astype(np.float32)), 0, axis.size - 1).astype(np.int64)  # type: ignore[operator]

    def dynamic(self, axis: Axis, *, small: bool) -> Tensor:
        """As :meth:`static`, of symbolic sizes; float32, of which the last may be too large by one."""
        op = self._op
        work = DataType.FLOAT if small else self._work
        steps = iota(op, axis.out)
        ratio: Any
        if axis.has_scale:
            ratio = op.const(1.0 / axis.scale, work)  # type: ignore[operator]
        else:
            ratio = op.Div(op.cast(axis.size, work), op.cast(axis.out, work))
        at = op.cast(steps, work)
        if self._exact:
            at = op.Add(at, 0.5)
        if self._exact and not small and work == DataType.FLOAT:
            product = op.Mul(op.cast(at, DataType.DOUBLE), op.cast(ratio, DataType.DOUBLE))
            at = op.Add(op.Max(op.cast(op.Sub(product, 0.5), work), 0.0), 0.5)
        else:
            at = op.Mul(at, ratio)
        places = op.Floor(op.cast(at, DataType.FLOAT))
        if small and not self._exact and axis.has_scale:
            size, out = (op.tensor(d, DataType.INT64) for d in (axis.size, axis.out))
            half = op.cast(op.Div(steps, 2), DataType.FLOAT)
            places = op.Where(op.Equal(out, op.Mul(size, 2)), half, places)
            places = op.Where(op.Equal(out, size), op.cast(steps, DataType.FLOAT), places)
        return places

    def _kernels_agree(self, axis: Axis) -> bool:
        """Whether the kernels compute the same, whatever the sizes."""
        return self._work == DataType.FLOAT and not self._exact and not axis.has_scale

    def floats(self, axis: Axis) -> Tensor:
        """The indices as float32, of which the last may be too large by one."""
        if self._small is not None:
            return self.dynamic(axis, small=self._small)
        generic = self.dynamic(axis, small=False)
        if self._kernels_agree(axis):
            return generic
        return self._op.Where(self._is_small(), self.dynamic(axis, small=True), generic)

    def index(self, axis: Axis) -> Tensor:
        """The indices, int64 (out,)."""
        op = self._op
        if not axis.is_static:
            last = op.Sub(op.tensor(axis.size, DataType.INT64), 1)
            return op.Min(op.cast(self.floats(axis), DataType.INT64), last)
        if self._small is not None:
            return op.const(self.static(axis, small=self._small))
        kernels = [self.static(axis, small=small) for small in (True, False)]
        if (kernels[0] == kernels[1]).all():
            return op.const(kernels[0])
        return op.Where(self._is_small(), op.const(kernels[0]), op.const(kernels[1]))

    def by_resize(self, axis: Axis) -> bool | None:
        """Whether onnxruntime's Resize picks the same pixels; None where that depends on the sizes at run time."""
        if axis.is_static:
            if axis.size == 0 or axis.out == 0:
                return True
            scale = np.float32(axis.out) / np.float32(axis.size)
            if not axis.is_implied:
                scale = np.float32(axis.scale)
            at = np.arange(axis.out, dtype=np.float32)
            if self._exact:
                at = (at + np.float32(0.5)) / scale - np.float32(0.5)
                theirs = np.floor(at.astype(np.float64) + 0.5)
            else:
                theirs = np.floor(at / scale)
            theirs = np.clip(theirs, 0, axis.size - 1)  # type: ignore[operator]
            either = [self._small] if self._small is not None else [True, False]
            return all(bool((theirs == self.static(axis, small=small)).all()) for small in either)
        if not axis.is_implied:
            # products and quotients of powers of two are exact
            return axis.follows_scale and bool(np.log2(axis.scale).is_integer())  # type: ignore[arg-type]
        factor = _factor(axis)
        if factor is None:
            return None
        # rounded upwards, or by no more than the rounding of a product makes good
        return self._exact or float(np.float32(1.0 / factor)) * factor >= 1 - 2**-25 or None

    def is_resized_alike(self, axis: Axis) -> Tensor:
        """Whether onnxruntime's Resize, given the output's sizes, picks the same pixels: a bool scalar."""
        op = self._op
        scale = op.Div(op.cast(axis.out, DataType.FLOAT), op.cast(axis.size, DataType.FLOAT))
        at = op.cast(iota(op, axis.out), DataType.FLOAT)
        if self._exact:
            at = op.cast(op.Sub(op.Div(op.Add(at, 0.5), scale), 0.5), DataType.DOUBLE)
            theirs = op.cast(op.Floor(op.Add(at, 0.5)), DataType.FLOAT)
        else:
            theirs = op.Floor(op.Div(at, scale))
        apart = op.ReduceMax(op.Abs(op.Sub(theirs, self.floats(axis))), keepdims=0)
        return op.Less(apart, 0.5)


def _fused(at: np.ndarray, ratio: Any) -> np.ndarray:
    """``at * ratio - 0.5`` rounded once, at least 0, and 0.5 added again: what torch's generic kernel does."""
    source = (at.astype(np.float64) * float(ratio) - 0.5).astype(np.float32)
    return np.maximum(source, np.float32(0)) + np.float32(0.5)


def _factor(axis: Axis) -> int | None:
    """How many times larger the output is at every size, where that is a whole number."""
    if isinstance(axis.size, int) or isinstance(axis.out, int):
        return None
    factor = axis.out.expr / axis.size.expr  # type: ignore[operator]
    return int(factor) if factor.is_Integer else None


def _is_channels_last(op: Builder, x: Tensor) -> bool:
    """Whether torch sees a channels-last layout of more than three channels; strides are compared without guards."""
    node = op.node
    source = node.args[0] if node is not None and node.args and "upsample" in str(node.target) else None
    fake = getattr(source, "meta", {}).get("val")
    if not isinstance(fake, torch.Tensor) or fake.dim() != len(x.shape):
        return False
    channels = x.shape[1]
    if isinstance(channels, int) and channels <= _WIDE:
        return False
    strides = [op.symbols.of_torch(stride) for stride in fake.stride()]
    step: Any = 1
    for axis in (1, *reversed(range(2, fake.dim())), 0):
        size = x.shape[axis]
        if size != 1 and strides[axis] != step:
            return False
        step = size * step
    return True
