"""Finds norms of sums: ``norm(x + skip)``, where the sum goes on to the next layer."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from onnxport_onnxruntime import operators
from onnxport_onnxruntime.graphs import aten, dims, is_tensor, new_node, source, tensor_of


def fuse_layer_norms(module: GraphModule) -> int:
    """Put ``skip_layer_norm`` for sums and their norms; the number of these."""
    count = 0
    for node in list(module.graph.nodes):
        if node.target is not aten.layer_norm.default or len(node.args) < 3:
            continue
        x, shape, weight, bias, eps, *_ = (*node.args, None, None, 1e-5)[: max(5, len(node.args))]
        eps = node.args[4] if len(node.args) > 4 else 1e-5
        if len(shape) == 1 and _is_parameter(weight) and (bias is None or _is_parameter(bias)):
            count += _fused(node, x, operators.skip_layer_norm, (weight, bias, eps))
    if count:
        module.graph.eliminate_dead_code()
    return count


def fuse_rms_norms(module: GraphModule) -> int:
    """Put ``skip_rms_norm`` for sums and their root-mean-square norms; the number of these."""
    count = 0
    for node in list(module.graph.nodes):
        found = _rms_norm(node)
        if found is not None:
            x, weight, eps = found
            count += _fused(node, x, operators.skip_rms_norm, (weight, eps))
    if count:
        module.graph.eliminate_dead_code()
    return count


def _fused(node: Node, x: Any, target: Any, parameters: tuple[Any, ...]) -> bool:
    total = source(x)
    if total.target is not aten.add.Tensor or total.kwargs or not all(map(is_tensor, total.args)):
        return False
    left, right = total.args
    if tensor_of(total).dim() != 3 or dims(left) != dims(total) or dims(right) != dims(total):
        return False
    if any(tensor_of(each).dtype is not torch.float32 for each in (left, right, node)):
        return False
    if any(used in (user.args[0] for user in total.users if user.target is operator.getitem) for used in (left, right)):
        return False
    anchor = total.next
    call = new_node(anchor, target, (left, right, *parameters), None, (tensor_of(node), tensor_of(total)))
    call.meta.update({key: kept for key, kept in node.meta.items() if key in ("stack_trace", "nn_module_stack")})
    normed, summed = (
        new_node(anchor, operator.getitem, (call, i), None, tensor_of(value)) for i, value in enumerate((node, total))
    )
    node.replace_all_uses_with(normed)
    total.replace_all_uses_with(summed, delete_user_cb=lambda user: user is not call)
    return True


def _is_parameter(node: Any) -> bool:
    return is_tensor(node) and node.op in ("placeholder", "get_attr") and tensor_of(node).dim() == 1


def _rms_norm(node: Node) -> tuple[Node, Node, float] | None:
    """The input, weight and epsilon of a norm, which a model writes by hand or as one operator."""
    if node.target is aten.rms_norm.default:
        x, shape, weight, eps = (*node.args, None, None)[:4]
        is_plain = len(shape) == 1 and _is_parameter(weight) and isinstance(eps, float)  # type: ignore[arg-type]
        return (x, weight, eps) if is_plain else None  # type: ignore[return-value]
    for weight, scaled in _factors(node):
        if not _is_parameter(weight):
            continue
        for x, root in _factors(source(scaled)):
            eps = _epsilon(root, x)
            if eps is not None and dims(node) == dims(x):
                return x, weight, eps
    return None


def _factors(node: Any) -> list[tuple[Node, Node]]:
    """Both factors of a product, in either order."""
    if not is_tensor(node) or node.target is not aten.mul.Tensor or not all(map(is_tensor, node.args)):
        return []
    left, right = (source(each) for each in node.args)
    return [(left, right), (right, left)]


def _epsilon(root: Node, x: Node) -> float | None:
    """The number in ``rsqrt(mean(x ** 2, -1, keepdim=True) + number)``."""
    if root.target is not aten.rsqrt.default:
        return None
    total = source(root.args[0])
    if total.target is not aten.add.Tensor or not isinstance(total.args[1], float) or total.kwargs:
        return None
    mean = source(total.args[0])
    if mean.target is not aten.mean.dim or len(mean.args) != 3 or mean.args[2] is not True or mean.kwargs:
        return None
    if [axis % tensor_of(x).dim() for axis in mean.args[1]] != [tensor_of(x).dim() - 1]:  # type: ignore[union-attr]
        return None
    square = source(mean.args[0])
    if square.target is aten.pow.Tensor_Scalar:
        is_square = square.args[1] == 2 and source(square.args[0]) is x
    else:
        is_square = square.target is aten.mul.Tensor and all(source(each) is x for each in square.args)
    return total.args[1] if is_square else None
