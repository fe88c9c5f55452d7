"""Steps that several passes share: walking nodes of all graphs, replacing a value, reading small constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnxport.kit import TorchTensor, graphs_of, nodes_of

if TYPE_CHECKING:
    import numpy as np

#: Operators whose results differ from run to run, or that have an effect: never shared, folded or moved.
RANDOM = frozenset(
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"]
)

#: Key of the metadata of nodes that a quantizer wrote as a runtime wants them: passes leave them as they are.
QUANTIZED = "onnxport.quantization"


def bodies(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and the graphs of the functions."""
    yield model.graph
    for function in model.functions.values():
        yield function.graph


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """The values of a graph and of the bodies in it: inputs, initializers, and results of nodes."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
        for body in graphs_of(node):
            yield from values_of(body)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes of the main graph, of functions and of all subgraphs; safe against removal of the node at hand."""
    for graph in bodies(model):
        yield from tuple(nodes_of(graph))


def is_standard(node: ir.Node, *op_types: str) -> bool:
    """The node is of the default domain and one of these operators, and all its attributes have values.

    In a function, an attribute may refer to one of the call: what the node does isn't known there.
    """
    return node.domain == "" and node.op_type in op_types and not has_references(node)


def has_references(node: ir.Node) -> bool:
    """Some attribute of the node refers to an attribute of the function around it, and has no value of its own."""
    return any(attribute.is_ref() for attribute in node.attributes.values())


def constant(value: ir.Value | None, limit: int = 4096) -> np.ndarray[Any, Any] | None:
    """The content of a constant of at most ``limit`` bytes; None for everything else, weights included.

    A weight is no constant: it may be fake, and ``ONNXProgram.apply_weights`` may replace it.
    """
    if value is None or value.const_value is None or value.is_graph_input() or value.const_value.nbytes > limit:
        return None
    if isinstance(value.const_value, TorchTensor) and value.const_value.is_weight:
        return None
    return value.const_value.numpy()


class Constants:
    """Tells the values that onnxruntime computes when it loads a model: weights, and what is made of them alone.

    The inputs of a function may be weights; they are taken for such.
    """

    def __init__(self, model: ir.Model) -> None:
        self._known: dict[ir.Value, bool] = {
            value: True for function in model.functions.values() for value in function.inputs
        }

    def holds(self, value: ir.Value | None) -> bool:
        pending = [value]
        while pending:
            value = pending.pop()
            if value is None or self._known.get(value):
                continue
            node = value.producer()
            if value in self._known:
                return False
            if node is None:
                self._known[value] = value.const_value is not None and not value.is_graph_input()
                pending.append(value)  # asked again, which ends the search where it isn't one
            elif node.op_type == "Constant" and not node.domain:
                self._known[value] = True
            elif node.domain or node.op_type in RANDOM or node.op_type == "DequantizeLinear" or not node.inputs:
                return False
            else:
                pending += node.inputs
        return True


def stored(model: ir.Model, value: ir.Value) -> bool:
    """The value is an initializer of the main graph, and no input."""
    return model.graph.initializers.get(value.name or "") is value and not value.is_graph_input()


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default; only for nodes without references."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def forward(old: ir.Value, new: ir.Value) -> bool:
    """Make every user of ``old`` use ``new``, and remove the node of ``old`` if nothing is left to do for it.

    A graph output keeps its name and metadata; where ``new`` can't take its place (it is an input, a weight, already
    an output, or of another graph), nothing is done.

    Returns:
        Whether the replacement was made.
    """
    node = old.producer()
    if node is None:
        return False
    if old.is_graph_output():
        producer = new.producer()
        if producer is None or producer.graph is not node.graph or new.is_graph_output():
            return False
        graph = node.graph
        outputs = graph.outputs  # type: ignore[union-attr]
        place = next(i for i, value in enumerate(outputs) if value is old)
        name, properties = old.name, dict(old.metadata_props)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        outputs[place] = new
        old.name = f"{name}_replaced"
        new.name = name
        new.metadata_props.update(properties)
        if new.shape is None:
            new.shape = old.shape
    else:
        ir.convenience.replace_all_uses_with(old, new)
    remove_if_unused(node)
    return True


def remove_if_unused(node: ir.Node) -> bool:
    """Remove a node none of whose outputs is used."""
    if node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
        return False
    node.graph.remove(node, safe=True)
    return True


def add_initializer(model: ir.Model, value: ir.Value) -> ir.Value:
    """Register a constant value with the main graph under a free name."""
    initializers = model.graph.initializers
    base = value.name or "const"
    name, count = base, 0
    while name in initializers:
        count += 1
        name = f"{base}_{count}"
    value.name = name
    initializers[name] = value
    return value


def add_constant(graph: ir.Graph, value: ir.Value, model: ir.Model) -> None:
    """Let the nodes of a body read a constant: the main graph has initializers, a function nodes that give them."""
    if graph is model.graph:
        add_initializer(model, value)
    else:
        graph.insert_before(graph[0], constant_node(value, value.const_value))  # type: ignore[arg-type]


def calls_by_function(model: ir.Model) -> dict[Any, list[ir.Node]]:
    """The nodes that call each function of the model, those in functions too."""
    found: dict[Any, list[ir.Node]] = {key: [] for key in model.functions}
    for node in all_nodes(model):
        if node.op_identifier() in found:
            found[node.op_identifier()].append(node)
    return found


def sole_use(value: ir.Value) -> ir.Node | None:
    """The one node that uses a value once, if that is all there is."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def same_dims(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Both shapes are known and equal, dimension by dimension."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(x == y and not (isinstance(x, ir.SymbolicDim) and x.value is None) for x, y in zip(a, b))


def constant_node(value: ir.Value, data: ir.TensorProtocol) -> ir.Node:
    """A node that gives a constant; it takes the place of an initializer."""
    attribute = ir.Attr("value", ir.AttributeType.TENSOR, data)
    return ir.Node("", "Constant", [], [attribute], outputs=[value], name=f"node_{value.name}")
