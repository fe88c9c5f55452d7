"""An integer or float8 weight that is cast and scaled becomes ``DequantizeLinear``, which runtimes know how to fuse.

``Cast(weight) * scale`` becomes ``DequantizeLinear(weight, scale)``. ``MatMul(x, Cast(weight)) * scale``, with a scale
for each column, becomes ``MatMul(x, DequantizeLinear(weight, scale))``. torchao computes so with quantized weights.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir import DataType

from onnxport.passes.rewriting import add_initializer, all_nodes, forward, is_standard, remove_if_unused, sole_use
from onnxport.weights import TorchTensor

_FLOATS = (DataType.FLOAT, DataType.FLOAT16)
_FLOAT8 = (DataType.FLOAT8E4M3FN, DataType.FLOAT8E4M3FNUZ, DataType.FLOAT8E5M2, DataType.FLOAT8E5M2FNUZ)


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in all_nodes(model):
        if not is_standard(node, "Mul") or node.graph is not model.graph:
            continue
        for first, second in (node.inputs, node.inputs[::-1]):
            made = _dequantized(model, node, first, second)
            if made is not None and forward(node.outputs[0], made):
                if (cast := first.producer()) is not None:  # type: ignore[union-attr]
                    remove_if_unused(cast)
                changes += 1
                break
    return changes


def _dequantized(model: ir.Model, node: ir.Node, value: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """What replaces ``value * scale``; None where it isn't of these forms."""
    producer = None if value is None else value.producer()
    if producer is None or scale is None or scale.shape is None or sole_use(producer.outputs[0]) is not node:
        return None
    product = producer if is_standard(producer, "MatMul") else None
    cast = producer if product is None or product.inputs[1] is None else product.inputs[1].producer()
    if cast is None or not is_standard(cast, "Cast") or sole_use(cast.outputs[0]) is not (product or node):
        return None
    weight, out = cast.inputs[0], cast.outputs[0]
    opset = model.graph.opset_imports[""]
    if weight is None or weight.shape is None or weight not in model.graph.initializers.values():
        return None
    if weight.dtype not in (DataType.INT8, DataType.UINT8) and not (weight.dtype in _FLOAT8 and opset >= 19):
        return None
    if out.dtype is not scale.dtype or not (
        out.dtype is DataType.FLOAT or (out.dtype is DataType.FLOAT16 and opset >= 19)
    ):
        return None
    axis = _axis(list(scale.shape), list(weight.shape))
    if axis is None or (product is not None and (len(weight.shape) != 2 or axis not in (-1, 1))):
        return None
    vector = _vector(model, scale, whole=axis < 0)
    if vector is None:
        return None
    attributes = [] if axis < 0 else [ir.AttrInt64("axis", axis)]
    made = ir.Node("", "DequantizeLinear", [weight, vector], attributes, name=f"{cast.name}_dequantized")
    result = made.outputs[0]
    result.name, result.type, result.shape = f"{out.name}_dequantized", out.type, weight.shape
    made.metadata_props.update(cast.metadata_props)
    cast.graph.insert_before(cast, made)  # type: ignore[union-attr]
    if product is None:
        return result
    product.replace_input_with(1, result)
    remove_if_unused(cast)
    return product.outputs[0]


def _axis(scale: list[object], weight: list[object]) -> int | None:
    """The axis of the weight that the scale varies along, -1 where it has one element; None for anything else."""
    if len(scale) > len(weight):
        return None
    offset = len(weight) - len(scale)
    varying = [i + offset for i, size in enumerate(scale) if size != 1]
    if len(varying) > 1 or any(scale[i - offset] != weight[i] for i in varying):
        return None
    return varying[0] if varying else -1


def _vector(model: ir.Model, scale: ir.Value, whole: bool) -> ir.Value | None:
    """A weight or constant as one number, or as a vector; also where it is reshaped first."""
    node = scale.producer()
    source = node.inputs[0] if node is not None and is_standard(node, "Reshape") else scale
    if source is None or source not in model.graph.initializers.values():
        return None
    data, shape = source.const_value, [] if whole else [-1]
    if not isinstance(data, TorchTensor) or not data.has_data:
        return None
    if len(data.shape) == len(shape):
        return source
    made = data.derive(lambda tensor: tensor.reshape(shape), f"{source.name}.vector")
    return add_initializer(model, ir.Value(name=made.name, type=source.type, shape=made.shape, const_value=made))
