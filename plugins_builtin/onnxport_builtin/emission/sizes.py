"""Arithmetic of symbolic sizes as ONNX nodes: a rule for each function of sympy and torch that expressions have.

A rule takes ``op`` and the arguments of an expression, and gives a tensor of shape [1]: int64, float64 or bool.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import sympy
from onnxport import DataType, Unsupported
from onnxport.kit import SizeFunction

if TYPE_CHECKING:
    from onnxport import Builder, Tensor


def _value(op: Builder, a: sympy.Basic) -> Tensor:
    return op.symbols.vector(a)


def _float(op: Builder, a: sympy.Basic) -> Tensor:
    return op.cast(_value(op, a), DataType.DOUBLE)


def _alike(op: Builder, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two operands in one element type."""
    if left.dtype is right.dtype:
        return left, right
    return op.cast(left, DataType.DOUBLE), op.cast(right, DataType.DOUBLE)


def _fold(op: Builder, name: str, *args: sympy.Basic) -> Tensor:
    """An operator of two operands on any number of them."""
    result, *others = _all_alike(op, [_value(op, arg) for arg in args])
    for value in others:
        result = getattr(op, name)(result, value)
    return result


def _all_alike(op: Builder, values: list[Tensor]) -> list[Tensor]:
    if any(value.dtype is DataType.DOUBLE for value in values):
        return [op.cast(value, DataType.DOUBLE) for value in values]
    return values


def _add(op: Builder, *args: sympy.Basic) -> Tensor:
    positive = [a for a in args if not a.could_extract_minus_sign()]
    negative = [-a for a in args if a.could_extract_minus_sign()]
    if not positive:
        return op.Neg(_fold(op, "Add", *negative))
    if not negative:
        return _fold(op, "Add", *positive)
    return op.Sub(*_alike(op, _fold(op, "Add", *positive), _fold(op, "Add", *negative)))


def _floor_div(op: Builder, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    left, right = _value(op, a), _value(op, b)
    if not (a.is_nonnegative and b.is_positive):  # ONNX divides towards zero
        left = op.Sub(left, op.Mod(left, right))
    return op.Div(left, right)


def _ceil_div(op: Builder, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    return op.Neg(_floor_div(op, -a, b))


def _true_div(op: Builder, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    logarithm = {"OpaqueUnaryFn_log": math.log, "OpaqueUnaryFn_log2": math.log2}.get(a.func.__name__)
    if logarithm is not None and b.is_number and 0 < (factor := float(b)) < 20:
        base = round(math.exp(factor) if logarithm is math.log else 2**factor)
        if base > 1 and logarithm(base) == factor:
            return _logarithm(op, a.args[0], base, exact=logarithm is math.log2)
    return op.Div(_float(op, a), _float(op, b))


def _logarithm(op: Builder, a: sympy.Basic, base: int, *, exact: bool) -> Tensor:
    """The logarithm of a number; of powers of the base it is Python's, since a size may be its floor or ceiling.

    Args:
        exact: whether Python gives whole numbers for powers, as ``math.log2`` does and a quotient may not.
    """
    x = _float(op, a)
    powers = [base**k for k in range(int(52 / math.log2(base)) + 1)]
    values = [float(k) if exact else math.log(power) / math.log(base) for k, power in enumerate(powers)]
    quotient = op.Div(op.Log(x), op.const([math.log(base)], DataType.DOUBLE))
    bounds = (op.const(v, DataType.DOUBLE) for v in (0, len(powers) - 1))
    nearest = op.cast(op.Clip(op.Round(quotient), *bounds), DataType.INT64)
    is_power = op.Equal(op.Gather(op.const([float(power) for power in powers], DataType.DOUBLE), nearest), x)
    return op.Where(is_power, op.Gather(op.const(values, DataType.DOUBLE), nearest), quotient)


def _power(op: Builder, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    base = _value(op, a)
    if b == -1:
        return _true_div(op, sympy.Integer(1), a)
    if b.is_Integer and 2 <= int(b) <= 4 and base.dtype is DataType.INT64:
        result = base
        for _ in range(int(b) - 1):
            result = op.Mul(result, base)
        return result
    if base.dtype is DataType.INT64 and not b.is_integer:
        base = op.cast(base, DataType.DOUBLE)
    return op.Pow(base, op.cast(_value(op, b), base.dtype))


def _rounded(op: Builder, name: str, a: sympy.Basic) -> Tensor:
    return op.cast(getattr(op, name)(_float(op, a)), DataType.INT64)


def _round_decimal(op: Builder, a: sympy.Basic, digits: sympy.Basic) -> Tensor:
    """Python's ``round(x, digits)``, which rounds the number and not its product with a power of ten.

    Where the product is half of a unit, its rounding error says on which side the number is (Dekker, 1971).
    """
    if not (digits.is_Integer and 0 <= int(digits) <= 15):
        raise Unsupported(f"rounding to {digits} digits of a number that is known at run time only: give 0 to 15")
    unit = float(10 ** int(digits))
    x, scale = _float(op, a), op.const([unit], DataType.DOUBLE)
    product = op.Mul(x, scale)
    high, low = _halves(op, x)
    scale_high, scale_low = _halves(op, scale)
    error = op.Sub(op.Mul(high, scale_high), product)
    for left, right in ((high, scale_low), (low, scale_high), (low, scale_low)):
        error = op.Add(error, op.Mul(left, right))
    below = op.Floor(product)
    is_half = op.And(op.Equal(op.Sub(product, below), 0.5), op.Not(op.Equal(error, 0.0)))
    beside = op.Where(op.Greater(error, 0.0), op.Add(below, 1.0), below)
    return op.Div(op.Where(is_half, beside, op.Round(product)), scale)


def _arctangent(op: Builder, a: sympy.Basic) -> Tensor:
    """In float64, for which onnxruntime 1.32 has no Atan: one step of Halley's from that of float32."""
    x = _float(op, a)
    near = op.cast(op.Atan(op.cast(x, DataType.FLOAT)), DataType.DOUBLE)
    sine, cosine = op.Sin(near), op.Cos(near)
    return op.Add(near, op.Div(op.Sub(op.Mul(x, cosine), sine), op.Add(cosine, op.Mul(x, sine))))


def _halves(op: Builder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers of 26 bits, whose sum a float64 is."""
    scaled = op.Mul(x, 2.0**27 + 1)
    high = op.Sub(scaled, op.Sub(scaled, x))
    return high, op.Sub(x, high)


def _mod(op: Builder, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    return op.Mod(_value(op, a), _value(op, b))


def _where(op: Builder, condition: sympy.Basic, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    left, right = _alike(op, _value(op, a), _value(op, b))
    return op.Where(_value(op, condition), left, right)


def _compare(op: Builder, name: str, a: sympy.Basic, b: sympy.Basic) -> Tensor:
    result: Tensor = getattr(op, name)(*_alike(op, _value(op, a), _value(op, b)))
    return result


def _piecewise(op: Builder, *pairs: Any) -> Tensor:
    *most, last = pairs
    result = _value(op, last[0])
    for value, condition in reversed(most):
        result = op.Where(_value(op, condition), _value(op, value), result)
    return result


_RULES = {
    "Add": _add,
    "Mul": lambda op, *args: _fold(op, "Mul", *args),
    "Max": lambda op, *args: _fold(op, "Max", *args),
    "Min": lambda op, *args: _fold(op, "Min", *args),
    "FloorDiv": _floor_div,
    "CleanDiv": _floor_div,
    "CeilDiv": _ceil_div,
    "Mod": _mod,
    "PythonMod": _mod,
    "ModularIndexing": lambda op, a, b, c: op.Mod(_floor_div(op, a, b), _value(op, c)),
    "IntTrueDiv": _true_div,
    "FloatTrueDiv": _true_div,
    "Pow": _power,
    "PowByNatural": _power,
    "FloatPow": lambda op, a, b: op.Pow(_float(op, a), _float(op, b)),
    "ToFloat": _float,
    "TruncToInt": lambda op, a: op.cast(_float(op, a), DataType.INT64),
    "TruncToFloat": lambda op, a: op.cast(op.cast(_float(op, a), DataType.INT64), DataType.DOUBLE),
    "FloorToInt": lambda op, a: _rounded(op, "Floor", a),
    "CeilToInt": lambda op, a: _rounded(op, "Ceil", a),
    "OpaqueUnaryFn_atan": _arctangent,
    "RoundDecimal": _round_decimal,
    "RoundToInt": lambda op, a: _rounded(op, "Round", a),
    "floor": lambda op, a: _rounded(op, "Floor", a),
    "ceiling": lambda op, a: _rounded(op, "Ceil", a),
    "OpaqueUnaryFn_log2": lambda op, a: _logarithm(op, a, 2, exact=True),
    "Abs": lambda op, a: op.Abs(_value(op, a)),
    "Identity": _value,
    "Where": _where,
    "Piecewise": _piecewise,
    "ExprCondPair": lambda op, a, _condition: _value(op, a),
    "Equality": lambda op, a, b: _compare(op, "Equal", a, b),
    "Unequality": lambda op, a, b: op.Not(_compare(op, "Equal", a, b)),
    "StrictLessThan": lambda op, a, b: _compare(op, "Less", a, b),
    "LessThan": lambda op, a, b: _compare(op, "LessOrEqual", a, b),
    "StrictGreaterThan": lambda op, a, b: _compare(op, "Greater", a, b),
    "GreaterThan": lambda op, a, b: _compare(op, "GreaterOrEqual", a, b),
    "And": lambda op, *args: _fold(op, "And", *args),
    "Or": lambda op, *args: _fold(op, "Or", *args),
    "BitwiseFn_bitwise_and": lambda op, *args: _fold(op, "BitwiseAnd", *args),
    "BitwiseFn_bitwise_or": lambda op, *args: _fold(op, "BitwiseOr", *args),
    "Not": lambda op, a: op.Not(_value(op, a)),
    **{
        f"OpaqueUnaryFn_{name.lower()}": (lambda op, a, name=name: getattr(op, name)(_float(op, a)))
        for name in ("Sqrt", "Exp", "Log", "Sin", "Cos", "Tan", "Tanh", "Sinh", "Cosh", "Asin", "Acos")
    },
}


def records() -> list[SizeFunction]:
    """A record for each function."""
    return [SizeFunction(name, emit) for name, emit in _RULES.items()]
