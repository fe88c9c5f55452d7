"""A model that was loaded is what it was: another working directory and later saves to its place don't change it."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from safetensors.torch import save_file

X = torch.randn(2, 64)


def linear(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(64, 64).eval()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders with another model each, under one name; the first is the working directory."""
    for i in (1, 0):
        folder = tmp_path / str(i)
        folder.mkdir()
        monkeypatch.chdir(folder)
        onnxport.export(linear(i), (X,)).save("m.onnx", external_data=True)
        save_file(linear(i).state_dict(), "w.safetensors")
    return tmp_path / "0", tmp_path / "1"


def check(program: onnxport.ONNXProgram, seed: int) -> None:
    torch.testing.assert_close(program(X)[0], linear(seed)(X))


def test_another_folder(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    program, filled = onnxport.ONNXProgram.load("m.onnx"), onnxport.export(linear(2), (X,))
    filled.apply_weights("w.safetensors")
    monkeypatch.chdir(folders[1])
    for each in (program, filled):
        check(each, 0)
        each.release()
        each.save("again.onnx")
        check(onnxport.ONNXProgram.load("again.onnx"), 0)
    assert program.call_reference(X)[0].allclose(linear(0)(X), atol=1e-5)
    assert len(program.model_proto.graph.initializer[0].raw_data) == 64 * 64 * 4


@pytest.mark.parametrize("external", [True, False])
def test_another_model_in_its_place(external: bool, folders: tuple[Path, Path]) -> None:
    program, filled = onnxport.ONNXProgram.load("m.onnx"), onnxport.export(linear(2), (X,))
    filled.apply_weights("w.safetensors")
    onnxport.export(linear(5), (X,)).save("m.onnx", external_data=external)
    save_file(linear(5).state_dict(), "other.safetensors")
    Path("other.safetensors").replace("w.safetensors")
    check(program, 0)
    check(filled, 0)
    check(onnxport.ONNXProgram.load("m.onnx"), 5)
    program.save("m.onnx", external_data=True)
    check(onnxport.ONNXProgram.load("m.onnx"), 0)


def test_its_files_are_gone(folders: tuple[Path, Path]) -> None:
    program = onnxport.ONNXProgram.load("m.onnx")
    for path in folders[0].iterdir():
        path.unlink()
    check(program, 0)


def test_copies(folders: tuple[Path, Path]) -> None:
    program = onnxport.ONNXProgram.load("m.onnx")
    (weight,) = [v.const_value for v in program.model.graph.initializers.values() if len(v.shape or ()) == 2]
    shutil.rmtree(folders[0])
    for copied in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        torch.testing.assert_close(torch.from_numpy(copied.numpy().copy()), torch.from_numpy(weight.numpy().copy()))


def test_many_data_files(tmp_path: Path) -> None:
    """One for each weight, more than are held open: they have to be the same files still."""
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16, bias=False) for _ in range(150))).eval()
    for weight in model.parameters():
        torch.nn.init.orthogonal_(weight)
    x = torch.randn(1, 16)
    onnxport.export(model, (x,)).save(tmp_path / "m.onnx", external_data=True, shard_bytes=1)
    assert len(list(tmp_path.iterdir())) == 151
    program = onnxport.ONNXProgram.load(tmp_path / "m.onnx")
    torch.testing.assert_close(program(x)[0], model(x), rtol=1e-3, atol=1e-4)
    program.release()
    last: Any = max(tmp_path.glob("*.data_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[::-1])
    with pytest.raises(onnxport.FileError, match="was replaced"):
        program(x)
