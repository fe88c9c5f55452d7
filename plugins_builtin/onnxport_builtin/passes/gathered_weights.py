"""Rows of an integer weight are looked up before they are cast and scaled, not after.

An embedding whose table is ``Cast(weight) * scale`` would cast all of the table for each row, or be kept as floats.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
from onnxport.optimize.rewriting import all_nodes, attribute, forward, is_standard, sole_use, stored

_ELEMENTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Cast"])
_LARGE = 1024
"""Elements from which on a table is worth it."""


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in all_nodes(model):
        if not is_standard(node, "Gather") or node.graph is not model.graph or attribute(node, "axis", 0) != 0:
            continue
        table, places = node.inputs
        if table is None or table.shape is None or places is None or places.shape is None or not len(places.shape):
            continue
        dims = list(table.shape)
        casts: list[ir.Node] = []
        if dims and isinstance(dims[0], int) and _goes_by_rows(model, table, dims, node, casts) and casts:
            changes += forward(node.outputs[0], _rows(table, dims, node))
    return changes


def _goes_by_rows(
    model: ir.Model, value: ir.Value | None, dims: list[Any], user: ir.Node, casts: list[ir.Node]
) -> bool:
    """Arithmetic over weights whose first axis is that of the table, or that are the same for all of its rows."""
    if value is None or value.shape is None or len(value.shape) > len(dims):
        return False
    node = value.producer()
    if node is None:
        return stored(model, value) and (len(value.shape) < len(dims) or value.shape[0] in (1, dims[0]))
    if node.domain or node.op_type not in _ELEMENTWISE or sole_use(value) is not user:
        return False
    source = node.inputs[0]
    if node.op_type == "Cast" and source is not None and source.dtype in (ir.DataType.INT8, ir.DataType.UINT8):
        static = all(isinstance(size, int) for size in dims)
        if static and list(value.shape) == dims and math.prod(dims) >= _LARGE:
            casts.append(node)
    return all(_goes_by_rows(model, each, dims, node, casts) for each in node.inputs)


def _rows(value: ir.Value, dims: list[Any], gather: ir.Node) -> ir.Value:
    """The same arithmetic over the rows that a Gather looks up."""
    node, places = value.producer(), gather.inputs[1]
    if node is not None:
        inputs = [_rows(each, dims, gather) for each in node.inputs if each is not None]
        made = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=f"{node.name}_rows")
    elif len(value.shape or ()) == len(dims) and value.shape[0] == dims[0]:  # type: ignore[index]
        inputs = [value]
        made = ir.Node("", "Gather", [value, places], list(gather.attributes.values()), name=f"node_{value.name}_rows")
    else:
        return value
    result = made.outputs[0]
    result.name, result.type = f"{value.name}_rows", value.type
    widest = max((list(each.shape or ()) for each in inputs), key=len)
    if node is None:
        result.shape = ir.Shape([*places.shape, *value.shape[1:]])  # type: ignore[union-attr,index,misc]
    elif value.shape is not None and len(value.shape) == len(dims):
        result.shape = ir.Shape([*places.shape, *value.shape[1:]])  # type: ignore[union-attr,misc]
    else:
        result.shape = ir.Shape(widest)
    made.metadata_props.update((node or gather).metadata_props)
    gather.graph.insert_before(gather, made)  # type: ignore[union-attr]
    return result
