"""What a captured program assumes about the sizes that were asked to be dynamic.

torch.export keeps its assumptions as guards on symbols, which a file can't hold. An equation that hardly any size
solves is a pin: ``round((h - 10) / 2) == 5`` says that an offset was computed from the example's height and is a
constant of the graph. A condition that the model's own code asked is a branch, such as ``w > h`` or ``batch < 10``:
where it doesn't hold, the model does something else than the file. What torch's operators ask for is a limit:
``rows % 4 == 0``.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sympy

from onnxport_builtin.attempts.diagnosis import expression_of, guards, innermost, requested_sizes
from onnxport_builtin.attempts.upstream import PythonPrinter

if TYPE_CHECKING:
    from onnxport.kit import Request
    from torch.export import ExportedProgram

#: Sizes that differ by multiples of it leave the same remainders for any stride or window that a model may have.
_PERIOD = 2**10 * 3**2 * 5 * 7 * 11 * 13

#: Functions of torch that compare sizes to choose a layout, which is no limit.
_LAYOUT = re.compile("contiguous|dense|strides|_reshape_view")

#: Files that ask for an operator's sake. Others that aren't a model's, such as NumPy's, decide for the model's line.
_OPERATORS = re.compile(r"[/\\](torch|sympy|onnxport\w*)[/\\]")


def pinned(program: ExportedProgram, request: Request) -> list[tuple[str, str]]:
    """The equations with a number that leave next to no sizes, each with the line of the model it comes from."""
    return [(text, place) for text, place, pin in _broken(program, request) if pin]


def limits(program: ExportedProgram, request: Request) -> dict[str, str]:
    """All conditions that some sizes break, with the line of the model's code that asked; empty for an operator."""
    return {text: place for text, place, _ in _broken(program, request)}


def _broken(program: ExportedProgram, request: Request) -> Iterator[tuple[str, str, bool]]:
    """Conditions that some sizes break: the text, the model's line, and whether it is an equation with a number."""
    names, hints, bounds, sums = {}, {}, {}, {}
    env: Any = None
    for leaf, axis, asked, size in requested_sizes(program, request):
        symbol, hint = expression_of(size), getattr(getattr(size, "node", None), "hint", None)
        if asked.contract and symbol is not None and symbol.is_Symbol and isinstance(hint, int):
            names[symbol] = sympy.Symbol(asked.label or f"{leaf.path}.shape[{axis}]", integer=True)
            hints[symbol], bounds[symbol], env = hint, asked.bounds, size.node.shape_env
            if asked.expression is not None:
                names[symbol] = sums[symbol] = asked.expression
    free = [symbol for symbol in hints if symbol not in sums]

    def point(sizes: dict[Any, int]) -> dict[Any, Any]:
        found = {symbol: sympy.Integer(size) for symbol, size in sizes.items()}
        known = {names[symbol].name: size for symbol, size in found.items() if symbol not in sums}
        for symbol, expression in sums.items():  # ``past + seq``: no size of its own
            found[symbol] = expression.xreplace({s: known[s.name] for s in expression.free_symbols if s.name in known})
        return found

    order = [89 * k + 12 * k * k for k in range(1, len(free) + 1)]  # no ratio that two sizes of an example may have
    far = [
        point({symbol: hints[symbol] + _PERIOD * factor for symbol, factor in zip(free, factors)})
        for factors in (order, reversed(order))
    ]
    near = {
        symbol: [point({**hints, symbol: size}) for size in _near(hints[symbol], *bounds[symbol])] for symbol in free
    }
    allowed = [at for at in far if all((high := bounds[s][1]) is None or at[s] <= high for s in free)]
    told: set[tuple[Any, ...]] = set()
    first: dict[Any, Any] = {}
    for guard in guards(program) if env is not None else ():
        first.setdefault(env.replace(guard.expr), guard)
    for expression, guard in first.items():
        symbols, equation = expression.free_symbols, isinstance(expression, sympy.Eq)
        place, function = _place(getattr(guard, "sloc", None))
        skipped = not place and (isinstance(expression, sympy.Ne) or _LAYOUT.search(function))
        if not symbols or not symbols <= hints.keys() or skipped or expression.xreplace(names) == sympy.true:
            continue
        number = equation and (expression.lhs.is_number or expression.rhs.is_number)
        pin = number and (len(symbols) == 1 or bool(expression.atoms(sympy.Function)))
        pin = pin and not any(_value(expression, at) == sympy.true for at in far)
        sizes = [at for symbol in free if symbol in symbols for at in near[symbol]]
        broken = {(*at.items(),) for at in [*allowed, *sizes] if _value(expression, at) == sympy.false}
        if pin or not broken <= told:
            told |= broken
            line = place or (getattr(guard.sloc, "model_line", "") if pin else "")
            yield PythonPrinter().doprint(expression.xreplace(names)), line, pin


def _value(expression: Any, at: dict[Any, Any]) -> Any:
    try:
        return expression.xreplace(at)
    except ZeroDivisionError:  # a remainder, of sizes that another condition rules out
        return None


def _near(hint: int, low: int, high: int | None) -> list[int]:
    sizes = {2, 3, 4, 5, 8, hint - 1, *range(hint + 1, hint + 13)} - {hint}
    return sorted(size for size in sizes if size >= max(low, 2) and (high is None or size <= high))


def _place(location: Any) -> tuple[str, str]:
    """The model's line of a guard, empty for one of torch's own, and the function that asked.

    Strict captures have the line as a shortened text.
    """
    frame = getattr(location, "framework_loc", None)
    if not isinstance(frame, traceback.FrameSummary):
        return "", ""
    text = location.maybe_user_loc if "_dynamo" in frame.filename else None
    foreign = "" if _OPERATORS.search(frame.filename) else getattr(location, "model_line", "")
    return text or innermost([frame]) or foreign, frame.name
