"""Remove nodes whose results nobody uses, functions that nobody calls, and weights that no node reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport.kit import graphs_of
from onnxport.optimize.rewriting import bodies, calls_by_function, remove_if_unused

if TYPE_CHECKING:
    import onnx_ir as ir


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = sum(_sweep(graph) for graph in bodies(model))
    unused = [key for key, calls in calls_by_function(model).items() if not calls]
    while unused:
        for key in unused:
            for node in model.functions.pop(key).all_nodes():
                for i in range(len(node.inputs)):
                    node.replace_input_with(i, None)
        changes += len(unused)
        unused = [key for key, calls in calls_by_function(model).items() if not calls]
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
        for inner in graphs_of(node):
            changes += _sweep(inner)
    return changes
