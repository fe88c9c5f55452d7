"""Arithmetic of symbolic sizes as ONNX nodes: one rule for each function of sympy and torch that expressions have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sympy
from onnx_ir import DataType

from onnxport.errors import Unsupported

if TYPE_CHECKING:
    from onnxport.emit.emitter import Emitter
    from onnxport.emit.tensor import Tensor


class Arithmetic:
    """Emits expressions. Values are tensors of shape [1]: int64, float64 or bool.

    Args:
        op: the builder.
        vector: gives the value of a part of an expression.
    """

    def __init__(self, op: Emitter, vector: Callable[[sympy.Basic], Tensor]) -> None:
        self._op = op
        self._vector = vector

    def emit(self, expr: sympy.Basic) -> Tensor:
        """The value of an expression that has parts.

        Raises:
            Unsupported: it has a function that ONNX hasn't.
        """
        rule = _RULES.get(expr.func.__name__)
        if rule is None:
            raise Unsupported(
                f"no ONNX form for the symbolic size {expr} ({expr.func.__name__}): compute it otherwise, or leave its "
                "axes static"
            )
        return rule(self, *expr.args)

    def _both(self, a: sympy.Basic, b: sympy.Basic) -> tuple[Tensor, Tensor]:
        """Two operands in one element type."""
        left, right = self._vector(a), self._vector(b)
        if left.dtype is not right.dtype:
            left, right = self._op.cast(left, DataType.DOUBLE), self._op.cast(right, DataType.DOUBLE)
        return left, right

    def _fold(self, name: str, *args: sympy.Basic) -> Tensor:
        emit = getattr(self._op, name)
        values = [self._vector(arg) for arg in args]
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
        left, right = self._vector(a), self._vector(b)
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
        return op.Div(op.cast(self._vector(a), DataType.DOUBLE), op.cast(self._vector(b), DataType.DOUBLE))

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
        base = self._vector(a)
        if b == -1:
            return self._true_div(sympy.Integer(1), a)
        if b.is_Integer and 2 <= int(b) <= 4 and base.dtype is DataType.INT64:
            result = base
            for _ in range(int(b) - 1):
                result = self._op.Mul(result, base)
            return result
        if base.dtype is DataType.INT64 and not b.is_integer:
            base = self._op.cast(base, DataType.DOUBLE)
        return self._op.Pow(base, self._op.cast(self._vector(b), base.dtype))

    def _float(self, a: sympy.Basic) -> Tensor:
        return self._op.cast(self._vector(a), DataType.DOUBLE)

    def _rounded(self, name: str, a: sympy.Basic) -> Tensor:
        return self._op.cast(getattr(self._op, name)(self._float(a)), DataType.INT64)

    def _where(self, condition: sympy.Basic, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        left, right = self._both(a, b)
        return self._op.Where(self._vector(condition), left, right)

    def _compare(self, name: str, a: sympy.Basic, b: sympy.Basic) -> Tensor:
        return getattr(self._op, name)(*self._both(a, b))

    def _piecewise(self, *pairs: Any) -> Tensor:
        *most, last = pairs
        result = self._vector(last[0])
        for value, condition in reversed(most):
            result = self._op.Where(self._vector(condition), self._vector(value), result)
        return result


_RULES: dict[str, Callable[..., Tensor]] = {
    "Add": Arithmetic._add,
    "Mul": lambda s, *args: s._fold("Mul", *args),
    "Max": lambda s, *args: s._fold("Max", *args),
    "Min": lambda s, *args: s._fold("Min", *args),
    "FloorDiv": Arithmetic._floor_div,
    "CleanDiv": Arithmetic._floor_div,
    "CeilDiv": Arithmetic._ceil_div,
    "Mod": lambda s, a, b: s._op.Mod(s._vector(a), s._vector(b)),
    "PythonMod": lambda s, a, b: s._op.Mod(s._vector(a), s._vector(b)),
    "ModularIndexing": lambda s, a, b, c: s._op.Mod(s._floor_div(a, b), s._vector(c)),
    "IntTrueDiv": Arithmetic._true_div,
    "FloatTrueDiv": Arithmetic._true_div,
    "Pow": Arithmetic._power,
    "PowByNatural": Arithmetic._power,
    "FloatPow": lambda s, a, b: s._op.Pow(s._float(a), s._float(b)),
    "ToFloat": Arithmetic._float,
    "TruncToInt": lambda s, a: s._op.cast(s._float(a), DataType.INT64),
    "TruncToFloat": lambda s, a: s._op.cast(s._op.cast(s._float(a), DataType.INT64), DataType.DOUBLE),
    "FloorToInt": lambda s, a: s._rounded("Floor", a),
    "CeilToInt": lambda s, a: s._rounded("Ceil", a),
    "RoundToInt": lambda s, a: s._rounded("Round", a),
    "floor": lambda s, a: s._rounded("Floor", a),
    "ceiling": lambda s, a: s._rounded("Ceil", a),
    "OpaqueUnaryFn_log2": lambda s, a: s._logarithm(a, 2, exact=True),
    "Abs": lambda s, a: s._op.Abs(s._vector(a)),
    "Identity": lambda s, a: s._vector(a),
    "Where": Arithmetic._where,
    "Piecewise": Arithmetic._piecewise,
    "ExprCondPair": lambda s, a, _condition: s._vector(a),
    "Equality": lambda s, a, b: s._compare("Equal", a, b),
    "Unequality": lambda s, a, b: s._op.Not(s._compare("Equal", a, b)),
    "StrictLessThan": lambda s, a, b: s._compare("Less", a, b),
    "LessThan": lambda s, a, b: s._compare("LessOrEqual", a, b),
    "StrictGreaterThan": lambda s, a, b: s._compare("Greater", a, b),
    "GreaterThan": lambda s, a, b: s._compare("GreaterOrEqual", a, b),
    "And": lambda s, *args: s._fold("And", *args),
    "Or": lambda s, *args: s._fold("Or", *args),
    "Not": lambda s, a: s._op.Not(s._vector(a)),
    **{
        f"OpaqueUnaryFn_{torch_name}": (lambda s, a, onnx_name=onnx_name: getattr(s._op, onnx_name)(s._float(a)))
        for torch_name, onnx_name in [
            ("sqrt", "Sqrt"), ("exp", "Exp"), ("log", "Log"), ("sin", "Sin"), ("cos", "Cos"), ("tan", "Tan"),
            ("tanh", "Tanh"), ("sinh", "Sinh"), ("cosh", "Cosh"), ("asin", "Asin"), ("acos", "Acos"), ("atan", "Atan"),
        ]
    },
}  # fmt: skip
