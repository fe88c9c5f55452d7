"""The pages of docs/maintainers/: what they name is there, and what they say of the rooms is what the tests hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
