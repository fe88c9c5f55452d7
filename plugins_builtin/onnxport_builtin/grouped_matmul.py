"""Grouped matrix multiplication: the experts of a mixture, in torch's operator and in that of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnxport import Builder, Size, Tensor, Unsupported, onnx_dtype, translation


@translation("transformers::grouped_mm_fallback")
def grouped_mm_fallback(op: Builder, input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """Rows ``offs[i-1]:offs[i]`` of the input (S, K) times ``weight[i]`` (K, N); rows past the last offset give 0."""
    return _grouped(op, input, weight, offs)


@translation("aten::_grouped_mm")
def grouped_mm(
    op: Builder, self: Tensor, mat2: Tensor, *, offs: Tensor | None = None, bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """As above, or a batched product when both are 3-d."""
    if bias is not None:
        raise Unsupported("a bias of grouped_mm")
    if offs is None:
        result = op.MatMul(self, mat2)
    elif op.rank(self) == 2 and op.rank(mat2) == 3:
        result = _grouped(op, self, mat2, offs)
    else:
        raise Unsupported("grouped_mm with groups along the other operand, which only training needs")
    return result if out_dtype is None else op.cast(result, onnx_dtype(out_dtype))


def _grouped(op: Builder, rows: Tensor, weights: Tensor, offs: Tensor) -> Tensor:
    groups, width = op.size(weights, 0), op.size(weights, 2)
    if not isinstance(groups, int) or not isinstance(width, int):
        raise Unsupported("the number of groups or the width of the experts is dynamic")
    ends = op.cast(offs, torch.int64)
    count = None if rows.shape is None else rows.shape[0]
    total = op.sizes([count]) if isinstance(count, (int, Size)) else op.Slice(op.Shape(rows), [0], [1], [0])
    bounds = op.Concat(op.const([0]), ends, total, axis=0)
    count = groups + 1
    lengths = op.Sub(op.Slice(bounds, [1], [count + 1], [0]), op.Slice(bounds, [0], [count], [0]))
    pieces = op.Split(rows, lengths, axis=0, outputs=count)
    experts = op.Split(weights, [1] * groups, axis=0, outputs=groups) if groups > 1 else [weights]
    products: list[Any] = [op.MatMul(piece, expert) for piece, expert in zip(pieces, experts, strict=False)]
    rest = op.Concat(op.const([1]), op.Slice(lengths, [groups], [count], [0]), op.const([width]), axis=0)
    products.append(op.ConstantOfShape(rest, value=np.zeros(1, rows.dtype.numpy())))
    return op.Squeeze(op.Concat(*products, axis=1), [0])
