"""Diagonals and triangles of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, translation
from onnxport.authoring import Dim, choose, iota, move_axes, product, reshape

from .shape import int32_if_lacking

if TYPE_CHECKING:
    from onnxport import Builder


def diagonal(op: Builder, x: Tensor, offset: int, dim1: int, dim2: int, length: Dim) -> Tensor:
    """The diagonal of `length` elements of the matrices along two dims, as the last dimension.

    In the flattened matrix its elements are `columns + 1` apart.
    """
    rank = len(x.shape)
    shape = list(x.shape)
    rows, columns = shape[dim1 % rank], shape[dim2 % rank]
    batch = [d for i, d in enumerate(shape) if i not in (dim1 % rank, dim2 % rank)]
    matrices = move_axes(op, x, [dim1, dim2], [-2, -1])
    if isinstance(length, int) and length == 0:
        return op.Slice(reshape(op, matrices, [*batch, rows * columns]), [0], [0], [rank - 2])
    vectors = reshape(op, matrices, [*batch, rows * columns])
    first = offset if offset >= 0 else -offset * columns
    step = columns + 1
    return op.Slice(vectors, [first], [first + (length - 1) * step + 1], [rank - 2], [step])


@translation("aten::diagonal", "aten::diagonal_copy")
def diagonal_(op: Builder, self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return diagonal(op, self, offset, dim1, dim2, op.result.shape[-1])


@translation("aten::linalg_diagonal")
def linalg_diagonal(op: Builder, A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    return diagonal(op, A, offset, dim1, dim2, op.result.shape[-1])


def diagonal_mask(op: Builder, rows: Dim, columns: Dim, offset: int) -> Tensor:
    """A bool matrix that is true on one diagonal."""
    if isinstance(rows, int) and isinstance(columns, int):
        return op.const(np.eye(rows, columns, offset, dtype=np.bool_))
    row = op.Unsqueeze(iota(op, rows), [1])
    return op.Equal(op.Add(row, offset) if offset else row, iota(op, columns))


def on_diagonal(
    op: Builder, base: Tensor | float, values: Tensor, length: Dim, rows: Dim, columns: Dim, offset: int
) -> Tensor:
    """`base` [..., rows, columns] (or a number) with `values` [..., length] on a diagonal."""
    before = max(offset, 0)
    after = columns - length - before
    aligned = values
    if not (before == 0 and isinstance(after, int) and after == 0):
        rank = len(values.shape)
        # Pad has no int16 in onnxruntime 1.32
        wide = int32_if_lacking(op, values, (DataType.INT16,))
        padded = op.Pad(wide, [0] * (rank - 1) + [before] + [0] * (rank - 1) + [after])
        aligned = op.cast(padded, values.dtype)
    return choose(op, diagonal_mask(op, rows, columns, offset), op.Unsqueeze(aligned, [-2]), base)


@translation("aten::diag_embed")
def diag_embed(op: Builder, self: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    return _diag_embed(op, self, self.shape[-1], offset, dim1, dim2)


def _diag_embed(op: Builder, x: Tensor, length: Dim, offset: int, dim1: int, dim2: int) -> Tensor:
    n = length + abs(offset)
    rank = len(x.shape) + 1
    matrices = on_diagonal(op, 0, x, length, n, n, offset)
    order = [a for a in range(rank) if a not in (dim1 % rank, dim2 % rank)] + [dim1 % rank, dim2 % rank]
    if order == list(range(rank)):
        return matrices
    return op.Transpose(matrices, perm=[order.index(a) for a in range(rank)])


@translation("aten::diag")
def diag(op: Builder, self: Tensor, diagonal: int = 0) -> Tensor:
    if len(self.shape) == 1:
        return _diag_embed(op, self, self.shape[0], diagonal, -2, -1)
    return diagonal_(op, self, diagonal, 0, 1)


@translation("aten::diagflat")
def diagflat(op: Builder, self: Tensor, offset: int = 0) -> Tensor:
    length = product(self.shape)
    return _diag_embed(op, reshape(op, self, [length]), length, offset, -2, -1)


@translation("aten::diagonal_scatter")
def diagonal_scatter(op: Builder, self: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    rank = len(self.shape)
    rows, columns = self.shape[dim1 % rank], self.shape[dim2 % rank]
    matrices = move_axes(op, self, [dim1, dim2], [-2, -1])
    written = on_diagonal(op, matrices, op.cast(src, self.dtype), src.shape[-1], rows, columns, offset)
    return move_axes(op, written, [-2, -1], [dim1, dim2])


def _trilu(op: Builder, x: Tensor, k: Dim, upper: bool) -> Tensor:
    # onnxruntime 1.32 has no Trilu for the narrow integers and bfloat16
    wide = int32_if_lacking(op, x, (DataType.INT8, DataType.INT16, DataType.UINT8))
    wide = op.cast(x, DataType.FLOAT) if x.dtype == DataType.BFLOAT16 else wide
    return op.cast(op.Trilu(wide, k if k != 0 else None, upper=int(upper)), x.dtype)


@translation("aten::tril")
def tril(op: Builder, self: Tensor, diagonal: Dim = 0) -> Tensor:
    return _trilu(op, self, diagonal, False)


@translation("aten::triu")
def triu(op: Builder, self: Tensor, diagonal: Dim = 0) -> Tensor:
    return _trilu(op, self, diagonal, True)
