"""A dequantized weight is kept apart from the product of floats that reads it.

onnxruntime 1.32 turns ``MatMul(x, DequantizeLinear(weight))``, and the same with Gemm, into MatMulNBits, whose CPU
kernel rounds ``x`` to 8 bits by default: results are off by some percent, though the model computes in floats. It finds
them across Reshape, Unsqueeze and Transpose of the weight, since it folds these first, and, where there is one scale,
across those behind DequantizeLinear too. So a weight is dequantized with one more axis and a scale a row, and the
axis squeezed away: none of its rewrites looks past that, and nothing is computed more. The weight stays integer in its
memory.

Models whose activations are quantized as well keep DequantizeLinear beside the product, and so do weights that
``quantize=`` rounded: there the integer kernels are what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnxport.kit import TorchTensor, nodes_of
from onnxport.optimize.rewriting import (
    QUANTIZED,
    Constants,
    add_constant,
    add_initializer,
    attribute,
    bodies,
    forward,
    is_standard,
    sole_use,
)

from onnxport_builtin.free_names import FreeNames

_MOVES = frozenset(
    ["Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Gather", "Expand"]
)
"""What only moves elements."""
_PRODUCTS = frozenset(["MatMul", "Gemm"])
_FUSED = frozenset(ir.DataType[name] for name in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"))
"""Weights that MatMulNBits takes."""


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    constants = Constants(model)
    changes = 0
    for body in bodies(model):
        names = FreeNames(model, body)
        for node in tuple(nodes_of(body)):
            weight = node.inputs[0] if is_standard(node, "DequantizeLinear") else None
            if weight is None or weight.dtype not in _FUSED or not constants.holds(weight):
                continue
            if QUANTIZED in node.metadata_props:  # the kernel was asked for
                continue
            if _meets_floats(model, node, constants) and _can_be_widened(model, node):
                _by_rows(model, node)
                changes += _keep_apart(node, _Emitter(model, body, node, names))
    return changes


def _meets_floats(model: ir.Model, node: ir.Node, constants: Constants) -> bool:
    """A product of floats reads the weight, however it is moved before."""
    pending: list[ir.Value] = [node.outputs[0]]
    seen = set(pending)
    while pending:
        value = pending.pop()
        for user, index in value.uses():
            function = model.functions.get(user.op_identifier())
            reached: list[ir.Value] = []
            if function is not None:
                reached = [function.inputs[index]]
            elif user.domain == "" and user.op_type in _PRODUCTS:
                if index == 1 and not _is_quantized(user.inputs[0], constants):
                    return True
            elif user.domain == "" and user.op_type in _MOVES and index == 0:
                reached = list(user.outputs)
            pending += [value for value in reached if value not in seen]
            seen.update(reached)
    return False


def _is_quantized(value: ir.Value | None, constants: Constants) -> bool:
    """The value is what a quantized activation stands for."""
    while value is not None and (node := value.producer()) is not None:
        if is_standard(node, "DequantizeLinear"):
            return not constants.holds(node.inputs[0])
        if node.domain or node.op_type not in _MOVES:
            return False
        value = node.inputs[0]
    return False


def _can_be_widened(model: ir.Model, node: ir.Node) -> bool:
    """What is smaller than a byte has to be a weight of the main graph: it is stored with the axis."""
    blocked = attribute(node, "block_size", 0) != 0
    for value in node.inputs if blocked else node.inputs[:1]:
        if value is not None and not _has_bytes(value):
            stored = model.graph.initializers.get(value.name or "") is value
            if not stored or not isinstance(value.const_value, TorchTensor):
                return False
    return True


def _by_rows(model: ir.Model, node: ir.Node) -> None:
    """Store a matrix (K, N) with a scale a column as (N, K) with one a row, and transpose it where it is read.

    onnxruntime dequantizes rows four times as fast, and its product takes the transposed matrix as it is.
    """
    weight, scale, result = node.inputs[0], node.inputs[1], node.outputs[0]
    product = sole_use(result)
    if product is None or not is_standard(product, "MatMul") or product.inputs[1] is not result:
        return
    if weight is None or scale is None or scale.shape is None or len(scale.shape) != 1 or len(weight.shape or ()) != 2:
        return
    data = weight.const_value
    if model.graph.initializers.get(weight.name or "") is not weight or not isinstance(data, TorchTensor):
        return
    if attribute(node, "axis", 1) % 2 != 1 or weight.is_graph_input() or sole_use(weight) is not node:
        return
    name = str(weight.name)
    initializers = model.graph.initializers
    turned = data.derive(lambda tensor: tensor.permute(1, 0), name.removesuffix(".T"))
    del initializers[name]
    original = initializers.get(turned.name or "")  # what was transposed before, and is read by nothing any more
    if original is not None and not original.uses() and not original.is_graph_output():
        del initializers[original.name]  # type: ignore[arg-type]
    stored = ir.Value(name=turned.name, type=weight.type, shape=turned.shape, const_value=turned)
    stored.metadata_props.update(weight.metadata_props)
    node.replace_input_with(0, add_initializer(model, stored))
    node.attributes["axis"] = ir.AttrInt64("axis", 0)
    transpose = ir.Node("", "Transpose", [result], [ir.AttrInt64s("perm", [1, 0])], name=f"{node.name}_T")
    moved = transpose.outputs[0]
    moved.name, moved.type, moved.shape = f"{result.name}_T", result.type, result.shape
    result.shape = turned.shape
    product.replace_input_with(1, moved)
    product.graph.insert_before(product, transpose)  # type: ignore[union-attr]


def _keep_apart(node: ir.Node, emit: _Emitter) -> bool:
    """Dequantize with one more axis in front, and squeeze it away."""
    result = node.outputs[0]
    weight, scale, zero = (*node.inputs, None)[:3]
    if weight is None or scale is None or weight.shape is None or scale.shape is None:
        return False
    attributes = dict(node.attributes)
    rank, count = len(weight.shape), weight.shape[0] if len(weight.shape) else 1
    if len(scale.shape) > 0:
        attributes["axis"] = ir.AttrInt64("axis", attribute(node, "axis", 1) % rank + 1)
        if attribute(node, "block_size", 0):
            scale, zero = emit.widened(scale), emit.widened(zero)
    elif isinstance(count, int) and (zero is None or _has_bytes(zero)):
        # One scale for all: below opset 21, onnxruntime would move DequantizeLinear behind Squeeze.
        attributes["axis"] = ir.AttrInt64("axis", 1 if rank else 0)
        scale, zero = emit.repeated(scale, count), emit.repeated(zero, count)
    wide = emit.node("DequantizeLinear", [emit.widened(weight), scale, zero], [1, *weight.shape], result, attributes)
    narrow = emit.node("Squeeze", [wide, emit.integers(0)], weight.shape, result)
    narrow.metadata_props.update(result.metadata_props)
    return forward(result, narrow)


def _has_bytes(value: ir.Value) -> bool:
    """Not of 4 or 2 bits, which onnxruntime 1.32 neither unsqueezes nor repeats."""
    return value.dtype is not None and value.dtype.bitwidth >= 8


class _Emitter:
    """Adds what stands before a node, with names of its own and the node's metadata."""

    def __init__(self, model: ir.Model, body: ir.Graph, node: ir.Node, names: FreeNames) -> None:
        self._model, self._body, self._node, self._names = model, body, node, names

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Iterable[Any],
        like: ir.Value,
        attributes: Mapping[str, ir.Attr] | None = None,
    ) -> ir.Value:
        """Add a node; its one result, of the element type of ``like``."""
        name = self._names.take(f"{like.name}_{op_type.lower()}")
        made = ir.Node("", op_type, inputs, list((attributes or {}).values()), name=f"node_{name}")
        made.metadata_props.update(self._node.metadata_props)
        value = made.outputs[0]
        value.name, value.type, value.shape = name, like.type, ir.Shape(list(shape))
        self._node.graph.insert_before(self._node, made)  # type: ignore[union-attr]
        return value

    def integers(self, *numbers: int) -> ir.Value:
        """A vector of int64."""
        data = ir.tensor(list(numbers), dtype=ir.DataType.INT64)
        name = self._names.take("const_" + "_".join(map(str, numbers)))
        value = ir.Value(name=name, type=ir.TensorType(data.dtype), shape=ir.Shape([len(numbers)]), const_value=data)
        add_constant(self._body, value, self._model)
        return value if self._body is self._model.graph else self._body[0].outputs[0]

    def widened(self, value: Any) -> Any:
        """The value with an axis in front; None for None."""
        if value is None:
            return None
        shape = [1, *value.shape]
        if _has_bytes(value):
            return self.node("Unsqueeze", [value, self.integers(0)], shape, value)
        data = value.const_value
        stored = data.derive(lambda tensor: tensor.unsqueeze(0), f"{value.name}.unsqueezed")
        made = ir.Value(name=stored.name, type=value.type, shape=ir.Shape(shape), const_value=stored)
        made.metadata_props.update(value.metadata_props)
        return add_initializer(self._model, made)

    def repeated(self, value: ir.Value | None, count: int) -> ir.Value | None:
        """A scalar as a vector; None for None."""
        return None if value is None else self.node("Expand", [value, self.integers(count)], [count], value)
