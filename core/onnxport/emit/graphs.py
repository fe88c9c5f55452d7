"""Nodes, graphs and functions of onnx_ir: those in each other, and their removal."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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


def reachable(functions: Mapping[Any, ir.Function], nodes: Iterable[ir.Node]) -> list[ir.Function]:
    """The functions that nodes call, however deep, in the order in which they were made."""
    wanted: set[Any] = set()
    pending: list[Iterable[ir.Node]] = [nodes]
    while pending:
        for node in nodes_of(pending.pop()):
            key = node.op_identifier()
            if node.domain and key in functions and key not in wanted:
                wanted.add(key)
                pending.append(functions[key])
    return [function for key, function in functions.items() if key in wanted]


def detach(node: ir.Node) -> None:
    """Remove a node from the uses of its inputs, and what its subgraphs hold from the uses of outer values."""
    for graph in graphs_of(node):
        for inner in graph:
            detach(inner)
    for i, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(i, None)
