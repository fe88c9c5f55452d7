"""Symbolic sizes: sympy expressions of torch's shape environment <-> ONNX values and dimension names.

A symbol is bound to the place it can be read from (an axis of a tensor, or a scalar tensor). Expressions over bound
symbols become ONNX arithmetic on demand, once per scope. All values are computed in one form, a tensor of shape [1]
(int64, float64 or bool), since that is what shape inputs of ONNX operators want.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch
from onnx_ir import DataType

from onnxport.emit.dimension_text import expression_of, simplified
from onnxport.emit.tensor import Concrete
from onnxport.errors import Unsupported
from onnxport.vocabulary.upstream import FloorDiv, PythonMod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from onnxport.emit.emitter import Emitter
    from onnxport.emit.tensor import Tensor


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

    def _combine(self, other: Any, function: Callable[[Any, Any], Any], swap: bool = False) -> Any:
        if isinstance(other, Size):
            other = other.expr
        elif isinstance(other, int):
            other = sympy.Integer(other)
        else:
            return NotImplemented
        return self._symbols.size(function(other, self.expr) if swap else function(self.expr, other))

    def __add__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a - b, swap=True)

    def __mul__(self, other: Any) -> Any:
        return self._combine(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return self._combine(other, FloorDiv)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._combine(other, FloorDiv, swap=True)

    def __mod__(self, other: Any) -> Any:
        return self._combine(other, PythonMod)

    def __neg__(self) -> Any:
        return self._symbols.size(-self.expr)

    def _number(self) -> Any:
        """No Python number: the decomposition may do without one."""
        raise Unsupported(
            f"the number {self._value} is known at run time only, and a constant is needed: leave its axes static, or "
            "pass a Python number"
        )

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
        """How an expression is written in the file, with the requested names."""
        if expr in self._names:
            return self._names[expr]
        expr = simplified(expr, getattr(self._env, "divisible", ()))
        if expr in self._names:
            return self._names[expr]
        known = {s: expression_of(self._names[s]) for s in expr.free_symbols if s in self._names}
        return str(simplified(expr.xreplace(known)) if known else expr).replace(" ", "")

    # Binding ---------------------------------------------------------------------------------------------------

    def bind(self, symbol: sympy.Basic, tensor: Tensor, axis: int | None) -> None:
        """The symbol is the size of ``axis`` of ``tensor``, or the value of a one-element tensor (axis None)."""
        self._op.scope.remember(self._op.scope.bindings, symbol, (tensor, axis))
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
            self._op.scope.remember(self._op.scope.sizes, key, value)

    def bound(self, symbol: sympy.Basic) -> tuple[Tensor, int | None] | None:
        """Where a symbol is read from, looked up from the current scope outwards; from outside a function, an input."""
        place = self._inside(symbol)
        return self._op.within.capture(symbol) if place is None and self._op.within is not None else place

    def _inside(self, symbol: sympy.Basic) -> tuple[Tensor, int | None] | None:
        for scope in reversed(self._op.scopes):
            place = scope.bindings.get(symbol)
            if place is not None:
                return place
        return None

    def bind_shape(self, tensor: Tensor, shape: ir.Shape) -> None:
        """Bind every symbol that is a dimension of ``tensor`` by itself and has no place yet."""
        for axis, dim in enumerate(shape):
            if isinstance(dim, Size) and dim.expr.is_Symbol and self._inside(dim.expr) is None:
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
        for scope in reversed(op.scopes):
            found = scope.sizes.get(expr)
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
            emit = _EMITTERS.get(expr.func.__name__)
            if emit is None:
                raise Unsupported(f"no ONNX form for the symbolic size {expr} ({expr.func.__name__})")
            result = emit(self, *expr.args)
        op.scope.remember(op.scope.sizes, expr, result)
        return result

    def scalar(self, expr: sympy.Basic) -> Tensor:
        """The value of an expression as a 0-d tensor."""
        op = self._op
        place = self.bound(expr)
        if place is not None and place[1] is None and place[0].shape is not None and not len(place[0].shape):
            return self._wide(place[0])
        key = (expr, "scalar")
        for scope in reversed(op.scopes):
            found = scope.sizes.get(key)
            if found is not None:
                return found
        result = op.Squeeze(self.vector(expr))
        op.scope.remember(op.scope.sizes, key, result)
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
            raise Unsupported(f"the size {symbol} can't be read from any input or computed tensor")
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

    def _both(self, a: sympy.Basic, b: sympy.Basic) -> tuple[Tensor, Tensor]:
        """Two operands in one element type."""
        left, right = self.vector(a), self.vector(b)
        if left.dtype is not right.dtype:
            left, right = self._op.cast(left, DataType.DOUBLE), self._op.cast(right, DataType.DOUBLE)
        return left, right

    def _fold(self, name: str, *args: sympy.Basic) -> Tensor:
        emit = getattr(self._op, name)
        values = [self.vector(arg) for arg in args]
        if any(v.dtype is DataType.DOUBLE for v in values):
            values = [self._op.cast(v, DataType.DOUBLE) for v in values]
        result = values[0]
        for value in values[1:]:
            result = emit(result, value)
        return result

    def _add(self, *args: sympy.Basic) -> Tensor:
        positive = [a for a in args if not a.could_extract_minus_sign()]
        negative = [-a for a in args if a.could_extract_minus_sign()]
        if not positive:
            return self._op.Neg(self._fold("Add", *negative))
        if not negative:
            return self._fold("Add", *positive)
        left, right = self._fold("Add", *positive), self._fold("Add", *negative)
        if left.dtype is not right.dtype:
            left, right = self._op.cast(left, DataType.DOUBLE), self._op.cast(right, DataType.DOUBLE)
        return self._op.Sub(left, right)

    def _floor_div(self, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        left, right = self.vector(a), self.vector(b)
        if not (a.is_nonnegative and b.is_positive):  # ONNX divides towards zero
            left = self._op.Sub(left, self._op.Mod(left, right))
        return self._op.Div(left, right)

    def _ceil_div(self, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        return self._op.Neg(self._floor_div(-a, b))

    def _true_div(self, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        op = self._op
        logarithm = {"OpaqueUnaryFn_log": math.log, "OpaqueUnaryFn_log2": math.log2}.get(a.func.__name__)
        if logarithm is not None and b.is_number and 0 < (factor := float(b)) < 20:
            base = round(math.exp(factor) if logarithm is math.log else 2**factor)
            if base > 1 and logarithm(base) == factor:
                return self._logarithm(a.args[0], base, exact=logarithm is math.log2)
        return op.Div(op.cast(self.vector(a), DataType.DOUBLE), op.cast(self.vector(b), DataType.DOUBLE))

    def _logarithm(self, a: sympy.Basic, base: int, *, exact: bool) -> Tensor:
        """The logarithm of a number; of powers of the base it is Python's, since a size may be its floor or ceiling.

        Args:
            exact: whether Python gives whole numbers for powers, as ``math.log2`` does and a quotient may not.
        """
        op, x = self._op, self._float(a)
        powers = [base**k for k in range(int(52 / math.log2(base)) + 1)]
        values = [float(k) if exact else math.log(power) / math.log(base) for k, power in enumerate(powers)]
        quotient = op.Div(op.Log(x), op.const([math.log(base)], DataType.DOUBLE))
        nearest = op.cast(
            op.Clip(op.Round(quotient), *(op.const(v, DataType.DOUBLE) for v in (0, len(powers) - 1))), DataType.INT64
        )
        is_power = op.Equal(op.Gather(op.const([float(power) for power in powers], DataType.DOUBLE), nearest), x)
        return op.Where(is_power, op.Gather(op.const(values, DataType.DOUBLE), nearest), quotient)

    def _power(self, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        base = self.vector(a)
        if b == -1:
            return self._true_div(sympy.Integer(1), a)
        if b.is_Integer and 2 <= int(b) <= 4 and base.dtype is DataType.INT64:
            result = base
            for _ in range(int(b) - 1):
                result = self._op.Mul(result, base)
            return result
        if base.dtype is DataType.INT64 and not b.is_integer:
            base = self._op.cast(base, DataType.DOUBLE)
        return self._op.Pow(base, self._op.cast(self.vector(b), base.dtype))

    def _float(self, a: sympy.Basic) -> Tensor:
        return self._op.cast(self.vector(a), DataType.DOUBLE)

    def _rounded(self, name: str, a: sympy.Basic) -> Tensor:
        return self._op.cast(getattr(self._op, name)(self._float(a)), DataType.INT64)

    def _where(self, condition: sympy.Basic, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        left, right = self._both(a, b)
        return self._op.Where(self.vector(condition), left, right)

    def _compare(self, name: str, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        return getattr(self._op, name)(*self._both(a, b))

    def _piecewise(self, *pairs: Any) -> Tensor:
        *most, last = pairs
        result = self.vector(last[0])
        for value, condition in reversed(most):
            result = self._op.Where(self.vector(condition), self.vector(value), result)
        return result


_EMITTERS: dict[str, Callable[..., Tensor]] = {
    "Add": Symbols._add,
    "Mul": lambda s, *args: s._fold("Mul", *args),
    "Max": lambda s, *args: s._fold("Max", *args),
    "Min": lambda s, *args: s._fold("Min", *args),
    "FloorDiv": Symbols._floor_div,
    "CleanDiv": Symbols._floor_div,
    "CeilDiv": Symbols._ceil_div,
    "Mod": lambda s, a, b: s._op.Mod(s.vector(a), s.vector(b)),
    "PythonMod": lambda s, a, b: s._op.Mod(s.vector(a), s.vector(b)),
    "ModularIndexing": lambda s, a, b, c: s._op.Mod(s._floor_div(a, b), s.vector(c)),
    "IntTrueDiv": Symbols._true_div,
    "FloatTrueDiv": Symbols._true_div,
    "Pow": Symbols._power,
    "PowByNatural": Symbols._power,
    "FloatPow": lambda s, a, b: s._op.Pow(s._float(a), s._float(b)),
    "ToFloat": Symbols._float,
    "TruncToInt": lambda s, a: s._op.cast(s._float(a), DataType.INT64),
    "TruncToFloat": lambda s, a: s._op.cast(s._op.cast(s._float(a), DataType.INT64), DataType.DOUBLE),
    "FloorToInt": lambda s, a: s._rounded("Floor", a),
    "CeilToInt": lambda s, a: s._rounded("Ceil", a),
    "RoundToInt": lambda s, a: s._rounded("Round", a),
    "floor": lambda s, a: s._rounded("Floor", a),
    "ceiling": lambda s, a: s._rounded("Ceil", a),
    "OpaqueUnaryFn_log2": lambda s, a: s._logarithm(a, 2, exact=True),
    "Abs": lambda s, a: s._op.Abs(s.vector(a)),
    "Identity": lambda s, a: s.vector(a),
    "Where": Symbols._where,
    "Piecewise": Symbols._piecewise,
    "ExprCondPair": lambda s, a, _condition: s.vector(a),
    "Equality": lambda s, a, b: s._compare("Equal", a, b),
    "Unequality": lambda s, a, b: s._op.Not(s._compare("Equal", a, b)),
    "StrictLessThan": lambda s, a, b: s._compare("Less", a, b),
    "LessThan": lambda s, a, b: s._compare("LessOrEqual", a, b),
    "StrictGreaterThan": lambda s, a, b: s._compare("Greater", a, b),
    "GreaterThan": lambda s, a, b: s._compare("GreaterOrEqual", a, b),
    "And": lambda s, *args: s._fold("And", *args),
    "Or": lambda s, *args: s._fold("Or", *args),
    "Not": lambda s, a: s._op.Not(s.vector(a)),
    **{
        f"OpaqueUnaryFn_{torch_name}": (lambda s, a, onnx_name=onnx_name: getattr(s._op, onnx_name)(s._float(a)))
        for torch_name, onnx_name in [
            ("sqrt", "Sqrt"), ("exp", "Exp"), ("log", "Log"), ("sin", "Sin"), ("cos", "Cos"), ("tan", "Tan"),
            ("tanh", "Tanh"), ("sinh", "Sinh"), ("cosh", "Cosh"), ("asin", "Asin"), ("acos", "Acos"), ("atan", "Atan"),
        ]
    },
}  # fmt: skip
