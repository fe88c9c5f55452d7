"""ExportableModule: what it says of itself reaches the export."""

from __future__ import annotations

import onnxport
import pytest
import torch
from onnxport import ExportableModule


class Plain(ExportableModule):
    def forward(self, x):
        return x * 2

    def example_arguments(self):
        return (torch.ones(2, 3),), None


class Full(Plain):
    def dynamic_shapes(self):
        return ({0: "batch"},)

    def input_names(self):
        return ("input",)

    def output_names(self):
        return ("output",)


def test_it_is_abstract() -> None:
    class Missing(ExportableModule):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="example_arguments"):
        Missing()
    assert isinstance(Plain(), torch.nn.Module)
    assert Plain()(torch.ones(1)).item() == 2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """Stand in for the exporter, and record its calls."""
    found: list = []

    def export(model, **options):
        found.append((model, options))
        return "program" if options.get("dynamo", True) else None

    monkeypatch.setattr(onnxport, "export", export)
    return found


def test_to_onnx(calls: list) -> None:
    module = Plain()
    assert module.to_onnx(opset_version=20, optimize=False) == "program"
    model, options = calls[0]
    assert model is module and options.pop("args")[0].shape == (2, 3)
    assert options.pop("opset_version") == 20 and options.pop("optimize") is False
    assert set(options.values()) == {None}
    Full().to_onnx(output_names=["other"])
    options = calls[1][1]
    assert options["dynamic_shapes"] == ({0: "batch"},)
    assert options["input_names"] == ("input",) and options["output_names"] == ["other"]
    with pytest.raises(TypeError, match="dynamo"):
        module.to_onnx(dynamo=False)
