"""Choosing between two values by a mask: masked_fill and what other families need of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import DataType, Size, Tensor, translation

from .shape import expand

if TYPE_CHECKING:
    from onnxport import Builder

# element types for which onnxruntime 1.32 has no Where
_NO_WHERE = (DataType.INT16, DataType.UINT16)


def choose(op: Builder, condition: Tensor, a: Tensor | int | float, b: Tensor | int | float) -> Tensor:
    """`a` where `condition` holds, else `b`, broadcast; tensors of one dtype, at most one of them a number."""
    dtype = a.dtype if isinstance(a, Tensor) else b.dtype
    if dtype == DataType.BOOL:
        if not isinstance(a, Tensor):
            return op.Or(condition, b) if a else op.And(op.Not(condition), b)
        if not isinstance(b, Tensor):
            return op.Or(op.Not(condition), a) if b else op.And(condition, a)
        return op.Xor(b, op.And(condition, op.Xor(a, b)))
    if dtype in _NO_WHERE:
        a, b = op.cast(a, DataType.INT32), op.cast(b, DataType.INT32)
        return op.cast(op.Where(condition, a, b), dtype)
    return op.Where(condition, a, b)


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
