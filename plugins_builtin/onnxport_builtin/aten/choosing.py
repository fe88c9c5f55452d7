"""Choosing between two values by a mask: masked_fill and what other families need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import DataType, Size, Tensor, translation
from onnxport.authoring import choose, expand

if TYPE_CHECKING:
    from onnxport import Builder


@translation("aten::masked_fill.Scalar", "aten::masked_fill.Tensor")
def masked_fill(op: Builder, self: Tensor, mask: Tensor, value: Tensor | Size | float) -> Tensor:
    if isinstance(value, (Tensor, Size)):
        value = op.cast(value, self.dtype)
    elif self.dtype.is_integer():
        value = op.const(int(value), self.dtype)
    return choose(op, op.cast(mask, DataType.BOOL), value, self)


@translation("aten::fill.Scalar", "aten::fill.Tensor")
def fill(op: Builder, self: Tensor, value: Tensor | Size | float) -> Tensor:
    return expand(op, op.cast(value, self.dtype), self.shape)


@translation("aten::copy")
def copy(op: Builder, self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return expand(op, op.cast(src, self.dtype), self.shape)
