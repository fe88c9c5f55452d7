"""Symbolic sizes: sympy expressions of torch's shape environment <-> ONNX values and dimension names.

A symbol is bound to the place it can be read from (an axis of a tensor, or a scalar tensor). Expressions over bound
symbols become ONNX arithmetic on demand, once per frame. All values are computed in one form, a tensor of shape [1]
(int64, float64 or bool), since that is what shape inputs of ONNX operators want.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch
from onnx_ir import DataType

from onnxport.emit.frame import Place
from onnxport.emit.tensor import Concrete, Tensor
from onnxport.errors import Unsupported
from onnxport.vocabulary.upstream import FloorDiv, PythonMod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onnxport.emit.emitter import Emitter


def _operator(function: Callable[[Any, Any], Any], swap: bool = False) -> Any:
    """The method of sizes for an operator of Python."""

    def combined(self: Size, other: Any) -> Any:
        if not isinstance(other, (int, Size)):
            return self._number() if isinstance(other, float) else NotImplemented
        kind = self.kind if self.kind == "float" else getattr(other, "kind", "int")
        expr = other.expr if isinstance(other, Size) else sympy.Integer(other)
        return self._symbols.size(function(expr, self.expr) if swap else function(self.expr, expr), kind)

    return combined


class Size(ir.SymbolicDim, metaclass=Concrete):
    """A symbolic number: a dimension, or arithmetic over dimensions.

    Supports ``+ - * // %`` with ints and other sizes. ``==`` compares structurally and never adds a guard.

    Attributes:
        expr: the sympy expression.
        kind: ``"int"``, ``"float"`` or ``"bool"``.
    """

    __slots__ = ("_symbols", "_text", "expr", "kind")

    def __init__(self, expr: sympy.Basic, symbols: Symbols, kind: str = "int") -> None:
        self.expr = expr
        self.kind = kind
        self._symbols = symbols
        self._text: str | None = None
        self._expr_cache = None

    @property
    def _value(self) -> str:  # type: ignore[override]  # read by every method of the base class
        if self._text is None:
            self._text = self._symbols.text(self.expr)
        return self._text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Size):
            return bool(self.expr == other.expr)
        if isinstance(other, int):
            return bool(self.expr == other)
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.expr)

    def __repr__(self) -> str:
        return f"Size({self._value})"

    __add__ = __radd__ = _operator(operator.add)
    __sub__, __rsub__ = _operator(operator.sub), _operator(operator.sub, swap=True)
    __mul__ = __rmul__ = _operator(operator.mul)
    __floordiv__, __rfloordiv__ = _operator(FloorDiv), _operator(FloorDiv, swap=True)
    __mod__ = _operator(PythonMod)

    def __neg__(self) -> Any:
        return self._symbols.size(-self.expr, self.kind)

    def __bool__(self) -> bool:
        """A size is never taken for False. A condition has no truth before the model runs."""
        if self.kind == "bool":
            raise Unsupported(f"whether {self._value} is known at run time only: write op.Where or op.If")
        return True

    def _number(self, _other: Any = None) -> Any:
        """No Python number, nor an answer to a comparison: the decomposition may do without one."""
        raise Unsupported(
            f"the number {self._value} is known at run time only, and a constant is needed: leave its axes static, or "
            "pass a Python number"
        )

    __lt__ = __le__ = __gt__ = __ge__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __abs__ = __round__ = _number
    __index__ = __float__ = _number  # without __int__: onnx_ir takes what has it for an int


class Symbols:
    """The symbols of one export: where each is read from, how each is called, what was computed of them.

    Args:
        op: the builder that emits the arithmetic.
        names: requested dimension names by symbol.
    """

    def __init__(self, op: Emitter, names: dict[sympy.Basic, str] | None = None) -> None:
        self._op = op
        self._names: dict[sympy.Basic, str] = dict(names or {})
        self._sizes: dict[tuple[sympy.Basic, str], Size] = {}
        self._shapes: dict[tuple[Any, ...], ir.Shape] = {}
        self._env: Any = None  # the shape environment of the capture, once a size of it was seen

    def size(self, expr: sympy.Basic, kind: str = "int") -> int | float | bool | Size:
        """The number for an expression: a Python number where it is constant."""
        key = (expr, kind)
        found = self._sizes.get(key)
        if found is None:
            if expr.is_number or expr in (sympy.true, sympy.false):
                return {"bool": bool, "int": int, "float": float}[kind](expr)  # type: ignore[no-any-return]
            found = self._sizes[key] = Size(expr, self, kind)
        return found

    def of_torch(self, number: Any) -> Any:
        """A torch SymInt, SymFloat or SymBool (or plain number) as a number or :class:`Size`."""
        if isinstance(number, torch.SymInt):
            self._env = number.node.shape_env
            return self.size(number.node.expr)
        if isinstance(number, torch.SymFloat):
            return self.size(number.node.expr, "float")
        if isinstance(number, torch.SymBool):
            return self.size(number.node.expr, "bool")
        return number

    def shape(self, fake: torch.Tensor) -> ir.Shape:
        """The shape of a fake tensor; equal shapes are one frozen object, since most of a model's are."""
        return self.shared([d if type(d) is int else self.of_torch(d) for d in fake.shape])

    def shared(self, dimensions: Iterable[Any]) -> ir.Shape:
        """The one frozen shape of these dimensions."""
        dims = tuple(dimensions)
        found = self._shapes.get(dims)
        if found is None:
            found = self._shapes[dims] = ir.Shape(dims, frozen=True)
        return found

    def text(self, expr: sympy.Basic) -> str:
        """The text of an expression in the file, with the requested names."""
        if expr in self._names:
            return self._names[expr]
        write = self._op.emission.size_text
        if write is None:
            return str(expr.xreplace({symbol: sympy.Symbol(name) for symbol, name in self._names.items()}))
        return write(expr, self._names, getattr(self._env, "divisible", ()))

    # Binding ---------------------------------------------------------------------------------------------------

    def bind(self, symbol: sympy.Basic, tensor: Tensor, axis: int | None) -> None:
        """The symbol is the size of ``axis`` of ``tensor``, or the value of a one-element tensor (axis None)."""
        self._op.frame.remember(self._op.frame.bindings, symbol, (tensor, axis))
        if symbol not in self._names and str(symbol).startswith(("u", "zu")):
            place = tensor.name or "size"
            self._names[symbol] = place if axis is None else f"{place}_dim_{axis}"

    def named(self, text: str) -> Size | None:
        """The size that is written so in the file, if there is one."""
        return next((size for size in self._sizes.values() if size.value == text), None)

    def hold(self, expr: sympy.Basic, tensor: Tensor) -> None:
        """The value of an expression is that of a tensor of one element, for what reads it from now on."""
        if len(tensor.shape):
            vector, scalar = tensor, self._op.Squeeze(tensor)
        else:
            vector, scalar = self._op.Reshape(tensor, [1]), tensor
        for key, value in ((expr, vector), ((expr, "scalar"), scalar)):
            self._op.frame.remember(self._op.frame.sizes, key, value)

    def bound(self, symbol: sympy.Basic) -> Place | None:
        """The place of a symbol, looked up outwards. A symbol from outside of a function becomes an input of it."""
        frame = self._op.frame
        place = frame.place(symbol)
        return self._captured(symbol) if place is None and frame.base.caller is not None else place

    def _captured(self, symbol: sympy.Basic) -> Place | None:
        """An input of the function for a symbol that is known around it; None where it isn't."""
        base = self._op.frame.base
        place = base.place_around(symbol)
        if place is None:
            return None
        tensor, axis = place
        dtype = tensor.dtype if axis is None else DataType.INT64
        if dtype is not DataType.BOOL:
            dtype = DataType.INT64 if dtype.is_integer() else DataType.DOUBLE
        base.captured[symbol] = made = Tensor(self._op.unique(self.text(symbol)), dtype, ir.Shape([1]))
        base.bindings[symbol] = made, None
        return made, None

    def bind_shape(self, tensor: Tensor, shape: ir.Shape) -> None:
        """Bind every symbol that is a dimension of ``tensor`` by itself and has no place yet."""
        for axis, dim in enumerate(shape):
            if isinstance(dim, Size) and dim.expr.is_Symbol and self._op.frame.place(dim.expr) is None:
                self.bind(dim.expr, tensor, axis)

    def solve(self, tensor: Tensor, shape: ir.Shape) -> None:
        """Bind symbols that occur only inside an input dimension such as ``2*s + 1``: the expression is inverted."""
        for axis, dim in enumerate(shape):
            if not isinstance(dim, Size) or dim.expr.is_Symbol:
                continue
            unbound = [s for s in dim.expr.free_symbols if self.bound(s) is None]
            if len(unbound) != 1:
                continue
            symbol = unbound[0]
            size = self._op.Shape(tensor, start=axis, end=axis + 1)
            value = self._invert(dim.expr, symbol, size)
            if value is not None:
                self.bind(symbol, value, None)

    def _invert(self, expr: sympy.Expr, symbol: sympy.Basic, value: Tensor) -> Tensor | None:
        slope = sympy.expand(expr).coeff(symbol, 1)
        rest = sympy.expand(expr - slope * symbol)
        if not slope.is_Integer or slope == 0 or symbol in rest.free_symbols:
            return None
        if rest != 0:
            value = self._op.Sub(value, self.vector(rest))
        return value if slope == 1 else self._op.Div(value, [int(slope)])

    # Emission --------------------------------------------------------------------------------------------------

    def vector(self, expr: sympy.Basic) -> Tensor:
        """The value of an expression as a tensor of shape [1]: int64, float64 or bool."""
        op = self._op
        for frame in op.frame.visible():
            found = frame.sizes.get(expr)
            if found is not None:
                return found
        if expr.is_Symbol:
            result = self._read(expr)
        elif expr.is_Integer:
            return op.const([int(expr)])
        elif expr in (sympy.true, sympy.false):
            return op.const([bool(expr)])
        elif expr.is_number:
            return op.const([float(expr)], DataType.DOUBLE)
        else:
            result = self._computed(expr)
        op.frame.remember(op.frame.sizes, expr, result)
        return result

    def _computed(self, expr: sympy.Basic) -> Tensor:
        """The value of an expression that has parts."""
        rule = self._op.emission.size_functions.get(expr.func.__name__)
        if rule is None:
            raise Unsupported(
                f"no ONNX form for the symbolic size {expr} ({expr.func.__name__}): compute it otherwise, or leave its "
                "axes static"
            )
        return rule(self._op, *expr.args)  # type: ignore[no-any-return]

    def scalar(self, expr: sympy.Basic) -> Tensor:
        """The value of an expression as a 0-d tensor."""
        op = self._op
        place = self.bound(expr)
        if place is not None and place[1] is None and place[0].shape is not None and not len(place[0].shape):
            return self._wide(place[0])
        key = (expr, "scalar")
        for frame in op.frame.visible():
            found = frame.sizes.get(key)
            if found is not None:
                return found
        result = op.Squeeze(self.vector(expr))
        op.frame.remember(op.frame.sizes, key, result)
        return result

    def vectors(self, dims: list[int | Size]) -> Tensor:
        """A 1-D int64 tensor of sizes, with as few nodes as can be: runs of axes of one tensor are one ``Shape``."""
        op = self._op
        parts: list[Tensor] = []
        index = 0
        while index < len(dims):
            dim = dims[index]
            end = index + 1
            if isinstance(dim, int):
                while end < len(dims) and isinstance(dims[end], int):
                    end += 1
                parts.append(op.const([int(d) for d in dims[index:end]]))  # type: ignore[arg-type]
            else:
                end = self._run(dims, index)
                if end > index + 1:
                    tensor, axis = self.bound(dim.expr)  # type: ignore[misc]
                    parts.append(op.Shape(tensor, start=axis, end=axis + end - index))  # type: ignore[operator]
                else:
                    parts.append(self.vector(dim.expr))
            index = end
        return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)

    def _run(self, dims: list[int | Size], start: int) -> int:
        """The end of the run of ``dims`` that are consecutive axes of the tensor that ``dims[start]`` is read from."""
        first = dims[start]
        place = self.bound(first.expr) if isinstance(first, Size) and first.expr.is_Symbol else None
        end = start + 1
        if place is None or place[1] is None:
            return end
        while end < len(dims):
            dim = dims[end]
            if not isinstance(dim, Size) or not dim.expr.is_Symbol:
                break
            if self.bound(dim.expr) != (place[0], place[1] + end - start):
                break
            end += 1
        return end

    def _read(self, symbol: sympy.Basic) -> Tensor:
        place = self.bound(symbol)
        if place is None:
            raise Unsupported(
                f"the size {symbol} can't be read from any input or computed tensor: make it a size of an input"
            )
        tensor, axis = place
        op = self._op
        if axis is not None:
            return op.Shape(tensor, start=axis, end=axis + 1)
        tensor = self._wide(tensor)
        shape = tensor.shape
        return tensor if shape is not None and len(shape) == 1 else op.Reshape(tensor, [1])

    def _wide(self, tensor: Tensor) -> Tensor:
        """A number in the type that Python's numbers have."""
        if tensor.dtype in (DataType.INT64, DataType.DOUBLE, DataType.BOOL):
            return tensor
        return self._op.cast(tensor, DataType.INT64 if tensor.dtype.is_integer() else DataType.DOUBLE)
