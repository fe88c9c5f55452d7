"""What was asked to be dynamic, held against a captured program: what isn't so is an error with the model's line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import sympy
from onnxport import DynamicAxis, DynamicShapesError
from torch.export import Dim, ExportedProgram

from onnxport_builtin.attempts.diagnosis import (
    constraint_message,
    expression_of,
    frozen,
    guard_text,
    reason,
    requested_sizes,
)

if TYPE_CHECKING:
    from onnxport.kit import Asked, Request

Advise = Callable[[Exception, str], str]
"""advise(error, place of the model) -> what to do about it; empty where nothing is known."""


def unadvised(_error: Exception, _place: str) -> str:
    """No advice."""
    return ""


def check_dynamic(
    program: ExportedProgram,
    request: Request,
    lines: Callable[[Any], str] | None = None,
    advise: Advise = unadvised,
) -> None:
    """Hold the program to the dimensions that were asked for.

    Args:
        program: the captured program.
        request: what was asked for.
        lines: gives the place in the model that froze a symbol, where it is known.
        advise: says what to write in place of a line.

    Raises:
        DynamicShapesError: some of them are static; the message has each one's input, axis, name and place.
    """
    listed, axes = [], []
    for leaf, axis, asked, size, value in frozen(program, request):
        where = leaf.path if axis is None else f"axis {axis} of {leaf.path}"
        name = f" ({asked.name!r})" if asked.name else ""
        guard, line = reason(program, size, lines)
        place = f", because of {line}" if line else " (place unknown)"
        listed.append(f"    {where}{name} is always {value}{guard}{place}")
        axes.append(DynamicAxis(leaf.path, axis, asked.label, line, value))
    if listed:
        usual = "Change that line so that it works with any size (sizes from tensor.shape, -1 in reshape)"
        raise _with_cure(
            "The model makes static what was asked to be dynamic:\n" + "\n".join(listed),
            axes,
            [axis.line for axis in axes],
            usual,
            ", or leave the axis out of dynamic_shapes. "
            'Run with TORCH_LOGS="+dynamic" to see every decision of torch.export.',
            advise,
        )


def made_static(conditions: Iterable[tuple[str, str]], request: Request, advise: Advise) -> DynamicShapesError:
    """What is made of sizes and a number all the same: conditions on sizes, with the lines of the model."""
    conditions = list(conditions)
    listed = [f"{text}, because of {line}" if line else text for text, line in conditions]
    return _with_cure(
        "The model makes static what follows from sizes that were asked to be dynamic:\n    " + "\n    ".join(listed),
        axes_of(request, lambda asked: asked.contract),
        [line for _, line in conditions],
        "Python's int(), and arguments of torch's functions that are plain numbers (a window, a stride, an eps), "
        "make a size a number: use // or torch.sym_int(...), math.ceil or math.floor in place of int(), and operations "
        "on tensors in place of such an argument",
        "; or leave the axes out of dynamic_shapes.",
        advise,
    )


def _with_cure(
    fault: str, axes: list[DynamicAxis], places: Iterable[str], usual: str, otherwise: str, advise: Advise
) -> DynamicShapesError:
    """The error with what to write at the lines of the model."""
    error = DynamicShapesError(fault, parameter="dynamic_shapes", axes=axes)
    advice = ". ".join(dict.fromkeys(advise(error, place) or usual for place in places))
    return DynamicShapesError(f"{fault}\n{advice}{otherwise}", parameter="dynamic_shapes", axes=axes)


def check_arithmetic(program: ExportedProgram, request: Request, error: Exception | None = None) -> None:
    """Make sure that a derived dimension is what was asked for.

    Raises:
        DynamicShapesError: the model makes it another; ``error``, a contradiction that torch.export told, is its cause.
    """
    sizes = list(requested_sizes(program, request))
    roots = {asked.name: expression_of(size) for *_, asked, size in sizes if asked.expression is None}
    for leaf, axis, asked, size in sizes:
        if asked.expression is None:
            continue
        wanted = asked.expression.subs({s: roots[s.name] for s in asked.expression.free_symbols if s.name in roots})
        made = expression_of(size)
        related = made is None or made.free_symbols <= set(roots.values())  # a size of its own may be the sum
        if related and wanted.free_symbols <= set(roots.values()) and sympy.simplify(wanted - (made or size)) != 0:
            named = {expression: sympy.Symbol(name) for name, expression in roots.items() if name}
            raise DynamicShapesError(
                f"Axis {axis} of {leaf.path} was asked to be {asked.name}, but the model makes it "
                f"{size if made is None else made.xreplace(named)}."
                + (f"\n{constraint_message(error)}" if error is not None else ""),
                parameter="dynamic_shapes",
                axes=[DynamicAxis(leaf.path, axis, asked.label, size=size if made is None else None)],
            ) from error


def check_bounds(program: ExportedProgram, request: Request, error: Exception) -> None:
    """Make sure that a model takes all sizes that a ``Dim`` was asked to have.

    Raises:
        DynamicShapesError: it takes fewer.
    """
    for leaf, axis, asked, size in requested_sizes(program, request):
        expression = expression_of(size)
        bounds = program.range_constraints.get(expression)
        if bounds is None or not isinstance(asked.dim, Dim) or asked.expression is not None:
            continue
        low, high = asked.bounds
        if (high is not None and bounds.upper < high) or bounds.lower > max(low, 2):
            raise DynamicShapesError(
                f"Axis {axis} of {leaf.path} was asked to be {asked.name} in "
                f"{low}..{'' if high is None else high}, "
                f"but the model takes {bounds.lower}..{bounds.upper}{guard_text(program, expression)}.\n"
                "Narrow the Dim's min and max.",
                parameter="dynamic_shapes",
                axes=[DynamicAxis(leaf.path, axis, asked.label)],
            ) from error


def contradicted(error: Exception, place: str, request: Request) -> DynamicShapesError:
    """That a model contradicts its ``Dim``s, where torch.export gives no program even for hints."""
    return DynamicShapesError(
        constraint_message(error) + (f"\nSee {place}" if place else ""),
        parameter="dynamic_shapes",
        axes=axes_of(request, lambda asked: isinstance(asked.dim, Dim), place),
    )


def tied(names: list[str], place: str, request: Request, error: Exception | None = None) -> DynamicShapesError:
    """That a model makes dimensions equal that were asked for by different names."""
    contradiction = "" if error is None else f"\n{constraint_message(error)}"
    return DynamicShapesError(
        f"{tie_message(names, place)}\nUse one Dim for all of them.{contradiction}",
        parameter="dynamic_shapes",
        axes=axes_of(request, lambda asked: asked.name in names, place),
    )


def tie_message(names: list[str], place: str) -> str:
    """What is said of dimensions that the model makes equal."""
    told = f" It does so at {place}." if place else ""
    return f"The model makes the dimensions {' and '.join(map(repr, names))} equal.{told}"


def ties(program: ExportedProgram, request: Request) -> list[list[str]]:
    """Groups of names that came out as one symbol."""
    groups: dict[Any, list[str]] = {}
    for _, axis, asked, size in requested_sizes(program, request):
        expression = expression_of(size)
        is_free = asked.name is None or asked.automatic or asked.expression is not None
        if expression is None or is_free or axis is None:
            continue
        names = groups.setdefault(expression, [])
        if asked.name not in names:
            names.append(str(asked.name))
    return [names for names in groups.values() if len(names) > 1]


def axes_of(request: Request, concerned: Callable[[Asked], bool], line: str = "") -> list[DynamicAxis]:
    """The axes of which something was asked that an error is about."""
    asked = [(leaf, axis, asked) for leaf in request.leaves for axis, asked in leaf.asked.items()]
    return [DynamicAxis(leaf.path, axis, each.label, line) for leaf, axis, each in asked if concerned(each)]
