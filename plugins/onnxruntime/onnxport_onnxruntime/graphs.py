"""Steps over FX graphs that the passes share: what is the same, what is a repetition, new nodes with their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

aten = torch.ops.aten

RESHAPES = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
    }
)
_COPIES = RESHAPES | {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.expand.default,
    aten.lift_fresh_copy.default,
    aten.slice.Tensor,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
}
"""What gives its input, where shape and type stay as they are."""


def tensor_of(node: Any) -> torch.Tensor:
    """The fake result of a node that gives one tensor."""
    return node.meta["val"]  # type: ignore[no-any-return]


def is_tensor(node: Any) -> bool:
    """It is a node that gives one tensor."""
    return isinstance(node, Node) and isinstance(node.meta.get("val"), torch.Tensor)


def dims(node: Node) -> list[sympy.Expr]:
    """The shape of a node's result, as expressions that can be compared."""
    return [size_of(size) for size in tensor_of(node).shape]


def size_of(size: Any) -> sympy.Expr:
    """A size as an expression."""
    return sympy.expand(size.node.expr) if isinstance(size, torch.SymInt) else sympy.Integer(int(size))


def source(node: Any) -> Any:
    """What a node copies, however often: the same elements in the same shape and type."""
    while isinstance(node, Node) and node.op == "call_function" and node.args and is_tensor(node.args[0]):
        inner = node.args[0]
        is_same = node.target in _COPIES and is_tensor(node) and tensor_of(node).dtype == tensor_of(inner).dtype
        if not is_same or dims(node) != dims(inner):
            return node
        if (node.target is aten.dropout.default and node.args[2]) or (
            node.target is aten.slice.Tensor and node.args[4:]
        ):
            return node
        node = inner
    return node


def is_swap(node: Any, first: int, second: int, rank: int = 4) -> bool:
    """It exchanges two axes."""
    if not is_tensor(node) or tensor_of(node).dim() != rank:
        return False
    if node.target is aten.transpose.int:
        return {axis % rank for axis in node.args[1:3]} == {first, second}
    if node.target is aten.permute.default:
        order = list(range(rank))
        order[first], order[second] = second, first
        return [axis % rank for axis in node.args[1]] == order
    return False


def new_node(
    anchor: Node, target: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None, value: Any = None
) -> Node:
    """A node before ``anchor``, with its provenance.

    Args:
        value: its fake result; computed where it is left out.
    """
    graph = anchor.graph
    with graph.inserting_before(anchor):
        node = graph.call_function(target, tuple(args), kwargs or {})
    node.meta = {
        key: kept for key, kept in anchor.meta.items() if key in ("stack_trace", "nn_module_stack", "source_fn_stack")
    }
    if value is None:
        fakes = torch.fx.map_arg((node.args, node.kwargs), lambda each: each.meta["val"])
        mode = next(
            each.meta["val"].fake_mode for each in node.all_input_nodes if hasattr(each.meta["val"], "fake_mode")
        )
        with mode:
            value = target(*fakes[0], **fakes[1])
    node.meta["val"] = value
    return node


def replaced_behind(node: Node, by: Node, anchor: Node) -> None:
    """Let those who use a node behind ``anchor`` use another one: that isn't there before."""
    node.replace_all_uses_with(by, delete_user_cb=lambda user: anchor < user and user is not by)


def parts_of_concatenation(node: Node, axis: int) -> list[Node]:
    """What a node puts one behind the other along an axis, empty tensors left out; the node itself if it doesn't."""
    node = source(node)
    if node.target is not aten.cat.default or not is_tensor(node):
        return [node]
    rank = tensor_of(node).dim()
    if (node.args[1] if len(node.args) > 1 else 0) % rank != axis:  # type: ignore[operator]
        return [node]
    parts = [part for part in node.args[0] if 0 not in tensor_of(part).shape]  # type: ignore[union-attr]
    return [inner for part in parts for inner in parts_of_concatenation(part, axis)]


def unrepeated(node: Node) -> tuple[Node, int]:
    """Heads (B, H, T, D) before each was repeated, and how often: ``x[:, :, None].expand(...).reshape(...)``."""
    node = source(node)
    if node.target is aten.repeat_interleave.self_int:
        repeats, axis = node.args[1], node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else None)
        if isinstance(repeats, int) and axis in (1, -3):
            return node.args[0], repeats  # type: ignore[return-value]
    if node.target not in RESHAPES or not is_tensor(node.args[0]) or tensor_of(node).dim() != 4:
        return node, 1
    spread = source(node.args[0])
    inner = source(spread.args[0]) if spread.target is aten.expand.default else None
    if inner is None or inner.target is not aten.unsqueeze.default or inner.args[1] not in (2, -3):
        return node, 1
    batch, heads, repeats, length, width = dims(spread)
    before = inner.args[0]
    if dims(before) != [batch, heads, length, width] or dims(node) != [batch, heads * repeats, length, width]:
        return node, 1
    return (before, int(repeats)) if repeats.is_Integer else (node, 1)
