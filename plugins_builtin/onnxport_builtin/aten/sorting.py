"""Sorting: sort, argsort, msort and topk, all by ONNX TopK.

TopK orders NaN as the largest value and gives equal values by ascending index (onnxruntime 1.32, opset 11 and later),
which is torch's order and makes every sort stable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, translation

if TYPE_CHECKING:
    from onnxport import Size


def ordered(
    op: Any, x: Tensor, k: int | Size | None, dim: int, *, largest: bool, in_order: bool = True
) -> tuple[Tensor, Tensor]:
    """The first k (all where None) elements along ``dim`` in order, and their indices."""
    if not len(x.shape):
        if k == 0:
            return op.Expand(x, [0]), op.Expand(op.const(0, DataType.INT64), [0])
        return x, op.const(0, DataType.INT64)
    axis = dim % len(x.shape)
    operand = op.cast(x, DataType.UINT8) if x.dtype == DataType.BOOL else x
    k = x.shape[axis] if k is None else k
    values, indices = op.TopK(operand, [k], axis=axis, largest=int(largest), sorted=int(in_order))
    return op.cast(values, x.dtype), indices


@translation("aten::sort")
def sort(op: Any, self: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    return ordered(op, self, None, dim, largest=descending)


@translation("aten::sort.stable")
def sort_stable(
    op: Any, self: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    return ordered(op, self, None, dim, largest=descending)


@translation("aten::argsort")
def argsort(op: Any, self: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    return ordered(op, self, None, dim, largest=descending)[1]


@translation("aten::argsort.stable")
def argsort_stable(op: Any, self: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    return ordered(op, self, None, dim, largest=descending)[1]


@translation("aten::msort")
def msort(op: Any, self: Tensor) -> Tensor:
    return ordered(op, self, None, 0, largest=False)[0]


@translation("aten::topk")
def topk(
    op: Any,
    self: Tensor,
    k: int | Size,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # the schema's name
) -> tuple[Tensor, Tensor]:
    return ordered(op, self, k, dim, largest=largest, in_order=sorted)
