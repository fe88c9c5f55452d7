"""What the documentation of torch's exporter promises, tied to the tests that hold onnxport to it.

``@promise(sentence)`` marks a test; ``docs/promises.md`` is made of the marks: ``python tests/api/promises.py``.
A test (``test_promises_page.py``) compares the page with the marks, so that it can't say anything else.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"
MODULES = ["export", "metadata", "program", "exportable", "complaints"]

_Test = TypeVar("_Test")

_HEAD = """# Promises kept

Each sentence of the documentation of `torch.onnx.export(dynamo=True)` that promises something, and the test that holds
onnxport to it. The tests carry these sentences, and this page is made of them (`make promises`). What differs on
purpose says so.
"""


def promise(sentence: str, *, differs: str = "") -> Any:
    """Mark a test as that of a sentence of the reference documentation.

    Args:
        sentence: what is promised, in the words of the documentation, shortened where it is long.
        differs: what onnxport does instead, on purpose; the test then holds it to that.
    """

    def mark(test: _Test) -> _Test:
        return test

    return mark


@dataclass(frozen=True)
class Promise:
    """A row of the page."""

    sentence: str
    differs: str
    test: str


def promises_of(name: str) -> Iterator[Promise]:
    """The marks of ``test_promises_<name>.py`` in the order of the file."""
    path = Path(__file__).with_name(f"test_promises_{name}.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "promise":
                (sentence,) = [ast.literal_eval(argument) for argument in mark.args]
                keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in mark.keywords}
                yield Promise(sentence, keywords.get("differs", ""), f"tests/api/{path.name}::{node.name}")


def title_of(name: str) -> str:
    """The first line of a test module's docstring."""
    path = Path(__file__).with_name(f"test_promises_{name}.py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0].rstrip(".")


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    kept = differing = 0
    for name in MODULES:
        rows = list(promises_of(name))
        parts.append(f"\n## {title_of(name)}\n\n| promise | status | test |\n| --- | --- | --- |\n")
        for row in rows:
            status = f"differs: {row.differs}" if row.differs else "kept"
            cells = [cell.replace("|", "\\|") for cell in (row.sentence, status)]
            parts.append(f"| {cells[0]} | {cells[1]} | `{row.test}` |\n")
        kept += sum(not row.differs for row in rows)
        differing += sum(bool(row.differs) for row in rows)
    parts.insert(1, f"\n{kept} promises are kept, {differing} differ on purpose.\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")
