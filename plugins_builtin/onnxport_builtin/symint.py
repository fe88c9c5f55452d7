"""Tensors whose value becomes a number of the graph: ``item()`` and its kin."""

from __future__ import annotations

from typing import Any

from onnxport import DataType, Tensor, Unsupported, translation


@translation("aten::item", "aten::_local_scalar_dense")
def item(op: Any, self: Tensor) -> Tensor:
    """The one element as a 0-d tensor: int64 for all integers, floats and bools as they are."""
    value = op.Reshape(self, op.const([], DataType.INT64)) if len(self.shape) else self
    return op.cast(value, DataType.INT64) if value.dtype.is_integer() else value


@translation("aten::sym_size.int")
def sym_size(op: Any, self: Tensor, dim: int) -> Any:
    return op.size(self, dim % len(self.shape))


@translation("aten::sym_numel")
def sym_numel(op: Any, self: Tensor) -> Any:
    total: Any = 1
    for dim in self.shape:
        total = total * dim
    return total


@translation("aten::sym_stride.int", "aten::sym_storage_offset")
def sym_layout(op: Any, self: Tensor, dim: int = 0) -> Any:
    raise Unsupported("the memory layout of a tensor doesn't exist in ONNX")
