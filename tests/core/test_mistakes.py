"""Mistakes that users make, and what they are told."""

from __future__ import annotations

import re
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport.errors import CaptureError, DynamicShapesError, InputError, NamesError, SaveError
from torch import nn

X = torch.randn(2, 3)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 18}, InputError, "Did you mean 'opset_version'"),
        ({"dynamic_shape": {}}, InputError, "Did you mean 'dynamic_shapes'"),
        ({"seed": "a"}, InputError, "seed='a': give an int"),
        ({"output_names": ["a", "b"]}, NamesError, "has 2 names, but the model has 1 outputs:\n    linear"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_options(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        onnxport.export(Layer().eval(), (X,), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("destination", "error", "message"),
    [
        ("nowhere/model.onnx", SaveError, "The folder does not exist: create it first"),
        ("", SaveError, "Cannot save '': give the path of a file"),
        (".", SaveError, "it is a folder"),
        (3, TypeError, "must be a path or a binary file, not int"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_capture(
    destination: object, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pytest.fail("the model was captured")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        onnxport.export(Never().eval(), (X,), destination)  # type: ignore[arg-type]


def test_a_method_is_no_model() -> None:
    with pytest.raises(InputError, match="a method of a Layer: give the module"):
        onnxport.export(Layer().eval().forward, (X,))  # type: ignore[arg-type]


def test_a_compiled_model_is_its_module() -> None:
    program = onnxport.export(torch.compile(Layer().eval()), (X,), dynamic_shapes={"x": {0: "batch"}}, verify=True)
    assert [str(value.shape) for value in program.model.graph.inputs] == ["[batch,3]"]
    assert "layer.weight" in program.model.graph.initializers


def test_inputs_of_another_device_than_meta() -> None:
    with torch.device("meta"):
        model = Layer().eval()
    with pytest.raises(CaptureError, match="on the meta device: make the example inputs there"):
        onnxport.export(model, (X,))


def test_a_derived_dim_that_torch_refuses() -> None:
    length = torch.export.Dim("length")
    with pytest.raises(DynamicShapesError, match=r"length - 1, of which torch says: .*appropriate min value"):
        onnxport.export(Layer().eval(), (X,), dynamic_shapes=({0: length - 1},))


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\n" * 20)
    with pytest.raises(InputError, match="is no ONNX model, or a damaged one"):
        onnxport.verify(tmp_path / "model.py", Layer().eval(), (X,))


def test_calls() -> None:
    program = onnxport.export(Layer().eval(), (X,))
    expected = re.escape("expected a tensor or number, got list of (a tensor or number)")
    with pytest.raises(InputError, match=expected):
        program([X])
    with pytest.raises(InputError, match=r"no provider .'Nowhere'.; here are .*CPUExecutionProvider"):
        program.initialize_inference_session(providers=["Nowhere"])
