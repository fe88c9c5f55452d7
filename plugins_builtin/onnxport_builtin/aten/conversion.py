"""Element types, copies, and what changes nothing in a graph of values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnxport import DataType, Tensor, Unsupported, translation
from onnxport.authoring import filled

if TYPE_CHECKING:
    from onnxport import Builder


def _converted(op: Builder, value: Tensor, dtype: torch.dtype | DataType | None) -> Tensor:
    if dtype is None:
        return value
    if isinstance(dtype, torch.dtype) and dtype.is_complex:
        raise Unsupported("conversion to complex")
    return op.cast(value, dtype)


@translation("aten::to.dtype", "aten::to.dtype_layout", "aten::to.device")
def to_dtype(
    op: Builder,
    self: Tensor,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    return _converted(op, self, dtype)


@translation("aten::_to_copy")
def _to_copy(
    op: Builder,
    self: Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: Any = None,
) -> Tensor:
    return _converted(op, self, dtype)


@translation("aten::to.prim_Device", "aten::to.prim_dtype")
def to_prim(
    op: Builder,
    self: Tensor,
    device: Any = None,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Tensor:
    return _converted(op, self, dtype)


@translation("aten::to.other")
def to_other(
    op: Builder,
    self: Tensor,
    other: Tensor,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Tensor:
    return op.cast(self, other.dtype)


@translation("aten::type_as")
def type_as(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return op.cast(self, other.dtype)


@translation("prims::convert_element_type")
def convert_element_type(op: Builder, a: Tensor, dtype: torch.dtype) -> Tensor:
    return _converted(op, a, dtype)


@translation(
    "aten::_cast_Byte",
    "aten::_cast_Char",
    "aten::_cast_Double",
    "aten::_cast_Float",
    "aten::_cast_Int",
    "aten::_cast_Long",
    "aten::_cast_Short",
    "aten::_cast_Half",
)
def _cast(op: Builder, self: Tensor, non_blocking: bool = False) -> Tensor:
    return op.cast(self, op.result.dtype)


@translation("aten::_autocast_to_reduced_precision", "aten::_autocast_to_full_precision", complex=True)
def autocast(op: Builder, self: Tensor, **_: Any) -> Tensor:
    """The result's type says what the capture decided."""
    return op.cast(self, op.result.dtype)


@translation("aten::clone", "aten::contiguous", complex=True)
def clone(op: Builder, self: Tensor, *, memory_format: Any = None) -> Tensor:
    return self


@translation(
    "aten::detach",
    "aten::detach_copy",
    "aten::alias",
    "aten::alias_copy",
    "aten::lift",
    "aten::lift_fresh",
    "aten::lift_fresh_copy",
    "aten::positive",
    "aten::resolve_conj",
    "aten::resolve_neg",
    "aten::data",
    complex=True,
)
def unchanged(op: Builder, self: Tensor) -> Tensor:
    return self


@translation("aten::real", "aten::conj", "aten::_conj", "aten::conj_physical", "aten::_conj_physical")
def real(op: Builder, self: Tensor) -> Tensor:
    """Of real tensors, which are their own real part and conjugate."""
    return self


@translation("prims::view_of", "prims::clone", complex=True)
def view_of(op: Builder, a: Tensor | None = None, self: Tensor | None = None, *, memory_format: Any = None) -> Tensor:
    return a if self is None else self


@translation("aten::view.dtype")
def view_dtype(op: Builder, self: Tensor, dtype: torch.dtype) -> Tensor:
    """The same bits as another type of the same width."""
    result = op.result
    if result.is_complex or self.is_complex:
        raise Unsupported("reinterpreted complex numbers")
    if result.dtype is self.dtype:
        return self
    if result.dtype.bitwidth != self.dtype.bitwidth:
        raise Unsupported("reinterpreted as a type of another width")
    if DataType.BOOL in (self.dtype, result.dtype):
        return op.cast(self, result.dtype)
    if self.dtype.is_integer() and result.dtype.is_integer():
        return op.Cast(self, to=result.dtype)  # wraps
    if op.opset < 26:
        raise Unsupported("bits reinterpreted: needs opset 26: BitCast")
    return op.BitCast(self, to=result.dtype)


@translation(
    "aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout", complex=True
)
def dropout(op: Builder, input: Tensor, p: float, train: bool) -> Tensor:
    """Nothing in eval mode; a random mask is another family's."""
    if train and p != 0:
        raise Unsupported("dropout in training mode")
    return input


@translation("aten::native_dropout")
def native_dropout(op: Builder, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """The input and a mask that keeps all of it."""
    if (train or train is None) and p != 0:
        raise Unsupported("dropout in training mode")
    return input, filled(op, input, True, DataType.BOOL)
