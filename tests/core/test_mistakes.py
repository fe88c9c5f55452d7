"""Mistakes that users make, and what they are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport.errors import CaptureError, DynamicShapesError, InputError, NamesError, SaveError
from support import FunctionModule
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: onnxport.save_together({}, 3), "folder=3: give the path of a folder"),
        (lambda: onnxport.save_together({}, "\0"), "give the path of a folder"),
        (lambda: onnxport.save_together([1], "x"), r"programs=\[1\]: give a dict of ONNXPrograms"),
        (lambda: onnxport.save_together({"a": 1}, "x"), "give a dict of ONNXPrograms"),
        (lambda: onnxport.warn("a", 3), "category=3: give a class of warnings"),
        (lambda: onnxport.warn("a", int), "give a class of warnings"),
        (lambda: onnxport.export(Layer().eval(), (X,)).apply_weights("a" * 300), "too long. Give the path of one"),
    ],
)
def test_arguments_of_another_type(call: Callable[[], object], message: str) -> None:
    with pytest.raises(onnxport.OnnxExporterError, match=message):
        call()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x, y: nn.functional.interpolate(x, scale_factor=y.shape[2] / x.shape[2]), "size=y.shape"),
        (lambda x, y: x * len("%d" % x.shape[2]), "Text is made while the model is captured: compute from"),  # noqa: UP031
    ],
)
def test_lines_that_make_a_number_of_a_size(forward: Callable[..., torch.Tensor], message: str) -> None:
    shapes = {"args": ({2: "height"}, {2: "other"})}
    with pytest.raises(DynamicShapesError, match=message) as caught:
        onnxport.export(
            FunctionModule(forward), (torch.randn(1, 2, 8, 8), torch.randn(1, 2, 16, 8)), dynamic_shapes=shapes
        )
    assert "test_mistakes.py:" in str(caught.value)
