"""Weights go from safetensors shards into the saved model without being in memory; bad checkpoints are explained."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import pytest
import torch
from onnxport_safetensors.checkpoint import StoredTensor, read_checkpoint
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

X = torch.randn(2, 3, 16)


def net() -> nn.Module:
    """Weights that are stored as they are, transposed, and tied."""
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.LayerNorm(16), nn.Linear(16, 16))
    model[3].weight = model[1].weight
    return model.eval()


def empty() -> onnxport.ONNXProgram:
    with torch.device("meta"):
        return onnxport.export(net(), (torch.empty(2, 3, 16),), dynamic_shapes=({0: "batch"},))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """What safetensors can hold: each storage once."""
    return {name: weight for name, weight in model.state_dict().items() if name != "3.weight"}


def write_shards(state: dict[str, torch.Tensor], folder: Path, count: int = 2) -> Path:
    names = list(state)
    weight_map = {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = {name: state[name].contiguous() for name in names[i::count]}
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("form", ["file", "folder of a file", "index", "folder of shards"])
def test_forms_of_checkpoints(form: str, tmp_path: Path) -> None:
    model, program = net(), empty()
    source = tmp_path / "checkpoint"
    source.mkdir()
    if form in ("file", "folder of a file"):
        save_file(state_of(model), source / "model.safetensors")
        path = source / "model.safetensors"
    else:
        path = write_shards(state_of(model), source)
    program.apply_weights(source if form.startswith("folder") else str(path))
    program.save(tmp_path / "model.onnx", external_data=True)
    for filled in (program, onnxport.ONNXProgram.load(tmp_path / "model.onnx")):
        torch.testing.assert_close(filled(X)[0], model(X))
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


def test_a_fake_export_is_filled_too(tmp_path: Path) -> None:
    model = net()
    save_file(state_of(model), tmp_path / "model.safetensors")
    with FakeTensorMode():
        program = onnxport.export(net(), (torch.randn(2, 3, 16),))
        program.apply_weights(tmp_path / "model.safetensors")
        program.save(tmp_path / "model.onnx")
    torch.testing.assert_close(onnxport.ONNXProgram.load(tmp_path / "model.onnx")(X)[0], model(X))


def test_nothing_is_kept(tmp_path: Path) -> None:
    """A checkpoint can be exchanged for another, and for tensors."""
    models = [net() for _ in range(3)]
    program = empty()
    for i, model in enumerate(models[:2]):
        save_file(state_of(model), tmp_path / f"{i}.safetensors")
        program.apply_weights(tmp_path / f"{i}.safetensors")
        torch.testing.assert_close(program(X)[0], model(X))
    for value in program.model.graph.initializers.values():
        assert value.const_value._raw is None or value.const_value.source is None  # type: ignore[union-attr]
    program.apply_weights(models[2].state_dict())
    torch.testing.assert_close(program(X)[0], models[2](X))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8,
                                   torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16])  # fmt: skip
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = (torch.randn(5, 7) * 9).abs().to(dtype)
    save_file({"padding": torch.ones(3, dtype=torch.uint8), "w": tensor, "scalar": tensor[0, 0].clone(),
               "none": tensor[:0].clone()}, tmp_path / "w.safetensors")  # fmt: skip
    stored = read_checkpoint(tmp_path / "w.safetensors")
    assert stored["w"].raw.dtype is dtype and stored["scalar"].raw.shape == ()
    assert torch.equal(stored["w"].raw.view(torch.uint8), tensor.view(torch.uint8))
    assert b"".join(bytes(piece) for piece in stored["w"].chunks(8)) == stored["w"].tobytes()
    assert stored["none"].tobytes() == b""
    np.testing.assert_array_equal(stored["w"].numpy(), onnxport_tensor(tensor).numpy())


def onnxport_tensor(tensor: torch.Tensor) -> Any:
    from onnxport.emit.weights import TorchTensor

    return TorchTensor(tensor)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    state = state_of(net())
    del state["0.bias"]
    state |= {"0.weight": torch.ones(16, 8), "2.bias": torch.ones(16, dtype=torch.float64), "colour": torch.ones(2)}
    program = empty()
    for given in (write_shards(state, tmp_path), state):
        with pytest.raises(onnxport.WeightError) as caught:
            program.apply_weights(given)
        text = str(caught.value)
        assert "4 weights don't fit" in text and "nothing was changed" in text
        assert "0.bias: missing" in text
        assert "0.weight: shape [16, 8] given, [16, 16] expected" in text
        assert "2.bias: dtype torch.float64 given, torch.float32 expected" in text
        assert "colour: not a weight of the model" in text
    with pytest.raises(onnxport.WeightError, match="has no data"):
        program.save(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_an_index_that_names_what_is_not_there(tmp_path: Path) -> None:
    index = write_shards(state_of(net()), tmp_path, count=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(onnxport.WeightError) as caught:
        empty().apply_weights(index)
    assert "model-00002-of-00003.safetensors: No such file" in str(caught.value)
    assert "ghost: not in model-00001-of-00003.safetensors" in str(caught.value)


_BAD: dict[str, tuple[str, bytes, str]] = {
    "no file": ("missing.safetensors", b"", "No such file"),
    "another format": ("model.bin", b"PK", "mmap=True"),
    "an empty file": ("a.safetensors", b"", "no checkpoint"),
    "a header past the end": ("a.safetensors", struct.pack("<Q", 2**60) + b"{}", "longer than the file"),
    "no JSON": ("a.safetensors", struct.pack("<Q", 4) + b"\xff{[,", "no checkpoint"),
    "not an object": ("a.safetensors", struct.pack("<Q", 2) + b"[]", "no checkpoint"),
    "an index without a map": ("a.index.json", b"{}", "no checkpoint"),
    "an index that is a list": ("a.index.json", b"[1]", "no checkpoint"),
}


@pytest.mark.parametrize("case", _BAD)
def test_what_is_no_checkpoint(case: str, tmp_path: Path) -> None:
    name, content, message = _BAD[case]
    if name != "missing.safetensors":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(onnxport.WeightError, match=message):
        empty().apply_weights(tmp_path / name)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 16000]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F7", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 16]},
        {"shape": [4]},
        3,
    ],
    ids=str,
)
def test_headers_that_lie(entry: Any, tmp_path: Path) -> None:
    header = json.dumps({"w": entry}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(onnxport.WeightError):
        read_checkpoint(tmp_path / "w.safetensors")


def test_folders_have_to_be_clear(tmp_path: Path) -> None:
    with pytest.raises(onnxport.WeightError, match="no such file"):
        empty().apply_weights(tmp_path)
    for name in ("a", "b"):
        save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(onnxport.WeightError, match=r"a\.safetensors, b\.safetensors"):
        empty().apply_weights(tmp_path)


def test_a_file_that_shrinks_leaves_no_model(tmp_path: Path) -> None:
    save_file(state_of(net()), tmp_path / "model.safetensors")
    program = empty()
    program.apply_weights(tmp_path / "model.safetensors")
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(700)
    with pytest.raises(onnxport.WeightError, match="cut short"):
        program.save(tmp_path / "model.onnx", external_data=True)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_stored_tensors_say_what_they_are(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 3)}, tmp_path / "w.safetensors")
    (stored,) = read_checkpoint(tmp_path / "w.safetensors").values()
    assert isinstance(stored, StoredTensor) and stored.has_data and repr(stored).endswith("(name='w')")


# Memory ---------------------------------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import re, resource, sys
    import torch
    import onnxport

    folder, size, layers, limit, quantize = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5] or None
    torch.set_num_threads(1)
    with torch.device("meta"):
        model = torch.nn.Sequential(*(torch.nn.Linear(size, size, bias=False) for _ in range(layers))).eval()
        dims = ({1: "sequence"},)
        program = onnxport.export(model, (torch.empty(1, 2, size),), dynamic_shapes=dims, quantize=quantize)
    used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
    limit = limit if limit > used else used + limit
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    weights = 4 * size * size * layers
    try:
        torch.ones(weights, dtype=torch.uint8)
    except RuntimeError:
        print("the weights don't fit")
    program.apply_weights(f"{folder}/model.safetensors.index.json")
    program.save(f"{folder}/model.onnx", external_data=True)
    """
)


def stream(folder: Path, size: int, layers: int, limit: int, quantize: str = "") -> None:
    arguments = [sys.executable, "-c", SCRIPT, str(folder), *map(str, (size, layers, limit)), quantize]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the weights don't fit"


def test_weights_that_memory_does_not_hold(tmp_path: Path) -> None:
    """128 MiB of weights, under an address-space limit that leaves room for 60 MiB beside Python and torch."""
    size, layers = 1024, 32
    state = {f"{i}.weight": (torch.arange(size * size) % (i + 7)).reshape(size, size).float() for i in range(layers)}
    write_shards(state, tmp_path, count=8)
    stream(tmp_path, size, layers, 60 * 2**20)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    places = {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer if t.external_data}
    found = sorted(places.items(), key=lambda item: int(item[1]["offset"]))
    assert len(found) == layers
    for i, (_, place) in enumerate(found):
        data = np.memmap(tmp_path / "model.onnx.data", np.float32, "r", int(place["offset"]), (size, size))
        weight = state[f"{i}.weight"].numpy()
        assert np.array_equal(data, weight) or np.array_equal(data, weight.T)  # as MatMul wants it


def test_weights_that_are_rounded_as_they_are_read(tmp_path: Path) -> None:
    """64 MiB of weights and 40 of room: what one weight needs is given back before the next is read."""
    size, layers = 1024, 16
    torch.manual_seed(0)
    state = {f"{i}.weight": torch.randn(size, size) for i in range(layers)}
    write_shards(state, tmp_path, count=8)
    stream(tmp_path, size, layers, 40 * 2**20, "int4")
    model = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(layers))).eval()
    model.load_state_dict(state)
    program = onnxport.export(model, (torch.ones(1, 2, size),), dynamic_shapes=({1: "sequence"},), quantize="int4")
    program.save(tmp_path / "whole.onnx", external_data=True)
    assert (tmp_path / "model.onnx.data").read_bytes() == (tmp_path / "whole.onnx.data").read_bytes()


@pytest.mark.grid  # it writes 5 GB
def test_weights_larger_than_the_whole_limit(tmp_path: Path) -> None:
    """5 GiB of weights (zeros that take no disk), 4.5 GiB of address space for the whole process."""
    size, layers = 8192, 20
    weight_map = {}
    for i in range(layers):
        entry = {f"{i}.weight": {"dtype": "F32", "shape": [size, size], "data_offsets": [0, 4 * size * size]}}
        header = json.dumps(entry).encode()
        with open(tmp_path / f"{i}.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 4 * size * size)
        weight_map[f"{i}.weight"] = f"{i}.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    stream(tmp_path, size, layers, 4608 * 2**20)
    assert (tmp_path / "model.onnx.data").stat().st_size == 4 * size * size * layers
