"""torch's ``prims``, which its decompositions end in: mostly other names for ATen operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import filled

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = (
    "abs acos acosh asin asinh atan atanh bitwise_not ceil cos cosh digamma erf erfc exp exp2 expm1 floor "
    "isfinite lgamma log log10 log1p log2 neg reciprocal round rsqrt sign signbit sin sinh sqrt tan tanh trunc"
)
#: prims operators of one tensor argument -> the ATen operator that computes the same
_UNARY = {
    **{name: name for name in _NAMES.split()},
    "bessel_i0": "i0",
    "bessel_i0e": "special_i0e",
    "bessel_i1": "special_i1",
    "bessel_i1e": "special_i1e",
    "bessel_j0": "special_bessel_j0",
    "bessel_j1": "special_bessel_j1",
    "erf_inv": "erfinv",
    "erfcx": "special_erfcx",
    "item": "item",
    "ndtri": "special_ndtri",
    "spherical_bessel_j0": "special_spherical_bessel_j0",
    "frexp": "frexp.Tensor",
}
_BINARY = {
    "add": "add.Tensor",
    "atan2": "atan2",
    "bitwise_and": "bitwise_and.Tensor",
    "bitwise_or": "bitwise_or.Tensor",
    "bitwise_xor": "bitwise_xor.Tensor",
    "eq": "eq.Tensor",
    "fmax": "fmax",
    "fmin": "fmin",
    "fmod": "fmod.Tensor",
    "gcd": "gcd",
    "ge": "ge.Tensor",
    "gt": "gt.Tensor",
    "hypot": "hypot",
    "igamma": "igamma",
    "igammac": "igammac",
    "le": "le.Tensor",
    "lt": "lt.Tensor",
    "maximum": "maximum",
    "minimum": "minimum",
    "mul": "mul.Tensor",
    "ne": "ne.Tensor",
    "nextafter": "nextafter",
    "pow": "pow.Tensor_Tensor",
    "remainder": "remainder.Tensor",
    "shift_left": "bitwise_left_shift.Tensor",
    "shift_right_arithmetic": "bitwise_right_shift.Tensor",
    "sub": "sub.Tensor",
    "zeta": "special_zeta",
}


def _name_of(op: Any) -> str:
    return str(op.node.target._schema.name).removeprefix("prims::")


@translation(*(f"prims::{name}" for name in _UNARY), complex=True)
def unary(op: Any, self: Tensor | None = None, **others: Any) -> Any:
    # ``prims::item`` calls its argument ``a``.
    return op.translate(f"aten::{_UNARY[_name_of(op)]}", others["a"] if self is None else self)


@translation(*(f"prims::{name}" for name in _BINARY), complex=True)
def binary(op: Any, self: Tensor, other: Tensor) -> Tensor:
    return op.translate(f"aten::{_BINARY[_name_of(op)]}", self, other)


@translation("prims::div")
def div(op: Any, self: Tensor, other: Tensor) -> Tensor:
    """Integers divide towards zero."""
    if self.dtype.is_integer():
        return op.translate("aten::div.Tensor_mode", self, other, rounding_mode="trunc")
    return op.translate("aten::div.Tensor", self, other)


@translation("prims::cbrt")
def cbrt(op: Any, self: Tensor) -> Tensor:
    return op.Mul(op.Sign(self), op.Pow(op.Abs(self), op.const(1 / 3, self.dtype)))


@translation("prims::where", complex=True)
def where(op: Any, pred: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return op.translate("aten::where.self", pred, a, b)


@translation("prims::cat", complex=True)
def cat(op: Any, tensors: Sequence[Tensor], dim: int) -> Tensor:
    return op.translate("aten::cat", tensors, dim)


@translation("prims::broadcast_in_dim")
def broadcast_in_dim(op: Any, a: Tensor, shape: Sequence[int | Size], broadcast_dimensions: Sequence[int]) -> Tensor:
    """Axis i of ``a`` becomes axis ``broadcast_dimensions[i]``; the others are new."""
    new = [i for i in range(len(shape)) if i not in broadcast_dimensions]
    x = op.Unsqueeze(a, new) if new else a
    placed = iter(a.shape)
    if all((1 if i in new else next(placed)) == shape[i] for i in range(len(shape))):
        return x
    return op.Expand(x, list(shape))


@translation("prims::transpose", complex=True)
def transpose(op: Any, a: Tensor, permutation: Sequence[int]) -> Tensor:
    return op.translate("aten::permute", a, permutation)


@translation("prims::rev", complex=True)
def rev(op: Any, a: Tensor, dims: Sequence[int]) -> Tensor:
    return op.translate("aten::flip", a, dims)


@translation("prims::reshape", complex=True)
def reshape(op: Any, a: Tensor, shape: Sequence[int | Size]) -> Tensor:
    return op.translate("aten::reshape", a, shape)


@translation("prims::squeeze", complex=True)
def squeeze(op: Any, a: Tensor, dimensions: Sequence[int]) -> Tensor:
    return op.translate("aten::squeeze.dims", a, dimensions)


@translation("prims::collapse", "prims::collapse_view", complex=True)
def collapse(op: Any, a: Tensor, start: int, end: int) -> Tensor:
    return op.translate("aten::flatten.using_ints", a, start, end)


@translation("prims::split_dim", complex=True)
def split_dim(op: Any, a: Tensor, dim: int, outer_length: int | Size) -> Tensor:
    return op.translate("aten::reshape", a, list(op.result.shape))


@translation("prims::copy_strided", "prims::device_put", complex=True)
def same(op: Any, a: Tensor, **_: Any) -> Tensor:
    return a


@translation("prims::conj", "prims::conj_physical", complex=True)
def conj(op: Any, a: Tensor | None = None, self: Tensor | None = None) -> Tensor:
    return op.translate("aten::conj_physical", self if a is None else a)


@translation("prims::iota")
def iota(op: Any, length: int | Size, *, start: int | Size, step: int | Size, **_: Any) -> Tensor:
    return op.translate("aten::arange.start_step", start, start + length * step, step, dtype=_["dtype"])


@translation("prims::full", "prims::full_like")
def full(op: Any, fill_value: Any, **_: Any) -> Tensor:
    return filled(op, op.result.shape, fill_value, op.result.dtype)


@translation("prims::fill")
def fill(op: Any, self: Tensor, value: Any) -> Tensor:
    return filled(op, op.result.shape, value, op.result.dtype)


@translation("prims::empty", "prims::empty_permuted", "prims::empty_strided")
def empty(op: Any, **_: Any) -> Tensor:
    return filled(op, op.result.shape, 0, op.result.dtype)


@translation("prims::scalar_tensor")
def scalar_tensor(op: Any, s: Any, **_: Any) -> Tensor:
    return op.cast(s, op.result.dtype)


def _reduced(op: Any, target: str, inp: Tensor, dims: Sequence[int] | None, **arguments: Any) -> Tensor:
    """A reduction over ``dims`` (None: all; an empty list: none) by its ATen translation."""
    if dims is not None and not len(dims):
        return inp
    axes = list(range(len(inp.shape))) if dims is None else list(dims)
    return op.translate(target, inp, axes, **arguments)


@translation("prims::sum")
def sum(op: Any, inp: Tensor, dims: Sequence[int] | None, *, output_dtype: Any = None) -> Tensor:
    return op.cast(_reduced(op, "aten::sum.dim_IntList", inp, dims), op.result.dtype)


@translation("prims::prod")
def prod(op: Any, inp: Tensor, dims: Sequence[int] | None, *, output_dtype: Any = None) -> Tensor:
    if dims is not None and len(dims) == 1:
        return op.cast(op.translate("aten::prod.dim_int", inp, dims[0]), op.result.dtype)
    if dims is None or len(dims) == len(inp.shape):
        return op.cast(op.translate("aten::prod", inp), op.result.dtype)
    raise Unsupported("a product over some of several axes")


@translation("prims::amax")
def amax(op: Any, inp: Tensor, dims: Sequence[int] | None, *, output_dtype: Any = None) -> Tensor:
    return _reduced(op, "aten::amax", inp, dims)


@translation("prims::amin")
def amin(op: Any, inp: Tensor, dims: Sequence[int] | None, *, output_dtype: Any = None) -> Tensor:
    return _reduced(op, "aten::amin", inp, dims)


@translation("prims::var")
def var(
    op: Any, inp: Tensor, dims: Sequence[int] | None, correction: float | None = 1, *, output_dtype: Any = None
) -> Tensor:
    return _reduced(op, "aten::var.correction", inp, dims, correction=correction)


@translation("prims::xor_sum")
def xor_sum(op: Any, inp: Tensor, dims: Sequence[int] | None, *, output_dtype: Any = None) -> Tensor:
    """Parity of bools: the only type whose exclusive or is a sum."""
    if inp.dtype is not DataType.BOOL:
        raise Unsupported("a bitwise exclusive or over an axis")
    total = _reduced(op, "aten::sum.dim_IntList", op.cast(inp, DataType.INT64), dims)
    return op.cast(op.Mod(total, 2), DataType.BOOL)


@translation("prims::normal")
def normal(op: Any, shape: Sequence[int | Size], *, mean: float, std: float, **_: Any) -> Tensor:
    return op.translate("aten::normal.float_float", mean, std, shape)


@translation("prims::uniform")
def uniform(op: Any, shape: Sequence[int | Size], *, low: float, high: float, **_: Any) -> Tensor:
    """``low + (high - low) * U[0, 1)``."""
    unit = op.translate("aten::rand", shape)
    return op.Add(op.Mul(unit, float(high) - float(low)), float(low))


@translation("prims::svd")
def svd(op: Any, A: Tensor, *, full_matrices: bool) -> Any:
    return op.translate("aten::_linalg_svd", A, full_matrices)
