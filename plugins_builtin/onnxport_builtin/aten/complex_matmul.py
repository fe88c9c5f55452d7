"""Products of complex vectors, matrices and filters: a bilinear real translation, run on the parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxport import Tensor, Unsupported

from onnxport_builtin.aten.complex_elementwise import result_of
from onnxport_builtin.aten.complex_parts import Pair, bilinear, complex_translation, matrix_product, on_part, pair

if TYPE_CHECKING:
    from onnxport import Builder


def _pairs(op: Builder, *values: Any) -> list[Pair]:
    return [pair(op, value, op.result.dtype) for value in values]


#: real translations that are bilinear in these two arguments
_BILINEAR = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "matmul": ("self", "other"),
    "linalg_matmul": ("self", "other"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "outer": ("self", "vec2"),
    "ger": ("self", "vec2"),
    "inner": ("self", "other"),
    "tensordot": ("self", "other"),
    "linalg_cross": ("self", "other"),
}


def _bilinear_translation(name: str, first: str, second: str) -> Callable[..., Tensor]:
    def product(op: Builder, **arguments: Any) -> Tensor:
        a, b = _pairs(op, arguments[first], arguments[second])

        def run(x: Tensor, y: Tensor) -> Tensor:
            return on_part(op, f"aten::{name}", **{**arguments, first: x, second: y})

        return result_of(op, bilinear(a, b, run))

    return product


for _name, _arguments in _BILINEAR.items():
    complex_translation(f"aten::{_name}")(_bilinear_translation(_name, *_arguments))


@complex_translation("aten::vdot")
def vdot(op: Builder, self: Tensor, other: Tensor) -> Tensor:
    a, b = _pairs(op, self, other)
    return result_of(op, matrix_product(a.conj(), b))


@complex_translation("aten::linalg_vecdot")
def vecdot(op: Builder, x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    a, b = _pairs(op, x, y)
    terms = a.conj() * b
    rank = max(len(x.shape), len(y.shape))
    axes = [dim % rank]
    return result_of(op, Pair(op, *(op.ReduceSum(part, axes, keepdims=0) for part in (terms.re, terms.imag))))


@complex_translation("aten::linear")
def linear(op: Builder, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    a, b = _pairs(op, input, weight)
    if len(weight.shape) > 1:
        b = Pair(op, *(None if part is None else op.Transpose(part, perm=[1, 0]) for part in (b.re, b.im)))  # type: ignore[arg-type]
    value = matrix_product(a, b)
    return result_of(op, value if bias is None else value + _pairs(op, bias)[0])


def _accumulated(op: Builder, self: Tensor, product: Pair, beta: Any, alpha: Any) -> Tensor:
    value = product if alpha == 1 else product * _pairs(op, alpha)[0]
    if beta == 0:
        return result_of(op, value)
    base = _pairs(op, self)[0]
    return result_of(op, (base if beta == 1 else base * _pairs(op, beta)[0]) + value)


@complex_translation("aten::addmm")
def addmm(op: Builder, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulated(op, self, matrix_product(*_pairs(op, mat1, mat2)), beta, alpha)


@complex_translation("aten::addmv")
def addmv(op: Builder, self: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulated(op, self, matrix_product(*_pairs(op, mat, vec)), beta, alpha)


@complex_translation("aten::baddbmm")
def baddbmm(op: Builder, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return _accumulated(op, self, matrix_product(*_pairs(op, batch1, batch2)), beta, alpha)


@complex_translation("aten::addbmm")
def addbmm(op: Builder, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    product = matrix_product(*_pairs(op, batch1, batch2))
    total = Pair(op, *(op.ReduceSum(part, [0], keepdims=0) for part in (product.re, product.imag)))
    return _accumulated(op, self, total, beta, alpha)


@complex_translation("aten::addr")
def addr(op: Builder, self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    a, b = _pairs(op, vec1, vec2)
    column = Pair(op, *(None if part is None else op.Unsqueeze(part, [1]) for part in (a.re, a.im)))  # type: ignore[arg-type]
    return _accumulated(op, self, column * b, beta, alpha)


@complex_translation("aten::einsum")
def einsum(op: Builder, equation: str, tensors: Sequence[Tensor], *, path: Any = None) -> Tensor:
    operands = _pairs(op, *tensors)
    if len(operands) > 4:
        raise Unsupported("einsum of more than four complex tensors")
    return result_of(op, _multilinear(op, operands, lambda *x: on_part(op, "aten::einsum", equation, [*x], path=None)))


@complex_translation("aten::bilinear")
def bilinear_form(op: Builder, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    def run(*parts: Tensor) -> Tensor:
        return on_part(op, "aten::bilinear", *parts, None)

    value = _multilinear(op, _pairs(op, input1, input2, weight), run)
    return result_of(op, value if bias is None else value + _pairs(op, bias)[0])


def _multilinear(op: Builder, operands: list[Pair], product: Callable[..., Tensor]) -> Pair:
    """The sum over every choice of the parts of each operand, with its power of i."""
    totals: list[list[tuple[int, Tensor]]] = [[], []]
    for choice in range(2 ** len(operands)):
        chosen: list[Tensor] = []
        for i, operand in enumerate(operands):
            part = operand.im if choice >> i & 1 else operand.re
            if part is None:
                break
            chosen.append(part)
        else:
            power = choice.bit_count() % 4
            term = product(*chosen)
            totals[power % 2].append((1 if power < 2 else -1, term))
    parts = [functools.reduce(lambda a, b: _signed_sum(op, a, b), terms)[1] if terms else None for terms in totals]
    return Pair(op, parts[0], parts[1])  # type: ignore[arg-type]


def _signed_sum(op: Builder, a: tuple[int, Tensor], b: tuple[int, Tensor]) -> tuple[int, Tensor]:
    """Of a sum whose first term is positive."""
    return 1, (op.Add if b[0] > 0 else op.Sub)(a[1], b[1])


@complex_translation("aten::linalg_multi_dot")
def multi_dot(op: Builder, tensors: Sequence[Tensor]) -> Tensor:
    return result_of(op, functools.reduce(matrix_product, _pairs(op, *tensors)))


@complex_translation("aten::chain_matmul")
def chain_matmul(op: Builder, matrices: Sequence[Tensor]) -> Tensor:
    return multi_dot(op, matrices)


# ---- filters

_FILTERS = (
    "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_transpose1d conv_transpose2d.input "
    "conv_transpose3d.input convolution _convolution"
)


def _filter_translation(target: str) -> Callable[..., Tensor]:
    def convolution(op: Builder, input: Tensor, weight: Tensor, bias: Tensor | None = None, **rest: Any) -> Tensor:
        a, b = _pairs(op, input, weight)

        def run(x: Tensor, y: Tensor) -> Tensor:
            return on_part(op, target, input=x, weight=y, bias=None, **rest)

        value = bilinear(a, b, run)
        if bias is not None:
            spatial = len(weight.shape) - 2
            added = _pairs(op, bias)[0]
            column = [None if part is None else op.Reshape(part, [-1, *[1] * spatial]) for part in (added.re, added.im)]
            value = value + Pair(op, *column)  # type: ignore[arg-type]
        return result_of(op, value)

    return convolution


for _name in _FILTERS.split():
    complex_translation(f"aten::{_name}")(_filter_translation(f"aten::{_name}"))
