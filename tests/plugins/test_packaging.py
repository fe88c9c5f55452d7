"""The packs under plugins/ are distributions that one line installs, and that the targets of the Makefile install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PACKS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_are_packs() -> None:
    assert PACKS and all((pack / "README.md").exists() for pack in PACKS)


def test_each_pack_has_an_extra() -> None:
    extras = project(ROOT)["optional-dependencies"]
    for pack in PACKS:
        assert extras[pack.name] == [project(pack)["name"]]
        assert "onnxport" in [requirement.partition(">")[0] for requirement in project(pack)["dependencies"]]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["test", "example"])
def test_targets_install_all_packs(target: str, tmp_path: Path) -> None:
    command = ["make", "--dry-run", target, f"VENV={tmp_path}"]
    steps = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for pack in PACKS:
        assert f"./plugins/{pack.name}\n" in steps
