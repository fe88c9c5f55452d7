"""Stacks of matrices that are multiplied one by one, as the experts of a mixture are: each becomes a weight of its own.

::

    experts (E, K, N) -> Split -> (1, K, N) -> MatMul -> (1, S, N)

becomes ``experts.0 (K, N) -> MatMul -> (S, N) -> Unsqueeze`` for each, a form whose matrices can be rounded.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from onnxport.kit import TorchTensor
from onnxport.optimize.rewriting import add_initializer, attribute, is_standard, remove_if_unused, sole_use

from onnxport_quantization.tensors import is_conversion

if TYPE_CHECKING:
    from onnxport_quantization.writing import Writer


def one_of(stack: torch.Tensor, index: int) -> torch.Tensor:
    """A matrix of a stack."""
    return stack[index]


def separate(writer: Writer, value: ir.Value, tensor: TorchTensor) -> bool:
    """Give each product that reads a matrix of a stack a weight of its own; False where others read the stack too.

    Args:
        value: the initializer (E, K, N).
        tensor: its data.
    """
    split = sole_use(value)
    if split is None or split.graph is not writer.model.graph or not is_standard(split, "Split"):
        return False
    count = tensor.shape.numpy()[0]
    if attribute(split, "axis", 0) != 0 or len(split.outputs) != count:
        return False
    products = [_product_of(matrix) for matrix in split.outputs]
    if None in products or len({product for product, _ in filter(None, products)}) != count:
        return False
    axes = writer.vector([0])
    for index, (matrix, found) in enumerate(zip(split.outputs, products, strict=True)):
        if found is not None:
            product, user = found
            _read_alone(writer, value, tensor.derive(partial(one_of, index=index)), matrix, index)
            _unsqueeze(writer, product, user, axes)
    sizes = split.inputs[1] if len(split.inputs) > 1 else None
    remove_if_unused(split)
    for each in (value, sizes):
        if each is not None and each.producer() is None and not each.uses() and not each.is_graph_output():
            writer.model.graph.initializers.pop(str(each.name), None)
    return True


def _product_of(matrix: ir.Value) -> tuple[ir.Node, ir.Node] | None:
    """The product that alone reads a matrix (1, K, N), cast or not, and multiplies rows (S, K) by it; and its user."""
    node = sole_use(matrix)
    if node is not None and is_standard(node, "Cast"):
        matrix = node.outputs[0]
        node = sole_use(matrix)
    if node is None or not is_standard(node, "MatMul") or node.inputs[1] is not matrix or _rank(node.inputs[0]) != 2:
        return None
    user = sole_use(node.outputs[0])
    return None if user is None or user.graph is not node.graph else (node, user)


def _rank(value: ir.Value | None) -> int | None:
    """The rank of a value, or of what it is a piece or a cast of."""
    while value is not None:
        if value.shape is not None:
            return len(value.shape)
        node = value.producer()
        value = node.inputs[0] if node is not None and is_standard(node, "Split", "Cast") else None
    return None


def _read_alone(writer: Writer, value: ir.Value, tensor: TorchTensor, matrix: ir.Value, index: int) -> None:
    """Let the one reader of a matrix of the stack read a weight of its own."""
    tensor.name = writer.unique(f"{value.name}.{index}")
    weight = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    weight.metadata_props.update(value.metadata_props)
    add_initializer(writer.model, weight)
    (use,) = matrix.uses()
    use.node.replace_input_with(use.idx, weight)
    if is_standard(use.node, "Cast"):
        use.node.outputs[0].shape = tensor.shape


def _unsqueeze(writer: Writer, product: ir.Node, user: ir.Node, axes: ir.Value) -> None:
    """Give a product's result the axis back that the matrix had before it."""
    result = product.outputs[0]
    stacked, dtype = result.shape, result.dtype
    result.shape = None if stacked is None else ir.Shape(list(stacked)[1:])
    made = writer.node("Unsqueeze", [result, axes], [], dtype, user)
    made.shape = stacked
    for place, each in enumerate(user.inputs):
        if each is result:
            user.replace_input_with(place, made)


def layout_in_stack(weight: TorchTensor) -> tuple[TorchTensor, list[int], int] | None:
    """The stack that a matrix is of, the order of its axes in the matrix, and its place; None if it is no such matrix.

    Told by the strides of a stack without data.
    """
    functions = []
    leaf = weight
    while leaf.parents:
        if len(leaf.parents) > 1 or leaf._function is None:
            return None
        functions += [] if is_conversion(leaf._function) else [leaf._function]
        leaf = leaf.parents[0]
    dims = leaf.shape.numpy()
    if len(dims) != 3 or leaf.source is None:
        return None
    probe = torch.empty_strided((dims[0], 3, 5), (15, 5, 1), device="meta")
    found = probe
    try:
        for function in reversed(functions):
            found = function(found)
    except Exception:  # a function that was made for the weight's own sizes may raise anything
        return None
    orders: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {
        ((3, 5), (5, 1)): [0, 1],
        ((5, 3), (1, 5)): [1, 0],
    }
    order = orders.get((tuple(found.shape), found.stride()))
    index, rest = divmod(int(found.storage_offset()), 15)
    return None if order is None or rest or found._base is not probe else (leaf, order, index)
