"""Sums, products, norms and statistics of complex tensors."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, Unsupported
from onnxport.authoring import axis_of

from onnxport_builtin.aten.complex_elementwise import log_of_sum, result_of
from onnxport_builtin.aten.complex_parts import Pair, by_parts, complex_translation, on_part, pair
from onnxport_builtin.aten.complex_shape import converted, nonzero_mask
from onnxport_builtin.aten.linalg_parts import loop, shaped
from onnxport_builtin.aten.reduction import reduced_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from onnxport import Builder


#: A logarithm of a sum is some fifty nodes.
_UNROLLED = 4


def _linear(target: str) -> Callable[..., Any]:
    def on_parts(op: Builder, **arguments: Any) -> Any:
        return by_parts(op, target, arguments)

    return on_parts


for _name in ["sum", "sum.dim_IntList", "mean", "mean.dim", "nansum", "cumsum", "trace", "sum_to_size"]:
    complex_translation(f"aten::{_name}")(_linear(f"aten::{_name}"))


@complex_translation("prims::sum")
def prims_sum(op: Builder, inp: Tensor, dims: list[int] | None, *, output_dtype: Any = None) -> Tensor:
    arguments = {"self": inp, "dim": dims, "keepdim": False, "dtype": None}
    return inp if dims == [] else by_parts(op, "aten::sum.dim_IntList", arguments)  # type: ignore[return-value]


def _polar_scan(op: Builder, value: Pair, accumulate: Callable[[Tensor], Tensor]) -> Pair:
    """Products as sums of logarithms, in float64: ``exp(sum log|z|)`` at the angle ``sum arg z``; a 0 stays 0."""
    size = op.Exp(accumulate(op.Log(value.abs())))
    turn = accumulate(value.angle())
    return Pair(op, op.Mul(size, op.Cos(turn)), op.Mul(size, op.Sin(turn)))


@complex_translation("aten::prod", "aten::prod.dim_int")
def prod(
    op: Builder, self: Tensor, *, dim: int | None = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    value = pair(op, self, DataType.DOUBLE)
    axes = reduced_axes(self, dim)
    if not axes:
        return converted(op, self, dtype)
    return result_of(op, _polar_scan(op, value, lambda x: op.ReduceSum(x, axes, keepdims=int(keepdim))))


@complex_translation("aten::cumprod")
def cumprod(op: Builder, self: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    if not self.shape:
        return converted(op, self, dtype)
    axis = op.const(axis_of(self, dim))
    value = pair(op, self, DataType.DOUBLE)
    return result_of(op, _polar_scan(op, value, lambda x: op.CumSum(x, axis)))


def _stable_exponentials(op: Builder, self: Tensor, axes: list[int]) -> tuple[Pair, Tensor]:
    """``exp(z - m)`` and m, the greatest real part along `axes`."""
    value = pair(op, self, DataType.DOUBLE)
    greatest = op.ReduceMax(value.re, axes, keepdims=1)
    greatest = op.Where(op.Equal(op.Abs(greatest), float("inf")), 0.0, greatest)
    return Pair(op, op.Sub(value.re, greatest), value.im).exp(), greatest


@complex_translation("aten::logsumexp", "aten::special_logsumexp")
def logsumexp(op: Builder, self: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    axes = reduced_axes(self, dim)
    if not axes:  # the angle is brought into one turn all the same
        value = pair(op, self, DataType.DOUBLE)
        turn = Pair(op, op.Cos(value.imag), op.Sin(value.imag)).angle()
        return result_of(op, Pair(op, value.re, turn))
    value, greatest = _stable_exponentials(op, self, axes)
    total = Pair(op, *(op.ReduceSum(x, axes, keepdims=int(keepdim)) for x in (value.re, value.imag))).log()
    return result_of(op, total + Pair(op, greatest if keepdim else op.Squeeze(greatest, axes), None))


@complex_translation("aten::logcumsumexp", "aten::_logcumsumexp")
def logcumsumexp(op: Builder, self: Tensor, dim: int) -> Tensor:
    """Term by term, by a loop over more than a few: the branch of the logarithm depends on the order."""
    if not self.shape:
        return self
    axis = axis_of(self, dim)
    n = self.shape[axis]
    if n == 0:
        return self
    value = pair(op, self, DataType.DOUBLE)
    nothing = op.Equal(value.re, -math.inf)  # torch begins with a sum of 0
    value = Pair(op, value.re, shaped(op.Where(nothing, 0.0, value.imag), self.shape))
    if isinstance(n, int) and n <= _UNROLLED:
        terms = [value.each(lambda x, i=i: op.Slice(x, [i], [i + 1], [axis])) for i in range(n)]  # type: ignore[misc]
        sums = list(itertools.accumulate(terms, lambda total, term: log_of_sum(term, total)))
        parts = [op.Concat(*(getattr(z, part) for z in sums), axis=axis) for part in ("re", "imag")]
        return result_of(op, Pair(op, *parts))
    shape = [d for i, d in enumerate(self.shape) if i != axis]
    start = [op.Gather(x, op.const(0), axis=axis) for x in value.parts]

    def step(turn: Tensor, *total: Tensor) -> list[Tensor]:
        term = value.each(lambda x: op.Gather(x, op.Add(turn, 1), axis=axis))
        total = tuple(shaped(x, shape) for x in log_of_sum(term, Pair(op, *total)).parts)
        return [*total, *total]

    results = loop(op, op.Sub(op.cast(n, DataType.INT64), 1), [shaped(x, shape) for x in start], step, stacked=2)
    order = [*range(1, axis + 1), 0, *range(axis + 1, len(self.shape))]
    stacked = [
        op.Concat(op.Unsqueeze(first, [0]), rest, axis=0) for first, rest in zip(start, results[2:], strict=True)
    ]
    return result_of(op, Pair(op, *(shaped(op.Transpose(x, perm=order), self.shape) for x in stacked)))


# ---- statistics


_MOMENTS = ("", ".dim", ".correction")


def _variance(op: Builder, overload: str, self: Tensor, arguments: dict[str, Any]) -> Tensor:
    """The variance of the real parts plus that of the imaginary parts."""
    return op.Add(*(on_part(op, f"aten::var{overload}", part, **arguments) for part in (op.real(self), op.imag(self))))


def _spread(overload: str, *, deviation: bool, mean: bool) -> Callable[..., Any]:
    def spread(op: Builder, self: Tensor, **arguments: Any) -> Any:
        variance = _variance(op, overload, self, arguments)
        value = op.Sqrt(variance) if deviation else variance
        if not mean:
            return value
        dims = {"dim": arguments.get("dim"), "keepdim": arguments.get("keepdim", False)}
        middle = [on_part(op, "aten::mean.dim", part, **dims) for part in (op.real(self), op.imag(self))]
        return value, op.complex(*middle)

    return spread


for _overload in _MOMENTS:
    for _name in ("var", "std", "var_mean", "std_mean"):
        complex_translation(f"aten::{_name}{_overload}")(
            _spread(_overload, deviation=_name.startswith("std"), mean=_name.endswith("mean"))
        )


# ---- norms: of the moduli


def _of_moduli(target: str) -> Callable[..., Tensor]:
    def norm(op: Builder, self: Tensor, dtype: torch.dtype | None = None, **arguments: Any) -> Tensor:
        if dtype is not None:
            arguments["dtype"] = dtype.to_real()
        elif target.endswith("dtype") or "vector_norm" in target:
            arguments["dtype"] = None
        value = on_part(op, target, pair(op, self).abs(), **arguments)
        return op.cast(value, op.result.dtype)

    return norm


for _name in [
    "linalg_vector_norm",
    "norm.Scalar",
    "norm.ScalarOpt_dim",
    "norm.ScalarOpt_dtype",
    "norm.ScalarOpt_dim_dtype",
]:
    complex_translation(f"aten::{_name}")(_of_moduli(f"aten::{_name}"))


@complex_translation("aten::dist")
def dist(op: Builder, self: Tensor, other: Tensor, p: float = 2) -> Tensor:
    dtype = op.result.dtype
    moduli = (pair(op, self, dtype) - pair(op, other, dtype)).abs()
    return on_part(op, "aten::linalg_vector_norm", moduli, p)


def _of_mask(target: str) -> Callable[..., Tensor]:
    def reduced(op: Builder, self: Tensor, **arguments: Any) -> Tensor:
        return on_part(op, target, nonzero_mask(op, self), **arguments)

    return reduced


for _name in ["any", "any.dim", "any.dims", "all", "all.dim", "all.dims", "count_nonzero", "count_nonzero.dim_IntList"]:
    complex_translation(f"aten::{_name}")(_of_mask(f"aten::{_name}"))


@complex_translation("aten::renorm")
def renorm(op: Builder, self: Tensor, p: Any, dim: int, maxnorm: Any) -> Tensor:
    """Slices along `dim` whose norm exceeds `maxnorm` are scaled down to it."""
    axes = [a for a in range(len(self.shape)) if a != axis_of(self, dim)]
    if isinstance(p, complex):
        raise Unsupported("renorm with a complex order")
    value = pair(op, self)
    norm = on_part(op, "aten::linalg_vector_norm", value.abs(), p, axes, True)
    factor = op.Where(op.Greater(norm, maxnorm), op.Div(op.const(maxnorm, norm.dtype), op.Add(norm, 1e-7)), 1.0)
    return result_of(op, value * factor)
