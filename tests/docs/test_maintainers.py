"""The pages of docs/maintainers/: what they name is there, and what they say of the rooms is what the tests hold."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import test_rooms
from onnxport.host import hookspecs
from onnxport.vocabulary.packages import BUILTIN_PACKAGE, STAGE_PACKAGES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/maintainers").glob("*.md"))

#: What the paths on the pages are relative to.
BASES = [ROOT, ROOT / "core/onnxport", ROOT / "plugins_builtin"]

_CODE = re.compile(r"`([\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_are_there(page: Path) -> None:
    named = [name for name in _CODE.findall(page.read_text(encoding="utf-8")) if re.search(r"/|\.(py|json|md)$", name)]
    plugins = [*BASES, *(ROOT / "plugins_builtin").glob("*/")]
    assert not [name for name in named if not any((base / name).exists() for base in plugins)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_no_test_runs_is_left_out(page: Path) -> None:
    assert "```python" not in page.read_text(encoding="utf-8")


def test_the_table_of_rooms_is_the_one_that_is_held() -> None:
    page = (ROOT / "docs/maintainers/architecture.md").read_text(encoding="utf-8")
    section = page.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\|([\w, ]*)\|$", section, re.MULTILINE)
    assert {room: set(re.findall(r"\w+", below)) for room, below in rows} == test_rooms.BELOW


def test_the_table_of_plugins_has_the_hooks_that_they_implement() -> None:
    page = (ROOT / "docs/maintainers/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(onnxport_\w+)` \| ([\w, ]+) \|", page, re.MULTILINE)
    assert [name for name, _ in rows] == [BUILTIN_PACKAGE, *STAGE_PACKAGES]
    for name, hooks in rows:
        implemented = [each for each in vars(importlib.import_module(name)) if each.startswith("onnxport_")]
        assert {f"onnxport_{hook}" for hook in re.findall(r"\w+", hooks)} == set(implemented) & set(vars(hookspecs))
