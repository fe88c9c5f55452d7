"""Files that are missing, of another kind, or damaged: an error of onnxport that names the file, whatever is done."""

from __future__ import annotations

import io
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxport
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

X = torch.randn(2, 8)


class Model(nn.Module):
    """Some kinds of nodes, and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (self.linear(x),))
        return self.norm(y)[:, 1:].softmax(-1)


EXPORTED = torch.export.export(nn.Linear(8, 8).eval(), (X,))


@pytest.fixture(scope="module")
def program() -> onnxport.ONNXProgram:
    return onnxport.export(Model().eval(), (X,), dynamic_shapes=({0: "n"},))


USES: dict[str, Callable[[Path], object]] = {
    "load": onnxport.ONNXProgram.load,
    "verify": lambda path: onnxport.verify(path, Model(), (X,)),
    "find_mismatch": lambda path: onnxport.find_mismatch(path, (X,), exported_program=EXPORTED),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_no_model(use: str, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("This is no model.")
    (tmp_path / "dangling.onnx").symlink_to("nowhere")
    (tmp_path / "circle.onnx").symlink_to("circle.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("missing.onnx", "dangling.onnx", "no folder/m.onnx"):
        with pytest.raises(FileNotFoundError) as caught:
            USES[use](tmp_path / name)
        assert isinstance(caught.value, onnxport.MissingFileError)
        assert isinstance(caught.value, onnxport.OnnxExporterError) and name in str(caught.value)
        assert caught.value.path == str(tmp_path / name)
    for name in ("folder.onnx", "empty.onnx", "text.onnx", "circle.onnx", "pipe.onnx", "text.onnx/m.onnx", "x" * 300):
        with pytest.raises(onnxport.FileError) as other:
            USES[use](tmp_path / name)
        assert name in str(other.value) and not isinstance(other.value, FileNotFoundError)


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "fork"), reason="root reads everything")
def test_a_model_that_may_not_be_read(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    """By somebody else than root, who may read everything."""
    program.save(tmp_path / "m.onnx")
    os.chmod(tmp_path / "m.onnx", 0)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        os.chmod(folder, 0o755)
    child = os.fork()
    if not child:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            onnxport.ONNXProgram.load(tmp_path / "m.onnx")
        except onnxport.FileError as error:
            status = 0 if "no permission to read it" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_data_that_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnxport.export(nn.Linear(64, 64).eval(), (torch.randn(1, 64),)).save(path, external_data=True)
    (tmp_path / "m.onnx.data").rename(tmp_path / "elsewhere")
    for use in (onnxport.ONNXProgram.load, lambda path: onnxport.verify(path, nn.Linear(64, 64), (torch.ones(1, 64),))):
        with pytest.raises(FileNotFoundError, match=r"m\.onnx\.data") as caught:
            use(path)
        assert isinstance(caught.value, onnxport.FileError)
    (tmp_path / "m.onnx.data").mkdir()
    with pytest.raises(onnxport.FileError, match="is a folder"):
        onnxport.ONNXProgram.load(path)


def used(path: Path) -> int:
    """Do everything with a file; how many of the steps went well. What fails, fails with an error of onnxport."""
    steps: list[Callable[[], object]] = []
    try:
        loaded = onnxport.ONNXProgram.load(path)
    except onnxport.OnnxExporterError as error:
        assert path.name in str(error)
        return 0
    file = io.BytesIO()
    steps = [lambda: loaded.save(file), lambda: loaded(X), lambda: repr(loaded), loaded.optimize, lambda: loaded(X)]
    good = 1
    for step in steps:
        try:
            step()
            good += 1
        except onnxport.OnnxExporterError:
            pass
    if file.getvalue():
        onnx.load_from_string(file.getvalue())  # what was written can be read
    return good


@pytest.mark.parametrize("external", [False, True])
def test_damaged_bytes(external: bool, program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    """Cut, overwritten and exchanged at places that a generator chooses."""
    path, draw = tmp_path / "m.onnx", random.Random(0)
    program.save(path, external_data=external)
    content = path.read_bytes()
    assert used(path) == 6
    outcomes = []
    for _ in range(120):
        damaged = bytearray(content)
        kind = draw.randrange(4)
        place = draw.randrange(len(content))
        if kind == 0:
            del damaged[place:]
        elif kind == 1:
            damaged[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            damaged[place : place + 8] = draw.randbytes(8)
        else:
            del damaged[place : place + draw.randrange(1, 9)]
        path.write_bytes(damaged)
        outcomes.append(used(path))
    assert 0 in outcomes and 6 in outcomes  # texts may be damaged, and then it is a model still


def test_damaged_checkpoints(tmp_path: Path) -> None:
    path, draw = tmp_path / "w.safetensors", random.Random(0)
    save_file(nn.Linear(8, 8).state_dict(), path)
    content = path.read_bytes()
    target = onnxport.export(nn.Linear(8, 8).eval(), (X,))
    for i in range(300):
        damaged = bytearray(content)
        place = draw.randrange(len(content) if i % 3 else 200)
        if i % 2:
            damaged[place : place + 4] = draw.randbytes(4)
        else:
            del damaged[place:]
        path.write_bytes(damaged)
        try:
            target.apply_weights(path)
        except onnxport.WeightError as error:
            assert "w.safetensors" in str(error) or "weight" in str(error)
        target(X)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "header",
    [
        DEEP,
        '{"weight": {"dtype": "F32", "shape": [8, 8], "data_offsets": [0.5, 256.5]}}',
        '{"weight": {"dtype": "F32", "shape": [true, 8], "data_offsets": [0, 256]}}',
        '{"weight": {"dtype": "F32", "shape": [-8, -8], "data_offsets": [0, 256]}}',
        '{"weight": {"dtype": "F32", "shape": [9223372036854775807, 16], "data_offsets": [0, 256]}}',
        '{"weight": {"dtype": ["F32"], "shape": [8, 8], "data_offsets": [0, 256]}}',
        '{"weight": {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256, 512]}}',
        '{"weight": 3}',
        "[]",
        "null",
        "NaN",
    ],
    ids=range(11),
)
def test_headers_that_lie(header: str, tmp_path: Path) -> None:
    target = onnxport.export(nn.Linear(8, 8).eval(), (X,))
    data = header.encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(256))
    (tmp_path / "w.index.json").write_text(header)
    for name in ("w.safetensors", "w.index.json"):
        with pytest.raises(onnxport.WeightError, match=name):
            target.apply_weights(tmp_path / name)


def test_missing_checkpoints(tmp_path: Path) -> None:
    target = onnxport.export(nn.Linear(8, 8).eval(), (X,))
    for name in ("none.safetensors", "none.index.json"):
        with pytest.raises(FileNotFoundError, match=name) as caught:
            target.apply_weights(tmp_path / name)
        assert isinstance(caught.value, onnxport.WeightError)
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": {"weight": "gone.safetensors"}}))
    with pytest.raises(onnxport.WeightError, match=r"gone\.safetensors"):
        target.apply_weights(tmp_path / "m.index.json")
