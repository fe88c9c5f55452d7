"""Python's own functions of a dynamic size: ``len(tensor)``, ``range(0, n, n)``, and text such as ``f"{x.shape}"``.

``len`` and ``range`` make a size the example's number. While a non-strict capture traces, the packages that the model's
classes come from have a ``len`` that gives the size of a tensor, and a ``range`` of symbolic steps where the number of
steps is the same at every size. Text can't follow a size: where forward makes some, a warning names the line.
"""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy
import torch
from onnxport.kit import Replacement, is_library, warn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from onnxport_builtin.capture.non_strict import while_traced
from onnxport_builtin.capture.packages import modules_of_packages

_PYTHON = {*sys.builtin_module_names, *sys.stdlib_module_names} - {"__main__"}

#: Functions whose text is for people to read.
_READERS = {"print", "warn", "debug", "info", "warning", "error", "exception", "critical", "log", "write"}


def python_functions(model: torch.nn.Module) -> Iterator[Replacement]:
    """While it is active, these functions follow dynamic sizes in the packages that the model's classes come from."""
    return while_traced(functools.partial(_replaced, model))


def _replaced(model: torch.nn.Module) -> Iterator[Replacement]:
    left_out = _PYTHON | {"torch", __name__.partition(".")[0]}  # which has the modules of scripted parts
    for module in modules_of_packages(model, left_out):
        space = vars(module)
        if "__builtins__" in space:
            for function, substitute in (("len", _length), ("range", _Range)):
                if function not in space:
                    yield Replacement(module, function, lambda _, substitute=substitute: substitute, is_new=True)
    told: set[tuple[str, int]] = set()
    for owner in (torch.SymInt, torch.SymFloat):
        for name in ("__str__", "__repr__"):
            yield Replacement(owner, name, functools.partial(_telling, told))


# Lengths and ranges ---------------------------------------------------------------------------------------------------


def _length(value: Any) -> Any:
    """``len`` returns a Python int whatever ``Tensor.__len__`` gives."""
    if isinstance(value, torch.Tensor) and type(value).__len__ is torch.Tensor.__len__ and value.dim():
        return value.shape[0]
    return builtins.len(value)


class _Ranges(type):
    def __call__(cls, *args: Any) -> Any:
        steps = _steps(*args) if any(isinstance(arg, torch.SymInt) for arg in args) else None
        return builtins.range(*args) if steps is None else steps

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, builtins.range)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is builtins.range

    def __hash__(cls) -> int:
        return hash(builtins.range)


class _Range(metaclass=_Ranges):
    """Stands for Python's range."""


def _steps(start: Any, stop: Any = None, step: Any = 1) -> Sequence[Any] | None:
    """The numbers of a range whose number of steps is the same at every size; None for others."""
    start, stop = (0, start) if stop is None else (start, stop)
    distance = stop - start
    whole = sympy.cancel(_expression(distance) / _expression(step)) if _expression(step) != 0 else None
    if whole is not None and whole.is_Integer:
        return [start + i * step for i in range(max(int(whole), 0))]
    if not _is_known(step > 0):
        return None
    if _is_known(distance <= 0):
        return []
    return [start] if _is_known(distance > 0) and _is_known(distance <= step) else None


def _expression(number: Any) -> Any:
    return number.node.expr if isinstance(number, torch.SymInt) else sympy.Integer(number)


def _is_known(condition: Any) -> bool:
    """Whether it holds at every size; no guard is added."""
    return condition if isinstance(condition, bool) else bool(statically_known_true(condition))


# Text -----------------------------------------------------------------------------------------------------------------


def _telling(told: set[tuple[str, int]], original: Callable[[Any], str]) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        frame = sys._getframe(1)
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place not in told and not is_library(place[0]) and not _is_read(*place):
            told.add(place)
            line = f"{place[0]}:{place[1]}: {linecache.getline(*place).strip()}"
            warn(
                f"The forward makes text of a dynamic size: {line}\nText is made while the model is captured, so what "
                "the file computes from it is the same at every size. Compute from the size itself; text that only "
                "people read is harmless."
            )
        return original(self)

    return text


def _is_read(file: str, number: int) -> bool:
    """Whether a line's text is for people: it is printed, logged, or part of an error."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):  # a cell of a notebook may hold more than Python
        return False
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= number <= (n.end_lineno or 0)]
    if not around:
        return False
    statement = min(around, key=lambda n: ((n.end_lineno or 0) - n.lineno, -n.col_offset))
    if isinstance(statement, (ast.Raise, ast.Assert)):
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    name = getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
    return name in _READERS
