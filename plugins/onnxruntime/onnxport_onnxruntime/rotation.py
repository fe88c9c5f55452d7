"""Finds rotary position embeddings: ``x * cos + rotate_half(x) * sin``, and whether both halves of the angles agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from onnxport_onnxruntime.graphs import aten, dims, is_tensor, new_node, source, tensor_of

_ELEMENTWISE = frozenset({aten.cos.default, aten.sin.default, aten.neg.default, aten.to.dtype, aten.to.dtype_layout})


@dataclass(frozen=True)
class Rotation:
    """A rotation of heads (B, H, S, D) by angles whose two halves are equal.

    Attributes:
        x: the heads before it.
        cos, sin: (1 or B, 1, S, D), or with fewer leading axes.
    """

    x: Node
    cos: Node
    sin: Node


def rotation_of(node: Node) -> Rotation | None:
    """The rotation that a node ends, if it does."""
    if node.target is not aten.add.Tensor or node.kwargs or len(node.args) != 2 or not is_tensor(node):
        return None
    for straight, turned in (node.args, reversed(node.args)):
        found = _rotation(straight, turned)
        if found is not None:
            return found
    return None


def _rotation(straight: Any, turned: Any) -> Rotation | None:
    if not all(
        is_tensor(x) and x.target is aten.mul.Tensor and all(map(is_tensor, x.args)) for x in (straight, turned)
    ):
        return None
    for halves, sin in (turned.args, reversed(turned.args)):
        x = _rotated_half(source(halves))
        if x is None or x not in straight.args:
            continue
        cos = straight.args[1] if straight.args[0] is x else straight.args[0]
        if cos is not x and all(_has_equal_halves(angle) and _is_of(angle, x) for angle in (cos, sin)):
            return Rotation(x, cos, sin)
    return None


def _rotated_half(node: Node) -> Node | None:
    """``x`` of ``cat([-x[..., D / 2:], x[..., : D / 2]], -1)``."""
    if node.target is not aten.cat.default or not is_tensor(node) or len(node.args[0]) != 2:  # type: ignore[arg-type]
        return None
    rank, width = tensor_of(node).dim(), tensor_of(node).shape[-1]
    if len(node.args) < 2 or node.args[1] % rank != rank - 1 or type(width) is not int or width % 2:  # type: ignore[operator]
        return None
    second, first = node.args[0]  # type: ignore[misc]
    if second.target is not aten.neg.default:
        return None
    x = _half(first, 0, width)
    return x if x is not None and x is _half(second.args[0], width // 2, width) else None


def _half(node: Any, start: int, width: int) -> Node | None:
    """``x`` of ``x[..., start : start + width / 2]``, where x is that wide."""
    if not is_tensor(node) or node.target is not aten.slice.Tensor:
        return None
    x, axis, begin, end, step = (*node.args, *(None, 0, None, None, 1)[len(node.args) :])
    rank = tensor_of(x).dim()
    if axis % rank != rank - 1 or tensor_of(x).shape[-1] != width or step != 1 or (begin or 0) != start:
        return None
    return x if end is not None and min(end, width) == start + width // 2 else None  # type: ignore[type-var]


def _has_equal_halves(node: Any) -> bool:
    """The last axis holds the same numbers twice."""
    while is_tensor(node):
        inner = source(node)
        if inner is not node:
            node = inner
        elif node.target is aten.cat.default:
            parts, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
            return (
                len(parts) == 2 and parts[0] is parts[1] and axis % tensor_of(node).dim() == tensor_of(node).dim() - 1
            )
        elif node.target in (aten.unsqueeze.default, aten.squeeze.dim):
            if node.args[1] % max(tensor_of(node).dim(), tensor_of(node.args[0]).dim()) == tensor_of(node).dim() - 1:
                return False
            node = node.args[0]
        elif node.target in _ELEMENTWISE or (node.target is aten.mul.Tensor and isinstance(node.args[1], (int, float))):
            node = node.args[0]
        else:
            return False
    return False


def _is_of(angle: Node, x: Node) -> bool:
    """The angles are those of (B, H, S, D), the same for all heads, in its type."""
    sizes, own = dims(angle), dims(x)
    if len(own) != 4 or len(sizes) > 4 or len(sizes) < 2 or tensor_of(angle).dtype != tensor_of(x).dtype:
        return False
    batch, heads, *rest = [1] * (4 - len(sizes)) + sizes
    return rest == own[2:] and heads == 1 and batch in (1, own[0])


def half_angles(angle: Node, anchor: Node) -> Node:
    """(1 or B, S, D / 2) of the angles."""
    width = tensor_of(angle).shape[-1]
    if angle.target is aten.unsqueeze.default and tensor_of(angle).dim() == 4 and angle.args[1] in (1, -3):
        angle = angle.args[0]  # type: ignore[assignment]
    elif tensor_of(angle).dim() == 4:
        angle = new_node(anchor, aten.squeeze.dim, (angle, 1))
    elif tensor_of(angle).dim() == 2:
        angle = new_node(anchor, aten.unsqueeze.default, (angle, 0))
    return new_node(anchor, aten.slice.Tensor, (angle, 2, 0, width // 2))
