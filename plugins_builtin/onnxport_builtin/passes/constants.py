"""Evaluate nodes over small constants: what is left of shape arithmetic when the sizes are static."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import DataType
from onnxport.kit import nodes_of
from onnxport.optimize.rewriting import add_constant, bodies, constant, has_references, remove_if_unused

from onnxport_builtin.passes.evaluation import evaluate

_LIMIT = 1024  # bytes, of every input and output


def run(model: ir.Model, limit_of_integers: int = _LIMIT) -> int:
    """See the module's docstring.

    Args:
        model: changed in place.
        limit_of_integers: bytes of every input and output, where all are integers or bools: these are no weights.
    """
    return sum(_fold(model, graph, max(_LIMIT, limit_of_integers)) for graph in bodies(model))


def _fold(model: ir.Model, graph: ir.Graph, limit: int) -> int:
    changes = 0
    for node in tuple(nodes_of(graph)):
        if node.graph is None or node.domain or not node.inputs or len(node.outputs) != 1:
            continue
        if has_references(node):
            continue
        static = _static_shape(node)
        inputs = [] if static is not None else [_constant(value, limit) for value in node.inputs]
        if static is None and any(array is None and value is not None for array, value in zip(inputs, node.inputs)):
            continue
        array = static if static is not None else evaluate(node, inputs, model.graph.opset_imports[""])
        result = node.outputs[0]
        if array is None or array.nbytes > _limit(result, limit) or result.is_graph_output() or result.dtype is None:
            continue
        if DataType.from_numpy(array.dtype) is not result.dtype:
            continue
        value = ir.Value(
            name=result.name,
            type=ir.TensorType(result.dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array, dtype=result.dtype),
        )
        ir.convenience.replace_all_uses_with(result, value)
        remove_if_unused(node)
        add_constant(graph, value, model)
        changes += 1
    return changes


def _limit(value: ir.Value, limit: int) -> int:
    return _LIMIT if value.dtype is None or value.dtype.is_floating_point() else limit


def _constant(value: ir.Value | None, limit: int) -> np.ndarray[Any, Any] | None:
    return None if value is None else constant(value, _limit(value, limit))


def _static_shape(node: ir.Node) -> np.ndarray[Any, Any] | None:
    """The value of a ``Shape`` node whose dimensions are all known."""
    if node.op_type != "Shape" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    dims = list(node.inputs[0].shape)
    start = node.attributes["start"].as_int() if "start" in node.attributes else None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    wanted = dims[slice(start, end)]
    return np.array(wanted, np.int64) if all(isinstance(d, int) for d in wanted) else None
