"""Small steps that the operators share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Size, Tensor, Unsupported

if TYPE_CHECKING:
    from onnxport import Builder

Dim = int | Size


def static(name: str, *values: Any) -> list[int]:
    """The values as ints. Raises Unsupported where one is a symbolic size, which an ONNX attribute can't hold."""
    if not all(isinstance(value, int) for value in values):
        raise Unsupported(f"{name} must be static, not {list(values)}")
    return list(values)


def working_dtype(dtype: DataType) -> DataType:
    """The precision to compute in: float32 in place of the half types."""
    return DataType.DOUBLE if dtype == DataType.DOUBLE else DataType.FLOAT


def iota(op: Builder, count: Dim | Tensor, dtype: DataType = DataType.INT64) -> Tensor:
    """0 ... count - 1."""
    if isinstance(count, int):
        return op.const(np.arange(count, dtype=np.int64), dtype)
    return op.cast(op.Range(0, op.tensor(count, DataType.INT64), 1), dtype)


def clamped(op: Builder, x: Tensor, low: int, high: Tensor) -> Tensor:
    """`x` within low ... high; `high` where the two cross."""
    return op.Min(op.Max(x, low), high)


def rounded(op: Builder, x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero as in C. ONNX rounds them to even."""
    size = op.Abs(x)
    whole = op.Floor(size)
    up = op.cast(op.GreaterOrEqual(op.Sub(size, whole), 0.5), x.dtype)
    return op.Mul(op.Sign(x), op.Add(whole, up))
