"""ExportableModule, is_in_onnx_export and OnnxExporterError."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport import errors
from promises import promise
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Wrapped(onnxport.ExportableModule):
    """The least that an exportable module needs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def example_arguments(self) -> Any:
        return (torch.randn(2, 3, 4, 4),), None


class MyExportableModule(Wrapped):
    """The one of the documentation."""

    def input_names(self) -> Any:
        return ("input",)

    def output_names(self) -> Any:
        return ("output",)

    def dynamic_shapes(self) -> Any:
        return ({0: "batch_size"},)


def interface(program: onnxport.ONNXProgram) -> tuple[list[str], list[str]]:
    graph = program.model.graph
    return [f"{value.name}{value.shape}" for value in graph.inputs], [f"{value.name}" for value in graph.outputs]


@promise("Inherit from ExportableModule and implement the abstract methods to create a module that can be exported")
@promise("to_onnx uses the example arguments, dynamic shapes, and input/output names defined by the module")
def test_to_onnx() -> None:
    assert interface(MyExportableModule().to_onnx()) == (["input[batch_size,3,4,4]"], ["output"])


@promise("The model can also be supplied directly to torch.onnx.export")
def test_it_is_a_model_of_export() -> None:
    assert interface(onnxport.export(MyExportableModule())) == (["input[batch_size,3,4,4]"], ["output"])


@promise("dynamic_shapes: the default implementation returns None, indicating all dimensions are static")
@promise("input_names: the default implementation returns None, which results in auto-generated names")
@promise("output_names: the default implementation returns None, which results in auto-generated names")
def test_defaults() -> None:
    module = Wrapped()
    assert module.dynamic_shapes() is module.input_names() is module.output_names() is None
    assert interface(module.to_onnx()) == (["x[2,3,4,4]"], ["mul"])


@promise("dynamic_shapes can be a dictionary mapping input names to dimension specifications, or a tuple or list")
@pytest.mark.parametrize("shapes", [{"x": {0: "batch", 2: "height"}}, ({0: "batch", 2: "height"},)])
def test_forms_of_dynamic_shapes(shapes: Any) -> None:
    class Dynamic(Wrapped):
        def dynamic_shapes(self) -> Any:
            return shapes

    assert interface(Dynamic().to_onnx())[0] == ["x[batch,3,height,4]"]


@promise("example_arguments must be implemented by subclasses")
def test_example_arguments_are_abstract() -> None:
    class Lacking(onnxport.ExportableModule):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(TypeError, match="example_arguments"):
        Lacking()  # type: ignore[abstract]


@promise("example_arguments returns a tuple of positional arguments and a dictionary of keyword arguments, or None")
def test_keyword_arguments() -> None:
    class Keywords(onnxport.ExportableModule):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, temperature: float = 0.5) -> torch.Tensor:
            return x * mask / temperature

        def example_arguments(self) -> Any:
            return (torch.ones(2, 3), torch.ones(3)), {"temperature": 4.0}

    program = Keywords().to_onnx()
    assert interface(program)[0] == ["x[2,3]", "mask[3]"]
    torch.testing.assert_close(program(torch.ones(2, 3), torch.ones(3))[0], torch.full((2, 3), 0.25))


@promise("For models returning multiple outputs, provide a name for each output")
def test_names_of_several_outputs() -> None:
    class Two(Wrapped):
        def forward(self, x: torch.Tensor) -> Any:
            return x + 1, x.softmax(-1)

        def output_names(self) -> Any:
            return ["logits", "probabilities"]

    assert interface(Two().to_onnx())[1] == ["logits", "probabilities"]


@promise("The number of input names should match the number of positional arguments in the forward method")
def test_numbers_of_names() -> None:
    class Three(MyExportableModule):
        def input_names(self) -> Any:
            return ["image", "mask", "surplus"]

    with pytest.raises(onnxport.NamesError, match="3 names"):
        Three().to_onnx()


@promise("to_onnx: additional export options can be specified via keyword arguments: opset_version, optimize, …")
def test_options_win() -> None:
    program = MyExportableModule().to_onnx(opset_version=19, optimize=False, input_names=["other"])
    assert program.model.opset_imports[""] == 19
    assert interface(program)[0] == ["other[batch_size,3,4,4]"]


@promise("to_onnx returns an ONNXProgram object containing the exported model and metadata")
def test_it_returns_a_program() -> None:
    program = MyExportableModule().to_onnx()
    assert isinstance(program, onnxport.ONNXProgram)
    assert all(node.metadata_props for node in program.model.graph)


@promise("is_in_onnx_export returns whether it is in the middle of ONNX export")
def test_is_in_onnx_export() -> None:
    seen = []

    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((onnxport.is_in_onnx_export(), torch.onnx.is_in_onnx_export()))
            return x + 1

    onnxport.export(Asks(), (torch.ones(2),))
    assert set(seen) == {(True, True)}
    assert not onnxport.is_in_onnx_export() and not torch.onnx.is_in_onnx_export()


@promise("OnnxExporterError is the base class for all exporter errors")
def test_errors_have_one_base() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    for error in classes:
        if error is not errors.Unsupported:  # a translation's word to the translator, never a user's error
            assert issubclass(error, onnxport.OnnxExporterError)
            assert issubclass(error, torch.onnx.OnnxExporterError)
