"""Questions about sizes, answered once each: where torch's solver spends its time when height and width are dynamic.

Window attention (Swin, SwinIR, MaxViT) pads a map to whole windows and cuts it with ``view``. Its sizes are quotients
of sums of remainders, and each guard of ``view``, ``roll`` and the strides behind them asks torch 2.14 for the range of
such an expression, for its symbols, and for sympy's facts about it. Both libraries walk an expression as a tree,
although it is a graph of few different parts, and start again at each question. Here a part has its range, symbols,
atoms and facts computed once, and sympy's own caches, of 1,000 results, are large enough for one capture. Each answer
is the libraries' own, so the program is the same. The replacements last while an export captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import sympy
from onnxport.kit import Replacement
from sympy.core import assumptions
from sympy.core.basic import Basic
from sympy.core.function import Application
from sympy.core.operations import AssocOp
from sympy.core.parameters import global_parameters
from torch.fx.experimental import symbolic_shapes
from torch.utils._sympy import interp, value_ranges

_CACHE_SIZE = 2**16  # expressions; a window attention has 5,000


def solver_memory() -> Iterator[Replacement]:
    """While any thread is in it, the solver answers a question about a part of an expression once."""
    if hasattr(value_ranges, "sympy_interp") and hasattr(interp, "_run_sympy_handler"):
        yield Replacement(value_ranges, "sympy_interp", _ranges_once)
    if hasattr(value_ranges, "_rewrite_for_value_range_analysis"):
        yield Replacement(value_ranges, "_rewrite_for_value_range_analysis", _rewritten_once)
    if hasattr(symbolic_shapes, "_fast_expand"):
        yield Replacement(symbolic_shapes, "_fast_expand", _expanded_once)
    yield Replacement(Basic, "free_symbols", _symbols_once)
    yield Replacement(Basic, "atoms", _atoms_once)
    yield Replacement(Basic, "xreplace", _replaced_once)
    if hasattr(assumptions, "_ask"):
        yield Replacement(assumptions, "_ask", _facts_once)
    for owner, name in ((AssocOp, "__new__"), (Application, "__new__"), (Basic, "has")):
        if hasattr(getattr(owner, name), "__wrapped__"):
            yield Replacement(owner, name, _large_cache)


class _Results:
    """Results of a function of an expression and of the ranges of its symbols."""

    def __init__(self) -> None:
        self._symbols: dict[Any, tuple[Any, ...]] = {}
        self._results: dict[Any, Any] = {}

    def get(self, expr: Any, ranges: Any, compute: Callable[[], Any]) -> Any:
        """The result for this expression and these ranges of its symbols, computed at the first request."""
        if (symbols := self._symbols.get(expr)) is None:
            symbols = self._symbols[expr] = tuple(expr.free_symbols)
        key = expr, tuple([ranges.get(symbol) for symbol in symbols])
        if (result := self._results.get(key)) is None:
            result = self._results[key] = compute()
        return result


def _ranges_once(original: Callable[..., Any]) -> Callable[..., Any]:
    results = _Results()

    def sympy_interp(analysis: Any, env: Any, expr: Any, **options: Any) -> Any:
        if analysis is not value_ranges.SymPyValueRangeAnalysis or isinstance(expr, sympy.Symbol) or not expr.args:
            return original(analysis, env, expr, **options)

        def compute() -> Any:
            args = [sympy_interp(analysis, env, arg, **options) for arg in expr.args]
            return interp._run_sympy_handler(analysis, args, expr)

        return results.get(expr, env, compute)

    return sympy_interp


def _rewritten_once(original: Callable[..., Any]) -> Callable[..., Any]:
    results = _Results()

    def rewrite(expr: Any, ranges: Any) -> Any:
        if not expr.args:
            return expr
        return results.get(expr, ranges, lambda: original(expr, ranges))  # which asks for the parts here

    return rewrite


def _expanded_once(original: Callable[..., Any]) -> Callable[..., Any]:
    results: dict[Any, Any] = {}  # None where there is nothing to expand

    def expand(expr: Any) -> Any:
        if expr not in results:
            result = original(expr)  # which asks for the parts here
            results[expr] = None if result is expr else result
            return result
        result = results[expr]
        return expr if result is None else result  # torch asks whether it is the very object

    return expand


def _symbols_once(original: Any) -> Any:
    known: dict[Any, frozenset[Any]] = {}

    def free_symbols(self: Any) -> set[Any]:
        if (found := known.get(self)) is None:
            found = known[self] = frozenset(original.fget(self))  # which asks for the parts' here
        return set(found)

    return property(free_symbols)


def _atoms_once(original: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, frozenset[Any]] = {}

    def of_types(expr: Any, types: tuple[type, ...]) -> frozenset[Any]:
        if (found := known.get((expr, types))) is None:
            own = (expr,) if isinstance(expr, types) else ()
            found = known[expr, types] = frozenset(own).union(*(of_types(arg, types) for arg in expr.args))
        return found

    def atoms(self: Any, *types: Any) -> set[Any]:
        if not types or not all(isinstance(each, type) for each in types):
            return original(self, *types)
        return set(of_types(self, types))

    return atoms


def _replaced_once(original: Callable[..., Any]) -> Callable[..., Any]:
    def xreplace(self: Any, rule: Any) -> Any:
        results: dict[Any, tuple[Any, bool]] = {}

        def replace(expr: Any) -> tuple[Any, bool]:
            """The result, and whether anything of it was replaced, even by an equal one."""
            if not isinstance(expr, Basic):
                return expr, False
            if expr in rule:
                return rule[expr], True
            if not expr.args:
                return expr, False
            if (result := results.get(expr)) is None:
                args = [replace(arg) for arg in expr.args]
                changed = any(is_new for _, is_new in args)
                result = results[expr] = (expr.func(*(arg for arg, _ in args)) if changed else expr), changed
            return result

        return replace(self)[0] if rule else self

    return xreplace


def _facts_once(original: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def ask(fact: str, obj: Any) -> Any:
        facts = known.setdefault(obj, obj._assumptions)
        if facts is not obj._assumptions:  # an equal expression was asked before
            obj._assumptions = facts
            if fact in facts:
                return facts[fact]
        return original(fact, obj)

    return ask


def _large_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    function = original.__wrapped__  # type: ignore[attr-defined]
    cached = lru_cache(_CACHE_SIZE, typed=True)(function)

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if not (global_parameters.evaluate and global_parameters.distribute):  # results are other ones
            return original(*args, **kwargs)
        try:
            return cached(*args, **kwargs)
        except TypeError:  # an argument without a hash
            return function(*args, **kwargs)

    return remembered
