"""Arithmetic on sizes by Python and NumPy: ``math.log(n)``, ``np.sqrt(n)``, ``divmod(n, 3)``, ``round(n, -1)``.

Functions of ``math`` ask a dynamic size for the example's number, ufuncs of NumPy for methods that it lacks. While a
non-strict capture traces, they give symbolic numbers. One that torch's sizes have no operator for is a node of this
package's own; its value is the expression, which the translation writes.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import math
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from onnxport.kit import Replacement
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.sym_node import SymNode
from torch.utils._sympy import functions as expressions

from onnxport_builtin.capture.non_strict import while_traced
from onnxport_builtin.capture.packages import modules_of_packages

_NUMBERS = (torch.SymInt, torch.SymFloat)
_library = torch.library.Library("onnxport", "FRAGMENT")


def arithmetic_of_sizes(model: torch.nn.Module) -> Iterator[Replacement]:
    """While it is active, arithmetic of Python and NumPy follows sizes; also where the model's packages imported it."""
    return while_traced(functools.partial(_replaced, model))


def _replaced(model: torch.nn.Module) -> Iterator[Replacement]:
    wrapped = {}
    for name, function in _FUNCTIONS.items():
        if original := getattr(math, name, None):
            wrapped[original] = functools.partial(_on_numbers, function)
            yield Replacement(math, name, wrapped[original])
    for name, function in _EXTREMES.items():
        yield Replacement(np, name, functools.partial(_on_elements, function))
    yield Replacement(np, "clip", functools.partial(_on_numbers, _clipped))
    for module in modules_of_packages(model, {"torch", "builtins"}):
        for name, value in list(vars(module).items()):
            if isinstance(value, types.BuiltinFunctionType) and value in wrapped:
                yield Replacement(module, name, wrapped[value])
    for module in {sys.modules.get(cls.__module__) for part in model.modules() for cls in type(part).__mro__}:
        for name, substitute in (("isinstance", _is_instance), ("max", _largest), ("min", _smallest)):
            if module is not None and name not in vars(module):
                yield Replacement(module, name, lambda _, substitute=substitute: substitute, is_new=True)
        for name, substitute in (("int", _Int), ("float", _Float)):
            if module is not None and name not in vars(module) and _is_called_alone(module, name):
                yield Replacement(module, name, lambda _, substitute=substitute: substitute, is_new=True)
    for owner in _NUMBERS:
        yield Replacement(owner, "__array_ufunc__", lambda _: _ufunc, is_new=True)
        yield Replacement(owner, "round", lambda _: _as_numpy_rounds, is_new=True)
        yield Replacement(owner, "astype", lambda _: _as_type, is_new=True)
        yield Replacement(owner, "item", lambda _: lambda number: number, is_new=True)
        yield Replacement(owner, "__divmod__", lambda _: _divided, is_new=True)
        yield Replacement(owner, "__rdivmod__", lambda _: lambda a, b: _divided(b, a), is_new=True)
    yield Replacement(torch.SymInt, "__round__", lambda _: _rounded, is_new=True)
    for name in ("real", "numerator"):
        yield Replacement(torch.SymInt, name, lambda _: property(lambda n: n), is_new=True)
    for name, value in (("imag", 0), ("denominator", 1)):
        yield Replacement(torch.SymInt, name, lambda _, value=value: value, is_new=True)
    yield Replacement(torch.SymInt, "conjugate", lambda _: lambda n: n, is_new=True)
    yield Replacement(torch.SymInt, "__xor__", lambda _: _exclusive, is_new=True)
    yield Replacement(torch.SymInt, "__rxor__", lambda _: _exclusive, is_new=True)
    yield Replacement(torch.SymInt, "__invert__", lambda _: lambda n: -n - 1, is_new=True)
    yield Replacement(torch.SymInt, "bit_length", lambda _: lambda n: math.floor(_log2(2 * n + 1)), is_new=True)


def _on_numbers(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """The function for symbolic numbers, the original for all others."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        is_symbolic = not kwargs and any(_is_symbolic(arg) for arg in args)
        result = function(*args) if is_symbolic else NotImplemented
        return original(*args, **kwargs) if result is NotImplemented else result

    return chosen


def _is_symbolic(value: Any) -> bool:
    """Whether it is a symbolic number, or a list that has one."""
    return isinstance(value, _NUMBERS) or (isinstance(value, (list, tuple)) and any(map(_is_symbolic, value)))


# Numbers --------------------------------------------------------------------------------------------------------------


def _opaque(name: str) -> Callable[[Any], Any]:
    """A function that sympy knows nothing about but its name and its values."""
    _library.define(f"{name}_of_a_number(Scalar self) -> Scalar")
    target = getattr(torch.ops.onnxport, f"{name}_of_a_number").default
    expression = getattr(expressions, f"OpaqueUnaryFn_{name}")

    def function(x: Any) -> Any:
        if not isinstance(x, _NUMBERS):
            return getattr(math, name)(x)
        number = torch.sym_float(x)
        hint = getattr(math, name)(number.node.hint) if number.node.has_hint() else None
        value = torch.SymFloat(SymNode(expression(number.node.expr), number.node.shape_env, float, hint))
        mode = proxy_tensor.get_proxy_mode()
        if mode is not None:
            proxy_tensor._sym_register(mode.tracer, target, (number,), value)  # type: ignore[arg-type]
        return value

    return function


_exp, _ln, _log2 = _opaque("exp"), _opaque("log"), _opaque("log2")
_sin, _cos, _tanh = _opaque("sin"), _opaque("cos"), _opaque("tanh")
_atan = _opaque("atan")


def _log(x: Any, base: Any = None) -> Any:
    return _ln(x) if base is None else _ln(x) / _ln(base)


def _length(*sides: Any) -> Any:
    return torch.sym_sqrt(torch.sym_float(sum(side * side for side in sides)))


def _permutations(n: Any, k: Any = None) -> Any:
    return math.prod(n - i for i in range(k)) if type(k) is int and 0 <= k <= 8 else NotImplemented


def _combinations(n: Any, k: Any) -> Any:
    ordered = _permutations(n, k)
    return NotImplemented if ordered is NotImplemented else ordered // math.factorial(k)


def _divided(a: Any, b: Any) -> Any:
    if all(isinstance(number, (int, torch.SymInt)) for number in (a, b)):
        return a // b, a % b
    quotient = torch.sym_float(math.floor(a / b))
    return quotient, a - quotient * b


def _remainder_of_magnitudes(a: Any, b: Any) -> Any:
    """The remainder of C's ``fmod``, which has the sign of the first number."""
    a, b = torch.sym_float(a), torch.sym_float(b)
    return a - b * torch.sym_float(math.trunc(a / b))


def _signed(x: Any, sign: Any) -> Any:
    if isinstance(sign, torch.SymFloat):
        return NotImplemented
    factor = torch.sym_float(_sign(2 * sign + 1)) if isinstance(sign, torch.SymInt) else math.copysign(1.0, sign)
    return factor * abs(torch.sym_float(x))


def _sign(n: Any) -> Any:
    return torch.sym_max(torch.sym_min(n, 1), -1) if isinstance(n, torch.SymInt) else NotImplemented


def _clipped(x: Any, low: Any = None, high: Any = None) -> Any:
    if isinstance(x, (list, tuple)):
        return NotImplemented
    x = x if low is None else torch.sym_max(x, low)
    return x if high is None else torch.sym_min(x, high)


def _arcsine(x: Any) -> Any:
    return 2 * _atan(x / (1 + torch.sym_sqrt(1 - x * x)))


def _angle(y: Any, x: Any) -> Any:
    return _atan(y / x) if isinstance(x, (int, float)) and x > 0 else NotImplemented


def _common_divisor(*numbers: Any) -> Any:
    """The largest of a plain number's divisors that divide the symbolic ones as well."""
    plain = math.gcd(*(number for number in numbers if not isinstance(number, _NUMBERS)))
    symbolic = [number for number in numbers if isinstance(number, _NUMBERS)]
    if not 0 < plain <= _LARGEST_DIVIDED:
        return NotImplemented
    divisors = (d for d in range(2, plain + 1) if plain % d == 0)
    return functools.reduce(
        torch.sym_max, (d * (1 - torch.sym_min(sum(n % d for n in symbolic), 1)) for d in divisors), 1
    )


def _common_multiple(a: Any, b: Any, *others: Any) -> Any:
    divisor = _common_divisor(a, b)
    return NotImplemented if others or divisor is NotImplemented else abs(a * b) // divisor


def _exclusive(a: Any, b: Any) -> Any:
    return (a | b) - (a & b)


def _as_type(number: Any, dtype: Any, **_: Any) -> Any:
    """What ``np.ceil(n / 2).astype(int)`` asks for."""
    if np.issubdtype(np.dtype(dtype), np.integer):
        return number if isinstance(number, torch.SymInt) else math.trunc(number)
    return torch.sym_float(number)


def _split(x: Any) -> tuple[Any, Any]:
    whole = torch.sym_float(math.trunc(x))
    return x - whole, whole


def _rounded(n: Any, digits: int | None = None) -> Any:
    """Half of a unit goes to the even one, as in Python."""
    if digits is None or digits >= 0:
        return n
    unit = 10**-digits
    return (2 * n + unit - 1 + (n // unit) % 2) // (2 * unit) * unit


def _as_numpy_rounds(x: Any, decimals: int = 0, out: Any = None) -> Any:
    """Of the product, where Python rounds the decimal number."""
    if isinstance(x, torch.SymInt) or not decimals:
        return round(x, decimals) if decimals else torch.sym_float(round(x))
    unit = 10.0 ** abs(decimals)
    scaled = torch.sym_float(round(x * unit if decimals >= 0 else x / unit))
    return scaled / unit if decimals >= 0 else scaled * unit


#: What a divisor is looked for in: each of its divisors costs a few nodes.
_LARGEST_DIVIDED = 4096

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": _log,
    "log2": _log2,
    "log10": lambda x: _log2(x) / math.log2(10),
    "log1p": lambda x: _ln(1 + x),
    "exp": _exp,
    "exp2": lambda x: 2.0**x,
    "expm1": lambda x: _exp(x) - 1,
    "sqrt": lambda x: torch.sym_sqrt(torch.sym_float(x)),
    "cbrt": lambda x: torch.sym_float(x) ** (1 / 3),
    "sin": _sin,
    "cos": _cos,
    "tan": lambda x: _sin(x) / _cos(x),
    "sinh": lambda x: (_exp(x) - _exp(-x)) / 2,
    "cosh": lambda x: (_exp(x) + _exp(-x)) / 2,
    "tanh": _tanh,
    "asin": _arcsine,
    "acos": lambda x: math.pi / 2 - _arcsine(x),
    "atan": _atan,
    "atan2": _angle,
    "gcd": _common_divisor,
    "lcm": _common_multiple,
    "asinh": lambda x: _ln(x + _length(x, 1)),
    "acosh": lambda x: _ln(x + torch.sym_sqrt(torch.sym_float(x * x - 1))),
    "atanh": lambda x: _ln((1 + x) / (1 - x)) / 2,
    "degrees": lambda x: x * (180 / math.pi),
    "radians": lambda x: x * (math.pi / 180),
    "fabs": lambda x: abs(torch.sym_float(x)),
    "hypot": _length,
    "dist": lambda p, q: _length(*(a - b for a, b in zip(p, q, strict=True))),
    "fmod": _remainder_of_magnitudes,
    "remainder": lambda a, b: torch.sym_float(a) - b * torch.sym_float(round(a / b)),
    "ldexp": lambda x, exponent: x * 2.0**exponent,
    "copysign": _signed,
    "modf": _split,
    "fsum": lambda numbers: torch.sym_float(sum(numbers)),
    "isqrt": lambda n: math.trunc(torch.sym_sqrt(torch.sym_float(n))),
    "comb": _combinations,
    "perm": _permutations,
}

# Types ----------------------------------------------------------------------------------------------------------------


def _is_instance(value: Any, kinds: Any) -> bool:
    """Sizes are of the types that they have without an export."""
    plain = {torch.SymInt: 1, torch.SymFloat: 1.0}.get(type(value), value)
    return isinstance(value, kinds) or isinstance(plain, kinds)


class _Conversion(type):
    """``int`` and ``float`` in modules that the model's classes are from: of symbolic numbers they are symbolic."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.Tensor) and all(size == 1 for size in args[0].shape):
            args = (args[0].item(),)
        if len(args) == 1 and isinstance(args[0], _NUMBERS):
            whole = cls.__base__ is int and isinstance(args[0], torch.SymFloat)
            return math.trunc(args[0]) if whole else args[0] if cls.__base__ is int else torch.sym_float(args[0])
        return cls.__base__(*args, **kwargs)  # type: ignore[misc]

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__base__)  # type: ignore[arg-type]

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.__base__)  # type: ignore[arg-type]

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__base__

    def __hash__(cls) -> int:
        return hash(cls.__base__)


class _Int(int, metaclass=_Conversion):
    dtype = np.dtype(int)  # what NumPy takes a type for


class _Float(float, metaclass=_Conversion):
    dtype = np.dtype(float)


@functools.lru_cache(maxsize=1024)
def _is_called_alone(module: Any, name: str) -> bool:
    """Whether a module's source has no place where the type itself is meant: compared by identity, or torch's dtype.

    NumPy takes these types for its own as well.
    """
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return False
    return not any(
        isinstance(value, ast.Name) and value.id == name for node in ast.walk(tree) for value in _types_meant(node)
    )


def _types_meant(node: ast.AST) -> list[ast.expr]:
    """The operands of ``is``, and the dtypes that torch's functions and methods get."""
    if isinstance(node, ast.Compare) and any(isinstance(operator, (ast.Is, ast.IsNot)) for operator in node.ops):
        return [node.left, *node.comparators]
    if not isinstance(node, ast.Call):
        return []
    root = node.func
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name) and root.id in ("np", "numpy"):
        return []
    types = [keyword.value for keyword in node.keywords if keyword.arg in ("dtype", "type")]
    is_cast = isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "type", "view")
    return [*types, *node.args] if is_cast else types


# NumPy ----------------------------------------------------------------------------------------------------------------

_UFUNCS: dict[str, Callable[..., Any]] = {
    **{name: _FUNCTIONS[name] for name in ("log", "log2", "log10", "log1p", "exp", "exp2", "expm1", "sqrt", "cbrt")},
    **{name: _FUNCTIONS[name] for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "fabs", "hypot", "degrees")},
    **{f"arc{name[1:]}": _FUNCTIONS[name] for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    **{name: _FUNCTIONS[name] for name in ("gcd", "lcm")},
    "arctan2": _angle,
    "sign": _sign,
    "radians": _FUNCTIONS["radians"],
    "deg2rad": _FUNCTIONS["radians"],
    "rad2deg": _FUNCTIONS["degrees"],
    "floor": lambda x: torch.sym_float(math.floor(x)),
    "ceil": lambda x: torch.sym_float(math.ceil(x)),
    "trunc": lambda x: torch.sym_float(math.trunc(x)),
    "rint": lambda x: torch.sym_float(round(x)),
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "divmod": _divided,
    "power": operator.pow,
    "float_power": lambda a, b: torch.sym_float(a) ** b,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1 / x,
    "absolute": abs,
    "negative": operator.neg,
    "positive": lambda x: x,
    "maximum": lambda a, b: torch.sym_max(a, b),
    "minimum": lambda a, b: torch.sym_min(a, b),
    **{name: getattr(operator, name[:3]) for name in ("add", "subtract", "multiply")},
    **{f"{name}_equal": getattr(operator, name[0] + "e") for name in ("less", "greater", "not")},
    **{name: getattr(operator, short) for name, short in (("less", "lt"), ("greater", "gt"), ("equal", "eq"))},
}


#: NumPy compares the elements of a list one by one, and would fix the order that they have in the example.
_EXTREMES = {"max": torch.sym_max, "amax": torch.sym_max, "min": torch.sym_min, "amin": torch.sym_min}


def _on_elements(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def reduced(a: Any, *args: Any, **kwargs: Any) -> Any:
        elements = (
            np.ravel(np.asarray(a, dtype=object)).tolist() if _has_symbolic(a) and not args and not kwargs else []
        )
        return functools.reduce(function, elements) if elements else original(a, *args, **kwargs)

    return reduced


def _of_several(name: str, *args: Any, **kwargs: Any) -> Any:
    """``max`` and ``min`` of more than two numbers, or of a list: torch.export has those of two."""
    elements = list(args[0]) if len(args) == 1 and isinstance(args[0], Iterable) else list(args)
    is_of_numbers = all(isinstance(element, (int, float, *_NUMBERS)) for element in elements)
    if not kwargs.keys() - {"default"} and len(elements) > 1 and is_of_numbers and _is_symbolic(elements):
        return functools.reduce(_EXTREMES[name], elements)
    plain = elements if len(args) == 1 and isinstance(args[0], Iterator) else args[0]
    return getattr(builtins, name)(plain, *args[1:], **kwargs)


_largest, _smallest = functools.partial(_of_several, "max"), functools.partial(_of_several, "min")


def _has_symbolic(a: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == object and any(isinstance(element, _NUMBERS) for element in a.flat)
    return _is_symbolic(a)


def _ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """A ufunc of symbolic numbers, and of arrays element by element."""
    function = _UFUNCS.get(ufunc.__name__)
    if method != "__call__" or kwargs or function is None:
        return NotImplemented
    values = [value.item() if isinstance(value, np.generic) else value for value in inputs]
    if not any(isinstance(value, np.ndarray) for value in values):
        return function(*values)
    arrays = [np.asarray(value, dtype=object) for value in values]
    return np.frompyfunc(function, len(arrays), ufunc.nout)(*arrays)
