"""Compute equal expressions once: nodes of one graph with the same operator, inputs and attributes."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import onnx_ir as ir
from onnxport.kit import nodes_of
from onnxport.optimize.rewriting import QUANTIZED, RANDOM, bodies, forward

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_PLAIN = (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING)
_LISTS = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    repeatable = _repeatable(model)
    return sum(_share(graph, {}, repeatable) for graph in bodies(model))


def _repeatable(model: ir.Model) -> set[Any]:
    """The functions that give the same for the same inputs: those without random nodes and unknown operators."""
    different: set[Any] = set()
    callers: dict[Any, list[Any]] = {}
    for key, function in model.functions.items():
        for node in nodes_of(function):
            callee = node.op_identifier()
            if callee in model.functions:
                callers.setdefault(callee, []).append(key)
            elif node.domain or node.op_type in RANDOM:
                different.add(key)
    pending = list(different)
    while pending:
        found = [key for key in callers.get(pending.pop(), ()) if key not in different]
        different.update(found)
        pending += found
    return set(model.functions) - different


def _share(graph: ir.Graph, outer: dict[Any, ir.Node], functions: Container[Any]) -> int:
    """One forward sweep; a subgraph also sees what the graphs around it have computed before.

    What an operator of another domain does isn't known, unless it is one of ``functions``.
    """
    seen = dict(outer)
    changes = 0
    for node in tuple(graph):
        if node.op_type in RANDOM or (node.domain and node.op_identifier() not in functions):
            continue
        given = [value.name != "" for value in node.outputs]  # an optional output may be left out
        key: list[Any] | None = [node.domain, node.op_type, node.overload, *map(id, node.inputs), *given]
        for name, attribute in sorted(node.attributes.items()):
            if not attribute.is_ref() and attribute.type in _GRAPHS:
                graphs = [attribute.as_graph()] if attribute.type is ir.AttributeType.GRAPH else attribute.as_graphs()
                changes += sum(_share(inner, seen, functions) for inner in graphs)
                key = None
                continue
            described = _described(attribute)
            key = None if key is None or described is None else [*key, name, described]
        if key is None:
            continue
        first = seen.setdefault(tuple(key), node)
        # What a quantizer wrote is one for each product. Metadata is made when it is read: of equal nodes alone.
        if first is node or QUANTIZED in node.metadata_props:
            continue
        if QUANTIZED in first.metadata_props:
            seen[tuple(key)] = node
            continue
        for old, new in zip(node.outputs, first.outputs):
            if forward(old, new):
                changes += 1
    return changes


def _described(attribute: ir.Attr) -> Any:
    """Equal for attributes of equal values, zeros of different signs apart; None for one that isn't compared."""
    if attribute.is_ref():  # all that is known of it in a function's body: which attribute of the call it is
        return "reference", attribute.type, attribute.ref_attr_name
    if attribute.type in _PLAIN:
        return attribute.type, repr(attribute.value)
    return (attribute.type, repr(tuple(attribute.value))) if attribute.type in _LISTS else None
