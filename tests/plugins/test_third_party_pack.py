"""A third-party pack, installed with pip into an environment of its own and taken out again."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Environment:
    """A fresh virtual environment that sees what this one has installed."""

    def __init__(self, path: Path) -> None:
        venv.create(path, with_pip=False)
        self.python = path / ("Scripts" if os.name == "nt" else "bin") / "python"
        (packages,) = path.glob("[Ll]ib/**/site-packages")
        parents = [p for p in (*site.getsitepackages(), *sys.path) if p.endswith("site-packages")]
        # --system-site-packages would give the base interpreter's packages, not those of the venv that runs
        # the tests. addsitedir also follows the .pth file of an editable install there.
        lines = [f"import site; site.addsitedir({parent!r})" for parent in dict.fromkeys(parents)]
        (packages / "parent.pth").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str | Path) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ONNXPORT", "PYTHON"))}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            pytest.fail(f"{arguments} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def pip(self, *arguments: str | Path) -> None:
        self.run("-m", "pip", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("fresh") / "venv")


@pytest.fixture(scope="module")
def installed(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], None]]:
    """The pack is installed; call to take it out."""
    source = tmp_path_factory.mktemp("source") / "pack"  # pip builds in place, and the checkout stays clean
    shutil.copytree(HERE / "pack", source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    environment.pip("install", "--no-deps", "--no-build-isolation", "--no-index", source)
    yield lambda: environment.pip("uninstall", "--yes", "onnxport-demo-pack")


def listed(environment: Environment) -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads(environment.run("-m", "onnxport", "plugins", "--json"))}


@pytest.mark.slow
def test_life_of_a_pack(environment: Environment, installed: Callable[[], None]) -> None:
    entry = listed(environment)["demo"]
    assert entry == {
        "name": "demo",
        "distribution": "onnxport-demo-pack",
        "version": "1.2.3",
        "translations": 2,
        "error": "",
        "warning": "",
    }
    assert "hello from the demo pack" in environment.run("-m", "onnxport", "demo-greeting")
    told = json.loads(environment.run("-m", "onnxport", "explain", "aten::relu", "--json"))
    assert [candidate["plugin"] for candidate in told["candidates"]] == ["demo", "builtin"]

    result = json.loads(environment.run(HERE / "exercise_pack.py", "pack"))
    assert result["scaled"]["nodes"] == ["Mul", "Add"]
    assert result["relu"]["nodes"] == ["Max"]
    assert result["plugins"] == ["demo", "builtin"]

    installed()
    assert "demo" not in listed(environment)
    result = json.loads(environment.run(HERE / "exercise_pack.py", "builtin"))
    assert result["relu"]["nodes"] == ["Relu"]
    assert result["plugins"] == ["builtin"]
