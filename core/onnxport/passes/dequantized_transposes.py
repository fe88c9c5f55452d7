"""Transpose a weight before it is dequantized: ``transposed_weights`` then stores it so, and nothing is left to run."""

from __future__ import annotations

import onnx_ir as ir

from onnxport.passes.rewriting import all_nodes, attribute, forward, is_standard, sole_use


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    weights = set(model.graph.initializers.values())
    for node in all_nodes(model):
        source = node.inputs[0].producer() if is_standard(node, "Transpose") and node.inputs[0] is not None else None
        if source is None or not is_standard(source, "DequantizeLinear") or node.graph is not source.graph:
            continue
        weight, scale = source.inputs[0], source.inputs[1]
        if weight not in weights or weight.shape is None or scale is None or scale.shape is None:
            continue
        if sole_use(source.outputs[0]) is not node or sole_use(weight) is not source:
            continue
        perm = tuple(attribute(node, "perm") or range(len(weight.shape) - 1, -1, -1))
        for i in [0] if len(scale.shape) < 2 else range(len(source.inputs)):  # blocks lie as the weight does
            source.replace_input_with(i, _transposed(source, i, perm))
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


def _transposed(source: ir.Node, i: int, perm: tuple[int, ...]) -> ir.Value | None:
    value = source.inputs[i]
    if value is None or source.graph is None:
        return None
    name = f"{source.outputs[0].name}_input_{i}"
    node = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", perm)], name=f"node_{name}")
    result = node.outputs[0]
    result.name, result.type = name, value.type
    result.shape = None if value.shape is None else ir.Shape([value.shape[i] for i in perm])
    source.graph.insert_before(source, node)
    return result
