"""Complex tensors under another shape or order, cut, joined and indexed.

The real translations do the work: on the tensor as it is stored where only axes count, by parts otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnxport import DataType, Tensor, Unsupported, component_dtype
from onnxport.authoring import axis_of, expand, filled, move_axes, permute, reshape

from onnxport_builtin.aten.complex_parts import (
    Pair,
    as_complex_tensor,
    by_parts,
    complex_translation,
    component_of,
    flagged,
    pair,
    physical,
    tensors_in,
)
from onnxport_builtin.aten.random import draw

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport import Builder

# ---- the parts


@complex_translation("aten::real", "prims::real")
def real(op: Builder, self: Tensor) -> Tensor:
    return op.real(self)


@complex_translation("aten::imag", "prims::imag")
def imag(op: Builder, self: Tensor) -> Tensor:
    return op.imag(self)


@complex_translation("aten::view_as_real", "aten::view_as_real_copy")
def view_as_real(op: Builder, self: Tensor) -> Tensor:
    value = op.Identity(self)
    value.shape = ir.Shape([*self.shape, 2])
    return value


@complex_translation("aten::view_as_complex", "aten::view_as_complex_copy")
def view_as_complex(op: Builder, self: Tensor) -> Tensor:
    return op.as_complex(op.Identity(self))


@complex_translation("aten::complex")
def complex_(op: Builder, real: Tensor, imag: Tensor) -> Tensor:
    shape = op.result.shape
    return op.complex(expand(op, real, shape), expand(op, imag, shape))


@complex_translation("aten::polar")
def polar(op: Builder, abs: Tensor, angle: Tensor) -> Tensor:
    return op.complex(op.Mul(abs, op.Cos(angle)), op.Mul(abs, op.Sin(angle)))


@complex_translation("aten::conj", "aten::_conj", "aten::_conj_copy", "aten::conj_physical", "aten::_conj_physical")
def conj(op: Builder, self: Tensor) -> Tensor:
    if not self.is_complex:
        return self
    return op.as_complex(op.Mul(self, op.const([1.0, -1.0], self.dtype)), self.shape)


# ---- types


def converted(op: Builder, self: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in another dtype, real or complex; of complex numbers that become real the real part is kept."""
    if dtype is None:
        return self
    if dtype.is_complex:
        return as_complex_tensor(op, self, component_dtype(dtype))
    if self.is_complex and dtype is torch.bool:
        return nonzero_mask(op, self)
    return op.cast(op.real(self), dtype)


def nonzero_mask(op: Builder, self: Tensor) -> Tensor:
    """Where numbers, real or complex, aren't 0."""
    if not self.is_complex:
        return op.cast(self, DataType.BOOL)
    return op.Or(op.cast(op.real(self), DataType.BOOL), op.cast(op.imag(self), DataType.BOOL))


@complex_translation(
    "aten::to.dtype",
    "aten::to.dtype_layout",
    "aten::to.device",
    "aten::to.prim_Device",
    "aten::to.prim_dtype",
    "aten::_to_copy",
)
def to_dtype(op: Builder, self: Tensor, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return converted(op, self, dtype)


@complex_translation("aten::to.other", "aten::type_as")
def to_other(op: Builder, self: Tensor, other: Tensor, **_: Any) -> Tensor:
    return converted(op, self, op.node.meta["val"].dtype)


@complex_translation("prims::convert_element_type")
def convert_element_type(op: Builder, a: Tensor, dtype: torch.dtype) -> Tensor:
    return converted(op, a, dtype)


@complex_translation(
    *(f"aten::_cast_{name}" for name in ("Byte", "Char", "Double", "Float", "Int", "Long", "Short", "Half")),
)
def cast(op: Builder, self: Tensor, non_blocking: bool = False) -> Tensor:
    return op.cast(op.real(self), op.result.dtype)


@complex_translation("aten::view.dtype")
def view_dtype(op: Builder, self: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex numbers as twice as many real ones, and the reverse."""
    result = op.result
    if result.dtype is not self.dtype:
        raise Unsupported("complex numbers reinterpreted in another precision")
    if result.is_complex is self.is_complex:
        return self
    with physical(self):
        value = reshape(op, self, [*result.shape, 2] if result.is_complex else result.shape)
        value = op.Identity(value) if value is self else value
    return flagged(op, value, result.shape) if result.is_complex else value


# ---- creation


def _filled(op: Builder, value: Any) -> Tensor:
    result = op.result
    if not result.is_complex:
        return filled(op, list(result.shape), value, result.dtype)
    number = as_complex_tensor(op, value, result.dtype)
    with physical(number):
        full = expand(op, number, [*result.shape, 2])
        full = op.Identity(full) if full is number else full
    return flagged(op, full, result.shape)


@complex_translation(
    "aten::full",
    "aten::full_like",
    "aten::new_full",
    "aten::fill.Scalar",
    "aten::scalar_tensor",
    "aten::tensor.complex",
    "prims::full",
    "prims::full_like",
    "prims::fill",
    "prims::scalar_tensor",
)
def full(op: Builder, fill_value: Any = None, **arguments: Any) -> Tensor:
    value = next((v for v in (fill_value, *(arguments.get(n) for n in ("value", "s", "t"))) if v is not None), 0)
    return _filled(op, value)


@complex_translation("aten::fill.Tensor")
def fill(op: Builder, self: Tensor, value: Tensor) -> Tensor:
    return _filled(op, value)


@complex_translation(
    *(f"aten::{name}" for name in ("zeros", "zeros_like", "new_zeros", "empty.memory_format", "empty_like")),
    *(f"aten::{name}" for name in ("new_empty", "new_empty_strided", "empty_strided", "empty_permuted")),
    "prims::empty",
    "prims::empty_permuted",
    "prims::empty_strided",
)
def zeros(op: Builder, **_: Any) -> Tensor:
    return _filled(op, 0.0)


@complex_translation("aten::ones", "aten::ones_like", "aten::new_ones")
def ones(op: Builder, **_: Any) -> Tensor:
    return _filled(op, 1.0)


@complex_translation("aten::eye", "aten::eye.m")
def eye(op: Builder, n: Any, m: Any = None, **_: Any) -> Tensor:
    identity = op.translate("aten::eye.m", n, n if m is None else m)
    return as_complex_tensor(op, identity, op.result.dtype)


def _random(op: Builder, kind: str, **attributes: float) -> Tensor:
    """Parts drawn independently; real numbers of variance 1 where a complex tensor only gives the shape."""
    result = op.result
    if not result.is_complex:
        return draw(op, kind, list(result.shape), result.dtype)
    return op.complex(*(draw(op, kind, list(result.shape), result.dtype, **attributes) for _ in range(2)))


@complex_translation("aten::rand", "aten::rand.generator", "aten::rand_like", "aten::rand_like.generator")
def rand(op: Builder, **_: Any) -> Tensor:
    return _random(op, "Uniform")


@complex_translation("aten::randn", "aten::randn.generator", "aten::randn_like", "aten::randn_like.generator")
def randn(op: Builder, **_: Any) -> Tensor:
    """Of variance 1, half of it in either part."""
    return _random(op, "Normal", scale=0.5**0.5)


@complex_translation("aten::normal_functional")
def normal(op: Builder, self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Both parts around the same mean; of variance ``std**2`` together."""
    return _random(op, "Normal", mean=float(mean), scale=float(std) * 0.5**0.5)


@complex_translation("aten::uniform")
def uniform(op: Builder, self: Tensor, to: float = 1.0, *, generator: Any = None, **bounds: float) -> Tensor:
    """Both parts between the bounds; ``from`` is no name for a Python parameter."""
    return _random(op, "Uniform", low=float(bounds.get("from", 0.0)), high=float(to))


# ---- shapes: one node on the stored tensor


@complex_translation(
    *(f"aten::{name}" for name in ("view", "_unsafe_view", "view_copy", "_reshape_copy", "_reshape_alias")),
    *(f"aten::{name}" for name in ("_reshape_alias_copy", "reshape", "reshape_as", "view_as", "ravel")),
    *(f"aten::{name}" for name in ("flatten.using_ints", "unflatten.int", "atleast_1d", "atleast_2d", "atleast_3d")),
    *(f"aten::{name}" for name in ("squeeze", "squeeze.dim", "squeeze.dims", "unsqueeze", "unsqueeze_copy")),
    *(f"aten::{name}" for name in ("squeeze_copy", "squeeze_copy.dim", "squeeze_copy.dims")),
)
def reshaped(op: Builder, self: Tensor, **_: Any) -> Tensor:
    shape = op.result.shape
    if not self.is_complex:  # viewed as a complex tensor is shaped
        return reshape(op, self, shape)
    with physical(self):
        value = reshape(op, self, [*shape, 2])
    return flagged(op, value, shape)


@complex_translation("aten::expand", "aten::expand_copy", "aten::broadcast_to", "aten::expand_as")
def expanded(op: Builder, self: Tensor, **_: Any) -> Tensor:
    shape = op.result.shape
    if not self.is_complex:
        return expand(op, self, shape)
    with physical(self):
        value = expand(op, self, [*shape, 2])
    return flagged(op, value, shape)


def _each(op: Builder, tensors: list[Tensor], change: Callable[[Builder, Tensor, list[Any]], Tensor]) -> list[Tensor]:
    """Tensors, some of them real or of other precision, brought to the shapes of the node's results."""
    values = []
    for x, result in zip(tensors, op.results, strict=True):
        with physical(x):
            value = change(op, x, [*result.shape, 2] if result.is_complex else list(result.shape))
        values.append(flagged(op, value, result.shape) if result.is_complex else value)
    return values


@complex_translation("aten::broadcast_tensors")
def broadcast_tensors(op: Builder, tensors: list[Tensor]) -> list[Tensor]:
    return _each(op, tensors, expand)


@complex_translation("aten::atleast_1d.Sequence", "aten::atleast_2d.Sequence", "aten::atleast_3d.Sequence")
def atleast(op: Builder, tensors: list[Tensor]) -> list[Tensor]:
    return _each(op, tensors, reshape)


def _permuted(op: Builder, x: Tensor, order: list[int]) -> Tensor:
    shape = [x.shape[a] for a in order]
    with physical(x):
        value = permute(op, x, [*order, len(order)])
    return flagged(op, value, shape)


@complex_translation("aten::permute", "aten::permute_copy")
def permuted(op: Builder, self: Tensor, dims: list[int]) -> Tensor:
    return _permuted(op, self, [axis_of(self, d) for d in dims])


def _swapped(op: Builder, x: Tensor, first: int, second: int) -> Tensor:
    order = list(range(len(x.shape)))
    if order:
        a, b = axis_of(x, first), axis_of(x, second)
        order[a], order[b] = order[b], order[a]
    return _permuted(op, x, order)


@complex_translation("aten::transpose.int", "aten::transpose_copy.int", "aten::swapdims")
def transposed(op: Builder, self: Tensor, dim0: int, dim1: int) -> Tensor:
    return _swapped(op, self, dim0, dim1)


@complex_translation("aten::swapaxes")
def swapaxes(op: Builder, self: Tensor, axis0: int, axis1: int) -> Tensor:
    return _swapped(op, self, axis0, axis1)


@complex_translation("aten::t", "aten::t_copy", "aten::mT")
def matrix_transpose(op: Builder, self: Tensor) -> Tensor:
    return _swapped(op, self, -2, -1) if len(self.shape) > 1 else self


@complex_translation("aten::mH", "aten::adjoint", "aten::matrix_H")
def adjoint(op: Builder, self: Tensor) -> Tensor:
    return conj(op, matrix_transpose(op, self))


@complex_translation("aten::numpy_T")
def numpy_t(op: Builder, self: Tensor) -> Tensor:
    return _permuted(op, self, list(range(len(self.shape)))[::-1])


@complex_translation("aten::movedim.int", "aten::moveaxis.int", "aten::movedim.intlist", "aten::moveaxis.intlist")
def movedim(op: Builder, self: Tensor, source: Any, destination: Any) -> Tensor:
    places = [[axis_of(self, d) for d in (v if isinstance(v, list) else [v])] for v in (source, destination)]
    shape = op.result.shape
    with physical(self):
        value = move_axes(op, self, *places) if shape else self
    return flagged(op, value, shape)


@complex_translation("aten::repeat")
def repeat(op: Builder, self: Tensor, repeats: list[Any]) -> Tensor:
    with physical(self):
        value = op.translate("aten::repeat", self, [*repeats, 1]) if len(self.shape) == len(repeats) + 1 else None
    if value is not None:
        return flagged(op, value, op.result.shape)
    return by_parts(op, "aten::repeat", {"self": self, "repeats": repeats})  # type: ignore[return-value]


@complex_translation("aten::cat", "aten::concat", "aten::concatenate")
def cat(op: Builder, tensors: list[Tensor], dim: int = 0) -> Tensor:
    """Joined as stored; torch skips vectors of no elements whatever the others' rank is."""
    result = op.result
    axis = dim % len(result.shape)
    kept = [x for x in tensors if len(x.shape) == len(result.shape) and x.shape[axis] != 0]
    if not kept:
        return _filled(op, 0.0)
    values = [as_complex_tensor(op, x, result.dtype) for x in kept]
    return values[0] if len(values) == 1 else flagged(op, op.Concat(*values, axis=axis), result.shape)


def _along_axes(op: Builder, target: str, names: tuple[str, ...], arguments: dict[str, Any]) -> Any:
    """The real translation on the stored tensors, its dims counted from the front."""
    given = tensors_in(arguments)
    complexes = [x for x in given if x.is_complex]
    values = arguments.get("tensors", [])
    mixed = any(not x.is_complex or x.dtype is not complexes[0].dtype for x in values)
    results = op.results
    if mixed or any(not x.shape or list(x.shape) == [0] for x in complexes) or not results:
        return by_parts(op, target, arguments)
    rank = len(complexes[0].shape) + (target == "aten::stack")
    bound = dict(arguments)
    for name in names:
        dims = arguments[name]
        bound[name] = [d % rank for d in dims] if isinstance(dims, (list, tuple)) else dims % rank
    with physical(*complexes):
        value = op.translate(target, **bound)
    if isinstance(value, Tensor):
        return flagged(op, value, results[0].shape)
    return [flagged(op, v, r.shape) for v, r in zip(value, results, strict=True)]


_AXES = {
    "dim": "stack slice.Tensor slice_copy.Tensor narrow narrow_copy narrow.Tensor select.int "
    "select_copy.int unbind.int unbind_copy.int split.Tensor unsafe_split.Tensor split_copy.Tensor split.sizes "
    "split_with_sizes split_with_sizes_copy unsafe_split_with_sizes chunk unsafe_chunk tensor_split.sections "
    "tensor_split.indices index_select",
    "dims": "flip",
    "": "fliplr flipud vsplit.int vsplit.array dsplit.int dsplit.array",
}
_PARTS = (
    "roll rot90 tile hsplit.int hsplit.array hstack vstack row_stack dstack column_stack block_diag "
    "tensor_split.tensor_indices_or_sections cartesian_prod combinations meshgrid meshgrid.indexing "
    "pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle unfold unfold_copy as_strided as_strided_copy as_strided_scatter "
    "im2col col2im _chunk_cat copy diagonal diagonal_copy linalg_diagonal diag_embed diag diagflat "
    "diagonal_scatter tril triu index.Tensor _unsafe_index.Tensor gather take take_along_dim masked_select "
    "repeat_interleave.self_Tensor repeat_interleave.self_int scatter.src scatter.value scatter_add index_add "
    "index_copy index_fill.int_Scalar index_fill.int_Tensor index_put _unsafe_index_put put select_scatter "
    "slice_scatter masked_scatter _unsafe_masked_index _unsafe_masked_index_put_accumulate constant_pad_nd "
    "_pad_circular reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d resize"
)


def _register() -> None:
    for argument, names in _AXES.items():
        for name in names.split():
            complex_translation(f"aten::{name}")(_axes_translation(f"aten::{name}", argument))
    for name in _PARTS.split():
        complex_translation(f"aten::{name}")(_parts_translation(f"aten::{name}"))


def _axes_translation(target: str, argument: str) -> Any:
    def along_axes(op: Builder, **arguments: Any) -> Any:
        return _along_axes(op, target, (argument,) if argument else (), arguments)

    return along_axes


def _parts_translation(target: str) -> Any:
    def on_parts(op: Builder, **arguments: Any) -> Any:
        return by_parts(op, target, arguments)

    return on_parts


_register()


@complex_translation("aten::pad")
def pad(op: Builder, self: Tensor, pad: list[Any], mode: str = "constant", value: float | None = None) -> Tensor:
    arguments = {"self": self, "pad": pad, "mode": mode, "value": value}
    return by_parts(op, "aten::pad", arguments)  # type: ignore[return-value]


@complex_translation("aten::where.self", "aten::where.ScalarOther", "aten::where.ScalarSelf", "aten::where.Scalar")
def where(op: Builder, condition: Tensor, self: Any, other: Any) -> Tensor:
    dtype = component_of(self, other)
    a, b = as_complex_tensor(op, self, dtype), as_complex_tensor(op, other, dtype)
    mask = op.Unsqueeze(op.cast(condition, DataType.BOOL), [-1])
    return op.as_complex(op.Where(mask, a, b), ir.Shape(list(op.result.shape)))


@complex_translation("aten::masked_fill.Scalar", "aten::masked_fill.Tensor")
def masked_fill(op: Builder, self: Tensor, mask: Tensor, value: Any) -> Tensor:
    number = as_complex_tensor(op, value, self.dtype)
    chosen = op.Where(op.Unsqueeze(op.cast(mask, DataType.BOOL), [-1]), number, self)
    return op.as_complex(chosen, ir.Shape(list(op.result.shape)))


@complex_translation("aten::nan_to_num")
def nan_to_num(
    op: Builder, self: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Of each part by itself."""
    arguments = {"self": self, "nan": nan, "posinf": posinf, "neginf": neginf}
    return by_parts(op, "aten::nan_to_num", arguments, frozenset({"self"}))  # type: ignore[return-value]


@complex_translation("aten::scatter.reduce", "aten::scatter.value_reduce")
def scatter_reduce(op: Builder, *, reduce: str, **arguments: Any) -> Any:
    if reduce != "add":
        raise Unsupported(f"complex scatter with {reduce}")
    target = "aten::scatter.reduce" if "src" in arguments else "aten::scatter.value_reduce"
    return by_parts(op, target, {**arguments, "reduce": reduce})


@complex_translation("aten::nonzero", "aten::argwhere")
def nonzero(op: Builder, self: Tensor) -> Tensor:
    return op.translate("aten::nonzero", nonzero_mask(op, self))


@complex_translation("aten::nonzero_static")
def nonzero_static(op: Builder, self: Tensor, *, size: Any, fill_value: int = -1) -> Tensor:
    return op.translate("aten::nonzero_static", nonzero_mask(op, self), size=size, fill_value=fill_value)


@complex_translation("aten::nonzero_numpy")
def nonzero_numpy(op: Builder, self: Tensor) -> list[Tensor]:
    return op.translate("aten::nonzero_numpy", nonzero_mask(op, self))


@complex_translation("aten::kron")
def kron(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    dtype = op.result.dtype
    a, b = pair(op, self, dtype), pair(op, other, dtype)

    def product(x: Tensor, y: Tensor) -> Tensor:
        return op.translate("aten::kron", x, y)

    return Pair(
        op,
        op.Sub(product(a.re, b.re), product(a.imag, b.imag)),
        op.Add(product(a.re, b.imag), product(a.imag, b.re)),
    ).join()
