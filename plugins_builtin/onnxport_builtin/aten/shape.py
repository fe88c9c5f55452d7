"""Views: the same elements under another shape, order or strides, and the copies that repeat them.

Most are one step of ``onnxport.authoring`` to the shape that torch knows the result to have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import sympy
import torch
from onnxport import DataType, Tensor, Unsupported, promote, translation
from onnxport.authoring import (
    Dim,
    axis_of,
    expand,
    flat,
    iota,
    is_static,
    move_axes,
    permute,
    product,
    reshape,
    unsqueeze,
)

if TYPE_CHECKING:
    from onnxport import Builder


#: Index tensors that could be computed are written as constants up to this number of elements.
CONSTANT_INDEX = 4096


def int32_if_lacking(op: Builder, x: Tensor, lacking: tuple[DataType, ...]) -> Tensor:
    """`x` cast to int32 if onnxruntime has no kernel for its element type."""
    return op.cast(x, DataType.INT32) if x.dtype in lacking else x


# ---- shapes of the same elements


@translation("aten::view", "aten::_unsafe_view", "aten::view_copy", "aten::_reshape_copy")
def view(op: Builder, self: Tensor, size: list[Dim]) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::_reshape_alias", "aten::_reshape_alias_copy")
def reshape_alias(op: Builder, self: Tensor, size: list[Dim], stride: list[Dim]) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::reshape")
def reshape_(op: Builder, self: Tensor, shape: list[Dim]) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::reshape_as", "aten::view_as")
def reshape_as(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::ravel")
def ravel(op: Builder, self: Tensor) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::flatten.using_ints")
def flatten(op: Builder, self: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::unflatten.int")
def unflatten(op: Builder, self: Tensor, dim: int, sizes: list[Dim]) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::squeeze", "aten::squeeze_copy")
def squeeze(op: Builder, self: Tensor) -> Tensor:
    return _squeeze(op, self, range(len(self.shape)))


@translation("aten::squeeze.dim", "aten::squeeze_copy.dim")
def squeeze_dim(op: Builder, self: Tensor, dim: int) -> Tensor:
    return _squeeze(op, self, [dim])


@translation("aten::squeeze.dims", "aten::squeeze_copy.dims")
def squeeze_dims(op: Builder, self: Tensor, dim: list[int]) -> Tensor:
    return _squeeze(op, self, dim)


def _squeeze(op: Builder, x: Tensor, dims: Iterable[int]) -> Tensor:
    shape = list(x.shape)
    axes = sorted({axis_of(x, d) for d in dims if shape and shape[axis_of(x, d)] == 1})
    return op.Squeeze(x, axes) if axes else x


@translation("aten::unsqueeze", "aten::unsqueeze_copy")
def unsqueeze_(op: Builder, self: Tensor, dim: int) -> Tensor:
    return op.Unsqueeze(self, [dim % (len(self.shape) + 1)])


@translation("aten::atleast_1d", "aten::atleast_2d", "aten::atleast_3d")
def atleast(op: Builder, self: Tensor) -> Tensor:
    return reshape(op, self, op.result.shape)


@translation("aten::atleast_1d.Sequence", "aten::atleast_2d.Sequence", "aten::atleast_3d.Sequence")
def atleast_sequence(op: Builder, tensors: list[Tensor]) -> list[Tensor]:
    return [reshape(op, x, result.shape) for x, result in zip(tensors, op.results, strict=True)]


# ---- broadcasting


@translation("aten::expand", "aten::expand_copy")
def expand_(op: Builder, self: Tensor, size: list[Dim], *, implicit: bool = False) -> Tensor:
    return expand(op, self, op.result.shape)


@translation("aten::broadcast_to")
def broadcast_to(op: Builder, self: Tensor, size: list[Dim]) -> Tensor:
    return expand(op, self, op.result.shape)


@translation("aten::expand_as")
def expand_as(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    return expand(op, self, op.result.shape)


@translation("aten::broadcast_tensors")
def broadcast_tensors(op: Builder, tensors: list[Tensor]) -> list[Tensor]:
    return [expand(op, x, result.shape) for x, result in zip(tensors, op.results, strict=True)]


@translation("aten::repeat")
def repeat(op: Builder, self: Tensor, repeats: list[Dim]) -> Tensor:
    return _tile(op, self, list(repeats))


@translation("aten::tile")
def tile(op: Builder, self: Tensor, dims: list[Dim]) -> Tensor:
    return _tile(op, self, [1] * (len(self.shape) - len(dims)) + list(dims))


def _tile(op: Builder, x: Tensor, repeats: list[Dim]) -> Tensor:
    new = len(repeats) - len(x.shape)
    dims = [1] * new + list(x.shape)
    if all(r == 1 or d == 1 for d, r in zip(dims, repeats, strict=True)):
        return expand(op, x, [r if d == 1 else d for d, r in zip(dims, repeats, strict=True)])
    return op.Tile(unsqueeze(op, x, *range(new)), repeats)


@translation("aten::meshgrid")
def meshgrid(op: Builder, tensors: list[Tensor]) -> list[Tensor]:
    return _meshgrid(op, tensors, "ij")


@translation("aten::meshgrid.indexing")
def meshgrid_indexing(op: Builder, tensors: list[Tensor], *, indexing: str) -> list[Tensor]:
    return _meshgrid(op, tensors, indexing)


def _meshgrid(op: Builder, tensors: list[Tensor], indexing: str) -> list[Tensor]:
    rank = len(tensors)
    places = list(range(rank))
    if indexing == "xy" and rank > 1:
        places[:2] = [1, 0]
    grids = []
    for place, x, result in zip(places, tensors, op.results, strict=True):
        column = reshape(op, x, [op.size(x, 0) if x.shape else 1] + [1] * (rank - 1 - place))
        grids.append(expand(op, column, result.shape))
    return grids


# ---- orders


@translation("aten::permute", "aten::permute_copy")
def permute_(op: Builder, self: Tensor, dims: list[int]) -> Tensor:
    return permute(op, self, [axis_of(self, d) for d in dims])


@translation("aten::transpose.int", "aten::transpose_copy.int", "aten::swapdims")
def transpose(op: Builder, self: Tensor, dim0: int, dim1: int) -> Tensor:
    return _swap(op, self, dim0, dim1)


@translation("aten::swapaxes")
def swapaxes(op: Builder, self: Tensor, axis0: int, axis1: int) -> Tensor:
    return _swap(op, self, axis0, axis1)


@translation("aten::t", "aten::t_copy", "aten::mT", "aten::mH", "aten::adjoint", "aten::matrix_H")
def matrix_transpose(op: Builder, self: Tensor) -> Tensor:
    return _swap(op, self, -2, -1) if len(self.shape) > 1 else self


def _swap(op: Builder, x: Tensor, dim0: int, dim1: int) -> Tensor:
    order = list(range(len(x.shape)))
    if order:
        first, second = axis_of(x, dim0), axis_of(x, dim1)
        order[first], order[second] = order[second], order[first]
    return permute(op, x, order)


@translation("aten::numpy_T")
def numpy_t(op: Builder, self: Tensor) -> Tensor:
    return permute(op, self, range(len(self.shape))[::-1])


@translation("aten::movedim.int", "aten::moveaxis.int")
def movedim(op: Builder, self: Tensor, source: int, destination: int) -> Tensor:
    return move_axes(op, self, [source], [destination])


@translation("aten::movedim.intlist", "aten::moveaxis.intlist")
def movedim_list(op: Builder, self: Tensor, source: list[int], destination: list[int]) -> Tensor:
    return move_axes(op, self, source, destination)


@translation("aten::pixel_shuffle")
def pixel_shuffle(op: Builder, self: Tensor, upscale_factor: int) -> Tensor:
    r = upscale_factor
    # onnxruntime 1.32 has DepthToSpace for these alone
    if len(self.shape) == 4 and self.dtype in (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.UINT8):
        return op.DepthToSpace(self, blocksize=r, mode="CRD")
    *batch, channels, height, width = self.shape
    b = len(batch)
    blocks = reshape(op, self, [*batch, channels // (r * r), r, r, height, width])
    order = [*range(b), b, b + 3, b + 1, b + 4, b + 2]
    return reshape(op, op.Transpose(blocks, perm=order), op.result.shape)


@translation("aten::pixel_unshuffle")
def pixel_unshuffle(op: Builder, self: Tensor, downscale_factor: int) -> Tensor:
    r = downscale_factor
    *batch, channels, height, width = self.shape
    b = len(batch)
    blocks = reshape(op, self, [*batch, channels, height // r, r, width // r, r])
    order = [*range(b), b, b + 2, b + 4, b + 1, b + 3]
    return reshape(op, op.Transpose(blocks, perm=order), op.result.shape)


@translation("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(op: Builder, self: Tensor, groups: int) -> Tensor:
    batch, channels, *rest = self.shape
    grouped = reshape(op, self, [batch, groups, channels // groups, *rest])
    swapped = op.Transpose(grouped, perm=[0, 2, 1, *range(3, 3 + len(rest))])
    return reshape(op, swapped, self.shape)


# ---- strides


@translation("aten::unfold", "aten::unfold_copy")
def unfold(op: Builder, self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` every `step` elements along `dimension`; the window is the last dimension of the result."""
    if not self.shape:
        return reshape(op, self, [1]) if size else op.Slice(reshape(op, self, [1]), [0], [0], [0])
    axis = axis_of(self, dimension)
    count = op.result.shape[axis]
    window = np.arange(size, dtype=np.int64)
    if isinstance(count, int):
        starts = np.arange(count, dtype=np.int64)[:, None] * step
        if count * size <= CONSTANT_INDEX:
            index = op.const(starts + window)
        else:
            index = op.Add(op.const(starts), op.const(window))
    else:
        index = op.Add(op.Unsqueeze(op.Mul(iota(op, count), step), [1]), op.const(window))
    windows = op.Gather(self, index, axis=axis)
    order = list(range(len(self.shape) + 1))
    order.append(order.pop(axis + 1))
    return permute(op, windows, order)


def strided_positions(size: Sequence[int], stride: Sequence[int], offset: int) -> np.ndarray:
    """The places in storage of every element of a strided tensor, in its shape."""
    positions = np.full(tuple(size), offset, dtype=np.int64)
    for axis, (n, step) in enumerate(zip(size, stride, strict=True)):
        positions += (np.arange(n, dtype=np.int64) * step).reshape([-1] + [1] * (len(size) - axis - 1))
    return positions


def strided_index(op: Builder, size: Sequence[Dim], stride: Sequence[Dim], storage_offset: Dim | None) -> Tensor:
    """For `as_strided(self, ...)`, the node at hand: where each of its elements is in the flattened `self`.

    The storage's layout comes from the fake tensor of `self`, whose strides need not be contiguous. Raises
    `Unsupported` where the view reaches elements of the storage that `self` doesn't hold, and for a `self` of symbolic
    size that is not contiguous.
    """
    fake = _fake_self(op)
    own_offset = fake.storage_offset()
    offset = own_offset if storage_offset is None else storage_offset
    static = is_static([*size, *stride, offset, *fake.shape, *fake.stride(), own_offset])
    if _is_contiguous(fake) and not (static and product(size) <= CONSTANT_INDEX):
        return _computed_positions(op, size, stride, offset)
    if not static:
        raise Unsupported("as_strided with symbolic sizes of a tensor that is not contiguous")
    wanted = strided_positions(size, stride, offset)
    held = strided_positions(fake.shape, fake.stride(), own_offset).reshape(-1)
    order = np.argsort(held, kind="stable")
    places = np.minimum(np.searchsorted(held[order], wanted), max(held.size - 1, 0))
    if wanted.size and (not held.size or (held[order][places] != wanted).any()):
        raise Unsupported("as_strided reaches elements of the storage outside the tensor it is called on")
    return op.const(order[places].reshape(wanted.shape) if wanted.size else wanted)


def _is_contiguous(fake: torch.Tensor) -> bool:
    """Whether the strides are those of a contiguous tensor, by their expressions: no guard is added."""
    step = sympy.Integer(1)
    for n, stride in zip(reversed(fake.shape), reversed(fake.stride()), strict=True):
        size, step_here = (v.node.expr if isinstance(v, torch.SymInt) else sympy.Integer(v) for v in (n, stride))
        if size != 1 and step_here != step:
            return False
        step = step * size
    return bool(fake.storage_offset() == 0)


def _computed_positions(op: Builder, size: Sequence[Dim], stride: Sequence[Dim], offset: Dim) -> Tensor:
    """`strided_positions` at run time: one vector an axis, added up."""
    positions = op.tensor(offset, DataType.INT64)
    for axis, (n, step) in enumerate(zip(size, stride, strict=True)):
        if isinstance(n, int) and isinstance(step, int):
            places = op.const(np.arange(n, dtype=np.int64) * step)
        else:
            places = op.Mul(iota(op, n), op.tensor(step, DataType.INT64))
        positions = op.Add(positions, unsqueeze(op, places, *range(1, len(size) - axis)))
    return positions


@translation("aten::as_strided", "aten::as_strided_copy")
def as_strided(
    op: Builder, self: Tensor, size: list[Dim], stride: list[Dim], storage_offset: Dim | None = None
) -> Tensor:
    steps = [product(size[axis + 1 :]) for axis in range(len(size))]
    in_order = all(n == 1 or have == step for n, have, step in zip(size, stride, steps, strict=True))
    if in_order and product(size) == product(self.shape) and not storage_offset and _is_contiguous(_fake_self(op)):
        return reshape(op, self, size)
    return op.Gather(flat(op, self), strided_index(op, size, stride, storage_offset), axis=0)


def _fake_self(op: Builder) -> torch.Tensor:
    return op.node.args[0].meta["val"]


# ---- products of shapes


@translation("aten::kron")
def kron(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    dtype = promote(self, other)
    rank = max(len(self.shape), len(other.shape))
    left, right = (unsqueeze(op, op.cast(x, dtype), *range(rank - len(x.shape))) for x in (self, other))
    if rank:
        left = op.Unsqueeze(left, list(range(1, 2 * rank, 2)))
        right = op.Unsqueeze(right, list(range(0, 2 * rank, 2)))
    return reshape(op, op.And(left, right) if dtype == DataType.BOOL else op.Mul(left, right), op.result.shape)


@translation("aten::vander")
def vander(op: Builder, x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    columns = x.shape[-1] if N is None else N
    if not isinstance(columns, int):
        raise Unsupported("vander with a symbolic number of columns")
    powers = np.arange(columns, dtype=np.int64)
    base = op.cast(x, op.result.dtype)
    exponents = op.cast(op.const(powers if increasing else powers[::-1].copy()), op.result.dtype)
    return op.Pow(op.Unsqueeze(base, [-1]), exponents)


@translation("aten::resize")
def resize(
    op: Builder, self: Tensor, size: Sequence[Dim], *, memory_format: torch.memory_format | None = None
) -> Tensor:
    """The first elements of a contiguous tensor in another shape; what it lacks, undefined in torch, is zeros."""
    have, want = product(self.shape), product(size)
    if not is_static([have, want]):
        raise Unsupported("resize_ with symbolic sizes")
    flat = reshape(op, self, [have])
    if want < have:
        flat = op.Slice(flat, [0], [want], [0])
    elif want > have:
        flat = op.Concat(flat, op.Expand(op.const(0, self.dtype), [want - have]), axis=0)
    return reshape(op, flat, size)
