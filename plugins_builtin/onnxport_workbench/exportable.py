"""`ExportableModule`: a model that knows how it wants to be exported."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnxport
import torch
from onnxport.kit import example_arguments_of, wrong

if TYPE_CHECKING:
    from onnxport import ONNXProgram


class ExportableModule(torch.nn.Module, abc.ABC):
    """A module that carries its example arguments, names and dynamic shapes.

    Derive from it, implement `forward` and `example_arguments`, and override what else should not be the default::

        class Exportable(onnxport.ExportableModule):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, x):
                return self.model(x)

            def example_arguments(self):
                return (torch.randn(2, 3, 224, 224),), None

            def dynamic_shapes(self):
                return ({0: "batch_size"},)

        program = Exportable(model).to_onnx()
        program = onnxport.export(Exportable(model))    # the same
    """

    @abc.abstractmethod
    def example_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        """Return the example arguments of `forward`: the positional ones, and the keyword ones or None."""

    def dynamic_shapes(self) -> Any:
        """Return what `dynamic_shapes` of the export is; None, the default, leaves every dimension static."""
        return None

    def input_names(self) -> Sequence[str] | None:
        """Return the names of the graph's inputs; None, the default, takes those of the arguments."""
        return None

    def output_names(self) -> Sequence[str] | None:
        """Return the names of the graph's outputs; None, the default, has them made up."""
        return None

    def export_arguments(self) -> dict[str, Any]:
        """Collect what the module says of itself as keyword arguments of `onnxport.export`.

        Raises:
            InputError: `example_arguments` returns no pair.
        """
        args, kwargs = example_arguments_of(self)
        return {
            "args": args,
            "kwargs": kwargs,
            "dynamic_shapes": self.dynamic_shapes(),
            "input_names": self.input_names(),
            "output_names": self.output_names(),
        }

    def to_onnx(self, **kwargs: Any) -> ONNXProgram:
        """Export the module.

        Args:
            **kwargs: arguments of `onnxport.export`, which win over what the module says.

        Raises:
            OnnxExporterError: as `onnxport.export`.
        """
        program = onnxport.export(self, **{**self.export_arguments(), **kwargs})
        if program is None:
            wanted = "True, or leave it out: to_onnx gives an ONNXProgram"
            raise wrong("dynamo", kwargs.get("dynamo"), wanted)
        return program
