"""Fold the transpose of a weight that nothing else reads into the weight, as a view of the same storage.

No bytes are copied: the file's writer streams the view. The initializer is renamed ``<name>.T``, since its layout is no
longer that of the state dict; the tensor remembers its source. A function takes its weights as inputs: where every call
passes weights, the transpose moves out of the function first.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import onnx_ir as ir
from onnxport.kit import TorchTensor, components, nodes_of
from onnxport.optimize.rewriting import attribute, calls_by_function, is_standard, sole_use


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = _out_of_functions(model) if model.functions else 0
    for node in tuple(nodes_of(model.graph)):
        if not is_standard(node, "Transpose") or node.inputs[0] is None or node.outputs[0].is_graph_output():
            continue
        weight = node.inputs[0]
        folded = _folded(model, weight, node, attribute(node, "perm"))
        if folded is None or node.graph is None:
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], folded)
        node.graph.remove(node, safe=True)
        _replace(model, weight, folded)
        changes += 1
    return changes


def _folded(model: ir.Model, weight: ir.Value, user: ir.Node, perm: Sequence[int] | None) -> ir.Value | None:
    """The transposed weight, where ``user`` is all that reads it."""
    data, name = weight.const_value, f"{weight.name}.T"
    initializers = model.graph.initializers
    if not isinstance(data, TorchTensor) or initializers.get(weight.name or "") is not weight or data.aliases:
        return None
    if sole_use(weight) is not user or weight.is_graph_input() or name in initializers:
        return None
    order = tuple(perm or range(len(data.shape) - 1, -1, -1))
    view = data.derive(lambda tensor: tensor.permute(order), name)
    properties = dict(weight.metadata_props)
    return ir.Value(name=name, type=weight.type, shape=view.shape, const_value=view, metadata_props=properties)


def _replace(model: ir.Model, weight: ir.Value, folded: ir.Value) -> None:
    del model.graph.initializers[weight.name]  # type: ignore[arg-type]
    model.graph.initializers[folded.name] = folded  # type: ignore[index]


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
            _move_before(model, node, i, calls[key])
            ir.convenience.replace_all_uses_with(result, value)
            value.shape = result.shape
            node.graph.remove(node, safe=True)
            changes += 1
    return changes


def _callees(function: ir.Function, known: Container[Any]) -> list[Any]:
    return [node.op_identifier() for node in nodes_of(function) if node.op_identifier() in known]


def _move_before(model: ir.Model, transpose: ir.Node, place: int, calls: Iterable[ir.Node]) -> None:
    """Transpose one argument of each call; an argument that several calls of a graph share, once."""
    done: dict[Any, ir.Value] = {}
    for call in calls:
        weight = call.inputs[place]
        if weight is None or call.graph is None:
            continue
        folded = _folded(model, weight, call, attribute(transpose, "perm"))
        if folded is not None:
            call.replace_input_with(place, folded)
            _replace(model, weight, folded)
            continue
        moved = done.get((call.graph, weight))
        if moved is None:
            node = ir.Node("", "Transpose", [weight], list(transpose.attributes.values()), name=f"node_{weight.name}.T")
            moved = done[call.graph, weight] = node.outputs[0]
            moved.name, moved.type, moved.shape = f"{weight.name}.T", weight.type, transpose.outputs[0].shape
            call.graph.insert_before(call, node)
        call.replace_input_with(place, moved)
