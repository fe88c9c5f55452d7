"""Evaluate nodes over small constants: what is left of shape arithmetic when the sizes are static."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxport.kit import nodes_of
from onnxport.optimize.rewriting import RANDOM, add_constant, bodies, constant, has_references, remove_if_unused

logger = logging.getLogger(__name__)
_LIMIT = 1024  # bytes, of every input and output
_NEVER = RANDOM | {"Constant", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"}


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    return sum(_fold(model, graph) for graph in bodies(model))


def _fold(model: ir.Model, graph: ir.Graph) -> int:
    changes = 0
    for node in tuple(nodes_of(graph)):
        if node.graph is None or node.domain or node.op_type in _NEVER or not node.inputs or len(node.outputs) != 1:
            continue
        if has_references(node):
            continue
        static = _static_shape(node)
        inputs = [] if static is not None else [constant(value, _LIMIT) for value in node.inputs]
        if static is None and any(array is None and value is not None for array, value in zip(inputs, node.inputs)):
            continue
        array = static if static is not None else _evaluate(model, node, inputs)
        result = node.outputs[0]
        if array is None or array.nbytes > _LIMIT or result.is_graph_output() or result.dtype is None:
            continue
        value = ir.Value(
            name=result.name,
            type=ir.TensorType(result.dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.Tensor(array.astype(result.dtype.numpy(), copy=False), dtype=result.dtype),
        )
        ir.convenience.replace_all_uses_with(result, value)
        remove_if_unused(node)
        add_constant(graph, value, model)
        changes += 1
    return changes


def _static_shape(node: ir.Node) -> np.ndarray[Any, Any] | None:
    """The value of a ``Shape`` node whose dimensions are all known."""
    if node.op_type != "Shape" or node.inputs[0] is None or node.inputs[0].shape is None:
        return None
    dims = list(node.inputs[0].shape)
    start = node.attributes["start"].as_int() if "start" in node.attributes else None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    wanted = dims[slice(start, end)]
    return np.array(wanted, np.int64) if all(isinstance(d, int) for d in wanted) else None


def _evaluate(model: ir.Model, node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> np.ndarray[Any, Any] | None:
    """The node's value by the ONNX reference implementation; None where that can't compute it."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    names = [value.name or "" if value is not None else "" for value in node.inputs]
    unique = sorted({name for name in names if name})
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_empty_tensor_value_info(name) for name in unique],
        [onnx.helper.make_empty_tensor_value_info(node.outputs[0].name or "")],
    )
    opset = onnx.helper.make_opsetid("", model.graph.opset_imports[""])
    feeds = {name: array for name, array in zip(names, inputs) if name}
    try:
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]))
        result = evaluator.run(None, feeds)[0]  # type: ignore[index]
    except Exception as error:  # the reference implementation raises whatever its numpy code raises
        logger.debug("not folded: %s: %s", node.op_type, error)
        return None
    return np.asarray(result)
