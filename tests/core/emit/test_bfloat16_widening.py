"""Operators that the target opset doesn't define for bfloat16 are computed in float32."""

from __future__ import annotations

import onnx
import onnxport
import torch


class _Sort(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.topk(x, 2))


def test_topk_between_casts() -> None:
    program = onnxport.export(_Sort(), (torch.randn(5).bfloat16(),), opset_version=20)
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node] == ["Cast", "TopK", "Cast"]
    types = [output.type.tensor_type.elem_type for output in proto.graph.output]
    assert types == [onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64]
