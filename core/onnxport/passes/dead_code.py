"""Remove nodes whose results nobody uses, and weights that no node reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport.passes.rewriting import remove_if_unused

if TYPE_CHECKING:
    import onnx_ir as ir


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = _sweep(model.graph)
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del initializers[name]
            changes += 1
    return changes


def _sweep(graph: ir.Graph) -> int:
    """From the last node to the first, so that one sweep removes whole chains."""
    changes = 0
    for node in reversed(tuple(graph)):
        if remove_if_unused(node):
            changes += 1
            continue
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                changes += _sweep(attribute.as_graph())
    return changes
