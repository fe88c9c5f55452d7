"""Metadata: what nodes, values and the graph say of where they came from."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import onnx
import onnxport
import pytest
import torch
from promises import promise
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind


class SimpleAddModel(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.add(x, y)


class Everything(nn.Module):
    """A parameter, both kinds of buffer, a constant, a mutated buffer and a mutated input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("scratch", torch.ones(4), persistent=False)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        cache.mul_(2)
        return self.fc1(x) + self.mean * self.scratch + torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.fixture(scope="module")
def simple() -> onnxport.ONNXProgram:
    return onnxport.export(SimpleAddModel(), (torch.randn(2, 3), torch.randn(2, 3)))


@pytest.fixture(scope="module")
def everything() -> onnxport.ONNXProgram:
    args = (torch.randn(2, 3), torch.randn(2))
    return onnxport.export(Everything().eval(), args, dynamic_shapes=({0: "batch"}, None), optimize=False)


def properties(program: onnxport.ONNXProgram, op_type: str) -> dict[str, str]:
    return dict(next(node for node in program.model.graph if node.op_type == op_type).metadata_props)


@promise("each ONNX node is annotated with metadata that helps trace its origin and context")
def test_every_node_has_all_fields(everything: onnxport.ONNXProgram) -> None:
    keys = {f"pkg.torch.onnx.{key}" for key in ("class_hierarchy", "fx_node", "name_scopes", "stack_trace")}
    for node in everything.model.graph:
        assert keys | {"namespace"} <= set(node.metadata_props)


@promise("namespace: the hierarchical namespace of the node, `__main__.SimpleAddModel/add: aten.add.Tensor`")
def test_namespace(simple: onnxport.ONNXProgram, everything: onnxport.ONNXProgram) -> None:
    assert properties(simple, "Add")["namespace"] == f"{__name__}.SimpleAddModel/add: aten.add.Tensor"
    nested = properties(everything, "Gemm")["namespace"]
    assert nested.endswith("fc1: torch.nn.modules.linear.Linear/linear: aten.linear.default")


@promise("pkg.torch.onnx.class_hierarchy: a list of class names, `['__main__.SimpleAddModel', 'aten.add.Tensor']`")
def test_class_hierarchy(simple: onnxport.ONNXProgram, everything: onnxport.ONNXProgram) -> None:
    found = properties(simple, "Add")["pkg.torch.onnx.class_hierarchy"]
    assert ast.literal_eval(found) == [f"{__name__}.SimpleAddModel", "aten.add.Tensor"]
    found = properties(everything, "Gemm")["pkg.torch.onnx.class_hierarchy"]
    assert ast.literal_eval(found)[1:] == ["torch.nn.modules.linear.Linear", "aten.linear.default"]


@promise("pkg.torch.onnx.fx_node: the original FX node with its name, users, target, arguments and keyword arguments")
def test_fx_node(simple: onnxport.ONNXProgram) -> None:
    assert properties(simple, "Add")["pkg.torch.onnx.fx_node"] == (
        "%add : [num_users=1] = call_function[target=torch.ops.aten.add.Tensor](args = (%x, %y), kwargs = {})"
    )


@promise("pkg.torch.onnx.name_scopes: a list of name scopes, `['', 'add']`")
def test_name_scopes(simple: onnxport.ONNXProgram, everything: onnxport.ONNXProgram) -> None:
    assert ast.literal_eval(properties(simple, "Add")["pkg.torch.onnx.name_scopes"]) == ["", "add"]
    assert ast.literal_eval(properties(everything, "Gemm")["pkg.torch.onnx.name_scopes"]) == ["", "fc1", "linear"]


@promise(
    "pkg.torch.onnx.stack_trace: the stack trace from the original code where this node was created",
    differs="the same frames, with paths relative to the working directory, so that no path of the machine is in it",
)
def test_stack_trace(simple: onnxport.ONNXProgram) -> None:
    first, second = properties(simple, "Add")["pkg.torch.onnx.stack_trace"].splitlines()
    assert first.startswith('File "') and first.endswith(", in forward")
    assert "test_promises_metadata.py" in first and str(Path.home()) not in first
    assert second.strip() == "return torch.add(x, y)"


@promise("these fields are stored in the metadata_props of each ONNX node, to be inspected in Netron or by programs")
def test_they_are_in_the_file(simple: onnxport.ONNXProgram, tmp_path: Path) -> None:
    simple.save(tmp_path / "model.onnx")
    (node,) = onnx.load(tmp_path / "model.onnx").graph.node
    assert {entry.key: entry.value for entry in node.metadata_props} == properties(simple, "Add")


@promise("pkg.torch.export.ExportedProgram.graph_signature: the graph signature as a string, on the graph")
def test_graph_signature(everything: onnxport.ONNXProgram) -> None:
    found = everything.model.graph.metadata_props["pkg.torch.export.ExportedProgram.graph_signature"]
    program = everything.exported_program
    assert program is not None
    assert found == str(program.graph_signature)
    for text in ("p_fc1_weight: PARAMETER target='fc1.weight'", "x: USER_INPUT", "persistent=True", "USER_OUTPUT"):
        assert text in found


@promise("pkg.torch.export.ExportedProgram.range_constraints: the range constraints, such as `s0: VR[2, int_oo]`")
def test_range_constraints(everything: onnxport.ONNXProgram) -> None:
    found = everything.model.graph.metadata_props["pkg.torch.export.ExportedProgram.range_constraints"]
    assert ": VR[2, int_oo]" in found


def kinds(values: Any, key: str) -> dict[str, str]:
    return {value.name: value.metadata_props[key] for value in values if key in value.metadata_props}


@promise("pkg.torch.export.graph_signature.InputSpec.kind: the kind of input, as PyTorch's InputKind names it")
def test_input_kinds(everything: onnxport.ONNXProgram) -> None:
    graph = everything.model.graph
    found = kinds([*graph.inputs, *graph.initializers.values()], "pkg.torch.export.graph_signature.InputSpec.kind")
    assert set(found.values()) <= {kind.name for kind in InputKind}
    assert found["x"] == found["cache"] == "USER_INPUT"
    assert found["fc1.weight"] == found["fc1.bias"] == "PARAMETER"
    assert found["mean"] == found["scratch"] == "BUFFER"
    assert "CONSTANT_TENSOR" in found.values()


@promise("pkg.torch.export.graph_signature.InputSpec.persistent: whether the input is persistent, True or False")
def test_persistence(everything: onnxport.ONNXProgram) -> None:
    values = everything.model.graph.initializers.values()
    found = kinds(values, "pkg.torch.export.graph_signature.InputSpec.persistent")
    assert found == {"mean": "True", "scratch": "False", "count": "True"}


@promise("pkg.torch.export.graph_signature.OutputSpec.kind: the kind of output, as PyTorch's OutputKind names it")
def test_output_kinds(everything: onnxport.ONNXProgram) -> None:
    found = kinds(everything.model.graph.outputs, "pkg.torch.export.graph_signature.OutputSpec.kind")
    assert set(found.values()) <= {kind.name for kind in OutputKind}
    assert list(found.values()) == ["USER_OUTPUT", "BUFFER_MUTATION", "USER_INPUT_MUTATION"]


@promise("BUFFER_MUTATION and USER_INPUT_MUTATION indicate that a buffer or a user input was mutated")
def test_mutations_name_what_they_change(everything: onnxport.ONNXProgram) -> None:
    found = kinds(everything.model.graph.outputs, "pkg.torch.export.graph_signature.OutputSpec.target")
    assert list(found.values()) == ["count", "cache"]


@promise(
    "pkg.torch.onnx.original_node_name: the original name in the FX graph of each initialized value, input and output",
    differs="constants that translations make have none, since no FX node is theirs",
)
def test_original_names(everything: onnxport.ONNXProgram) -> None:
    graph = everything.model.graph
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    found = kinds(values, "pkg.torch.onnx.original_node_name")
    assert found["fc1.weight"] == "p_fc1_weight"
    assert found["x"] == "x"
    program = everything.exported_program
    assert program is not None
    names = {node.name for node in program.graph.nodes}
    assert {found[name] for name in ("x", "cache", "mean", "scratch", "count")} <= names
    assert all(value.name in found for value in [*graph.inputs, *graph.outputs])


@promise("the original name of a value that was renamed")
def test_original_names_of_renamed_values() -> None:
    args = (torch.randn(2), torch.randn(2))
    program = onnxport.export(SimpleAddModel(), args, input_names=["left", "right"], output_names=["total"])
    graph = program.model.graph
    found = kinds([*graph.inputs, *graph.outputs], "pkg.torch.onnx.original_node_name")
    assert found == {"left": "x", "right": "y", "total": "add"}
