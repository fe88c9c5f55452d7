"""Finds activations that models write by hand: GELU by tanh, and products with a sigmoid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from onnxport_onnxruntime import operators
from onnxport_onnxruntime.graphs import aten, is_tensor, new_node, source, tensor_of

_NEAR = 1e-6
"""Constants of the approximation are written with so many digits at least."""


def fuse_fast_gelus(module: GraphModule) -> int:
    """Put ``fast_gelu`` for ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))``; the number of these."""
    return _put(module, operators.fast_gelu, _approximated_by_hand)


def fuse_approximated_gelus(module: GraphModule) -> int:
    """Put ``fast_gelu`` for ``gelu(x, approximate="tanh")``; the number of these."""
    return _put(module, operators.fast_gelu, _approximated)


def fuse_quick_gelus(module: GraphModule) -> int:
    """Put ``quick_gelu`` for ``x * sigmoid(alpha * x)``; the number of these."""
    return _put(module, operators.quick_gelu, _gated)


def _put(module: GraphModule, target: Any, find: Callable[[Node], tuple[Any, ...] | None]) -> int:
    """Put an operator with the arguments that are found for a node."""
    count = 0
    for node in list(module.graph.nodes):
        found = find(node) if is_tensor(node) and tensor_of(node).dtype is torch.float32 else None
        if found is not None:
            node.replace_all_uses_with(new_node(node, target, found, None, tensor_of(node)))
            count += 1
    if count:
        module.graph.eliminate_dead_code()
    return count


def _approximated(node: Node) -> tuple[Node] | None:
    is_it = node.target is aten.gelu.default and node.kwargs.get("approximate") == "tanh"
    return (node.args[0],) if is_it else None  # type: ignore[return-value]


def _approximated_by_hand(node: Node) -> tuple[Node] | None:
    """``x`` of its GELU, if a node computes that by tanh."""
    factors = _terms(node, aten.mul.Tensor)
    for half, rest in ((factors[0], factors[1]), (factors[1], factors[0])) if factors else ():
        x = _other_than(half, aten.mul.Tensor, 0.5)
        curve = _other_than(rest, aten.add.Tensor, 1.0)
        if x is None or curve is None or curve.target is not aten.tanh.default:
            continue
        inner = _other_than(source(curve.args[0]), aten.mul.Tensor, math.sqrt(2 / math.pi))
        terms = _terms(inner, aten.add.Tensor)
        if terms is None or x not in terms:
            continue
        cube = _other_than(terms[1] if terms[0] is x else terms[0], aten.mul.Tensor, 0.044715)
        if (
            cube is not None
            and cube.target is aten.pow.Tensor_Scalar
            and cube.args[1] == 3
            and source(cube.args[0]) is x
        ):
            return (x,)
    return None


def _gated(node: Node) -> tuple[Node, float] | None:
    """``x`` and alpha of ``x * sigmoid(alpha * x)``."""
    if node.target is aten.silu.default:
        return node.args[0], 1.0  # type: ignore[return-value]
    factors = _terms(node, aten.mul.Tensor)
    for x, gate in ((factors[0], factors[1]), (factors[1], factors[0])) if factors else ():
        if gate.target is not aten.sigmoid.default:
            continue
        inner = source(gate.args[0])
        if inner is x:
            return x, 1.0
        if inner.target is aten.mul.Tensor and isinstance(inner.args[1], float) and source(inner.args[0]) is x:
            return x, inner.args[1]
    return None


def _terms(node: Any, target: Any) -> tuple[Node, Node] | None:
    """Both operands, where these are tensors of one shape."""
    if not is_tensor(node) or node.target is not target or node.kwargs or not all(map(is_tensor, node.args)):
        return None
    left, right = (source(each) for each in node.args)
    return (left, right) if tensor_of(left).dim() == tensor_of(right).dim() == tensor_of(node).dim() else None


def _other_than(node: Any, target: Any, number: float) -> Node | None:
    """The tensor that a number is added to or multiplied with."""
    if not is_tensor(node) or node.target is not target or node.kwargs or len(node.args) != 2:
        return None
    value, given = node.args
    is_it = isinstance(given, (int, float)) and math.isclose(given, number, rel_tol=_NEAR)
    return source(value) if is_it and is_tensor(value) else None
