"""What passes add to a model has names of its own, whatever the user's inputs are called."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnxport
import pytest
import torch
from onnxport.kit import FreeNames
from torch import nn


class ByHand(nn.Module):
    """An RMS norm and a rotation written by hand: passes add a constant 2, and axes, to rewrite them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight
        table = torch.cat([angles, angles], -1).unsqueeze(1)
        turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
        return x * table.cos() + turned * table.sin()


ARGS = (torch.randn(2, 3, 5, 8), torch.randn(2, 5, 4))


@pytest.mark.parametrize("opset", [20, 23])
def test_inputs_may_have_the_names_that_passes_choose(opset: int) -> None:
    model = ByHand().eval()

    def export(names: list[str]) -> onnxport.ONNXProgram:
        return onnxport.export(model, ARGS, opset_version=opset, input_names=names, verbose=False)

    plain = export(["x", "angles"])
    own = [*plain.model.graph.initializers]
    assert {"weight"} < set(own)
    for name in (name for name in own if name != "weight"):
        program = export([name, f"{name}_1"])
        onnx.checker.check_model(program.model_proto, full_check=True)
        assert [value.name for value in program.model.graph.inputs] == [name, f"{name}_1"]
        torch.testing.assert_close(program(*ARGS)[0], model(*ARGS).detach(), atol=1e-5, rtol=1e-5)
        assert [node.op_type for node in program.model.graph] == [node.op_type for node in plain.model.graph]


def test_names_are_given_once() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
    node = ir.Node("", "Relu", [x], name="relu")
    node.outputs[0].name = "y"
    weight = ir.Value(name="w", const_value=ir.tensor([1.0], name="w"))
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[weight], opset_imports={"": 20})
    names = FreeNames(ir.Model(graph, ir_version=10), graph)
    assert [names.take(base) for base in ("x", "x", "y", "w", "relu", "z", "z")] == [
        "x_1",
        "x_2",
        "y_1",
        "w_1",
        "relu_1",
        "z",
        "z_1",
    ]
