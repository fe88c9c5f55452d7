"""A model written by hand, in a few lines, for tests of programs and of their verification."""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnxport.emit.weights import TorchTensor
from onnxport.program.onnx_program import ONNXProgram

ORIGIN = "pkg.torch.onnx.original_node_name"
KIND = "pkg.torch.export.graph_signature.OutputSpec.kind"
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


class Graph:
    """A few lines to write a model by hand."""

    def __init__(self) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="main")

    def input(self, name: str, shape, dtype: ir.DataType = FLOAT, origin: str | None = None, **props: str) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        value.metadata_props.update({ORIGIN: origin or name, **props})
        self.graph.inputs.append(value)
        return value

    def weight(self, name: str, tensor: torch.Tensor | TorchTensor) -> ir.Value:
        data = tensor if isinstance(tensor, TorchTensor) else TorchTensor(tensor, name)
        shape = ir.Shape(data.shape.numpy())
        value = ir.Value(name=name, type=ir.TensorType(data.dtype), shape=shape, const_value=data)
        self.graph.register_initializer(value)
        return value

    def node(self, kind: str, *inputs: ir.Value, name: str, shape, dtype=FLOAT, **attributes) -> ir.Value:
        node = ir.Node("", kind, list(inputs), ir.convenience.convert_attributes(attributes))
        self.graph.append(node)
        (value,) = node.outputs
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        return value

    def output(self, value: ir.Value, kind: str = "USER_OUTPUT", **props: str) -> None:
        value.metadata_props.update({KIND: kind, **props})
        self.graph.outputs.append(value)

    def program(self, exported: torch.export.ExportedProgram | None = None) -> ONNXProgram:
        return ONNXProgram(ir.Model(self.graph, ir_version=10, producer_name="onnxport"), exported)
