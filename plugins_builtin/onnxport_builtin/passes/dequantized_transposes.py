"""A weight whose dequantized values are transposed is stored transposed, as a view of the same storage."""

from __future__ import annotations

import onnx_ir as ir
from onnxport.kit import TorchTensor
from onnxport.optimize.rewriting import add_initializer, all_nodes, attribute, forward, is_standard, sole_use


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    initializers = model.graph.initializers
    for node in all_nodes(model):
        source = node.inputs[0].producer() if is_standard(node, "Transpose") and node.inputs[0] is not None else None
        if source is None or not is_standard(source, "DequantizeLinear") or node.graph is not source.graph:
            continue
        weight, scale = source.inputs[0], source.inputs[1]
        if weight is None or scale is None or scale.shape is None or sole_use(source.outputs[0]) is not node:
            continue
        # Scales in blocks lie as the weight does.
        moved = [value for value in source.inputs[: 1 if len(scale.shape) < 2 else 3] if value is not None]
        data = [value.const_value for value in moved if initializers.get(value.name or "") is value]
        if len(data) < len(moved) or not all(isinstance(item, TorchTensor) for item in data):
            continue
        perm = tuple(attribute(node, "perm") or range(len(weight.shape or ()) - 1, -1, -1))
        for i, value in enumerate(moved):
            source.replace_input_with(i, _transposed(model, value, perm))
        if len(scale.shape) > 0:
            axis = attribute(source, "axis", 1) % len(perm)
            source.attributes["axis"] = ir.AttrInt64("axis", perm.index(axis))
        result, old = source.outputs[0], node.outputs[0]
        result.shape = old.shape
        result.metadata_props.clear()  # it is another FX node's value now
        result.metadata_props.update(old.metadata_props)
        forward(old, result)
        changes += 1
    return changes


def _transposed(model: ir.Model, value: ir.Value, perm: tuple[int, ...]) -> ir.Value:
    view = value.const_value.derive(lambda tensor: tensor.permute(perm), f"{value.name}.T")  # type: ignore[union-attr]
    return add_initializer(model, ir.Value(name=view.name, type=value.type, shape=view.shape, const_value=view))
