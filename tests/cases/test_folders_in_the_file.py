"""A file names no folder of the machine, and is the same wherever its maker was."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxport
import pytest
import torch
from onnxport.vocabulary import provenance

SOURCE = textwrap.dedent(
    """
    import torch


    class Model(torch.nn.Module):
        def forward(self, x):
            return x * 2 + 1
    """
)
X = torch.ones(1, 4)


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the file may not name, with modules and packages; it is on Python's path."""
    folder = tmp_path / "alice" / "secret_project"
    for name in ("case_module.py", "case_package/net.py", "case_package/deep/net.py", "case_namespace/net.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(SOURCE)
    for name in ("case_package", "case_package/deep"):
        (folder / name / "__init__.py").touch()
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("case_zipped/__init__.py", "")
        archive.writestr("case_zipped/net.py", SOURCE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(folder / "archive.zip")
    yield folder
    for name in [name for name in sys.modules if name.startswith("case_")]:
        del sys.modules[name]


def content(model: torch.nn.Module, **options: Any) -> bytes:
    file = io.BytesIO()
    onnxport.export(model.eval(), (X,), **options).save(file)
    return file.getvalue()


def told(file: bytes) -> set[str]:
    """The source files that a model's nodes name."""
    nodes = onnx.load_from_string(file).graph.node
    traces = [entry.value for node in nodes for entry in node.metadata_props if entry.key.endswith("stack_trace")]
    return {line.split('"')[1] for trace in traces for line in trace.splitlines() if line.lstrip().startswith("File")}


MODULES = {
    "case_module": "case_module.py",
    "case_package.net": "case_package/net.py",
    "case_package.deep.net": "case_package/deep/net.py",
    "case_namespace.net": "net.py",
    "case_zipped.net": "case_zipped/net.py",
}


@pytest.mark.parametrize("module", MODULES)
def test_working_directories(module: str, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = importlib.import_module(module).Model()
    files = []
    for place in (secret, secret.parent, secret / "case_package", Path("/"), Path.home()):
        monkeypatch.chdir(place)
        files.append(content(model))
    assert len(set(files)) == 1
    assert b"secret_project" not in files[0] and b"alice" not in files[0]
    assert told(files[0]) == {MODULES[module]}


def test_code_that_has_no_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of notebooks, executed texts, and a file of another folder that was executed."""
    names = {
        "<ipython-input-1-0123>": "<ipython-input-1-0123>",
        "<stdin>": "<stdin>",
        "/tmp/ipykernel_4711/1234567.py": "<cell>",
        str(secret / "elsewhere" / "run.py"): "run.py",
        r"C:\Users\alice\secret_project\run.py": "run.py",
        "relative/secret_project/run.py": "run.py",
    }
    for name, expected in names.items():
        space: dict[str, Any] = {"__name__": "case_executed"}
        exec(compile(SOURCE, name, "exec"), space)
        monkeypatch.setitem(sys.modules, "case_executed", sys.modules[__name__])
        file = content(space["Model"]())
        assert b"secret_project" not in file and b"4711" not in file
        assert told(file) <= {expected}


def test_installed_packages(tmp_path: Path) -> None:
    for folder in ("site-packages", "dist-packages"):
        assert provenance.portable(f"/home/alice/env/lib/{folder}/pkg/net.py") == "pkg/net.py"
        assert provenance.portable(rf"C:\env\Lib\{folder}\pkg\net.py") == "pkg/net.py"
    assert provenance.portable(textwrap.__file__) == "textwrap.py"
    assert provenance.portable(torch.nn.functional.__file__) == "torch/nn/functional.py"
    assert provenance.portable(str(tmp_path / "net.py")) == "net.py"


def test_messages_tell_the_way_from_here(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(secret)
    assert provenance.relative(str(secret / "case_package" / "net.py")) == "case_package/net.py"
    assert provenance.relative("/elsewhere/net.py") == "net.py"


@pytest.mark.parametrize("external", [True, False])
def test_everything_that_is_written(external: bool, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions, verification and weights from a file bring no folder in either."""
    monkeypatch.chdir(secret)
    model = torch.nn.Sequential(importlib.import_module("case_package.net").Model(), torch.nn.Linear(4, 300))
    program = onnxport.export(model.eval(), (X,), functions=["case_package.net.Model"], verify=True)
    program.save("m.onnx", external_data=external)
    onnxport.ONNXProgram.load(secret / "m.onnx").save(secret / "again.onnx", external_data=external)
    for path in secret.glob("*.onnx*"):
        assert b"secret_project" not in path.read_bytes()


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Nothing relative can be meant: an error says so, and what is absolute works."""
    script = textwrap.dedent(
        f"""
        import os, sys, torch, onnxport
        os.mkdir({str(tmp_path / "gone")!r})
        os.chdir({str(tmp_path / "gone")!r})
        model = torch.nn.Linear(4, 4).eval()
        program = onnxport.export(model, (torch.ones(1, 4),))
        os.rmdir({str(tmp_path / "gone")!r})
        onnxport.export(model, (torch.ones(1, 4),), {str(tmp_path / "m.onnx")!r})
        onnxport.ONNXProgram.load({str(tmp_path / "m.onnx")!r})(torch.ones(1, 4))
        for use in (lambda: program.save("m.onnx"), lambda: onnxport.ONNXProgram.load("m.onnx"),
                    lambda: program.apply_weights("w.safetensors")):
            try:
                use()
            except onnxport.OnnxExporterError as error:
                assert "working directory" in str(error), error
            else:
                raise SystemExit("no error")
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
