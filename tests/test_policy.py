"""The rules of the house: who may import whom, how long files may be, what a translation's parameters are."""

from __future__ import annotations

import ast
import importlib
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport import PluginConflictError
from onnxport.host import discovery
from onnxport.host.registry import signature_mismatch
from onnxport.records.translations import operator_named
from onnxport.vocabulary import keys
from onnxport_builtin import families

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "core" / "onnxport"
BUILTINS = ROOT / "plugins_builtin"
PACKS = ROOT / "plugins"
BUILTIN_IMPORTS = {
    *("onnxport", "torch", "numpy", "onnx_ir", "onnxscript", "sympy", "onnx", "onnxruntime"),
    *("typer", "rich", "importlib_metadata"),
}
#: What built-ins, which have no privileges, and packs may import of onnxport.
PUBLIC = {"onnxport", "onnxport.authoring", "onnxport.kit", "onnxport.optimize.rewriting"}
BUILTIN_NAMES = {path.name for path in (ROOT / "plugins_builtin").iterdir() if (path / "__init__.py").exists()}
# fit_tables.py is the program that made tables.npz; only running it needs mpmath.
TOOL_IMPORTS = {"fit_tables.py": {"mpmath"}, "pytest_plugin.py": {"pytest"}}


def python_files(*folders: Path) -> list[Path]:
    return sorted(p for f in folders for p in f.rglob("*.py") if not {"build", "tests"} & set(p.relative_to(f).parts))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


PRODUCT = python_files(CORE, BUILTINS, PACKS)
FAMILIES = sorted(families.names())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The package itself has the public names, those of the workbench included.
@pytest.mark.parametrize("path", [path for path in python_files(CORE) if path != CORE / "__init__.py"], ids=name)
def test_core_knows_no_plugin(path):
    bad = [i for i in imports_of(path) if i.split(".")[0] in {*BUILTIN_NAMES, "onnxport_torchvision"}]
    assert not bad


@pytest.mark.parametrize("path", python_files(BUILTINS), ids=name)
def test_builtins_use_the_public_api_only(path):
    own = path.relative_to(BUILTINS).parts[0]
    allowed = BUILTIN_IMPORTS | {own} | TOOL_IMPORTS.get(path.name, set())
    for imported in imports_of(path):
        top = imported.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names, imported
        assert top != "onnxport" or imported in PUBLIC, f"{imported}: import from onnxport or onnxport.kit"


@pytest.mark.parametrize("path", python_files(PACKS), ids=name)
def test_packs_use_the_public_api_only(path):
    names = [i for i in imports_of(path) if i not in PUBLIC]
    assert not [i for i in names if i.startswith("onnxport.") or i.split(".")[0] in BUILTIN_NAMES]


def test_public_names_exist():
    assert sorted(set(onnxport.__all__)) == sorted(onnxport.__all__)
    for public in onnxport.__all__:
        assert getattr(onnxport, public) is not None


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_product_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"assert statements at lines {asserts}"
    private = [i for i in imports_of(path) if i.startswith("torch.onnx.") or "torchlib" in i]
    assert not private, "the product never uses torch's own exporter"
    attributes = [
        n.lineno for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "torch.onnx.export"
    ]
    assert not attributes, f"torch.onnx.export at lines {attributes}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and all(isinstance(s, ast.Pass) for s in node.body):
            caught = ast.unparse(node.type) if node.type else ""
            assert caught not in ("", "Exception", "BaseException"), f"line {node.lineno} swallows everything"


@pytest.mark.parametrize("path", python_files(CORE, BUILTINS, PACKS, ROOT / "docs"), ids=name)
def test_no_unfinished_marks_or_machine_paths(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    assert not re.search(r"/(home|root|tmp|work)/", text)


#: Rooms whose files and functions have the sizes that all of the core is to have.
SMALL = [path.parent for path in sorted(CORE.glob("*/__init__.py"))]


@pytest.mark.parametrize(
    ("folder", "limit"),
    [(CORE, 400), (BUILTINS, 700), (PACKS, 700), (ROOT / "tests", 900)],
)
def test_file_sizes(folder, limit):
    files = sorted(folder.rglob("*.py")) if folder.exists() else []
    long = {name(path): count for path in files if (count := lines_of(path)) > limit}
    assert not long


@pytest.mark.parametrize("room", SMALL, ids=name)
def test_functions_fit_on_a_screen(room):
    functions = [
        (name(path), node.name, (node.end_lineno or 0) - node.lineno + 1)
        for path in python_files(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert not [each for each in functions if each[2] > 60]


def code_lines_of(path: Path) -> int:
    """Lines that hold code: not blank, no comment, no docstring."""
    source = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in silent]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - docstrings)


def test_rooms_stay_small():
    rooms: Counter[str] = Counter()
    for path in CORE.glob("*/*.py"):
        rooms[path.parent.name] += lines_of(path)
    assert not {room: lines for room, lines in rooms.items() if lines > 2_500}


def test_core_stays_small():
    """The pipeline and its contracts: stages that plugins can bring, passes and tools are plugins."""
    assert sum(code_lines_of(path) for path in python_files(CORE)) < 5_704


def test_core_is_short():
    assert sum(map(lines_of, python_files(CORE))) <= 9_500, "what plugins can do through hooks belongs to them"


def test_keys_of_metadata_are_written_once():
    known = {value for name, value in vars(keys).items() if name.isupper()}
    for path in PRODUCT:
        if path != CORE / "vocabulary" / "keys.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            written = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not written & known, f"{name(path)}: use onnxport.vocabulary.keys"


@pytest.mark.parametrize("family", FAMILIES)
def test_families_import(family):
    assert importlib.import_module(family).__name__ == family


def test_no_conflicts_among_builtins():
    conflicts = []
    for opset in (18, 19, 20, 21, 22, 23, 24, 25):
        registry = discovery.load(()).registry(opset)
        for target in registry.targets():
            try:
                registry.candidates(target)
            except PluginConflictError as conflict:
                conflicts.append(f"opset {opset}: {conflict}")
    assert not conflicts


#: Operators that only some of the supported versions of torch have.
PASSING = {
    "aten::cholesky": "until 2.13",
    "aten::linalg_matrix_sqrth": "since 2.14",
    "aten::linalg_polar": "since 2.14",
    "aten::_upsample_lanczos2d_aa": "since 2.12",
    "aten::_upsample_lanczos2d_aa.vec": "since 2.12",
}


def test_translations_match_their_schemas():
    wrong = []
    for record in discovery.load(()).registry(18).table():
        if not isinstance(record.target, str) or record.target.startswith("higher_order::"):
            continue
        target = operator_named(record.target)
        if not isinstance(target, torch._ops.OpOverload):
            # A library that isn't imported, or an operator that this version of torch lacks.
            if record.target.startswith("aten::") and record.target not in PASSING:
                wrong.append(f"{record}: torch has no {record.target}")
            continue
        if reason := signature_mismatch(record.function, target):
            wrong.append(f"{record} for {record.target}: {reason}")
    assert not wrong, "\n".join(wrong)
