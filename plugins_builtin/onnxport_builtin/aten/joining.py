"""Putting tensors together and taking them apart: cat, stack, split and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement, pairwise
from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, Unsupported, promote, translation
from onnxport.authoring import Dim, axis_of, expand, product, reshape, unsqueeze

if TYPE_CHECKING:
    from onnxport import Builder


def concat(op: Builder, tensors: Sequence[Tensor], axis: int) -> Tensor:
    """`tensors`, of one dtype, joined along `axis`; one tensor is returned as it is."""
    return tensors[0] if len(tensors) == 1 else op.Concat(*tensors, axis=axis)


def stacked(op: Builder, tensors: Sequence[Tensor], axis: int) -> Tensor:
    """`tensors` of one shape and dtype, joined along a new `axis`."""
    return concat(op, [op.Unsqueeze(x, [axis]) for x in tensors], axis)


def _same_dtype(op: Builder, tensors: Sequence[Tensor]) -> list[Tensor]:
    dtype = promote(*tensors)
    return [op.cast(x, dtype) for x in tensors]


@translation("aten::cat", "aten::concat", "aten::concatenate")
def cat(op: Builder, tensors: list[Tensor], dim: int = 0) -> Tensor:
    same = _same_dtype(op, tensors)
    rank = len(op.result.shape)
    # torch skips vectors of no elements whatever the others' rank is
    kept = [x for x in same if len(x.shape) == rank and not (rank > 1 and list(x.shape) == [0])]
    axis = dim % rank
    filled = [x for x in kept if not (isinstance(x.shape[axis], int) and x.shape[axis] == 0)]
    return concat(op, filled or kept[:1], axis)


@translation("aten::stack")
def stack(op: Builder, tensors: list[Tensor], dim: int = 0) -> Tensor:
    return stacked(op, _same_dtype(op, tensors), dim % len(op.result.shape))


def _joined_at_least(op: Builder, tensors: Sequence[Tensor], rank: int, axis: int) -> Tensor:
    """`tensors` brought to `rank` as atleast_1d/2d/3d do, then joined along `axis`."""
    raised = []
    for x in _same_dtype(op, tensors):
        missing = rank - len(x.shape)
        if rank == 3 and missing > 0:
            axes = {1: [2], 2: [0, 2], 3: [0, 1, 2]}[missing]
        else:
            axes = list(range(missing))
        raised.append(unsqueeze(op, x, *axes))
    return concat(op, raised, axis)


@translation("aten::hstack")
def hstack(op: Builder, tensors: list[Tensor]) -> Tensor:
    return _joined_at_least(op, tensors, 1, 0 if len(op.result.shape) == 1 else 1)


@translation("aten::vstack", "aten::row_stack")
def vstack(op: Builder, tensors: list[Tensor]) -> Tensor:
    return _joined_at_least(op, tensors, 2, 0)


@translation("aten::dstack")
def dstack(op: Builder, tensors: list[Tensor]) -> Tensor:
    return _joined_at_least(op, tensors, 3, 2)


@translation("aten::column_stack")
def column_stack(op: Builder, tensors: list[Tensor]) -> Tensor:
    columns = []
    for x in _same_dtype(op, tensors):
        axes = {0: [0, 1], 1: [1]}.get(len(x.shape), [])
        columns.append(unsqueeze(op, x, *axes))
    return concat(op, columns, 1)


def _split(op: Builder, x: Tensor, dim: int) -> list[Tensor]:
    """`x` in pieces as long as the results of the node at hand."""
    axis = axis_of(x, dim)
    lengths: list[Dim] = [result.shape[axis] for result in op.results]
    if len(lengths) <= 1:
        return [x] * len(lengths)
    pieces = op.Split(x, lengths, axis=axis, outputs=len(lengths))
    return list(pieces)


@translation("aten::split.Tensor", "aten::unsafe_split.Tensor", "aten::split_copy.Tensor")
def split(op: Builder, self: Tensor, split_size: Dim, dim: int = 0) -> list[Tensor]:
    return _split(op, self, dim)


@translation("aten::split.sizes")
def split_sizes(op: Builder, self: Tensor, split_size: list[Dim], dim: int = 0) -> list[Tensor]:
    return _split(op, self, dim)


@translation("aten::split", "aten::split_with_sizes", "aten::split_with_sizes_copy", "aten::unsafe_split_with_sizes")
def split_with_sizes(op: Builder, self: Tensor, split_sizes: list[Dim], dim: int = 0) -> list[Tensor]:
    return _split(op, self, dim)


@translation("aten::chunk", "aten::unsafe_chunk")
def chunk(op: Builder, self: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    return _split(op, self, dim)


@translation("aten::tensor_split.sections")
def tensor_split(op: Builder, self: Tensor, sections: Dim, dim: int = 0) -> list[Tensor]:
    return _split(op, self, dim)


@translation("aten::tensor_split.indices")
def tensor_split_indices(op: Builder, self: Tensor, indices: list[Dim], dim: int = 0) -> list[Tensor]:
    """Pieces between `indices`, which may overlap, be negative or lie outside: one Slice each where Split can't."""
    axis = axis_of(self, dim)
    n = self.shape[axis]
    if isinstance(n, int) and sum(r.shape[axis] for r in op.results) == n and list(indices) == sorted(indices):
        return _split(op, self, dim)
    bounds: list[Dim] = [0, *indices, np.iinfo(np.int64).max]
    return [op.Slice(self, [a], [b], [axis]) for a, b in pairwise(bounds)]


@translation("aten::tensor_split.tensor_indices_or_sections")
def tensor_split_tensor(op: Builder, self: Tensor, tensor_indices_or_sections: Tensor, dim: int = 0) -> list[Tensor]:
    axis = axis_of(self, dim)
    if is_known := all(isinstance(r.shape[axis], int) for r in op.results):
        total = sum(r.shape[axis] for r in op.results)
    if not tensor_indices_or_sections.shape:
        return _split(op, self, dim)
    if is_known and isinstance(self.shape[axis], int) and total == self.shape[axis]:
        return _split(op, self, dim)
    count = len(op.results) - 1
    cuts = [op.Slice(tensor_indices_or_sections, [i], [i + 1], [0]) for i in range(count)]
    starts = [op.const([0], DataType.INT64), *cuts]
    ends = [*cuts, op.const([np.iinfo(np.int64).max], DataType.INT64)]
    return [op.Slice(self, a, b, [axis]) for a, b in zip(starts, ends, strict=True)]


@translation("aten::hsplit.int")
def hsplit(op: Builder, self: Tensor, sections: int) -> list[Tensor]:
    return _split(op, self, 0 if len(self.shape) == 1 else 1)


@translation("aten::hsplit.array")
def hsplit_array(op: Builder, self: Tensor, indices: list[int]) -> list[Tensor]:
    return tensor_split_indices(op, self, indices, 0 if len(self.shape) == 1 else 1)


@translation("aten::vsplit.int")
def vsplit(op: Builder, self: Tensor, sections: int) -> list[Tensor]:
    return _split(op, self, 0)


@translation("aten::vsplit.array")
def vsplit_array(op: Builder, self: Tensor, indices: list[int]) -> list[Tensor]:
    return tensor_split_indices(op, self, indices, 0)


@translation("aten::dsplit.int")
def dsplit(op: Builder, self: Tensor, sections: int) -> list[Tensor]:
    return _split(op, self, 2)


@translation("aten::dsplit.array")
def dsplit_array(op: Builder, self: Tensor, indices: list[int]) -> list[Tensor]:
    return tensor_split_indices(op, self, indices, 2)


@translation("aten::unbind.int", "aten::unbind_copy.int")
def unbind(op: Builder, self: Tensor, dim: int = 0) -> list[Tensor]:
    axis = axis_of(self, dim)
    if len(op.results) == 1:
        return [op.Squeeze(self, [axis])]
    return [op.Gather(self, i, axis=axis) for i in range(len(op.results))]


@translation("aten::_chunk_cat")
def chunk_cat(op: Builder, tensors: list[Tensor], dim: int, num_chunks: int) -> Tensor:
    raise Unsupported("_chunk_cat pads its chunks: left to its decomposition")


@translation("aten::block_diag")
def block_diag(op: Builder, tensors: list[Tensor]) -> Tensor:
    """The matrices along the diagonal of a matrix of zeros: each padded to the full width, then all joined."""
    dtype = promote(*tensors)
    # Pad has no int16 and, before opset 21, few other kernels: int32 does for the small integers and bool
    work = DataType.INT32 if dtype in (DataType.INT16, DataType.INT8, DataType.UINT8, DataType.BOOL) else dtype
    blocks = []
    for x in tensors:
        rows, columns = {0: (1, 1), 1: (1, *x.shape)}.get(len(x.shape), tuple(x.shape))
        blocks.append((reshape(op, op.cast(x, work), [rows, columns]), columns))
    width = op.result.shape[1]
    before: Dim = 0
    rows_ = []
    for block, columns in blocks:
        after = width - before - columns
        padded = block if len(blocks) == 1 else op.Pad(block, [0, before, 0, after])
        rows_.append(padded)
        before = before + columns
    return op.cast(concat(op, rows_, 0), dtype)


@translation("aten::cartesian_prod")
def cartesian_prod(op: Builder, tensors: list[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    shape = [x.shape[0] if x.shape else 1 for x in tensors]
    rank = len(shape)
    columns = []
    for i, x in enumerate(_same_dtype(op, tensors)):
        column = reshape(op, x, [shape[i]] + [1] * (rank - 1 - i))
        columns.append(reshape(op, expand(op, column, shape), [product(shape), 1]))
    return concat(op, columns, 1)


@translation("aten::combinations")
def combinations_(op: Builder, self: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    n = self.shape[0]
    if not isinstance(n, int):
        raise Unsupported("combinations of a vector of symbolic length")
    choose = combinations_with_replacement if with_replacement else combinations
    index = np.array(list(choose(range(n), r)), dtype=np.int64).reshape(-1, r)
    if r == 0:
        index = index[:0]
    return op.Gather(self, op.const(index), axis=0)
