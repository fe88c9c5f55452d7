"""A pack that `onnxport new-pack` writes builds, installs, is found, and passes its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnxport_workbench import cli
from typer.testing import CliRunner


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["new-pack", *map(str, arguments)])


def test_it_builds_installs_and_passes_its_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("My-Lib")
    assert result.exit_code == cli.OK, result.output
    pack, target = tmp_path / "onnxport-my-lib", tmp_path / "installed"
    assert sorted(path.name for path in pack.iterdir()) == [
        ".gitignore", "README.md", "onnxport_my_lib", "pyproject.toml", "tests",
    ]  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", target, pack], check=True)
    assert (target / "onnxport_my_lib" / "py.typed").is_file()
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(pack / "tests")]
    done = subprocess.run(tests, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and " 19 passed" in f" {done.stdout.splitlines()[-1]}", done.stdout + done.stderr
    lint = [sys.executable, "-m", "ruff", "check", "--select", "E,F,W,B,UP", "--line-length", "120", str(pack)]
    checked = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["", "-x", "a b", "1st", "../x", "class", "x--y"])
def test_names_that_cannot_be(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--", name)
    assert result.exit_code == cli.USAGE and not list(tmp_path.iterdir())


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    result = run("mylib", "--folder", "there")
    assert result.exit_code == cli.USAGE and "there already" in result.stderr
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]
    assert run("mylib", "--folder", "new").exit_code == cli.OK and (tmp_path / "new" / "README.md").is_file()
