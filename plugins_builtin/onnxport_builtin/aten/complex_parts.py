"""Complex numbers as pairs of real tensors, and real translations applied to complex tensors.

A complex tensor is a real one with a last axis of 2. Three ways to work on it, from the leanest to the most general:

- `physical`: the tensor itself, taken as the real one that it is;
- `by_parts`: a real translation, run on the real and on the imaginary parts: right for whatever is linear;
- `Pair`: arithmetic on the two parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import onnx_ir as ir
import torch
from onnxport import DataType, Size, Tensor, Unsupported, component_dtype, promote, translation
from onnxport.authoring import filled

from onnxport_builtin.aten.transcendental import angle_of

if TYPE_CHECKING:
    from onnxport import Builder

_COMPONENT = {DataType.COMPLEX64: DataType.FLOAT, DataType.COMPLEX128: DataType.DOUBLE}


_F = TypeVar("_F", bound="Callable[..., Any]")


#: Real translations that are running on parts: theirs are real results, whatever the FX node gives.
_PARTS: list[str] = []


class ForComplex:
    """A translation that refuses where nothing is complex, so that what its real twin refuses is decomposed.

    Not a nested function: translations are kept in the module whose globals they have, which is the wrapped one's.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self.__globals__ = function.__globals__  # type: ignore[attr-defined]
        self._function = function

    def __call__(self, op: Builder, /, **arguments: Any) -> Any:
        given = any(x.is_complex for x in tensors_in(arguments))
        if not given and (_PARTS or not any(result.is_complex for result in op.results)):
            raise Unsupported("written for complex tensors")
        return self._function(op, **arguments)


def complex_translation(*targets: str) -> Callable[[_F], _F]:
    """`translation(*targets, complex=True)` for functions that serve complex tensors alone."""

    def decorate(function: _F) -> _F:
        translation(*targets, complex=True)(ForComplex(function))
        return function

    return decorate


def component_of(*operands: Any) -> DataType:
    """The element type of the parts of what `operands` promote to, as a complex or a real floating-point type."""
    dtype = promote(*operands, int_to_float=True)
    return _COMPONENT.get(dtype, dtype)


class Pair:
    """Complex numbers as two real tensors of one shape and type; `im` is None for real numbers.

    Formulas compute in the pair's own type: see `precise` for those that lose digits.
    """

    __slots__ = ("im", "op", "re")

    def __init__(self, op: Builder, re: Tensor, im: Tensor | None = None) -> None:
        self.op, self.re, self.im = op, re, im

    @property
    def parts(self) -> list[Tensor]:
        """The real parts and, where there are any, the imaginary ones: `Pair(op, *parts)` is the pair again."""
        return [self.re] if self.im is None else [self.re, self.im]

    def each(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """What is linear, done to the parts."""
        return Pair(self.op, *(function(part) for part in self.parts))

    @property
    def imag(self) -> Tensor:
        """The imaginary parts, zeros if there are none."""
        return self.op.Clip(self.re, 0.0, 0.0) if self.im is None else self.im

    def __add__(self, other: Pair | float) -> Pair:
        if not isinstance(other, Pair):
            return Pair(self.op, self.op.Add(self.re, other), self.im)
        return Pair(self.op, self.op.Add(self.re, other.re), self._either("Add", other))

    def __sub__(self, other: Pair | float) -> Pair:
        if not isinstance(other, Pair):
            return Pair(self.op, self.op.Sub(self.re, other), self.im)
        if self.im is None and other.im is not None:
            # the real operand may be smaller: the difference has the shape of both
            return Pair(self.op, self.op.Sub(self.re, other.re), self.op.Sub(self.imag, other.im))
        return Pair(self.op, self.op.Sub(self.re, other.re), self._either("Sub", other))

    def _either(self, name: str, other: Pair) -> Tensor | None:
        if self.im is None and other.im is None:
            return None
        return getattr(self.op, name)(self.imag, other.imag)

    def __mul__(self, other: Pair | float | Tensor) -> Pair:
        op = self.op
        if not isinstance(other, Pair):
            return Pair(op, op.Mul(self.re, other), None if self.im is None else op.Mul(self.im, other))
        if other.im is None:
            return self * other.re
        if self.im is None:
            return other * self.re
        re = op.Sub(op.Mul(self.re, other.re), op.Mul(self.im, other.im))
        return Pair(op, re, op.Add(op.Mul(self.re, other.im), op.Mul(self.im, other.re)))

    def __truediv__(self, other: Pair | float | Tensor) -> Pair:
        op = self.op
        if isinstance(other, Pair) and other.im is None:
            other = other.re
        if not isinstance(other, Pair):
            return Pair(op, op.Div(self.re, other), None if self.im is None else op.Div(self.im, other))
        # scaled by the greater part, so that its square neither over- nor underflows
        scale = op.Max(op.Abs(other.re), op.Abs(other.im))
        near = other / scale
        top = (self / scale) * near.conj()
        return top / near.square_norm()

    def __neg__(self) -> Pair:
        return Pair(self.op, self.op.Neg(self.re), None if self.im is None else self.op.Neg(self.im))

    def conj(self) -> Pair:
        return Pair(self.op, self.re, None if self.im is None else self.op.Neg(self.im))

    def times_i(self) -> Pair:
        return Pair(self.op, self.op.Neg(self.imag), self.re)

    def over_i(self) -> Pair:
        """Divided by i."""
        return Pair(self.op, self.imag, self.op.Neg(self.re))

    def square_norm(self) -> Tensor:
        op = self.op
        square = op.Mul(self.re, self.re)
        return square if self.im is None else op.Add(square, op.Mul(self.im, self.im))

    def abs(self) -> Tensor:
        """The modulus, without over- or underflow of the squares; infinite if a part is."""
        op = self.op
        if self.im is None:
            return op.Abs(self.re)
        x, y = op.Abs(self.re), op.Abs(self.im)
        if x.dtype is not DataType.DOUBLE:
            wide = Pair(op, op.cast(x, DataType.DOUBLE), op.cast(y, DataType.DOUBLE))
            return op.cast(op.Sqrt(wide.square_norm()), x.dtype)
        longer = op.Max(x, y)
        scale = op.Where(op.Or(op.Equal(longer, 0.0), op.IsInf(longer)), 1.0, longer)
        scaled = Pair(op, op.Div(x, scale), op.Div(y, scale))
        return op.Mul(scale, op.Sqrt(scaled.square_norm()))

    def angle(self) -> Tensor:
        return angle_of(self.op, self.imag, self.re)

    def exp(self) -> Pair:
        op = self.op
        size, turn = op.Exp(self.re), self.imag
        return Pair(op, op.Mul(size, op.Cos(turn)), op.Mul(size, op.Sin(turn)))

    def log(self) -> Pair:
        return Pair(self.op, self.op.Log(self.abs()), self.angle())

    def where(self, condition: Tensor, other: Any) -> Pair:
        """These numbers where `condition` holds, else `other`: a Pair or a real number."""
        op = self.op
        if isinstance(other, Pair):
            return Pair(op, op.Where(condition, self.re, other.re), op.Where(condition, self.imag, other.imag))
        return Pair(op, op.Where(condition, self.re, other), op.Where(condition, self.imag, 0.0))

    def cast(self, dtype: DataType) -> Pair:
        op = self.op
        return Pair(op, op.cast(self.re, dtype), None if self.im is None else op.cast(self.im, dtype))

    def join(self) -> Tensor:
        """The complex tensor."""
        return self.op.complex(self.re, self.imag)


Product = Callable[[Tensor, Tensor], Tensor]


def bilinear(a: Pair, b: Pair, product: Product) -> Pair:
    """``product(a, b)`` for complex a and b; real ones cost no products."""
    op, re = a.op, product(a.re, b.re)
    if a.im is None and b.im is None:
        return Pair(op, re)
    if a.im is None:
        return Pair(op, re, product(a.re, b.imag))
    if b.im is None:
        return Pair(op, re, product(a.im, b.re))
    re = op.Sub(re, product(a.im, b.im))
    return Pair(op, re, op.Add(product(a.re, b.im), product(a.im, b.re)))


def matrix_product(a: Pair, b: Pair) -> Pair:
    return bilinear(a, b, lambda x, y: a.op.MatMul(x, y))


def pair(op: Builder, value: Any, dtype: DataType | None = None) -> Pair:
    """A complex or real tensor, size or number as a pair, its parts in `dtype` (by default that of the tensor)."""
    if isinstance(value, complex):
        wanted = dtype or DataType.FLOAT
        return Pair(op, op.const(value.real, wanted), op.const(value.imag, wanted) if value.imag else None)
    if isinstance(value, Tensor) and value.is_complex:
        found = Pair(op, op.real(value), op.imag(value))
    else:
        found = Pair(op, op.cast(value, dtype or component_of(value)), None)
    return found if dtype is None else found.cast(dtype)


def as_complex_tensor(op: Builder, value: Any, dtype: DataType) -> Tensor:
    """A tensor, size or number as a complex tensor whose parts are of type `dtype`."""
    if isinstance(value, complex):
        return op.as_complex(op.Identity(op.const([value.real, value.imag], dtype)), ir.Shape([]))
    if isinstance(value, Tensor) and value.is_complex:
        return value if value.dtype is dtype else op.as_complex(op.cast(value, dtype), value.shape)
    real = op.cast(value, dtype)
    column = op.Unsqueeze(real, [-1])
    zeros = [0] * (op.rank(real) * 2 + 1)
    return op.as_complex(op.Pad(column, [*zeros, 1]), real.shape)


# ---- real translations on complex tensors


@contextmanager
def physical(*tensors: Tensor) -> Iterator[None]:
    """Within, complex tensors count as the real ones they are stored as, with their last axis of 2."""
    flagged = [(x, x.shape) for x in dict.fromkeys(tensors) if x.is_complex]
    for x, shape in flagged:
        x.is_complex = False
        x.shape = ir.Shape([*shape, 2])
    try:
        yield
    finally:
        for x, shape in flagged:
            x.is_complex = True
            x.shape = shape


def flagged(op: Builder, value: Tensor, shape: Any) -> Tensor:
    """A physical result as a complex one of the logical `shape`."""
    return value if value.is_complex else op.as_complex(value, ir.Shape(list(shape)))


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of an argument."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [x for item in value for x in tensors_in(item)] if isinstance(value, (list, tuple)) else []


#: Names of schema arguments whose values are elements of the result.
_VALUES = frozenset(
    {"self", "src", "source", "tensors", "tensor", "input", "value", "values", "fill_value", "fill", "A"}
)


def by_parts(
    op: Builder, target: str, arguments: Mapping[str, Any], values: frozenset[str] = _VALUES
) -> Tensor | list[Tensor]:
    """The real translation of `target` on the real parts, and on the imaginary parts, joined.

    Args:
        arguments: by schema name.
        values: names of those arguments that are elements of the result; the others are passed as they are.
    """
    dtype = op.results[0].dtype if op.results[0].is_complex else None

    def part(value: Any, index: int) -> Any:
        if isinstance(value, (list, tuple)):
            return [part(item, index) for item in value]
        if isinstance(value, complex):
            return value.imag if index else value.real
        if isinstance(value, Tensor):
            if value.is_complex:
                component = op.imag(value) if index else op.real(value)
            else:
                component = filled(op, list(value.shape), 0, value.dtype) if index else value
                component.shape = value.shape
            return component if dtype is None else op.cast(component, dtype)
        if isinstance(value, (int, float, Size)) and not isinstance(value, bool):
            return 0.0 if index else value
        return value

    results: list[Any] = []
    for index in (0, 1):
        bound = {}
        for name, value in arguments.items():
            if isinstance(value, torch.dtype) and value.is_complex:
                value = torch.float64 if component_dtype(value) is DataType.DOUBLE else torch.float32
            bound[name] = part(value, index) if name in values else value
        if any(x.is_complex for x in tensors_in(bound)):
            raise Unsupported("a complex argument where numbers are expected to be real")
        results.append(on_part(op, target, **bound))
    first, second = results
    if isinstance(first, Tensor):
        return joined(op, first, second, op.results[0].shape)
    return [joined(op, a, b, r.shape) for a, b, r in zip(first, second, op.results, strict=True)]


def on_part(op: Builder, target: str, *args: Any, **arguments: Any) -> Any:
    """`op.translate` with the real translations of `target` only."""
    _PARTS.append(target)
    try:
        return op.translate(target, *args, **arguments)
    finally:
        _PARTS.pop()


def joined(op: Builder, real: Tensor, imag: Tensor, shape: Any) -> Tensor:
    """Two parts as a complex tensor of a known shape."""
    column = op.Concat(op.Unsqueeze(real, [-1]), op.Unsqueeze(imag, [-1]), axis=-1)
    return op.as_complex(column, ir.Shape(list(shape)))
