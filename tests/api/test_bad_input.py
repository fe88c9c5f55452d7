"""Every bad call gets an error of its own, and leaves no file behind."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.layer(x) * scale


X = torch.randn(2, 3)

_BAD: dict[str, tuple[type[Exception], str, Any]] = {
    "a function": (onnxport.InputError, "wrap it in an nn.Module", {"model": torch.relu}),
    "a class": (onnxport.InputError, "", {"model": Linear}),
    "a string": (onnxport.InputError, "", {"model": "model"}),
    "too many arguments": (onnxport.InputError, "doesn't accept the example inputs", {"args": (X, 1.0, X)}),
    "an unknown keyword": (onnxport.InputError, "doesn't accept", {"kwargs": {"colour": 1}}),
    "no arguments": (onnxport.InputError, "doesn't accept", {"args": ()}),
    "a wrong size": (onnxport.CaptureError, "test_bad_input.py", {"args": (torch.randn(2, 5),)}),
    "too many input names": (onnxport.NamesError, "has 2 names", {"input_names": ["a", "b"]}),
    "doubled input names": (onnxport.NamesError, "more than once", {"input_names": ["a", "a"]}),
    "too many output names": (onnxport.NamesError, "output_names", {"output_names": ["a", "b"]}),
    "doubled output names": (onnxport.NamesError, "more than once", {"output_names": ["a", "a"]}),
    "opset 12": (onnxport.OpsetError, "13 to", {"opset_version": 12}),
    "opset 999": (onnxport.OpsetError, "999", {"opset_version": 999}),
    "opset of a wrong type": (onnxport.OpsetError, "'20'", {"opset_version": "20"}),
    "another exporter": (onnxport.InputError, "TorchScript", {"dynamo": False}),
    "unknown mutation": (onnxport.InputError, "'outputs'", {"mutation": "keep"}),
    "unknown metadata": (onnxport.InputError, "'full'", {"metadata": "some"}),
    "unknown parameter": (onnxport.InputError, "no parameter 'colour'", {"colour": 3}),
    "unknown plugin": (onnxport.PluginError, "nonsense", {"plugins": ["nonsense"]}),
    "dynamic_shapes for no input": (onnxport.DynamicShapesError, "", {"dynamic_shapes": {"y": {0: "n"}}}),
    "dynamic_shapes past the rank": (onnxport.DynamicShapesError, "", {"dynamic_shapes": {"x": {5: "n"}}}),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_call(case: str, tmp_path: Path) -> None:
    error, message, change = _BAD[case]
    destination = tmp_path / "model.onnx"
    call: dict[str, Any] = {"model": Linear().eval(), "args": (X,), "f": destination, **change}
    with pytest.raises(error, match=message) as caught:
        onnxport.export(**call)
    assert isinstance(caught.value, onnxport.OnnxExporterError)
    assert not list(tmp_path.iterdir())


def test_a_frozen_dimension_names_the_line() -> None:
    class Frozen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3) + 1

    with pytest.raises(onnxport.DynamicShapesError, match=r"test_bad_input\.py.*reshape"):
        onnxport.export(Frozen(), (X,), dynamic_shapes=({0: "batch"},))


def test_training_mode_with_dropout_warns() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    with pytest.warns(UserWarning, match="eval"):
        onnxport.export(model, (X,))


@pytest.mark.parametrize(
    ("name", "value"),
    [("do_constant_folding", True), ("training", 0), ("autograd_inlining", True), ("custom_opsets", {})],
)
def test_deprecated_parameters_warn(name: str, value: Any) -> None:
    with pytest.warns(DeprecationWarning, match=name):
        onnxport.export(Linear().eval(), (X,), **{name: value})


def test_a_destination_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(onnxport.SaveError, match="folder"):
        onnxport.export(Linear().eval(), (X,), tmp_path / "missing" / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxport.emit import weights

    destination = tmp_path / "model.onnx"
    destination.write_bytes(b"old")

    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_all", full)
    for module in ("saving", "serialization"):
        loaded = __import__(f"onnxport_builtin.program.{module}", fromlist=[module])
        if hasattr(loaded, "write_all"):
            monkeypatch.setattr(loaded, "write_all", full)
    with pytest.raises(onnxport.SaveError, match="space"):
        onnxport.export(nn.Linear(64, 64).eval(), (torch.randn(2, 64),), destination)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert destination.read_bytes() == b"old"


def test_a_good_call_warns_about_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnxport.export(Linear().eval(), (X,), tmp_path / "model.onnx", external_data=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
