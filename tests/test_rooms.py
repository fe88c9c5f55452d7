"""The rooms of the core: who may import whom, of every kind of import, and no circle of files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BASE = Path(__file__).resolve().parent.parent / "core"
CORE = BASE / "onnxport"

#: What each room, and each file outside of rooms, may import beside itself.
BELOW = {
    "text": set(),
    "portable": set(),
    "lazy": set(),
    "errors": {"text", "portable"},
    "vocabulary": {"text", "errors"},
    "records": {"errors", "vocabulary"},
    "host": {"text", "errors", "vocabulary", "records"},
    "emit": {"text", "errors", "vocabulary", "records"},
    "capture": set(),
    "functional": {"errors", "vocabulary", "records", "host", "emit"},
    "optimize": {"lazy", "errors", "vocabulary", "records", "host", "emit"},
    "translate": {"text", "errors", "vocabulary", "records", "host", "emit", "functional", "optimize"},
    "program": {"text", "errors", "vocabulary", "records", "host", "emit", "functional", "optimize", "capture"},
}

#: Imports against the directions that are still to go, by file.
REMAINING = {}


def _name(path: Path) -> str:
    return path.relative_to(BASE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


FILES = {_name(path): path for path in sorted(CORE.rglob("*.py"))}


def imported(name: str) -> set[str]:
    """Files of the core that a file imports: at its top, in functions, and for types alone."""
    path = FILES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in FILES else source)
    return {target for target in found if target in FILES and target != name}


IMPORTS = {name: imported(name) for name in FILES}


def reached(start: str) -> set[str]:
    """All files that a file imports, and those that these import."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in IMPORTS[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def test_no_circle() -> None:
    files = [name for name in FILES if name != "onnxport"]  # its names are imported when they are first asked for
    assert not [name for name in files if name in reached(name)]


@pytest.mark.parametrize("name", [name for name in FILES if name.split(".")[1:2] and name.split(".")[1] in BELOW])
def test_directions(name: str) -> None:
    room = name.split(".")[1]
    rooms = {target.split(".")[1] for target in IMPORTS[name] if "." in target} - {room}
    assert rooms - BELOW[room] == REMAINING.get(name, set())
