"""The sizes of a model's inputs as unknowns: which follow from others, and other values for those that don't."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sympy

_UNBOUNDED = 2**31
_LONGEST = 500
"""A longer text of a dimension is taken for a name, whatever is in it."""


class Sizes:
    """The sizes of all inputs as expressions of few unknowns: torch's symbols, and the names that the file has.

    What torch and the file say of one axis is equal, so each axis may tie unknowns. Those that follow from others are
    replaced by them: axes of one name have one size, whether or not the torch model ties them.

    Args:
        ranges: the bounds of torch's symbols, with attributes ``lower`` and ``upper``.
    """

    def __init__(self, ranges: Mapping[Any, Any]) -> None:
        self._ranges = ranges
        self._follows: dict[sympy.Symbol, sympy.Expr] = {}
        self._names: dict[sympy.Symbol, str] = {}
        self._order: dict[sympy.Symbol, None] = {}
        self._equations: list[tuple[sympy.Expr, int]] = []

    def axis(self, size: int, expression: Any = None, text: str | int | None = None) -> sympy.Expr:
        """Take in one axis.

        Args:
            size: its size in the example.
            expression: torch's size, an int or an expression; None where it isn't known.
            text: what the file has, a number, a name or arithmetic over names; None for a dimension without a name.

        Returns:
            The expression of its size.
        """
        named = self._read(text)
        known = named if expression is None else sympy.sympify(expression)
        result = sympy.Integer(size) if known is None else known
        self._order |= dict.fromkeys(sorted(result.free_symbols, key=str))
        if named is not None:
            self._order |= dict.fromkeys(sorted(named.free_symbols, key=str))
            self._tie(result, named)
        if (result, size) not in self._equations:
            self._equations.append((result, size))
        return result

    def example(self) -> dict[sympy.Symbol, int]:
        """The values of the unknowns in the example; those that it doesn't tell are left out."""
        known: dict[sympy.Symbol, int] = {}
        before = -1
        while len(known) > before:
            before = len(known)
            for expression, size in self._equations:
                rest = self._reduced(expression).subs(known)
                if len(rest.free_symbols) == 1:
                    (symbol,) = rest.free_symbols
                    value = _solved(rest, symbol, size)
                    if value is not None:
                        known[symbol] = value
        return {symbol: known[symbol] for symbol in self._order if symbol in known}

    def chosen(self, smallest: int | None = None) -> dict[sympy.Symbol, int]:
        """Other values: each unknown larger and unlike the others; or as small as allowed, ``smallest`` at least."""
        values: dict[sympy.Symbol, int] = {}
        for i, (symbol, size) in enumerate(self.example().items()):
            lower, upper = self._bounds(symbol, smallest or 1)
            if smallest is None:
                wanted = max(lower, min(upper, 2 * size + 1 + i))
                near = itertools.chain(range(wanted, wanted + 9), range(wanted - 1, max(wanted - 9, 0), -1))
            else:
                wanted = lower
                near = itertools.chain(range(wanted, wanted + 9))
            values[symbol] = next(
                (v for v in near if lower <= v <= upper and self._fits({**values, symbol: v})), wanted
            )
        return values

    def value(self, expression: sympy.Expr, values: Mapping[sympy.Symbol, int]) -> int | None:
        """The size that an expression has; None where the values don't tell, or it is none."""
        found = self._reduced(expression).subs(values)
        return int(found) if found.is_Integer and found >= 0 else None

    def label(self, values: Mapping[sympy.Symbol, int]) -> str:
        """The sizes as text, by the file's names, and torch's where it has none."""
        told = {symbol: self.value(symbol, values) for symbol in self._order if symbol in self._names}
        covered = {s for symbol in told for s in self._reduced(symbol).free_symbols}
        told |= {symbol: size for symbol, size in values.items() if symbol not in covered}
        return ", ".join(
            f"{self._names.get(symbol, symbol)}={size}" for symbol, size in told.items() if size is not None
        )

    def _read(self, text: str | int | None) -> sympy.Expr | None:
        if text is None or isinstance(text, int):
            return None if text is None else sympy.Integer(text)
        return parsed(text, self._unknown)

    def _unknown(self, name: str) -> sympy.Symbol:
        symbol = sympy.Symbol(f"name of the file: {name}", integer=True, positive=True)
        self._names[symbol] = name
        return symbol

    def _reduced(self, expression: Any) -> sympy.Expr:
        return sympy.sympify(expression).xreplace(self._follows)

    def _tie(self, left: sympy.Expr, right: sympy.Expr) -> None:
        """Make two expressions of one axis equal: one unknown of them then follows from the others."""
        left, right = self._reduced(left), self._reduced(right)
        difference = sympy.expand(left - right)
        for symbol, solution in itertools.chain(_plain(left, right), _plain(right, left), _linear(difference)):
            self._follows = {s: e.xreplace({symbol: solution}) for s, e in self._follows.items()}
            self._follows[symbol] = solution
            return

    def _bounds(self, symbol: sympy.Symbol, smallest: int) -> tuple[int, int]:
        """The values to choose from, by the bounds of torch's symbols that are this unknown, or are linear in it.

        torch gives every dynamic dimension a lower bound of 2 by default: 1 is tried, too.
        """
        lower, upper = smallest, _UNBOUNDED
        for bounded, constraint in self._ranges.items():
            expression = self._reduced(bounded)
            if not bounded.is_Symbol or expression.free_symbols != {symbol}:
                continue
            slope, offset = expression.coeff(symbol, 1), expression.subs(symbol, 0)
            if sympy.expand(expression - slope * symbol - offset) != 0 or not slope > 0:
                continue
            low, high = _bounds_of(constraint, smallest if expression == symbol else 1)
            lower = max(lower, int(sympy.ceiling((low - offset) / slope)))
            upper = min(upper, int(sympy.floor((high - offset) / slope)))
        return lower, max(upper, lower)

    def _fits(self, values: Mapping[sympy.Symbol, int]) -> bool:
        """Whether sizes that these values tell are whole numbers, and within torch's bounds."""
        for expression, _ in self._equations:
            found = self._reduced(expression).subs(values)
            if found.is_number and not (found.is_Integer and found >= 0):
                return False
        for symbol, constraint in self._ranges.items():
            found = self._reduced(symbol).subs(values)
            low, high = _bounds_of(constraint, 1)
            if found.is_number and symbol in self._follows and not low <= found <= high:
                return False
        return True


def parsed(text: str, unknown: Callable[[str], sympy.Symbol]) -> sympy.Expr:
    """The expression that a dimension's text stands for; one that isn't arithmetic is a name. Nothing is evaluated."""
    try:
        if len(text) <= _LONGEST:
            return _expression(ast.parse(text.strip(), mode="eval").body, unknown)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    return unknown(text)


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: sympy.floor(a / b),
    ast.Mod: sympy.Mod,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Max": sympy.Max,
    "Min": sympy.Min,
    "Mod": sympy.Mod,
    "floor": sympy.floor,
    "ceiling": sympy.ceiling,
    "FloorDiv": lambda a, b: sympy.floor(a / b),
}


def _expression(node: ast.expr, unknown: Callable[[str], sympy.Symbol]) -> sympy.Expr:
    if isinstance(node, ast.Name):
        return unknown(node.id)
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < _UNBOUNDED:
        return sympy.Integer(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_expression(node.operand, unknown)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_expression(node.left, unknown), _expression(node.right, unknown))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and not node.keywords
    ):
        return _FUNCTIONS[node.func.id](*(_expression(arg, unknown) for arg in node.args))
    raise ValueError(ast.dump(node))


def _plain(left: sympy.Expr, right: sympy.Expr) -> Iterator[tuple[sympy.Symbol, sympy.Expr]]:
    if left.is_Symbol and left not in right.free_symbols:
        yield left, right


def _linear(difference: sympy.Expr) -> Iterator[tuple[sympy.Symbol, sympy.Expr]]:
    """Solutions of ``difference == 0`` for one unknown in which it is linear: those without fractions first."""
    found = []
    for symbol in sorted(difference.free_symbols, key=str):
        slope = difference.coeff(symbol, 1)
        rest = sympy.expand(difference - slope * symbol)
        if slope.is_Integer and slope != 0 and symbol not in rest.free_symbols:
            found.append((abs(slope) != 1, symbol, sympy.expand(-rest / slope)))
    yield from ((symbol, solution) for _, symbol, solution in sorted(found, key=lambda item: item[0]))


def _solved(expression: sympy.Expr, symbol: sympy.Symbol, size: int) -> int | None:
    """The value of the one unknown of an expression."""
    if expression.is_polynomial(symbol):
        solutions = [s for s in sympy.solve(expression - size, symbol) if s.is_Integer and s >= 0]
        return int(solutions[0]) if len(solutions) == 1 else None
    if size > 10_000:
        return None
    return next((value for value in range(8 * size + 9) if expression.subs(symbol, value) == size), None)


def _bounds_of(constraint: Any, smallest: int) -> tuple[int, int]:
    lower = int(constraint.lower) if constraint.lower.is_Integer else 0
    upper = int(constraint.upper) if constraint.upper.is_Integer else _UNBOUNDED
    return (smallest if lower <= 2 <= upper or lower <= 1 else lower), upper


__all__ = ["Sizes", "parsed"]
