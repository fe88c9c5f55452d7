"""ONNXProgram: what an export returns."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxport
import onnxruntime
import pytest
import torch
from onnxport_builtin.program import saving
from promises import promise
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

X = torch.randn(2, 64)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval()


@pytest.fixture
def program(model: nn.Module) -> onnxport.ONNXProgram:
    return onnxport.export(model, (X,))


@promise("ONNXProgram(model, exported_program): a class to represent an ONNX program")
@promise("model: the ONNX model as an ONNX IR model object; exported_program: the program that produced the ONNX model")
def test_attributes(model: nn.Module, program: onnxport.ONNXProgram) -> None:
    assert isinstance(program.model, onnx_ir.Model)
    assert isinstance(program.exported_program, torch.export.ExportedProgram)
    assert list(inspect.signature(onnxport.ONNXProgram).parameters) == ["model", "exported_program"]
    again = onnxport.ONNXProgram(program.model, program.exported_program)
    torch.testing.assert_close(again(X)[0], model(X))


@promise("an ONNX program that is callable with torch tensors")
def test_call(model: nn.Module, program: onnxport.ONNXProgram) -> None:
    results = program(X)
    assert isinstance(results, Sequence) and all(isinstance(result, torch.Tensor) for result in results)
    torch.testing.assert_close(results[0], model(X))


@promise("apply_weights(state_dict): apply the weights from the specified state dict to the ONNX model")
def test_apply_weights(model: nn.Module, program: onnxport.ONNXProgram) -> None:
    other = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval()
    torch.testing.assert_close(program(X)[0], model(X))
    program.apply_weights(other.state_dict())
    torch.testing.assert_close(program(X)[0], other(X))


@promise("apply_weights: use this method to replace FakeTensors or other weights")
def test_apply_weights_to_a_fake_export(model: nn.Module) -> None:
    with FakeTensorMode():
        fake = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval()
        program = onnxport.export(fake, (torch.randn(2, 64),))
    program.apply_weights(model.state_dict())
    torch.testing.assert_close(program(X)[0], model(X))


@promise("call_reference(*args, **kwargs): run the ONNX model using the reference backend; a Sequence of Tensors")
def test_call_reference(model: nn.Module, program: onnxport.ONNXProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    results = program.call_reference(X)
    assert isinstance(results, Sequence)
    torch.testing.assert_close(results[0], model(X), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(program.call_reference(input=X)[0], model(X), rtol=1e-4, atol=1e-5)


@promise("compute_values(value_names, args, kwargs): compute the values of the specified names in the ONNX model")
@promise("compute_values: the values are returned as a dictionary mapping names to tensors")
def test_compute_values(model: Any, program: onnxport.ONNXProgram) -> None:
    inside = program.model.graph[0].outputs[0].name
    assert inside is not None
    values = program.compute_values([inside, "input"], (X,))
    assert list(values.keys()) == [inside, "input"]
    torch.testing.assert_close(values[inside], model[0](X))
    torch.testing.assert_close(program.compute_values([inside], kwargs={"input": X})[inside], model[0](X))


@promise("initialize_inference_session(initializer): initialize the ONNX Runtime inference session with a function")
def test_initialize_inference_session(model: nn.Module, program: onnxport.ONNXProgram) -> None:
    given = []

    def initializer(source: str | bytes) -> onnxruntime.InferenceSession:
        given.append(source)
        return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])

    program.initialize_inference_session(initializer)
    torch.testing.assert_close(program(X)[0], model(X))
    assert len(given) == 1 and isinstance(given[0], (str, bytes))
    program.initialize_inference_session()
    torch.testing.assert_close(program(X)[0], model(X))


@promise("model_proto: the in-memory model is an onnx.ModelProto object in compliance with the ONNX IR spec")
def test_model_proto(program: onnxport.ONNXProgram) -> None:
    proto = program.model_proto
    assert isinstance(proto, onnx.ModelProto)
    onnx.checker.check_model(proto, full_check=True)


@promise("optimize(): constant folding and eliminating redundancies in the graph, done in-place")
def test_optimize() -> None:
    class Wasteful(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.t().t() + (x + 0).exp() * (x + 0).exp()

    program = onnxport.export(Wasteful(), (X,), optimize=False)
    graph, before = program.model.graph, len(program.model.graph)
    expected = program(X)[0]
    assert program.optimize() is None  # type: ignore[func-returns-value]
    assert program.model.graph is graph and len(graph) < before
    torch.testing.assert_close(program(X)[0], expected)


@promise("release(): release the inference session and its resources")
def test_release(model: nn.Module, program: onnxport.ONNXProgram) -> None:
    program(X)
    assert program.inference_session is not None
    program.release()
    assert program.inference_session is None
    torch.testing.assert_close(program(X)[0], model(X))


# save -----------------------------------------------------------------------------------------------------------------


def saved(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def names(values: Any) -> list[str]:
    return [value.name for value in values]


@promise("save(destination): the ONNX model may then be serialized into a Protobuf file")
def test_save(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    for destination in (str(tmp_path / "text.onnx"), tmp_path / "path.onnx"):
        program.save(destination)
        onnx.checker.check_model(onnx.load(destination), full_check=True)
    buffer = io.BytesIO()
    program.save(buffer)
    assert buffer.getvalue() == (tmp_path / "path.onnx").read_bytes()


@promise("save: when external_data is True, the weights are saved as external data in a separate file")
def test_external_data(model: nn.Module, program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    program.save(path, external_data=True)
    weight = next(tensor for tensor in saved(path).initializer if tensor.name == "0.weight")
    assert weight.data_location == onnx.TensorProto.EXTERNAL and not weight.raw_data
    assert {entry.key: entry.value for entry in weight.external_data}["location"] == "model.onnx.data"
    torch.testing.assert_close(onnxport.ONNXProgram.load(path)(X)[0], model(X))


@promise("save: when the model is larger than 2GB, the weights are saved as external data in a separate file")
@promise("save: external_data=None, the default, decides by the size")
def test_external_data_by_size(program: onnxport.ONNXProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.save(tmp_path / "small.onnx")
    monkeypatch.setattr(saving, "PROTOBUF_LIMIT", 10_000)
    program.save(tmp_path / "large.onnx")
    assert sorted(os.listdir(tmp_path)) == ["large.onnx", "large.onnx.data", "small.onnx"]


@promise("include_initializers=True, keep_initializers_as_inputs=False (default): the initializers are included")
def test_initializers_included(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    program.save(tmp_path / "model.onnx")
    graph = saved(tmp_path / "model.onnx")
    assert names(graph.initializer) == ["0.weight", "0.bias"] and names(graph.input) == ["input"]


@promise("include_initializers=True, keep_initializers_as_inputs=True: included and kept as inputs that override")
def test_initializers_included_as_inputs(model: nn.Module, program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    program.save(path, keep_initializers_as_inputs=True)
    graph = saved(path)
    assert names(graph.initializer) == ["0.weight", "0.bias"] and names(graph.input) == ["input", "0.weight", "0.bias"]
    session = onnxruntime.InferenceSession(path)
    (plain,) = session.run(None, {"input": X.numpy()})
    np.testing.assert_allclose(plain, model(X).detach().numpy(), rtol=1e-4, atol=1e-5)
    changed = {"0.weight": np.zeros((64, 64), np.float32), "0.bias": np.full(64, 7, np.float32)}
    np.testing.assert_array_equal(session.run(None, {"input": X.numpy(), **changed})[0], np.full((2, 64), 7))


@promise("include_initializers=False, keep_initializers_as_inputs=False: neither included nor listed as inputs")
def test_initializers_left_out(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    program.save(tmp_path / "model.onnx", include_initializers=False)
    graph = saved(tmp_path / "model.onnx")
    assert not graph.initializer and names(graph.input) == ["input"]


@promise("include_initializers=False, keep_initializers_as_inputs=True: not included, but listed as model inputs")
def test_initializers_as_inputs_alone(model: Any, program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    program.save(path, include_initializers=False, keep_initializers_as_inputs=True)
    graph = saved(path)
    assert not graph.initializer and names(graph.input) == ["input", "0.weight", "0.bias"]
    assert path.stat().st_size < 10_000
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    (result,) = onnxruntime.InferenceSession(path).run(None, {"input": X.numpy(), **weights})
    np.testing.assert_allclose(result, model(X).detach().numpy(), rtol=1e-4, atol=1e-5)


@promise("Raises TypeError if external_data is True and destination is not a file path")
def test_external_data_needs_a_path(program: onnxport.ONNXProgram) -> None:
    with pytest.raises(TypeError, match="path"):
        program.save(io.BytesIO(), external_data=True)
