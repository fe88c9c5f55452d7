"""Fold the transpose of a weight that nothing else reads into the weight, as a view of the same storage.

No bytes are copied: the file's writer streams the view. The initializer is renamed ``<name>.T``, since its layout is no
longer that of the state dict; the tensor remembers its source. A function takes its weights as inputs: where every call
passes weights, the transpose moves out of the function first.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import onnx_ir as ir

from onnxport.graph.components import components
from onnxport.graph.scopes import nodes_of
from onnxport.passes.rewriting import attribute, calls_by_function, is_standard, sole_use
from onnxport.weights import TorchTensor


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = _out_of_functions(model) if model.functions else 0
    initializers = model.graph.initializers
    for node in tuple(nodes_of(model.graph)):
        if not is_standard(node, "Transpose") or node.inputs[0] is None:
            continue
        weight, result = node.inputs[0], node.outputs[0]
        data = weight.const_value
        if (
            initializers.get(weight.name or "") is not weight
            or not isinstance(data, TorchTensor)
            or result.is_graph_output()
        ):
            continue
        if sole_use(weight) is not node or weight.is_graph_input() or data.aliases:
            continue
        perm = tuple(attribute(node, "perm") or range(len(data.shape) - 1, -1, -1))
        name = f"{weight.name}.T"
        if name in initializers or node.graph is None:
            continue
        view = data.derive(lambda tensor, perm=perm: tensor.permute(perm), name)  # type: ignore[misc]
        folded = ir.Value(
            name=name,
            type=weight.type,
            shape=ir.Shape(view.shape),
            const_value=view,
            metadata_props=dict(weight.metadata_props),
        )
        ir.convenience.replace_all_uses_with(result, folded)
        node.graph.remove(node, safe=True)
        del initializers[weight.name]  # type: ignore[arg-type]
        initializers[name] = folded
        changes += 1
    return changes


def _out_of_functions(model: ir.Model) -> int:
    calls = calls_by_function(model)
    order = [c[0] for c in components(model.functions, lambda key: _callees(model.functions[key], calls))]
    weights: set[ir.Value] = {v for v in model.graph.initializers.values() if not v.is_graph_input()}
    for key in reversed(order):  # callers first: what they are given decides what they pass on
        for i, value in enumerate(model.functions[key].inputs):
            if calls[key] and all(i < len(node.inputs) and node.inputs[i] in weights for node in calls[key]):
                weights.add(value)
    changes = 0
    for key in order:
        for i, value in enumerate(model.functions[key].inputs):
            node = sole_use(value)
            if value not in weights or node is None or not is_standard(node, "Transpose") or node.graph is None:
                continue
            if node.outputs[0].is_graph_output():
                continue
            result = node.outputs[0]
            _move_before(node, i, calls[key])
            ir.convenience.replace_all_uses_with(result, value)
            value.shape = result.shape
            node.graph.remove(node, safe=True)
            changes += 1
    return changes


def _callees(function: ir.Function, known: Container[Any]) -> list[Any]:
    return [node.op_identifier() for node in nodes_of(function) if node.op_identifier() in known]


def _move_before(transpose: ir.Node, place: int, calls: Iterable[ir.Node]) -> None:
    """Transpose one argument of each call; an argument that several calls of a graph share, once."""
    done: dict[Any, ir.Value] = {}
    for call in calls:
        weight = call.inputs[place]
        if weight is None or call.graph is None:
            continue
        moved = done.get((call.graph, weight))
        if moved is None:
            node = ir.Node("", "Transpose", [weight], list(transpose.attributes.values()), name=f"node_{weight.name}.T")
            moved = done[call.graph, weight] = node.outputs[0]
            moved.name, moved.type, moved.shape = f"{weight.name}.T", weight.type, transpose.outputs[0].shape
            call.graph.insert_before(call, node)
        call.replace_input_with(place, moved)
