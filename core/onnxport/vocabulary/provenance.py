"""The origin of nodes, as strings in the model file.

Keys are those that torch's exporter writes, so that tools that read them go on working, plus ``onnxport.*`` for the
translation. Source files are told as their packages name them: a file never tells the directories of the machine that
it was made on, nor depends on the one that its maker happened to be in.
"""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxport.text import writable
from onnxport.vocabulary import keys
from onnxport.vocabulary.packages import BUILTIN_PACKAGE, STAGE_PACKAGES

if TYPE_CHECKING:
    import torch.fx

Level = Literal["full", "module", "none"]

_GENERATED = "<eval_with_key>"  # code that torch.fx wrote; its number is another one each time
_OWN = Path(__file__).parent.parent
_LIBRARIES = sys.stdlib_module_names - {"__main__"} | {"onnx_ir", "onnxscript", "onnx", "torch", "numpy", "sympy"}
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (.*)')


def relative(path: str) -> str:
    """A source path for a message: relative to the working directory where it lies below it, else as in the file."""
    try:
        return _relative(path, os.getcwd())
    except FileNotFoundError:  # the working directory was removed
        return portable(path)


@functools.lru_cache(maxsize=4096)  # the layers of a model share their code, and so their traces
def _relative(path: str, folder: str) -> str:
    try:
        inside = os.path.relpath(path, folder)
    except ValueError:  # another drive
        inside = ".."
    if not inside.startswith("..") and "site-packages" not in inside:
        return inside
    return portable(path)


@functools.lru_cache(maxsize=4096)
def portable(path: str) -> str:
    """A source path without the directories of this machine, the same wherever and in whatever directory it is told.

    That of an installed package from ``site-packages`` on, and of Python's own library from there; of a module of
    another package from the package on; of any other file its name alone. A cell of a notebook is ``<cell>``.
    """
    parts = [part for part in re.split(r"[\\/]+", path) if part]
    if not parts or (len(parts) == 1 and path == parts[0]):
        return path  # <stdin>, <string>, <ipython-input-1-0123>
    if any(part.startswith("ipykernel_") for part in parts[:-1]):
        return "<cell>"
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] in ("site-packages", "dist-packages") or parts[i].endswith((".zip", ".egg", ".whl", ".pyz")):
            return "/".join(parts[i + 1 :])
    library = sysconfig.get_path("stdlib")
    if library and path.startswith(library + os.sep):
        return path[len(library) + 1 :].replace(os.sep, "/")
    package = _packaged(path)
    return package or parts[-1]


def _packaged(path: str) -> str:
    """The file from the topmost folder around it on that has an ``__init__.py``; empty where it is in no package."""
    folder, name = os.path.split(path)
    inside = [name]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        if not package:
            break
        inside.insert(0, package)
    return "/".join(inside) if len(inside) > 1 else ""


def stack_trace(node: torch.fx.Node) -> str:
    """The FX node's stack trace, with portable paths."""
    return _portable_trace(node.meta.get("stack_trace") or "")


@functools.lru_cache(maxsize=4096)
def _portable_trace(trace: str) -> str:
    written = "".join(frame for frame in re.split(r'(?m)^(?=\s*File ")', trace) if _GENERATED not in frame)
    return _FRAME.sub(lambda m: f'File "{portable(m[1])}", line {m[2]}, in {m[3]}', written)


def told(error: BaseException) -> str:
    """An exception as text, with its line where a plugin raised it."""
    line = line_of(error)
    return f"{type(error).__name__}: {error}{f' (raised at {line})' if line else ''}"


def line_of(error: BaseException) -> str:
    """``file:line: code`` of the innermost frame of an exception that is neither the core's nor a library's.

    A frame of a built-in plugin counts where nobody else has one.
    """
    found: dict[bool, str] = {}
    for frame, number in traceback.walk_tb(error.__traceback__):
        path = frame.f_code.co_filename
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module in _LIBRARIES or _OWN in Path(path).parents:
            continue
        code = linecache.getline(path, number).strip()
        is_built_in = module in (BUILTIN_PACKAGE, *STAGE_PACKAGES)
        found[is_built_in] = f"{relative(path)}:{number}{f': {code}' if code else ''}"
    return found.get(False) or found.get(True, "")


def source_line(node: torch.fx.Node) -> str:
    """``file:line: code`` of the innermost frame of the user's model, or an empty string."""
    lines = (node.meta.get("stack_trace") or "").rstrip().splitlines()
    for i in range(len(lines) - 1, -1, -1):
        match = _FRAME.search(lines[i])
        if match and _GENERATED not in match[1]:
            code = lines[i + 1].strip() if i + 1 < len(lines) else ""
            return f"{relative(match[1])}:{match[2]}: {code}".rstrip(": ")
    return ""


def module_stack(node: torch.fx.Node) -> list[tuple[str, str]]:
    """(module path, class name) from the root to the module that called the node's operator."""
    stack = []
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        stack.append((_clean(path), name))
    return stack


@functools.lru_cache(maxsize=65536)
def _clean(path: str) -> str:
    """``L['self'].layers[0]`` and similar paths as ``layers.0``."""
    path = re.sub(r"^L\['self'\]\.?", "", writable(path))
    return re.sub(
        r"\._modules\['([^']*)'\]|\['([^']*)'\]|\[(\d+)\]", lambda m: "." + next(g for g in m.groups() if g), path
    )


def module_path(node: torch.fx.Node) -> str:
    """Path of the innermost module, such as ``encoder.layers.0``; empty for the root."""
    stack = module_stack(node)
    return stack[-1][0] if stack else ""


def target_name(target: Any) -> str:
    """An FX target as text, as torch's exporter writes it: ``aten.add.Tensor``, ``operator.add``."""
    name = getattr(target, "name", None)
    if hasattr(target, "overloadpacket"):  # an overload; torch isn't imported for that
        return str(target)
    if callable(name):
        return str(name())
    return getattr(target, "__name__", str(target))


def relative_path(path: str, root: str | None) -> str:
    """A module's path as seen from the module ``root``, which itself is the empty path."""
    return path if not root else path[len(root) + 1 :]


def stack_below(node: torch.fx.Node, root: str | None) -> list[tuple[str, str]]:
    """The module stack from the module ``root`` on, in paths relative to it; all of it for None."""
    stack = module_stack(node)
    if not root:
        return stack
    inside = [(path, name) for path, name in stack if path == root or path.startswith(f"{root}.")]
    return [(relative_path(path, root), name) for path, name in inside]


def node_properties(node: torch.fx.Node | None, origin: Any, level: str, root: str | None = None) -> dict[str, str]:
    """The metadata of an ONNX node.

    Args:
        node: the FX node it was translated from.
        origin: the :class:`Translation` that emitted it.
        level: ``"full"``, ``"module"`` (no FX text, no stack trace) or ``"none"``.
        root: for a node of a function, the path of the module whose call it was made of.
    """
    if node is None or level == "none":
        return {}
    stack = stack_below(node, root)
    target = target_name(node.target)
    scopes = [path for path, _ in stack] + [node.name]
    properties = {
        "namespace": "/".join(f"{path}: {name}" if path else name for path, name in stack) + f"/{node.name}: {target}",
        keys.CLASSES: repr([name for _, name in stack] + [target]),
        keys.SCOPES: repr(scopes),
    }
    if level == "full":
        properties[keys.FX_NODE] = node.format_node() or str(node)
        trace = stack_trace(node)
        if trace:
            properties[keys.STACK_TRACE] = trace
        if origin is not None:
            properties[keys.PLUGIN] = origin.plugin
            properties[keys.TRANSLATION] = origin.function_name
    return properties
