"""An integer or float8 weight that is cast and scaled becomes ``DequantizeLinear``, and stays what it is in memory.

``Cast(weight) * scale`` becomes ``DequantizeLinear(weight, scale)``, and ``(Cast(weight) - zero) * scale`` the same
with a zero point. ``MatMul(x, Cast(weight)) * scale``, with a scale for each column, becomes
``MatMul(x, DequantizeLinear(weight, scale))``. torchao computes so with quantized weights, and so do models that are
compressed by hand. Where a product reads a weight that was cast in another way, in groups, say, the cast itself becomes
a DequantizeLinear with the scale 1: a runtime computes a cast once, and keeps the floats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import DataType
from onnxport.kit import TorchTensor, nodes_of
from onnxport.optimize.rewriting import (
    Constants,
    add_constant,
    add_initializer,
    all_nodes,
    bodies,
    constant,
    forward,
    is_standard,
    remove_if_unused,
    sole_use,
    stored,
)

from onnxport_builtin.free_names import FreeNames

_INTEGERS = (DataType.INT8, DataType.UINT8)
_FLOAT8 = (DataType.FLOAT8E4M3FN, DataType.FLOAT8E4M3FNUZ, DataType.FLOAT8E5M2, DataType.FLOAT8E5M2FNUZ)
_ELEMENTWISE = frozenset(["Add", "Sub", "Mul", "Div", "Cast"])
_MOVES = frozenset(["Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Concat"])
_PRODUCTS = frozenset(["MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"])
_LARGE = 1024
"""Elements from which on a weight's cast is worth a DequantizeLinear."""


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in all_nodes(model):
        if not is_standard(node, "Mul") or node.graph is not model.graph:
            continue
        for first, second in (node.inputs, node.inputs[::-1]):
            made = _dequantized(model, node, first, second)
            if made is not None and forward(node.outputs[0], made):
                if (cast := first.producer()) is not None:  # type: ignore[union-attr]
                    _remove_unused(cast)
                changes += 1
                break
    return changes + _casts(model)


def _remove_unused(node: ir.Node) -> None:
    """Remove a node that nothing uses, and those that it alone read."""
    sources = [value.producer() for value in node.inputs if value is not None]
    if remove_if_unused(node):
        for source in sources:
            if source is not None:
                _remove_unused(source)


# By scale ---------------------------------------------------------------------------------------------------------


def _dequantized(model: ir.Model, node: ir.Node, value: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """What replaces ``value * scale``; None where it isn't of these forms."""
    producer = None if value is None else value.producer()
    if producer is None or scale is None or scale.shape is None or sole_use(producer.outputs[0]) is not node:
        return None
    product = producer if is_standard(producer, "MatMul") else None
    cast = producer if product is None or product.inputs[1] is None else product.inputs[1].producer()
    user, zero = product or node, None
    if cast is not None and is_standard(cast, "Sub") and sole_use(cast.outputs[0]) is user and cast.inputs[0]:
        user, zero, cast = cast, cast.inputs[1], cast.inputs[0].producer()
    if cast is None or not is_standard(cast, "Cast") or sole_use(cast.outputs[0]) is not user:
        return None
    weight, out = cast.inputs[0], cast.outputs[0]
    opset = model.graph.opset_imports[""]
    if weight is None or weight.shape is None or not stored(model, weight):
        return None
    if weight.dtype not in _INTEGERS and (weight.dtype not in _FLOAT8 or opset < 19 or zero is not None):
        return None
    if out.dtype is not scale.dtype or not _is_dequantized_to(out.dtype, opset):
        return None
    axis = _axis(list(scale.shape), list(weight.shape))
    point = None if zero is None else _zero_point(zero, weight)
    if axis is None or (zero is not None and point is None):
        return None
    if point is not None and point[1] >= 0:
        if axis >= 0 and axis != point[1]:
            return None
        axis = point[1]
    if product is not None and (len(weight.shape) != 2 or axis not in (-1, 1)):
        return None
    count = None if axis < 0 else weight.shape[axis]
    vector = _vector(model, scale, count)
    zeros = None if point is None else _vector(model, point[0], count)
    if vector is None or (point is not None and zeros is None):
        return None
    attributes = [] if axis < 0 else [ir.AttrInt64("axis", axis)]
    inputs = [weight, vector] if zeros is None else [weight, vector, zeros]
    made = ir.Node("", "DequantizeLinear", inputs, attributes, name=f"{cast.name}_dequantized")
    result = made.outputs[0]
    result.name, result.type, result.shape = f"{out.name}_dequantized", out.type, weight.shape
    made.metadata_props.update(cast.metadata_props)
    cast.graph.insert_before(cast, made)  # type: ignore[union-attr]
    if product is None:
        return result
    old = product.inputs[1]
    product.replace_input_with(1, result)
    _remove_unused(old.producer())  # type: ignore[union-attr,arg-type]
    return product.outputs[0]


def _is_dequantized_to(dtype: DataType | None, opset: int) -> bool:
    return dtype is DataType.FLOAT or (dtype is DataType.FLOAT16 and opset >= 19)


def _axis(scale: list[object], weight: list[object]) -> int | None:
    """The axis of the weight that the scale varies along, -1 where it has one element; None for anything else."""
    if len(scale) > len(weight):
        return None
    offset = len(weight) - len(scale)
    varying = [i + offset for i, size in enumerate(scale) if size != 1]
    if len(varying) > 1 or any(scale[i - offset] != weight[i] for i in varying):
        return None
    return varying[0] if varying else -1


def _zero_point(zero: ir.Value, weight: ir.Value) -> tuple[ir.Value, int] | None:
    """The zero point in the weight's type, with the axis that it varies along; None where it isn't such a number."""
    node, dtype = zero.producer(), weight.dtype
    source = node.inputs[0] if node is not None and is_standard(node, "Cast") else None
    if source is None and node is None and (array := constant(zero)) is not None and array.size == 1:
        number = float(array.reshape(-1)[0])
        limits = np.iinfo(dtype.numpy())  # type: ignore[union-attr]
        if not number.is_integer() or not limits.min <= number <= limits.max:
            return None
        data = ir.tensor(int(number), dtype=dtype, name=f"{weight.name}.zero")
        source = ir.Value(name=data.name, type=ir.TensorType(data.dtype), shape=ir.Shape([]), const_value=data)
    if source is None or source.dtype is not dtype or source.shape is None:
        return None
    axis = _axis(list(source.shape), list(weight.shape))  # type: ignore[arg-type]
    return None if axis is None else (source, axis)


def _vector(model: ir.Model, value: ir.Value, count: Any) -> ir.Value | None:
    """A weight or constant as one number (``count`` None), or as a vector; also where it is reshaped first."""
    node = value.producer()
    source = node.inputs[0] if node is not None and is_standard(node, "Reshape") else value
    if source is None:
        return None
    data, shape = source.const_value, [] if count is None else [count]
    if source.shape is not None and list(source.shape) == shape and stored(model, source):
        return source
    if data is not None and not isinstance(data, TorchTensor):  # a constant
        array = np.ascontiguousarray(np.broadcast_to(data.numpy().reshape(-1), shape or [1]).reshape(shape))
        made = ir.tensor(array, dtype=data.dtype, name=source.name)
        return add_initializer(
            model, ir.Value(name=source.name, type=source.type, shape=ir.Shape(shape), const_value=made)
        )
    if not stored(model, source) or not isinstance(data, TorchTensor) or not data.has_data:
        return None
    derived = data.derive(
        lambda tensor: tensor.reshape([-1]).expand(shape) if shape else tensor.reshape([]), f"{source.name}.vector"
    )
    return add_initializer(
        model, ir.Value(name=derived.name, type=source.type, shape=derived.shape, const_value=derived)
    )


# By cast ----------------------------------------------------------------------------------------------------------


def _casts(model: ir.Model) -> int:
    """Make casts of large integer weights, which products read in the end, into DequantizeLinear."""
    constants, opset, changes = Constants(model), model.graph.opset_imports[""], 0
    for body in bodies(model):
        names = FreeNames(model, body)
        for node in tuple(nodes_of(body)):
            weight = node.inputs[0] if is_standard(node, "Cast") and node.graph is not None else None
            if weight is None or weight.dtype not in _INTEGERS or weight.shape is None or not weight.shape.is_static():
                continue
            out = node.outputs[0]
            if math.prod(weight.shape.numpy()) < _LARGE or not _is_dequantized_to(out.dtype, opset):
                continue
            if not constants.holds(weight) or not _feeds_product(out):
                continue
            one = ir.tensor(np.array(1, out.dtype.numpy()), dtype=out.dtype, name="one")  # type: ignore[union-attr]
            scale = ir.Value(
                name=names.take(f"{out.name}_scale"),
                type=ir.TensorType(one.dtype),
                shape=ir.Shape([]),
                const_value=one,
            )
            add_constant(body, scale, model)
            if body is not model.graph:
                scale = body[0].outputs[0]
            made = ir.Node("", "DequantizeLinear", [weight, scale], name=f"{node.name}_dequantized")
            result = made.outputs[0]
            result.name, result.type, result.shape = f"{out.name}_dequantized", out.type, weight.shape
            made.metadata_props.update(node.metadata_props)
            node.graph.insert_before(node, made)  # type: ignore[union-attr]
            changes += forward(out, result)
    return changes


def _feeds_product(value: ir.Value) -> bool:
    """A product reads the value, or what arithmetic makes of it."""
    pending, seen = [value], {value}
    while pending:
        for user, _ in pending.pop().uses():
            if user.domain:
                continue
            if user.op_type in _PRODUCTS:
                return True
            if user.op_type in _ELEMENTWISE or user.op_type in _MOVES:
                pending += [result for result in user.outputs if result not in seen]
                seen.update(user.outputs)
    return False
