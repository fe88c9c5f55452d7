"""Files that appear whole or not at all, with weights streamed from torch storage."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import resource
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import onnx_ir as ir
import onnxport
import onnxruntime as ort
import pytest
import torch
from onnxport.emit.weights import TorchTensor
from onnxport.errors import SaveError, WeightError
from onnxport_builtin.program import saving, serialization


def build(weights: dict[str, torch.Tensor | ir.TensorProtocol]) -> ir.Model:
    """A model that returns Identity of every initializer, beside its one input."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n"]))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 20}, name="main")
    for name, data in {**weights}.items():
        tensor = TorchTensor(data, name) if isinstance(data, torch.Tensor) else data
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        graph.register_initializer(value)
    for source in [x, *graph.initializers.values()]:
        node = ir.Node("", "Identity", [source])
        (output,) = node.outputs
        output.name, output.type, output.shape = f"{source.name}_out", source.type, source.shape
        graph.append(node)
        graph.outputs.append(output)
    return ir.Model(graph, ir_version=10, producer_name="onnxport", metadata_props={"key": "value"})


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {
        "small": torch.arange(4, dtype=torch.int64),
        "empty": torch.ones(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "medium": torch.randn(20, 30),
        "large": torch.randn(600, 700),
        "transposed": torch.randn(700, 600).t(),
        "half": torch.randn(40, 40).to(torch.bfloat16),
        "flags": torch.rand(50, 50) > 0.5,
    }


def check(model: onnx.ModelProto, weights: dict[str, torch.Tensor]) -> None:
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.to(torch.float64).numpy())


@pytest.mark.parametrize("external_data", [True, False, None])
def test_round_trip(tmp_path: pathlib.Path, weights, external_data: bool | None) -> None:
    model = build(weights)
    path = tmp_path / "model.onnx"
    saving.save_model(model, path, external_data=external_data)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"][: 1 + bool(external_data)]
    onnx.checker.check_model(path, full_check=True)
    loaded = onnx.load(path)
    check(loaded, weights)
    assert [entry.key for entry in loaded.metadata_props] == ["key"]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["medium_out", "transposed_out", "large_out"]
    for name, value in zip(names, session.run(names, {"x": np.ones(2, np.float32)}), strict=True):
        np.testing.assert_array_equal(value, weights[name[:-4]].numpy())


def test_layout_of_the_data_file(tmp_path: pathlib.Path, weights) -> None:
    saving.save_model(build(weights), tmp_path / "m.onnx", external_data=True)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    entries = {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer}
    assert {name for name, entry in entries.items() if not entry} == {"small", "empty", "scalar"}
    assert {entry["location"] for entry in entries.values() if entry} == {"m.onnx.data"}
    assert int(entries["medium"]["offset"]) % saving.SMALL_ALIGNMENT == 0
    assert int(entries["large"]["offset"]) % saving.LARGE_ALIGNMENT == 0 < int(entries["large"]["offset"])
    assert int(entries["flags"]["length"]) == 2500


def test_nothing_outside_needs_no_data_file(tmp_path: pathlib.Path) -> None:
    saving.save_model(build({"w": torch.ones(3)}), tmp_path / "m.onnx", external_data=True)
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was(tmp_path: pathlib.Path, weights) -> None:
    model = build(weights)
    model.graph.initializers["small"].const_value.name = "another name"
    before = [(name, value.const_value, value.const_value.name) for name, value in model.graph.initializers.items()]
    text = str(model)
    first, second = io.BytesIO(), io.BytesIO()
    saving.save_model(model, first)
    saving.save_model(model, tmp_path / "m.onnx", external_data=True, keep_initializers_as_inputs=True)
    saving.save_model(model, second)
    assert first.getvalue() == second.getvalue()
    after = [(name, value.const_value, value.const_value.name) for name, value in model.graph.initializers.items()]
    assert after == before and str(model) == text
    check(onnx.load_from_string(first.getvalue()), weights)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("as_inputs", [True, False])
def test_four_kinds_of_initializers(tmp_path: pathlib.Path, weights, include: bool, as_inputs: bool) -> None:
    path = tmp_path / "m.onnx"
    saving.save_model(build(weights), path, include_initializers=include, keep_initializers_as_inputs=as_inputs)
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["x", *(weights if as_inputs else ())]
    assert [tensor.name for tensor in model.graph.initializer] == (list(weights) if include else [])
    if include or as_inputs:
        onnx.checker.check_model(model, full_check=True)


def test_agrees_with_onnx_ir(weights) -> None:
    model = build(weights)
    mine, theirs = onnx.load_from_string(saving.to_bytes(model)), ir.serde.serialize_model(model)
    for proto in (mine, theirs):
        infos = sorted(proto.graph.value_info, key=lambda info: info.name)
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(infos)
    assert mine == theirs


def test_strings_and_numpy_and_external_tensors(tmp_path: pathlib.Path) -> None:
    data = {
        "text": ir.StringTensor([b"a" * 1000, b"b" * 1000], shape=ir.Shape([2])),
        "array": ir.tensor(np.arange(1000, dtype=np.int32)),
    }
    saving.save_model(build(data), tmp_path / "a.onnx", external_data=True)
    again = ir.load(tmp_path / "a.onnx")
    assert isinstance(again.graph.initializers["array"].const_value, ir.ExternalTensor)
    saving.save_model(again, tmp_path / "a.onnx", external_data=True)  # over the files it is mapped from
    model = onnx.load(tmp_path / "a.onnx")
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(found["array"], np.arange(1000))
    assert list(found["text"]) == ["a" * 1000, "b" * 1000]


def test_other_outputs(weights) -> None:
    model = build(weights)
    proto = onnx.load_from_string(saving.to_bytes(model, [model.graph.node(3).outputs[0]]))
    assert [value.name for value in proto.graph.output] == ["scalar_out"]


def test_file_like_destinations(weights) -> None:
    buffer = io.BytesIO()
    with pytest.raises(TypeError, match="external_data=True needs a path"):
        saving.save_model(build(weights), buffer, external_data=True)
    with pytest.raises(TypeError, match="path or a binary file"):
        saving.save_model(build(weights), 5)
    assert buffer.getvalue() == b""
    saving.save_model(build(weights), buffer, external_data=False)
    check(onnx.load_from_string(buffer.getvalue()), weights)


def test_two_gib_limit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, weights) -> None:
    monkeypatch.setattr(saving, "PROTOBUF_LIMIT", 1_000_000)
    model = build(weights)
    with pytest.raises(SaveError, match=r"2 GiB at most\. Save with external_data=True"):
        saving.save_model(model, tmp_path / "m.onnx", external_data=False)
    with pytest.raises(SaveError, match="Save to a path"):
        saving.save_model(model, io.BytesIO())
    assert os.listdir(tmp_path) == []
    saving.save_model(model, tmp_path / "m.onnx")
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]


def test_size_estimate(weights) -> None:
    model = build(weights)
    shell, parts = serialization.without_weights(model), serialization.weights_of(model)
    actual = len(saving.to_bytes(model))
    assert 0 <= serialization.model_size(shell, parts) - actual < 64


def test_fake_weights(tmp_path: pathlib.Path) -> None:
    model = build({"fake": torch.empty(300, 300, device="meta")})
    for external_data in (True, False):
        with pytest.raises(WeightError, match="'fake' has no data"):
            saving.save_model(model, tmp_path / "m.onnx", external_data=external_data)
    assert os.listdir(tmp_path) == []
    saving.save_model(model, tmp_path / "m.onnx", include_initializers=False)


class Broken(TorchTensor):
    """A tensor whose second half can't be written."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(torch.ones(1000, 1000), "broken")
        self.error = error

    def tofile(self, file) -> None:
        file.write(b"half")
        raise self.error


@pytest.mark.parametrize("external_data", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=str)
def test_interrupted_saves_leave_the_old_files(tmp_path: pathlib.Path, weights, external_data, error) -> None:
    path = tmp_path / "m.onnx"
    saving.save_model(build(weights), path, external_data=True)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    model = build({"w": torch.ones(1000)})
    model.graph.initializers["w"].const_value = Broken(error)
    with pytest.raises(SaveError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        saving.save_model(model, path, external_data=external_data)
    if isinstance(error, OSError):
        assert "The disk is full: free space" in str(caught.value) and caught.value.__cause__ is error
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.parametrize("existed", [True, False])
def test_data_file_goes_back_when_the_model_cannot_be_renamed(tmp_path, monkeypatch, weights, existed: bool) -> None:
    path = tmp_path / "m.onnx"
    if existed:
        saving.save_model(build({"w": torch.ones(1000)}), path, external_data=True)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith(".onnx"):
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SaveError, match="no permission"):
        saving.save_model(build(weights), path, external_data=True)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_bad_destinations(tmp_path: pathlib.Path, weights) -> None:
    model = build(weights)
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder.onnx.data").mkdir()
    cases = {
        "missing/m.onnx": "folder does not exist: create it",
        ".": "is a folder",
        "file/m.onnx": "not a folder",
        "x" * 300: "too long",
        "folder.onnx": "is a folder",
    }
    for name, message in cases.items():
        with pytest.raises(SaveError, match=message):
            saving.save_model(model, tmp_path / name, external_data=True)
    with pytest.raises(SaveError, match="not a regular file"):
        saving.save_model(model, "/dev/null")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.onnx.data"]


@pytest.mark.parametrize("external_data", [True, False])
def test_file_size_limit(tmp_path: pathlib.Path, external_data: bool) -> None:
    """A real refusal by the system half-way through, as a full disk gives."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(SaveError, match="larger than the process"):
            saving.save_model(build({"w": torch.ones(1000, 1000)}), tmp_path / "m.onnx", external_data=external_data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_links_are_written_through(tmp_path: pathlib.Path, weights) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "m.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    saving.save_model(build(weights), tmp_path / "m.onnx", external_data=False)
    assert (tmp_path / "m.onnx").is_symlink()
    check(onnx.load(tmp_path / "real" / "m.onnx"), weights)


def test_memory_stays_small(tmp_path: pathlib.Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys, torch
        sys.path.insert(0, sys.argv[2])
        from test_saving import build
        from onnxport_builtin.program import saving
        model = build({"a": torch.ones(16, 2**20), "b": torch.ones(2**13, 2**11).t(), "c": torch.ones(2**23)})
        saving.save_model(build({"w": torch.ones(2**19).reshape(2, -1).t()}), sys.argv[1], external_data=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for external_data in (True, False):
            saving.save_model(model, sys.argv[1], external_data=external_data)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "m.onnx"), os.path.dirname(__file__)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 32 * 1024  # KiB, of 160 MiB of weights: a few pieces of 4 MiB, and the allocator's slack


@pytest.mark.parametrize("external_data", [False, True])
def test_files_are_on_the_disk_before_they_are_renamed(
    external_data: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    sync, rename = os.fsync, os.replace

    def syncing(file: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{file}"))
        sync(file)

    def renaming(source: str, target: str) -> None:
        assert os.path.realpath(source) in synced
        assert os.path.getsize(source)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", renaming)
    model = torch.nn.Linear(64, 64).eval()
    onnxport.export(model, (torch.ones(1, 64),), tmp_path / "model.onnx", external_data=external_data)
    assert synced >= {str(tmp_path)} and len(synced) == 2 + external_data  # and the folder's names
