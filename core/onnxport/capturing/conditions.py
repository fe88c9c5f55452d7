"""What a captured program takes for granted about the sizes that were asked to be dynamic.

torch.export keeps its assumptions as guards on symbols, which a file can't hold. Ranges, divisibility and inequality
are no news. An equation that hardly any size solves is: ``round((h - 10) / 2) == 5`` says that an offset was computed
from the example's height and is a constant of the graph. So is a branch, such as ``w > h``.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sympy

from onnxport.capturing.diagnosis import captured, expression_of, guards, innermost

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from onnxport.capturing.request import Request

#: Sizes that differ by multiples of it leave the same remainders for any stride or window that a model may have.
_PERIOD = 2**10 * 3**2 * 5 * 7 * 11 * 13


def pinned(program: ExportedProgram, request: Request) -> list[str]:
    """The equations with a number that leave next to no sizes, each with the line of the model it comes from."""
    return [text for text, pin in _broken(program, request) if pin]


def branches(program: ExportedProgram, request: Request) -> list[str]:
    """The other conditions that some sizes break, likewise."""
    return [text for text, pin in _broken(program, request) if not pin]


def _broken(program: ExportedProgram, request: Request) -> Iterator[tuple[str, bool]]:
    """Conditions that fail at sizes far from the example's, and whether they are equations with a number."""
    names, hints = {}, {}
    for leaf, axis, asked, size in captured(program, request):
        symbol, hint = expression_of(size), getattr(getattr(size, "node", None), "hint", None)
        if asked.contract and symbol is not None and symbol.is_Symbol and isinstance(hint, int):
            names[symbol] = sympy.Symbol(asked.label or f"{leaf.path}.shape[{axis}]")
            hints[symbol] = hint
    order = range(1, len(hints) + 1)
    points = [
        {symbol: sympy.Integer(hint + _PERIOD * factor) for (symbol, hint), factor in zip(hints.items(), factors)}
        for factors in (order, reversed(order))
    ]
    for expression, guard in {guard.expr: guard for guard in guards(program)}.items():
        symbols, equation = expression.free_symbols, isinstance(expression, sympy.Eq)
        if not symbols or not symbols <= hints.keys() or isinstance(expression, sympy.Ne):
            continue
        if len(symbols) == 1 and not equation:
            continue  # a range
        held = sum(expression.xreplace(point) == sympy.true for point in points)
        if held < len(points):
            place = _place(getattr(guard, "sloc", None))
            number = equation and (expression.lhs.is_number or expression.rhs.is_number)
            pin = held == 0 and number and (len(symbols) == 1 or bool(expression.atoms(sympy.Function)))
            if pin or place:  # torch's own functions compare sizes to choose a layout, or where a slice ends
                yield f"{expression.xreplace(names)}{f', because of {place}' if place else ''}", pin


def _place(location: Any) -> str:
    """The model's line of a guard; empty for one of torch's own. Strict captures have it as a shortened text."""
    frame = getattr(location, "framework_loc", None)
    if not isinstance(frame, traceback.FrameSummary):
        return ""
    text = location.maybe_user_loc if "_dynamo" in frame.filename else None
    return text or innermost([frame])
