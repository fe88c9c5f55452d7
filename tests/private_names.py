"""Private names of other libraries that onnxport uses, found in its source, and what each of them is today.

A minor release may change what is private. ``test_private_names.py`` compares this with ``private_names.json``, so that
a change is told by name at the start of the tests. After a new use, or a change that the code was made ready for::

    python tests/private_names.py          # adds names and today's signatures to the table, and drops what is unused
    python tests/private_names.py --list   # each name, its signatures and the files that use it
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_suffix(".json")
LIBRARIES = {"torch", "torchvision", "transformers", "timm", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "sympy"}
ABSENT = "absent"
HOME = "core/onnxport/vocabulary/upstream.py"
"""The only file of the core that has such names; what others import from it counts as its own."""
HOME_MODULES = {"onnxport.vocabulary.upstream", "onnxport.kit"}
"""Where its names are imported from; plugins take them from the second."""

#: Private attributes of objects, whose class no import tells: the class that has them.
OWNERS = {
    "_buffers": "torch.nn.Module",
    "_functional_tensor": "torchvision.transforms",
    "_c": "torch.jit._script.RecursiveScriptModule",
    "_can_decompose": "torch._ops.OpOverload",
    "_cdata": "torch.UntypedStorage",
    "_destroy": "torch.library.Library",
    "_dispatch_cache": "torch._ops.OpOverload",
    "_attn_implementation": "transformers.PreTrainedConfig",
    "_experts_implementation": "transformers.PreTrainedConfig",
    "_from_config": "transformers.PreTrainedModel",
    "_expr": "torch.fx.experimental.sym_node.SymNode",
    "_forward_pre_hooks": "torch.nn.Module",
    "_get_method": "torch._C.ScriptModule",
    "_is_hf_initialized": "transformers.PreTrainedModel",
    "_is_view": "torch.Tensor",
    "_maybe_compile_and_run_fn": "torch._higher_order_ops.associative_scan",
    "_nnz": "torch.Tensor",
    "_orig_mod": "torch._dynamo.eval_frame.OptimizedModule",
    "_overloadname": "torch._ops.OpOverload",
    "_override": "torch._export.non_strict_utils._NonStrictTorchFunctionHandler",
    "_qualified_op_name": "torch._ops.OpOverloadPacket",
    "_schema": "torch._ops.OpOverload",
    "_saved_tensors_hooks_enable": "torch._C._autograd",
    "_saved_tensors_hooks_is_enabled": "torch._C._autograd",
    "_symbols_with_equalities": "torch.fx.experimental.symbolic_shapes.DimConstraints",
    "_assumptions": "sympy.Basic",
}
STANDARD = {"_fields", "_getframe"}  # of Python, documented


def is_private(name: str) -> bool:
    return name == "experimental" or (name.startswith("_") and not name.startswith("__"))


class _Scan(ast.NodeVisitor):
    """Private names of libraries in one file: dotted where an import tells the owner, else ``.name``."""

    def __init__(self, tree: ast.AST, home: Mapping[str, str]) -> None:
        self.names: set[str] = set()
        self.of_home: set[str] = set()
        self.imported: dict[str, str] = {}
        self.from_home: set[str] = set()
        for node in ast.walk(tree):  # imports in functions count for the whole file
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._import(alias.asname or alias.name.partition(".")[0], alias.name, bool(alias.asname))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if node.module in HOME_MODULES and alias.name in home:
                        self.imported[alias.asname or alias.name] = home[alias.name]
                        self.from_home.add(home[alias.name])
                    self._import(alias.asname or alias.name, f"{node.module}.{alias.name}", True)
        for node in ast.walk(tree):  # aten = torch.ops.aten
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and (path := self.path(node.value))
            ):
                self.imported.setdefault(node.targets[0].id, path)
        self.visit(tree)

    def _import(self, local: str, path: str, whole: bool) -> None:
        if path.partition(".")[0] in LIBRARIES:
            self.imported[local] = path if whole else local
            self._note(path)

    def _note(self, path: str) -> None:
        if any(is_private(part) for part in path.split(".")):
            is_of_home = any(path == known or path.startswith(f"{known}.") for known in self.from_home)
            (self.of_home if is_of_home else self.names).add(path)

    def path(self, node: ast.AST) -> str | None:
        """The dotted path of an expression that starts at an imported name."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id)
        if isinstance(node, ast.Attribute) and (base := self.path(node.value)):
            return f"{base}.{node.attr}"
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if path := self.path(node):
            self._note(path)
            return  # the outermost has all of it
        if is_private(node.attr) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            self.names.add(f".{node.attr}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr", "setattr", "Replacement"):
            self._by_text(node.args)
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:  # a replacement: the owner, the name, the wrapper
        self._by_text(node.elts)
        self.generic_visit(node)

    def _by_text(self, parts: list[ast.expr]) -> None:
        if len(parts) > 1 and isinstance(parts[1], ast.Constant) and isinstance(parts[1].value, str):
            text = parts[0].value if isinstance(parts[0], ast.Constant) else ""
            if owner := self.path(parts[0]) or (str(text) if str(text).partition(".")[0] in LIBRARIES else None):
                self._note(f"{owner}.{parts[1].value}")
            elif not isinstance(parts[0], ast.Constant) and is_private(parts[1].value):
                self.names.add(f".{parts[1].value}")


def _defined(tree: ast.AST) -> Iterator[str]:
    """Private names that a file itself gives to functions, classes and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            if node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


@functools.cache
def used() -> dict[str, list[str]]:
    """Each private name of a library, with the files that use it."""
    folders = [ROOT / "core", ROOT / "plugins_builtin", *(ROOT / "plugins").glob("*/")]
    files = sorted(file for folder in folders for file in folder.rglob("*.py") if "build" not in file.parts)
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    own = {name for tree in trees.values() for name in _defined(tree)}
    found: dict[str, list[str]] = defaultdict(list)
    home = _Scan(trees[ROOT / HOME], {}).imported
    for file, tree in trees.items():
        scan = _Scan(tree, home)
        for name in sorted(scan.names):
            if not name.startswith(".") or name[1:] not in own | STANDARD:
                found[f"{OWNERS.get(name[1:], '')}{name}"].append(file.relative_to(ROOT).as_posix())
        for name in sorted(scan.of_home):
            if HOME not in found[name]:
                found[name].append(HOME)
    return {name: found[name] for name in sorted(found)}


def signature(name: str) -> str:
    """What a name is today: the parameters of a function without their annotations, else its kind."""
    parts = name.split(".")
    if not parts[0]:
        return ABSENT  # whose class is unknown
    value: Any = None
    for i, part in enumerate(parts):
        try:
            value = importlib.import_module(".".join(parts[: i + 1])) if i == 0 else _member(value, parts[: i + 1])
        except (AttributeError, ImportError):
            in_source = i == len(parts) - 1 and isinstance(value, type) and _sets(value, part)
            return "attribute of instances" if in_source else ABSENT
    if isinstance(getattr(value, "_schema", None), torch.FunctionSchema):
        return str(value._schema)
    if inspect.ismodule(value) or inspect.isclass(value):
        return "module" if inspect.ismodule(value) else "class"
    if not callable(value):
        return "value"
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "function"
    plain = [p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else ...) for p in parameters]
    return str(inspect.Signature(plain)).replace("Ellipsis", "...")


def _member(value: Any, parts: list[str]) -> Any:
    if hasattr(value, "__path__"):
        try:
            return importlib.import_module(".".join(parts))  # a function may hide a module of its name
        except ModuleNotFoundError:
            return getattr(value, parts[-1])
    return getattr(value, parts[-1])


def _sets(owner: type, name: str) -> bool:
    """Whether a class of Python gives its instances this attribute."""
    for cls in owner.__mro__[:-1]:
        try:
            if re.search(rf"\b{name}\b", inspect.getsource(cls)):
                return True
        except (OSError, TypeError):
            continue
    return False


@functools.cache
def table() -> dict[str, list[str]]:
    """The accepted signatures of each name."""
    return json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}


def main() -> None:
    names, known = used(), table()
    if "--list" in sys.argv:
        for name, files in names.items():
            print(f"{name}  {' or '.join(known.get(name, ['not in the table']))}\n    " + "\n    ".join(files))
        return
    for name in names:
        if (now := signature(name)) not in known.setdefault(name, []):
            known[name].append(now)
    TABLE.write_text(json.dumps({name: known[name] for name in names}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
