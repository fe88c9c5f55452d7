"""Nodes and graphs of onnx_ir: those in each other, and their removal."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import onnx_ir as ir
from onnx_ir import AttributeType

from onnxport.emit.schemas import spec_of
from onnxport.vocabulary.opsets import MAX_OPSET

_GRAPH_KINDS = (AttributeType.GRAPH, AttributeType.GRAPHS)


@functools.cache
def _takes_graphs(op_type: str) -> bool:
    """Whether an operator of the default domain may have graphs among its attributes."""
    spec = spec_of(op_type, MAX_OPSET)
    return spec is None or any(kind in _GRAPH_KINDS for kind in spec.attributes.values())


def graphs_of(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes."""
    found: list[ir.Graph] = []
    if not node.domain and not _takes_graphs(node.op_type):
        return found
    for attribute in node.attributes.values():
        if attribute.type in _GRAPH_KINDS and not attribute.is_ref():
            found += [attribute.as_graph()] if attribute.type is AttributeType.GRAPH else attribute.as_graphs()
    return found


def nodes_of(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The nodes of a graph, each with those of its subgraphs behind it."""
    for node in nodes:
        yield node
        if node.domain or _takes_graphs(node.op_type):
            for graph in graphs_of(node):
                yield from nodes_of(graph)


def detach(node: ir.Node) -> None:
    """Remove a node from the uses of its inputs, and what its subgraphs hold from the uses of outer values."""
    for graph in graphs_of(node):
        for inner in graph:
            detach(inner)
    for i, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(i, None)
