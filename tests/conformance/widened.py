"""bfloat16 models on onnxruntime's CPU: each operator computed in float32, its results rounded to bfloat16.

That is what a runtime with bfloat16 kernels does, which accumulate in float32. It stands in where neither onnxruntime
nor ONNX's reference implementation can run a model (``reproductions.py`` says why), and shares no code with the
exporter's own casts.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.shape_inference

_BFLOAT16, _FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
#: hand values on as they are, in any type
_TYPELESS = ("Cast", "If", "Loop", "Scan", "Identity")


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float32 between casts wherever a node takes or gives bfloat16; its inputs and outputs stay."""
    result = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=False)
    _Widener().graph(result.graph, {})
    return result


class _Widener:
    def __init__(self) -> None:
        self._count = 0

    def graph(self, graph: onnx.GraphProto, outer: dict[str, int]) -> None:
        types = outer | dict(_types(graph))
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    self.graph(attribute.g, types)
            nodes += [node] if node.op_type in _TYPELESS else self._between_casts(node, types)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]  # its types are of the graph before

    def _between_casts(self, node: onnx.NodeProto, types: dict[str, int]) -> Iterator[onnx.NodeProto]:
        after = []
        for places, casts_after in ((node.input, False), (node.output, True)):
            for i, name in enumerate(places):
                if types.get(name) != _BFLOAT16:
                    continue
                self._count += 1
                places[i] = wide = f"{name}_wide_{self._count}"
                if casts_after:
                    after.append(onnx.helper.make_node("Cast", [wide], [name], to=_BFLOAT16))
                else:
                    yield onnx.helper.make_node("Cast", [name], [wide], to=_FLOAT)
        for attribute in node.attribute:
            if attribute.name == "dtype" and attribute.i == _BFLOAT16:
                attribute.i = _FLOAT
            elif attribute.HasField("t") and attribute.t.data_type == _BFLOAT16:
                values = onnx.numpy_helper.to_array(attribute.t).astype("float32")
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
        yield node
        yield from after


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type


__all__ = ["widened"]
