"""The packs under plugins/ are distributions that one line installs, and that the targets of the Makefile install."""

from __future__ import annotations

import re
import runpy
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


@pytest.mark.parametrize("address", ["", "https://example.org/onnxport/blob/v1"])
def test_links_of_the_description_lead_somewhere(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    monkeypatch.setenv("ONNXPORT_REPOSITORY", address)
    runpy.run_path(str(ROOT / "setup.py"))
    links = re.findall(r"\]\(([^)]*)\)", given["long_description"])
    assert all(link.startswith("https://") for link in links)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    if address:
        assert len(links) == len(re.findall(r"\]\(", page)) and f"{address}/docs/getting-started.md" in links
        assert all(url.startswith(address) for url in given["project_urls"].values())
    else:
        assert "Getting started (`docs/getting-started.md`)" in given["long_description"]
        assert given["project_urls"] == {}


def test_each_pack_has_links_that_work_anywhere() -> None:
    for pack in PACKS:
        links = re.findall(r"\]\(([^)#]*)", (pack / "README.md").read_text(encoding="utf-8"))
        assert all(link.startswith("https://") for link in links), pack


def test_the_source_distribution_has_pages_and_tests() -> None:
    rules = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    for folder in ("docs", "tests", "plugins", "tools"):
        assert f"graft {folder}" in rules
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "mkdocs.yml"} <= set(" ".join(rules).split())
