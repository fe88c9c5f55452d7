"""Operators on small tensors of symbolic elements: what ``torch.ceil(torch.tensor(2 * n / 3)).long()`` is, as a size.

An element is a number, a ``torch.SymInt``, a ``torch.SymBool`` or a :class:`Quotient`. Floats are rounded by eager, and
an expression isn't, so only those are followed whose whole part rounding can't change: integers, quotients of an
integer by a number, and numbers of few bits. All else is :class:`UnknownElementsError`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import sympy
import torch
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils import _pytree as pytree
from torch.utils._sympy.functions import FloatTrueDiv, IntTrueDiv, ToFloat

#: Types that hold sizes and their quotients.
DTYPES = (torch.int32, torch.int64, torch.float32, torch.float64, torch.bool)
_BITS = 12  # of the numerator and the denominator of a number that floats hold beside a size


class UnknownElementsError(Exception):
    """The elements of a result can't be followed."""


@dataclass(frozen=True)
class Quotient:
    """A symbolic integer divided by a number, in lowest terms as far as the number tells."""

    numerator: Any
    denominator: int

    @property
    def is_exact(self) -> bool:
        """Whether a float holds it without rounding."""
        return self.denominator & (self.denominator - 1) == 0


def element(number: Any) -> Any:
    """A Python number or symbolic number as an element."""
    if isinstance(number, torch.SymFloat):
        return _of_expression(number.node.expr, number.node.shape_env)
    if isinstance(number, (bool, int, float, torch.SymInt, torch.SymBool, Quotient)):
        return number
    raise UnknownElementsError


def symbolic_float(value: Any) -> Any:
    """The element as a float."""
    with proxy_tensor.disable_proxy_modes_tracing():
        if isinstance(value, Quotient):
            return value.numerator / value.denominator
        return torch.sym_float(value)


def _of_expression(expression: Any, env: Any) -> Any:
    """A float expression of sizes as an element."""
    if expression.is_number:
        return float(expression)
    if isinstance(expression, sympy.Add):
        return functools.reduce(_sum, (_of_expression(part, env) for part in expression.args))
    if isinstance(expression, sympy.Mul):
        return functools.reduce(_product, (_of_expression(part, env) for part in expression.args))
    if isinstance(expression, (IntTrueDiv, FloatTrueDiv)):
        return _true_division(*(_of_expression(part, env) for part in expression.args))
    if isinstance(expression, ToFloat):
        return _of_expression(expression.args[0], env)
    if not expression.is_integer:
        raise UnknownElementsError
    hint_of = getattr(env, "guarding_hint_or_throw", None) or env.size_hint  # torch 2.11 has the other name
    return env.create_symintnode(expression, hint=hint_of(expression))


def _fraction(number: float) -> Fraction:
    if isinstance(number, float) and not math.isfinite(number):
        raise UnknownElementsError
    fraction = Fraction(number)
    if fraction.denominator > 1 and max(abs(fraction.numerator), fraction.denominator).bit_length() > _BITS:
        raise UnknownElementsError
    return fraction


def _parts(value: Any) -> tuple[Any, int]:
    if isinstance(value, Quotient):
        return value.numerator, value.denominator
    if isinstance(value, torch.SymInt):
        return value, 1
    if isinstance(value, (bool, int, float)):
        fraction = _fraction(value)
        return fraction.numerator, fraction.denominator
    raise UnknownElementsError


def _quotient(numerator: Any, denominator: int) -> Any:
    if not isinstance(numerator, torch.SymInt):
        return numerator if denominator == 1 else numerator / denominator
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    if denominator > 1:
        common = math.gcd(int(numerator.node.expr.as_content_primitive()[0].p), denominator)
        if common > 1:
            numerator, denominator = numerator // common, denominator // common
    return numerator if denominator == 1 else Quotient(numerator, denominator)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def _sum(a: Any, b: Any) -> Any:
    (p, q), (r, s) = _parts(a), _parts(b)
    if min(q, s) > 1 and not (q & (q - 1) == 0 and s & (s - 1) == 0):
        raise UnknownElementsError  # two that are rounded
    common = math.lcm(q, s)
    return _quotient(p * (common // q) + r * (common // s), common)


def _product(a: Any, b: Any) -> Any:
    (p, q), (r, s) = _parts(a), _parts(b)
    for quotient, by in ((a, b), (b, a)):
        if isinstance(quotient, Quotient) and not quotient.is_exact and not (isinstance(by, int) and by in (-1, 0, 1)):
            raise UnknownElementsError  # the rounding error grows
    return _quotient(p * r, q * s)


def _true_division(a: Any, b: Any) -> Any:
    (p, q), (r, s) = _parts(a), _parts(b)
    if not isinstance(r, int) or r == 0 or (s != 1 and q != 1):
        raise UnknownElementsError
    return _quotient(p * s, q * r)


def _floor(a: Any) -> Any:
    p, q = _parts(a)
    return p if q == 1 else p // q


def _ceil(a: Any) -> Any:
    p, q = _parts(a)
    return p if q == 1 else -((-p) // q)


def _trunc(a: Any) -> Any:
    p, q = _parts(a)
    if q == 1:
        return p
    if statically_known_true(p >= 0):
        return p // q
    if statically_known_true(p <= 0):
        return -((-p) // q)
    return torch.sym_max(p, 0) // q - torch.sym_max(-p, 0) // q


def _round(a: Any) -> Any:
    """Half to even, by integers: a half rounds down where the whole part is even."""
    p, q = _parts(a)
    if q == 1:
        return p
    if q % 2:
        return (2 * p + q) // (2 * q)
    whole = p // q
    return (p + q // 2 - (1 - whole % 2)) // q if q == 2 else (2 * p + q - (1 - whole % 2)) // (2 * q)


def _floor_division(a: Any, b: Any) -> Any:
    return _floor(_true_division(a, b))


def _remainder(a: Any, b: Any) -> Any:
    (p, q), (r, s) = _parts(a), _parts(b)
    if q != 1 or s != 1 or not isinstance(r, int) or r == 0:
        raise UnknownElementsError
    return p % r


def _negative(a: Any) -> Any:
    p, q = _parts(a)
    return _quotient(-p, q)


def _power(a: Any, b: Any) -> Any:
    if isinstance(b, float) and b.is_integer():
        b = int(b)
    if not isinstance(b, int) or not 0 <= b <= 4:
        raise UnknownElementsError
    return functools.reduce(_product, [a] * b, 1)


def _larger(a: Any, b: Any) -> Any:
    (p, q), (r, s) = _parts(a), _parts(b)
    common = math.lcm(q, s)
    return _quotient(torch.sym_max(p * (common // q), r * (common // s)), common)


def _smaller(a: Any, b: Any) -> Any:
    return _negative(_larger(_negative(a), _negative(b)))


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def answer(a: Any, b: Any) -> Any:
        (p, q), (r, s) = _parts(a), _parts(b)
        return compare(p * s, r * q)

    return answer


def _truth(a: Any) -> Any:
    return a if isinstance(a, (bool, torch.SymBool)) else _parts(a)[0] != 0


def _both(a: Any, b: Any) -> Any:
    return _truth(a) & _truth(b)


def _either(a: Any, b: Any) -> Any:
    return _truth(a) | _truth(b)


def _neither(a: Any) -> Any:
    return torch.sym_not(_truth(a))


def _of_bools(function: Callable[..., Any]) -> Callable[..., Any]:
    def answer(*args: Any) -> Any:
        if not all(isinstance(arg, (bool, torch.SymBool)) for arg in args):
            raise UnknownElementsError
        return function(*args)

    return answer


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    if not all(isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool) for value in (a, b)):
        raise UnknownElementsError
    if statically_known_true(condition):
        return a
    return torch.sym_ite(condition, 1, 0) * (a - b) + b  # torch's own takes no number beside a symbol


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The element as one of another type."""
    if dtype not in DTYPES:
        raise UnknownElementsError
    if dtype == torch.bool:
        return _truth(value)
    if isinstance(value, torch.SymBool):
        return torch.sym_ite(value, 1, 0)
    if isinstance(value, bool):
        value = int(value)
    if dtype.is_floating_point:
        return value
    return int(value) if isinstance(value, float) else _trunc(value)


# Tables ---------------------------------------------------------------------------------------------------------------


def _rounded_by(mode: str | None) -> Callable[[Any, Any], Any]:
    if mode is None:
        return _true_division
    whole = _floor if mode == "floor" else _trunc
    return lambda a, b: whole(_true_division(a, b))


def _limited(value: Any, low: Any, high: Any) -> Any:
    value = value if low is None else _larger(value, low)
    return value if high is None else _smaller(value, high)


_COMPARISONS = {name: _compared(getattr(operator, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
_TWO: Mapping[str, Callable[[Any, Any], Any]] = {
    "mul": _product,
    "multiply": _product,
    "floor_divide": _floor_division,
    "true_divide": _true_division,
    "remainder": _remainder,
    "maximum": _larger,
    "minimum": _smaller,
    "pow": _power,
    "logical_and": _both,
    "logical_or": _either,
    "bitwise_and": _of_bools(_both),
    "bitwise_or": _of_bools(_either),
    "__and__": _of_bools(_both),
    "__or__": _of_bools(_either),
    **_COMPARISONS,
    **{
        name: _COMPARISONS[own]
        for name, own in (
            ("greater", "gt"),
            ("greater_equal", "ge"),
            ("less", "lt"),
            ("less_equal", "le"),
            ("not_equal", "ne"),
        )
    },
}
_ONE: Mapping[str, Callable[[Any], Any]] = {
    "neg": _negative,
    "negative": _negative,
    "abs": lambda a: _larger(a, _negative(a)),
    "ceil": _ceil,
    "floor": _floor,
    "trunc": _trunc,
    "fix": _trunc,
    "square": lambda a: _product(a, a),
    "logical_not": _neither,
    "bitwise_not": _of_bools(_neither),
}
_REDUCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "sum": _sum,
    "prod": _product,
    "max": _larger,
    "min": _smaller,
    "amax": _larger,
    "amin": _smaller,
    "any": _either,
    "all": _both,
}
#: Results are elements of the arguments in another order: where each is from, the operator tells of their numbers.
_VIEWS = ("view", "reshape", "_unsafe_view", "select", "slice", "narrow", "squeeze", "unsqueeze", "expand", "permute")
_MORE_VIEWS = ("expand_as", "view_as", "reshape_as", "transpose", "t", "movedim", "flatten", "unflatten", "ravel")
_PARTS = ("unbind", "split", "chunk", "split_with_sizes", "diagonal", "atleast_1d", "broadcast_to")
_PICKED = ("flip", "roll", "repeat", "tile", "index", "index_select", "gather", "take")
_MOVEMENTS = frozenset((*_VIEWS, *_MORE_VIEWS, *_PARTS, *_PICKED))
_JOINS = frozenset(("stack", "cat", "concat", "concatenate", "hstack", "vstack"))
_CASTS = ("to", "_to_copy", "type_as", "_cast_Long", "_cast_Int", "_cast_Float")
_COPIES = ("clone", "contiguous", "alias", "detach", "detach_", "lift_fresh", "lift_fresh_copy")
_FILLED: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), lambda *_, **__: 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), lambda *_, **__: 1),
    **dict.fromkeys(("full", "full_like"), lambda _, fill_value, **__: fill_value),
    "new_full": lambda _, __, fill_value, **___: fill_value,
    "scalar_tensor": lambda s, **__: s,
}


def filled(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The number that each element of an operator's result is, whatever its tensors hold; None for other operators."""
    return _FILLED[name](*args, **kwargs) if name in _FILLED else None


def moved(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The elements of the results of an operator that moves them: the operator moves their numbers.

    Raises:
        UnknownElementsError: the operator isn't one of these.
    """
    name = func.overloadpacket.__name__
    data = args[0] if name in _JOINS else args[:1]
    rest = args[1:]
    if name not in (*_MOVEMENTS, *_JOINS, *_CASTS, *_COPIES) or _is_symbolic((rest, kwargs)):
        raise UnknownElementsError
    arrays = [_elements(tensor) for tensor in data]
    if name in (*_CASTS, *_COPIES):
        return arrays
    numbers: list[torch.Tensor] = []
    pool = np.concatenate([array.reshape(-1) for array in arrays])
    for array in arrays:
        start = sum(number.numel() for number in numbers)
        numbers.append(torch.arange(start, start + array.size).reshape(array.shape))
    results = func(numbers if name in _JOINS else numbers[0], *rest, **kwargs)
    return [
        pool[result.numpy()] if result.dim() else array_of(pool[int(result)]) for result in pytree.tree_leaves(results)
    ]


def _is_symbolic(values: Any) -> bool:
    symbolic = (np.ndarray, torch.SymInt, torch.SymFloat, torch.SymBool)
    return any(isinstance(leaf, symbolic) for leaf in pytree.tree_leaves(values))


def _elements(tensor: Any) -> np.ndarray[Any, Any]:
    if isinstance(tensor, np.ndarray):
        return tensor
    if tensor.dtype not in DTYPES:
        raise UnknownElementsError
    array = np.empty(tuple(tensor.shape), dtype=object)
    for index in np.ndindex(*array.shape):
        array[index] = tensor[index].item()
    return array


def computed(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The elements of an arithmetic operator's result.

    Args:
        name: of the operator, without overload.
        args: its arguments; tensors are real tensors and arrays of elements.
        kwargs: its keyword arguments.

    Raises:
        UnknownElementsError: the operator isn't one of these, or its elements can't be followed.
    """
    if name in ("add", "sub", "subtract", "rsub"):
        alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        a, b = args[:2] if name != "rsub" else args[1::-1]
        factor = element(alpha) if name == "add" else _negative(element(alpha))
        return _each(lambda x, y: _sum(x, _product(y, factor)), a, b)
    if name in ("div", "divide"):
        return _each(_rounded_by(kwargs.get("rounding_mode")), *args[:2])
    if name in ("clamp", "clip", "clamp_min", "clamp_max"):
        low, high = (kwargs.get(key) for key in ("min", "max"))
        if len(args) > 1:
            low, high = (None, args[1]) if name == "clamp_max" else (args[1], args[2] if len(args) > 2 else high)
        return _each(_limited, args[0], low, high)
    if name == "where" and len(args) == 3:
        return _each(_chosen, *args)
    if name == "round" and not kwargs and len(args) == 1:
        return _each(_round, args[0])
    if name in _REDUCTIONS and len(args) == 1 and not kwargs.get("dim"):
        first, *rest = _elements(args[0]).reshape(-1).tolist() or [None]
        if first is None:
            raise UnknownElementsError
        return array_of(functools.reduce(_REDUCTIONS[name], rest, first))
    if name in ("max", "min") and len(args) == 2 and isinstance(args[1], (np.ndarray, torch.Tensor)):
        return _each(_REDUCTIONS[name], *args)
    if name in _TWO and len(args) == 2:
        return _each(_TWO[name], *args)
    if name in _ONE and len(args) == 1:
        return _each(_ONE[name], args[0])
    raise UnknownElementsError


def array_of(value: Any) -> np.ndarray[Any, Any]:
    array = np.empty((), dtype=object)
    array[()] = value
    return array


def _each(function: Callable[..., Any], *args: Any) -> np.ndarray[Any, Any]:
    """The function of each group of elements, broadcast."""
    arrays = [
        _elements(arg)
        if isinstance(arg, (np.ndarray, torch.Tensor))
        else array_of(arg if arg is None else element(arg))
        for arg in args
    ]
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(*shape):
        result[index] = function(*(np.broadcast_to(array, shape)[index] for array in arrays))
    return result
