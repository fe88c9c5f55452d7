"""Why a capture failed or froze a dimension: the line of the model, the condition, and what to do about it."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import itertools
import linecache
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sympy
import torch
from onnxport.kit import all_applied
from torch.export import ExportedProgram

from onnxport_builtin.attempts.upstream import GuardOnDataDependentSymNode, of_symbols

if TYPE_CHECKING:
    from onnxport.kit import Asked, Leaf, Request

_NUMERIC = (importlib.util.find_spec(name) for name in ("numpy", "scipy"))
_LIBRARIES = tuple(
    os.path.dirname(file)
    for file in (torch.__file__, sympy.__file__, *(spec.origin for spec in _NUMERIC if spec and spec.origin))
)
_STANDARD = os.path.dirname(os.__file__)
_CAPTURES = os.path.join(os.path.dirname(__file__), "capture.py")

# Programs -------------------------------------------------------------------------------------------------------------


def requested_sizes(program: ExportedProgram, request: Request) -> Iterator[tuple[Leaf, int | None, Asked, Any]]:
    """Everything that was asked for, with the size that it has in the program."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    for spec, leaf in zip(specs, request.leaves, strict=False):
        value = values.get(spec.arg.name)
        for axis, asked in leaf.asked.items():
            if axis is not None and isinstance(value, torch.Tensor):
                yield leaf, axis, asked, value.shape[axis]
            elif axis is None and not isinstance(value, torch.Tensor):
                yield leaf, axis, asked, leaf.value if value is None else value


def expression_of(size: Any) -> Any:
    """The sympy expression of a symbolic size; None for a number."""
    expression = getattr(getattr(size, "node", None), "expr", None)
    return None if expression is None or expression.is_number else expression


def fixed(program: ExportedProgram, size: Any) -> int | None:
    """The one value that a size can have; None when it can have several."""
    expression = expression_of(size)
    if expression is None:
        return int(size)
    bounds = program.range_constraints.get(expression)
    if bounds is not None and bounds.lower == bounds.upper:
        return int(bounds.lower)
    for guard in (g.expr for g in guards(program)):  # captures that know of no 0 and 1 may keep the unsolved equation
        if isinstance(guard, sympy.Eq) and guard.free_symbols == {expression}:
            difference = sympy.expand(guard.lhs - guard.rhs)
            slope = difference.coeff(expression, 1)
            rest = difference - slope * expression
            if slope.is_number and slope != 0 and rest.is_number:  # linear; Mod(12, s) == 0, say, has many solutions
                return int(-rest / slope)
    return None


def frozen(program: ExportedProgram, request: Request) -> Iterator[tuple[Leaf, int | None, Asked, Any, int]]:
    """What had to come out dynamic and didn't, with the one value that it has."""
    for leaf, axis, asked, size in requested_sizes(program, request):
        value = fixed(program, size) if asked.contract else None
        if value is not None:
            yield leaf, axis, asked, size, value


def guards(program: ExportedProgram) -> list[Any]:
    """The conditions on symbols (``expr``) that the capture put down."""
    for node in program.graph.nodes:
        env = getattr(getattr(node.meta.get("val"), "fake_mode", None), "shape_env", None)
        if env is not None:
            return list(getattr(env, "guards", ()))
    return []


def reason(program: ExportedProgram, size: Any, lines: Callable[[Any], str] | None) -> tuple[str, str]:
    """The condition that made a size static, as text, and the line of the model; empty where they are unknown."""
    symbol = getattr(getattr(size, "node", None), "_expr", None)
    line = lines(symbol) if lines is not None and symbol is not None else ""
    return (guard_text(program, symbol) if symbol is not None else ""), line


def guard_text(program: ExportedProgram, symbol: Any) -> str:
    texts = [str(guard.expr) for guard in guards(program) if symbol in guard.expr.free_symbols]
    return f" [{re.sub(rf'{symbol}(?![0-9])', 'size', texts[0])}]" if texts else ""


# Errors ---------------------------------------------------------------------------------------------------------------


def user_line(error: BaseException) -> str:
    """``file:line: code`` of the model at which an error arose; empty when it is unknown."""
    line = innermost(traceback.extract_tb(error.__traceback__))
    if line:
        return line
    places = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    return next((_place(file, int(number)) for file, number in reversed(places) if not is_library(file)), "")


def innermost(frames: Iterable[traceback.FrameSummary]) -> str:
    places = [(frame.filename, frame.lineno) for frame in frames if frame.lineno and not is_library(frame.filename)]
    return _place(*places[-1]) if places else ""


def _place(file: str, number: int) -> str:
    return f"{file}:{number}: {linecache.getline(file, number).strip()}"


def model_line() -> str:
    """``file:line: code`` of the model that runs now, in a non-strict capture; empty where none does."""
    return next((_place(file, line) for file, line in _frames() if not is_library(file)), "")


def _frames() -> Iterator[tuple[str, int]]:
    """Files and lines of what runs now, innermost first, up to the capture."""
    walked = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(sys._getframe(1)))
    return itertools.takewhile(lambda at: at[0] != _CAPTURES, walked)


def _is_inside_operator() -> bool:
    return any(f.endswith("fake_tensor.py") for f in itertools.takewhile(is_library, (file for file, _ in _frames())))


@functools.lru_cache(maxsize=4096)  # asked for each frame of each condition
def is_library(file: str) -> bool:
    """Whether a file is not a model's: one of torch, NumPy, Python, or onnxport and its plugins."""
    if file.startswith(("<", *(folder + os.sep for folder in (*_LIBRARIES, *_own_folders(len(sys.modules)))))):
        return True
    return file.startswith(_STANDARD + os.sep) and "site-packages" not in file


@functools.lru_cache(1)
def _own_folders(_modules: int) -> tuple[str, ...]:
    """Where onnxport, its built-in plugins and its packs are: replaced functions stand between a model and torch.

    Args:
        _modules: the number of modules that are loaded; a pack may have come since the last call.
    """
    own = [module for name, module in list(sys.modules.items()) if name.startswith("onnxport") and "." not in name]
    return tuple(os.path.dirname(str(module.__file__)) for module in own if getattr(module, "__file__", None))


def is_constraint(error: Exception) -> bool:
    text = str(error)
    return "Constraints violated" in text or "user-specified ranges" in text or "Suggested fixes" in text


def is_data_dependent(error: Exception) -> bool:
    return isinstance(error, GuardOnDataDependentSymNode) or "data-dependent" in str(error).lower()


def constraint_message(error: Exception) -> str:
    text = (
        str(error)
        .partition("\n\nThe error above occurred")[0]
        .replace(' For more information, run with TORCH_LOGS="+dynamic".', "")
    )
    return f"The model contradicts dynamic_shapes: {text}"


def brief(error: Exception) -> str:
    text = str(error).partition("\n\nThe error above occurred")[0]
    kept = [line for line in text.splitlines() if line.strip() and "http" not in line and "TORCH" not in line]
    kept = kept or [text.strip().partition("http")[0]]
    more = ["    ..."] if len(kept) > 12 else []
    return f"{type(error).__name__}: " + "\n    ".join([line.rstrip() for line in kept[:12]] + more)


_GRADIENTS = re.compile("does not require grad|doesn't require gradient|grad_fn|None of the .* require gradients")


def needs_gradients(error: Exception) -> bool:
    """Whether something failed since it takes gradients, which were switched off."""
    return bool(_GRADIENTS.search(str(error)))


_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+): (?P<code>.*)")


def is_repeated(place: str) -> bool:
    """Whether a line of the model, ``file:line: code``, says how often a loop goes on."""
    nodes, line = _parsed(place)
    around = [node for node in nodes if isinstance(node, (ast.For, ast.While)) and _covers(node, line)]
    heads = [node.iter if isinstance(node, ast.For) else node.test for node in around]
    heads += [node.iter for node in nodes if isinstance(node, ast.comprehension)]
    ends = [
        node.test
        for loop in around
        for node in ast.walk(loop)
        if isinstance(node, ast.If) and any(isinstance(n, (ast.Break, ast.Return)) for n in ast.walk(node))
    ]
    return any(_covers(each, line) for each in (*heads, *ends))


def is_text(place: str) -> bool:
    """Whether a line of the model writes numbers into a text by ``%``, which no capture follows."""
    nodes, line = _parsed(place)
    written = [n for n in nodes if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mod) and _covers(n, line)]
    return any(isinstance(n.left, ast.Constant) and isinstance(n.left.value, str) for n in written)


def _parsed(place: str) -> tuple[list[ast.AST], int]:
    """The syntax of the file of ``file:line: code``, where it is Python, and the line."""
    match = _PLACE.match(place)
    try:
        tree = ast.parse("".join(linecache.getlines(match["file"]))) if match is not None else ast.Module([], [])
    except (SyntaxError, ValueError):  # a cell of a notebook may hold more than Python
        tree = ast.Module([], [])
    return [*ast.walk(tree)], int(match["line"]) if match is not None else 0


def _covers(node: ast.stmt | ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


@contextlib.contextmanager
def watched(found: list[tuple[Any, str, bool]]) -> Iterator[None]:
    """Note each symbol that is replaced, and each condition, with the line of the model, and if an operator did it.

    torch.export keeps no line in non-strict mode; that of a condition is an attribute of its location.
    """
    thread = threading.get_ident()

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:
        def set_replacement(env: Any, symbol: Any, *args: Any, **kwargs: Any) -> Any:
            before = env.replacements.get(symbol)
            result = original(env, symbol, *args, **kwargs)
            if threading.get_ident() == thread and env.replacements.get(symbol) != before:
                found.append((symbol, model_line(), _is_inside_operator()))
            return result

        return set_replacement

    def locating(original: Callable[..., Any]) -> Callable[..., Any]:
        def located(*args: Any, **kwargs: Any) -> Any:
            location = original(*args, **kwargs)
            if threading.get_ident() == thread and not torch.compiler.is_dynamo_compiling():
                object.__setattr__(location, "model_line", model_line())  # a frozen dataclass
            return location

        return located

    with all_applied(of_symbols(noting, locating)):
        yield
