"""A model with its functions inlined, whose values still tell which FX nodes they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass
from onnxport.kit import Node, keys


def inlined(model: ir.Model) -> ir.Model:
    """A copy without functions; the model itself where it has none.

    A function's body names the FX nodes that it was made of. In the copy, the values of each call name those of the
    call. Where a call doesn't know them (a file knows none), only its results name one.
    """
    if not model.functions:
        return model
    copy = InlinePass()(model.clone()).model
    values = {value.name: value for node in copy.graph for value in node.outputs}
    nodes = iter(copy.graph)
    for node in model.graph:
        if node.op_identifier() not in model.functions:
            next(nodes)
            continue
        _name(model, node, nodes, None)
        for value in node.outputs:
            if value.name in values and keys.ORIGIN in value.metadata_props:
                values[value.name].metadata_props.update(value.metadata_props)
    return copy


def _name(model: ir.Model, call: ir.Node, copies: Iterator[ir.Node], around: Mapping[str, str] | None) -> None:
    """Let the copies of a function's nodes name the FX nodes of a call.

    Args:
        call: the call.
        copies: gives the copies, in the order of the nodes, those of calls in the function in the place of these.
        around: the FX nodes that those which the call names stand for; None for a call of the main graph.
    """
    own: dict[str, str] = {}
    if isinstance(call, Node):
        pairs: Iterable[tuple[str, str]] = ((made.name, here.name) for made, here in zip(*call.alike))
        own = {made: here if around is None else around.get(here, "") for made, here in pairs}
    for node in model.functions[call.op_identifier()]:
        if node.op_identifier() in model.functions:
            _name(model, node, copies, own)
            continue
        for value in next(copies).outputs:
            name = own.get(value.metadata_props.pop(keys.ORIGIN, ""), "")
            if name:
                value.metadata_props[keys.ORIGIN] = name
