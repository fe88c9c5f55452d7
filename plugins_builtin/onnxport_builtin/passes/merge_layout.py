"""Merge a layout change into the one before it: reshape of reshape, transpose of transpose."""

from __future__ import annotations

import onnx_ir as ir
from onnxport.optimize.rewriting import (
    all_nodes,
    attribute,
    constant,
    forward,
    is_standard,
    remove_if_unused,
    same_dims,
)

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in all_nodes(model):
        if node.graph is None or not node.inputs or node.inputs[0] is None:
            continue
        first = node.inputs[0].producer()
        if first is None or first.graph is not node.graph or not first.inputs or first.inputs[0] is None:
            continue
        if is_standard(node, "Transpose") and is_standard(first, "Transpose"):
            inner, outer = attribute(first, "perm"), attribute(node, "perm")
            if inner is None or outer is None:
                continue
            order = [inner[i] for i in outer]
            if order == sorted(order) and forward(node.outputs[0], first.inputs[0]):
                remove_if_unused(first)
                changes += 1
                continue
            node.attributes["perm"] = ir.AttrInt64s("perm", order)
        elif is_standard(node, "Reshape") and is_standard(first, *_RESHAPES):
            if same_dims(first.inputs[0].shape, node.outputs[0].shape) and forward(node.outputs[0], first.inputs[0]):
                remove_if_unused(first)
                changes += 1
                continue
            if not _takes_no_dims(node):
                continue
        else:
            continue
        node.replace_input_with(0, first.inputs[0])
        remove_if_unused(first)
        changes += 1
    return changes


def _takes_no_dims(node: ir.Node) -> bool:
    """The reshape's target doesn't copy dimensions of its input (a 0 without ``allowzero``)."""
    target = constant(node.inputs[1])
    return bool(attribute(node, "allowzero", 0)) or (target is not None and not (target == 0).any())
