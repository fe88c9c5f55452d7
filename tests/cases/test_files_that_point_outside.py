"""A model from anywhere is loaded: nothing outside of its folder is read, whatever names it and wherever."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

SECRET = b"TOP SECRET 12345" * 4
EXPORTED = torch.export.export(torch.nn.Linear(4, 4).eval(), (torch.ones(1, 4),))


def external(name: str, location: str, offset: int = 0) -> TensorProto:
    """A float32 tensor (4, 4) in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _as_initializer(location: str) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], [external("w", location)])


def _as_constant(location: str) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    nodes[0].attribute.append(helper.make_attribute("value", external("", location)))
    return _model(nodes, [])


def _branch(nodes: list[Any], initializers: list[TensorProto]) -> onnx.GraphProto:
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])
    return helper.make_graph(nodes, "branch", [], [result], initializers)


def _in_a_branch(location: str) -> onnx.ModelProto:
    product = helper.make_node("MatMul", ["x", "w"], ["z"])
    branch = _branch([product], [external("w", location)])
    other = _branch([helper.make_node("Identity", ["x"], ["z"])], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)
    return _model([node], [numpy_helper.from_array(np.array(True), "c")])


def _in_a_function(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", external("", location)))
    nodes = [constant, helper.make_node("MatMul", ["a", "w"], ["b"])]
    function = helper.make_function("case", "Product", ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])
    model = _model([helper.make_node("Product", ["x"], ["y"], domain="case")], [])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("case", 1))
    return model


def _in_a_branch_of_a_function(location: str) -> onnx.ModelProto:
    model = _in_a_function(location)
    constant = helper.make_node("Constant", [], ["w2"])
    constant.attribute.append(helper.make_attribute("value", external("", location)))
    branch = _branch([constant, helper.make_node("MatMul", ["a", "w2"], ["z"])], [])
    condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    node = helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch)
    del model.functions[0].node[:]
    model.functions[0].node.extend([condition, node])
    return model


def _model(nodes: list[Any], initializers: list[TensorProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


MODELS: dict[str, Callable[[str], onnx.ModelProto]] = {
    "initializer": _as_initializer,
    "constant": _as_constant,
    "branch": _in_a_branch,
    "function": _in_a_function,
    "branch of a function": _in_a_branch_of_a_function,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with links out of it, and one of its own."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_bytes(SECRET)
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    (inside / "data.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    (inside / "sub" / "data.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "other" / "secret")
    (inside / "relative_link.bin").symlink_to("../other/secret")
    (inside / "chain.bin").symlink_to("link.bin")
    (inside / "folder").symlink_to(tmp_path / "other")
    os.link(tmp_path / "other" / "secret", inside / "hard.bin")
    monkeypatch.chdir(inside)
    return inside


OUTSIDE = ["{secret}", "../other/secret", "sub/../../other/secret", "./../other/secret", "link.bin", "chain.bin",
           "relative_link.bin", "folder/secret", "hard.bin", "", ".", "sub", "/dev/zero", "data.bin\0.x"]  # fmt: skip


@pytest.mark.parametrize("location", OUTSIDE)
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_else_is_read(kind: str, location: str, folder: Path) -> None:
    location = location.format(secret=folder.parent / "other" / "secret")
    (folder / "m.onnx").write_bytes(MODELS[kind](location).SerializeToString())
    for path in ("m.onnx", "./m.onnx", str(folder / "m.onnx"), Path("m.onnx"), "sub/../m.onnx"):
        with pytest.raises(onnxport.OnnxExporterError) as caught:
            file = io.BytesIO()
            onnxport.ONNXProgram.load(path).save(file)
        assert "SECRET" not in str(caught.value)
    x = torch.ones(1, 4)
    for use in (
        lambda: onnxport.verify("m.onnx", torch.nn.Linear(4, 4), (x,)),
        lambda: onnxport.find_mismatch("m.onnx", (x,), exported_program=EXPORTED),
    ):
        with pytest.raises(onnxport.OnnxExporterError):
            use()


@pytest.mark.parametrize("kind", MODELS)
def test_data_of_the_folder_are_read(kind: str, folder: Path) -> None:
    weight = torch.arange(16.0).view(4, 4)
    for location in ("data.bin", "./data.bin", "sub/data.bin", "sub/../data.bin"):
        (folder / "m.onnx").write_bytes(MODELS[kind](location).SerializeToString())
        program = onnxport.ONNXProgram.load("m.onnx")
        x = torch.randn(2, 4)
        torch.testing.assert_close(program(x)[0], x @ weight)
        (folder / "data.bin").rename(folder / "moved.bin")  # it was opened
        program.save("again.onnx")
        torch.testing.assert_close(onnxport.ONNXProgram.load("again.onnx")(x)[0], x @ weight)
        (folder / "moved.bin").rename(folder / "data.bin")


def test_a_cache_of_downloads(tmp_path: Path) -> None:
    """Each file of a model is a link into one folder, as in the cache of Hugging Face's hub."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "a1").write_bytes(_as_initializer("model.onnx_data").SerializeToString())
    (blobs / "b2").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/a1")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/b2")
    program = onnxport.ONNXProgram.load(snapshot / "model.onnx")
    x = torch.randn(2, 4)
    torch.testing.assert_close(program(x)[0], x @ torch.arange(16.0).view(4, 4))
    state = {"weight": torch.randn(4, 4), "bias": torch.randn(4)}
    save_file(state, blobs / "c3")
    (snapshot / "model.safetensors").symlink_to("../../blobs/c3")
    linear = onnxport.export(torch.nn.Linear(4, 4).eval(), (x,))
    for path in (snapshot, snapshot / "model.safetensors"):
        linear.apply_weights(path)
        torch.testing.assert_close(linear(x)[0], torch.nn.functional.linear(x, state["weight"], state["bias"]))


def checkpoint(name: str, folder: Path) -> None:
    """An index that names a file for a weight of a Linear."""
    index = {"weight_map": {"weight": name, "bias": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name", ["{other}", "../other/w.safetensors", "link.safetensors", "folder/w.safetensors", "", 3]
)
def test_an_index_of_a_checkpoint_names_its_own_folder(name: Any, folder: Path) -> None:
    other = folder.parent / "other" / "w.safetensors"
    save_file({"weight": torch.ones(4, 4), "bias": torch.ones(4)}, other)
    (folder / "link.safetensors").symlink_to(other)
    checkpoint(name.format(other=other) if isinstance(name, str) else name, folder)
    program = onnxport.export(torch.nn.Linear(4, 4).eval(), (torch.ones(1, 4),))
    before = program(torch.ones(1, 4))[0]
    for path in ("model.safetensors.index.json", folder / "model.safetensors.index.json"):
        with pytest.raises(onnxport.WeightError):
            program.apply_weights(path)
    torch.testing.assert_close(program(torch.ones(1, 4))[0], before, rtol=0, atol=0)


def test_a_folder_of_a_checkpoint_with_a_link(folder: Path) -> None:
    other = folder.parent / "other" / "w.safetensors"
    save_file({"weight": torch.ones(4, 4), "bias": torch.ones(4)}, other)
    (folder / "model.safetensors").symlink_to(other)
    program = onnxport.export(torch.nn.Linear(4, 4).eval(), (torch.ones(1, 4),))
    with pytest.raises(onnxport.WeightError, match="outside"):
        program.apply_weights(folder)
    program.apply_weights(folder / "model.safetensors")  # this very file was asked for


def test_a_header_that_would_take_all_memory(folder: Path) -> None:
    path = folder / "w.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**33))
        file.truncate(2**33 + 100)  # it takes no disk
    program = onnxport.export(torch.nn.Linear(4, 4).eval(), (torch.ones(1, 4),))
    with pytest.raises(onnxport.WeightError, match="longer than the format allows"):
        program.apply_weights(path)
