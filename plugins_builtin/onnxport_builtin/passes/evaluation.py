"""The values of ONNX nodes over constants, where no evaluator can differ from eager torch.

Nodes that move elements are evaluated by the reference implementation of ONNX. Arithmetic is torch's own, for the
operators that torch defines exactly as ONNX does. All else (softmax, reductions of floats, resizes) is None and left to
the runtime: another evaluator overflows, rounds or treats NaN in a way of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import DataType
from onnxport.kit import TorchTensor
from onnxport.optimize.rewriting import attribute

logger = logging.getLogger(__name__)

_MOVES = frozenset(
    [
        *("Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "NonZero"),
        *("Reshape", "Size", "Slice", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
    ]
)
_KINDS: Mapping[DataType, torch.dtype] = {
    DataType.BOOL: torch.bool,
    DataType.INT8: torch.int8,
    DataType.INT16: torch.int16,
    DataType.INT32: torch.int32,
    DataType.INT64: torch.int64,
    DataType.UINT8: torch.uint8,
    DataType.UINT16: torch.uint16,
    DataType.UINT32: torch.uint32,
    DataType.UINT64: torch.uint64,
    DataType.FLOAT16: torch.float16,
    DataType.BFLOAT16: torch.bfloat16,
    DataType.FLOAT: torch.float32,
    DataType.DOUBLE: torch.float64,
}
"""Types in which torch computes and casts as ONNX does (a cast to eight bits of float saturates in ONNX only)."""

_ELEMENTARY: Mapping[str, Callable[..., torch.Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
_OF_FLOATS: Mapping[str, Callable[..., torch.Tensor]] = {
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_ORDERED = {"Max": torch.maximum, "Min": torch.minimum}


def evaluate(node: ir.Node, inputs: Sequence[np.ndarray[Any, Any] | None], opset: int) -> np.ndarray[Any, Any] | None:
    """The node's value, or None where the runtime has to compute it.

    Args:
        node: a node of the default domain, without references to attributes.
        inputs: what its inputs hold; None where it has none.
        opset: the version of the default domain.
    """
    try:
        if node.op_type in _MOVES:
            return _moved(node, inputs, opset)
        tensors = [_tensor(array) for array in inputs]
        with torch.no_grad():
            result = _computed(node, tensors) if all(item is not None for item in tensors[:1]) else None
    except Exception as error:  # the reference implementation raises whatever its numpy code raises
        logger.debug("not folded: %s: %s", node.op_type, error)
        return None
    return None if result is None else TorchTensor(result.contiguous()).numpy()


def _moved(node: ir.Node, inputs: Sequence[np.ndarray[Any, Any] | None], opset: int) -> np.ndarray[Any, Any]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    names = [value.name or "" if value is not None else "" for value in node.inputs]
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_empty_tensor_value_info(name) for name in sorted({name for name in names if name})],
        [onnx.helper.make_empty_tensor_value_info(node.outputs[0].name or "")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    result = ReferenceEvaluator(model).run(None, {name: array for name, array in zip(names, inputs) if name})
    return np.asarray(result[0])  # type: ignore[index]


def _tensor(array: np.ndarray[Any, Any] | None) -> torch.Tensor | None:
    """The array as a tensor; None for none, and for types in which torch computes otherwise."""
    dtype = None if array is None else _KINDS.get(DataType.from_numpy(array.dtype))
    if array is None or dtype is None:
        return None
    data = torch.frombuffer(bytearray(array.tobytes()), dtype=dtype) if array.size else torch.empty(0, dtype=dtype)
    return data.reshape(array.shape)


def _computed(node: ir.Node, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """What torch computes, where its operator is the same as ONNX's for these values."""
    first, name = tensors[0], node.op_type
    if first is None:
        return None
    if name in ("Cast", "CastLike"):
        to = attribute(node, "to") if name == "Cast" else node.inputs[1].dtype  # type: ignore[union-attr]
        dtype = _KINDS.get(DataType(to))
        return None if dtype is None else first.to(dtype)
    operands = [tensor for tensor in tensors if tensor is not None]
    if name in _REDUCTIONS:
        return None if first.is_floating_point() or len(operands) != len(tensors) else _reduced(node, operands)
    if len(operands) != len(tensors) or len({tensor.dtype for tensor in operands}) != 1:
        return None
    if name in _ELEMENTARY:
        return _ELEMENTARY[name](*operands)
    if name in _OF_FLOATS:
        return _OF_FLOATS[name](*operands) if first.is_floating_point() else None
    if name in _ORDERED and not any(tensor.isnan().any() for tensor in operands):
        result = first
        for tensor in operands[1:]:
            result = _ORDERED[name](result, tensor)
        return result
    if name == "Range" and not first.is_floating_point():
        return torch.arange(*(int(tensor) for tensor in operands), dtype=first.dtype)
    return _divided(node, *operands) if name in ("Div", "Mod") else None


def _divided(node: ir.Node, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
    """Quotients of ints are truncated; the remainder has the sign of the divisor, or with `fmod` of the dividend."""
    fmod = bool(attribute(node, "fmod", 0))
    if x.is_floating_point():
        if node.op_type == "Div":
            return torch.div(x, y)
        return torch.fmod(x, y) if fmod else None
    if bool((y == 0).any()) or (y.dtype.is_signed and bool((y == -1).any() & (x == torch.iinfo(x.dtype).min).any())):
        return None  # no integer is the result
    if node.op_type == "Div":
        return torch.div(x, y, rounding_mode="trunc")
    return torch.fmod(x, y) if fmod else torch.remainder(x, y)


_REDUCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceProd": torch.prod,
    "ReduceSum": torch.sum,
}


def _reduced(node: ir.Node, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    """A reduction of integers, in their own type."""
    result = operands[0]
    axes = operands[1].tolist() if len(operands) > 1 else list(attribute(node, "axes", ()))
    if not axes and not attribute(node, "noop_with_empty_axes", 0):
        axes = list(range(result.ndim))
    keywords = {"dtype": result.dtype} if node.op_type in ("ReduceProd", "ReduceSum") else {}
    for axis in axes:
        result = _REDUCTIONS[node.op_type](result, dim=int(axis), keepdim=True, **keywords)
    if not attribute(node, "keepdims", 1):
        result = result.squeeze(tuple(int(axis) for axis in axes))
    return result
