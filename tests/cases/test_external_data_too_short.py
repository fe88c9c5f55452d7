"""Models that say other sizes than they have: an error that names the tensor, and never a file that nothing reads."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

EXTERNAL: dict[str, dict[str, Any]] = {
    "too short": {"offset": "0", "length": "5"},
    "too long": {"offset": "0", "length": "128"},
    "past the end": {"offset": "64", "length": "64"},
    "a little past the end": {"offset": "1", "length": "64"},
    "far past the end": {"offset": str(2**62), "length": "64"},
    "an overflow": {"offset": str(2**63 - 1), "length": "64"},
    "a larger overflow": {"offset": str(2**70), "length": "64"},
    "before the start": {"offset": "-64", "length": "64"},
    "a negative length": {"offset": "0", "length": "-64"},
    "no number": {"offset": "zero", "length": "64"},
    "no location": {"location": None},
    "an enormous shape": {"dims": [2**40, 2**40]},
    "a negative dimension": {"dims": [-4, -4]},
    "another type": {"data_type": TensorProto.DOUBLE},
    "strings": {"data_type": TensorProto.STRING},
    "no type": {"data_type": 0},
    "an unknown type": {"data_type": 999},
}


def model_with(tensor: TensorProto) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "g", [x], [y], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def refused(folder: Path, content: bytes) -> str:
    """Load and save the model, which fails and leaves no file; what is said."""
    (folder / "m.onnx").write_bytes(content)
    before = set(os.listdir(folder))
    said = []
    for external in (False, True, None):
        with pytest.raises(onnxport.OnnxExporterError) as caught:
            onnxport.ONNXProgram.load(folder / "m.onnx").save(folder / "out.onnx", external_data=external)
        said.append(str(caught.value))
    with pytest.raises(onnxport.OnnxExporterError):
        onnxport.ONNXProgram.load(folder / "m.onnx")(torch.ones(1, 4))
    assert set(os.listdir(folder)) == before
    return said[0]


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data(name: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    given = {"location": "w.bin", "offset": "0", "length": "64", "dims": [4, 4], "data_type": TensorProto.FLOAT}
    given |= EXTERNAL[name]
    tensor = TensorProto(
        name="weight", data_type=given["data_type"], dims=given["dims"], data_location=TensorProto.EXTERNAL
    )
    for key in ("location", "offset", "length"):
        if given[key] is not None:
            tensor.external_data.add(key=key, value=given[key])
    said = refused(tmp_path, model_with(tensor))
    assert "m.onnx" in said and ("weight" in said or name in ("no number", "no location"))


def test_what_is_right(tmp_path: Path) -> None:
    """Lengths may be left out, tensors may overlap, and the file may be longer; empty tensors are nowhere."""
    numbers = np.arange(20, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(numbers.tobytes())
    tensor = TensorProto(name="weight", data_type=1, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "16")):
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(model_with(tensor))
    x = torch.randn(3, 4)
    expected = x @ torch.from_numpy(numbers[4:].reshape(4, 4).copy())
    program = onnxport.ONNXProgram.load(tmp_path / "m.onnx")
    torch.testing.assert_close(program(x)[0], expected)
    for external in (True, False):
        program.save(tmp_path / "again.onnx", external_data=external)
        onnx.checker.check_model(str(tmp_path / "again.onnx"), full_check=True)
        torch.testing.assert_close(onnxport.ONNXProgram.load(tmp_path / "again.onnx")(x)[0], expected)


@pytest.mark.parametrize("dtype", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23])
@pytest.mark.parametrize("raw", [True, False])
def test_data_in_the_model(raw: bool, dtype: int, tmp_path: Path) -> None:
    """Each type, with an element too few and too many, as bytes and as numbers."""
    array = np.ones((3, 5)).astype(helper.tensor_dtype_to_np_dtype(dtype))
    whole = numpy_helper.from_array(array, "weight")
    if not raw:
        whole = helper.make_tensor("weight", dtype, (3, 5), array.reshape(-1).tolist())
    (tmp_path / "whole.onnx").write_bytes(model_with(whole))
    loaded = onnxport.ONNXProgram.load(tmp_path / "whole.onnx")
    loaded.save(tmp_path / "again.onnx")
    (again,) = onnx.load(tmp_path / "again.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(again), numpy_helper.to_array(whole))
    fields = ["raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"]
    field = next(name for name in fields if len(getattr(whole, name)))
    for change in (lambda data: data[:-1], lambda data: data + data[:1]):
        wrong = TensorProto()
        wrong.CopyFrom(whole)
        data = getattr(whole, field)
        if field == "raw_data":
            wrong.raw_data = change(data)
        else:
            wrong.ClearField(field)  # type: ignore[arg-type]
            getattr(wrong, field).extend(change(list(data)))
        assert "weight" in refused(tmp_path, model_with(wrong))


def test_a_data_file_that_is_cut_later(tmp_path: Path) -> None:
    """Nothing is left of a save that could not read all of its data."""
    path = tmp_path / "m.onnx"
    onnxport.export(torch.nn.Linear(64, 64).eval(), (torch.ones(1, 64),)).save(path, external_data=True)
    program = onnxport.ONNXProgram.load(path)
    os.truncate(tmp_path / "m.onnx.data", 100)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(onnxport.FileError, match="cut short"):
        program.save(tmp_path / "again.onnx")
    with pytest.raises(onnxport.FileError, match="cut short"):
        program.save(path, external_data=True)
    with pytest.raises(onnxport.FileError, match="cut short"):
        program(torch.ones(1, 64))
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    with pytest.raises(onnxport.FileError, match="damaged"):
        onnxport.ONNXProgram.load(path)
    with pytest.raises(onnxport.FileError):
        program.save(io.BytesIO())
