"""One FX node and its ONNX nodes, cut out of their graphs and written to files that run alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxport import SaveError
from onnxport.kit import saving
from torch.fx import Graph, GraphModule, Node, map_arg


def edges_of(graph: ir.Graph, target: ir.Value, node: Node, linked: Mapping[int, Node]) -> list[ir.Value]:
    """The values that the ONNX nodes of one FX node start from: other FX nodes' values, and inputs of the graph."""
    edges: dict[int, ir.Value] = {}
    pending, seen = [target], {id(target)}
    while pending:
        producer = pending.pop().producer()
        for value in [] if producer is None else _inputs_of(producer, graph):
            if id(value) in seen or value.is_initializer():
                continue
            seen.add(id(value))
            if value.is_graph_input() or linked.get(id(value), node) is not node:
                edges[id(value)] = value
            else:
                pending.append(value)
    return list(edges.values())


def _inputs_of(node: ir.Node, graph: ir.Graph) -> list[ir.Value]:
    """What a node reads of the main graph, also inside its subgraphs."""
    inputs = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type is ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            used = [*body.outputs, *(value for inner in body.all_nodes() for value in inner.inputs)]
            inputs += [value for value in used if value is not None and value.graph is graph]
    return inputs


def one_node(owner: GraphModule, node: Node, values: Mapping[Node, Any]) -> tuple[GraphModule, tuple[Any, ...]]:
    """A module that calls one node's operator, and its arguments; numbers are baked in."""
    graph = Graph()
    env: dict[Node, Any] = {}
    arguments = []
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            env[source] = graph.get_attr(str(source.target))
        elif isinstance(values[source], torch.Tensor):
            env[source] = graph.placeholder(source.name)
            arguments.append(values[source])
        else:
            env[source] = values[source]
    args, kwargs = map_arg((node.args, node.kwargs), env.__getitem__)
    graph.output(graph.create_node("call_function", node.target, args, kwargs))
    return GraphModule(owner, graph), tuple(arguments)


def write(folder: Path, module: GraphModule, graph: ir.Graph, model: ir.Model, inputs: Mapping[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(inputs), folder / "inputs.pt")
        with torch.no_grad():
            torch.export.save(torch.export.export(module, inputs["args"]), folder / "node.pt2")
    except OSError as error:
        raise SaveError(
            f"The reproduction can't be written to {folder}: {error}. Give another folder.", path=str(folder)
        ) from error
    functions = tuple(function.clone() for function in model.functions.values())
    saving.save_model(ir.Model(graph, ir_version=model.ir_version, functions=functions), folder / "node.onnx")
