"""The tool behind `make versions`, and the table that it writes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions_tool", ROOT / "tools" / "versions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_samples_are_there(tool: ModuleType) -> None:
    for every, paths in tool.SAMPLES.values():
        assert every >= 1 and all((ROOT / path).exists() for path in paths)


def test_lower_bounds_are_those_of_the_project(tool: ModuleType) -> None:
    bounds = tool.lower_bounds()
    assert "torch==2.11.*" in bounds and any(bound.startswith("onnx-ir==") for bound in bounds)


def test_the_table_has_a_row_for_each_set(tool: ModuleType) -> None:
    lines = [line for line in tool.PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert head == ["set", *tool.PACKAGES, *tool.SAMPLES, "date"]
    assert [row[0] for row in rows] == list(tool.SETS)
    assert all(len(row) == len(head) for row in rows)


def test_a_new_row_takes_the_place_of_the_old_one(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(tool.PAGE.read_text("utf-8"), "utf-8")
    before = page.read_text("utf-8").splitlines()
    monkeypatch.setattr(tool, "PAGE", page)
    results = {"core": tool.Result(7, ["a::b"], 0, 1.0), "API": tool.Result(0, [], 0, 1200.0, ended=False)}
    row = tool.row("oldest", dict.fromkeys(tool.PACKAGES, "1.0+cpu"), results)
    assert "| 1.0 |" in row and "| 7 passed, 1 failed |" in row and "| not ended in 1200 s |" in row
    tool.write({"oldest": row})
    after = page.read_text("utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1 and changed[0][1] == row


def test_a_sample_is_every_nth_test() -> None:
    """The option of conftest.py, on a file of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "--every=2"]
    done = subprocess.run([*command, str(Path(__file__))], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert names == [
        "test_samples_are_there",
        "test_the_table_has_a_row_for_each_set",
        "test_a_sample_is_every_nth_test",
    ]
