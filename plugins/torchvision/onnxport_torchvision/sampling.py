"""Small steps that the operators share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import DataType, Tensor

if TYPE_CHECKING:
    from onnxport import Builder


def working_dtype(dtype: DataType) -> DataType:
    """The precision to compute in: float32 in place of the half types."""
    return DataType.DOUBLE if dtype == DataType.DOUBLE else DataType.FLOAT


def clamped(op: Builder, x: Tensor, low: int, high: Tensor) -> Tensor:
    """`x` within low ... high; `high` where the two cross."""
    return op.Min(op.Max(x, low), high)


def rounded(op: Builder, x: Tensor) -> Tensor:
    """To the nearest integer, halves away from zero as in C. ONNX rounds them to even."""
    size = op.Abs(x)
    whole = op.Floor(size)
    up = op.cast(op.GreaterOrEqual(op.Sub(size, whole), 0.5), x.dtype)
    return op.Mul(op.Sign(x), op.Add(whole, up))
