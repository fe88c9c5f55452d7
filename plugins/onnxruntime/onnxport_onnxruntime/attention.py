"""Finds whole attentions in an FX graph: projections, rotation, cache, repeated heads and mask around one product.

::

    linear ─ view ─ transpose ─ rotation ──────────────────┐
    linear ─ view ─ transpose ─ rotation ─ cat ─ repeated ─┤
                                  past ────┘               ├─ scaled_dot_product_attention ─ transpose ─ reshape
    linear ─ view ─ transpose ─ cat ─ repeated ────────────┤
                       past ────┘        mask ─────────────┘

becomes ``linear ─ rotary_embedding ─ group_query_attention``, whose other two results are the new cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from onnxport_onnxruntime import masks, operators
from onnxport_onnxruntime.graphs import (
    RESHAPES,
    aten,
    dims,
    is_swap,
    is_tensor,
    new_node,
    parts_of_concatenation,
    replaced_behind,
    source,
    tensor_of,
    unrepeated,
)
from onnxport_onnxruntime.rotation import half_angles, rotation_of

LONG = 512
"""A sequence is long from so many places on."""


@dataclass(frozen=True)
class Attention:
    """What decides which kernel computes an attention.

    Attributes:
        dtype: of all its tensors.
        heads, kv_heads: the number of query heads, and of those of keys and values.
        width, value_width: of a head.
        mask: the type of the mask; None where there is none, or ``reach`` says all of it.
        reach: which keys each query reads.
        has_past: keys and values begin with those of a cache.
        is_step: there is one query.
        is_one: the batch has one entry.
        is_long: the number of queries and keys is fixed, and at least ``LONG``.
        is_self: the new keys are of the same number as the queries.
        scale: of the scores; None for one over the root of the width.
    """

    dtype: torch.dtype
    heads: int
    kv_heads: int
    width: int
    value_width: int
    mask: torch.dtype | None
    reach: masks.Reach
    has_past: bool
    is_step: bool
    is_one: bool
    is_long: bool
    is_self: bool
    scale: float | None


@dataclass(frozen=True)
class _Side:
    """Keys or values.

    Attributes:
        all: (B, heads, T, D), those of the past first.
        new: (B, heads, S, D), those that are computed now.
        past: (B, heads, P, D), if there is a cache.
        repeats: how many query heads read each head.
    """

    all: Node
    new: Node
    past: Node | None
    repeats: int


def fuse(module: GraphModule, kernel: Callable[[Attention], Any]) -> int:
    """Put one operator for each attention that a kernel computes; the number of these.

    Args:
        kernel: gives that operator, or None.
    """
    count = 0
    for node in list(module.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default:
            count += _fused(node, kernel)
    if count:
        module.graph.eliminate_dead_code()
    return count


def _side(node: Node) -> _Side:
    before, repeats = unrepeated(node)
    before = source(before)
    parts = parts_of_concatenation(before, 2)
    if len(parts) == 2 and all(tensor_of(part).dim() == 4 for part in parts):
        return _Side(before, parts[1], parts[0], repeats)
    return _Side(before, before, None, repeats)


def _bound(node: Node) -> dict[str, Any]:
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return {**defaults, **dict(zip((argument.name for argument in schema), node.args)), **node.kwargs}


def _fused(node: Node, kernel: Callable[[Attention], Any]) -> bool:
    given = _bound(node)
    if not all(is_tensor(given[name]) and tensor_of(given[name]).dim() == 4 for name in ("query", "key", "value")):
        return False
    query, mask = given["query"], given["attn_mask"]
    keys, values = _side(given["key"]), _side(given["value"])
    found = _attention(given, query, mask, keys, values)
    target = None if found is None else kernel(found)
    if found is None or target is None:
        return False
    inputs = [_projected(each, node) for each in (query, keys.new, values.new)]
    if None in inputs:
        return False
    if mask is not None and found.mask is None:
        mask = None
    args: list[Any] = [*inputs, mask, *((keys.past, values.past) if found.has_past else ())]
    kwargs = {"heads": found.heads, "kv_heads": found.kv_heads, "scale": found.scale}
    if found.reach.is_causal:
        kwargs["is_causal"] = True
    if found.reach.window is not None:
        kwargs["window"] = found.reach.window
    _replace(node, target, args, kwargs, keys, values)
    return True


def _attention(given: dict[str, Any], query: Node, mask: Node | None, keys: _Side, values: _Side) -> Attention | None:
    """What is to be computed, if it is a form that kernels have."""
    _, heads, queries, width = tensor_of(query).shape
    _, kv_heads, total, _ = tensor_of(keys.all).shape
    value_width = tensor_of(values.all).shape[3]
    if given["dropout_p"] or not all(type(size) is int and size for size in (heads, kv_heads, width, value_width)):
        return None
    # Keys and values are of the same number, whatever symbols they have: it is no attention otherwise.
    if dims(keys.all)[:2] != dims(values.all)[:2] or dims(query)[0] != dims(keys.all)[0]:
        return None
    if dims(keys.all)[3] != dims(query)[3] or keys.repeats != values.repeats:
        return None
    repeats = heads // kv_heads
    if repeats * kv_heads != heads or keys.repeats != (1 if given["enable_gqa"] else repeats):
        return None
    reach = masks.reach(mask, queries, total)
    if given["is_causal"]:
        if mask is not None or dims(query)[2] != dims(keys.all)[2]:  # torch's own mask begins at the top left
            return None
        reach = masks.Reach(is_causal=True, is_whole=True)
    if mask is not None and not reach.is_whole and not _is_broadcast(mask, [*dims(query)[:3], dims(keys.all)[2]]):
        return None
    has_past = keys.past is not None and values.past is not None
    if has_past and dims(keys.new)[2] != dims(values.new)[2]:
        return None
    new = dims(keys.new if has_past else keys.all)[2]
    return Attention(
        dtype=tensor_of(query).dtype,
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        value_width=value_width,
        mask=None if reach.is_whole or mask is None else tensor_of(mask).dtype,
        reach=reach,
        has_past=has_past,
        is_step=dims(query)[2] == 1,
        is_one=dims(query)[0] == 1,
        is_long=all(type(size) is int and size >= LONG for size in (queries, total)),
        is_self=dims(query)[2] == new,
        scale=given["scale"],
    )


def _is_broadcast(mask: Node, wanted: list[Any]) -> bool:
    """A mask of four axes, each of which is as long as it is wanted or one."""
    sizes = dims(mask)
    return len(sizes) == 4 and all(size in (1, want) for size, want in zip(sizes, wanted, strict=True))


def _projected(node: Node, anchor: Node) -> Node | None:
    """Heads (B, H, S, D) as they were before they were taken apart, (B, S, H * D); None where that takes a copy."""
    node = source(node)
    rotation = rotation_of(node)
    if rotation is not None:
        inner = _projected(rotation.x, anchor)
        if inner is None:
            return None
        cos, sin = (half_angles(angle, anchor) for angle in (rotation.cos, rotation.sin))
        heads = {"heads": tensor_of(node).shape[1]}
        return new_node(anchor, operators.rotary_embedding, (inner, cos, sin), heads)
    if not is_swap(node, 1, 2):
        return None
    apart = source(node.args[0])
    batch, length, heads, width = dims(apart)
    if apart.target in RESHAPES and is_tensor(apart.args[0]) and dims(apart.args[0]) == [batch, length, heads * width]:
        return apart.args[0]  # type: ignore[no-any-return]
    return new_node(anchor, aten.flatten.using_ints, (apart, 2, 3))  # heads are normalized, or the like


def _replace(node: Node, target: Any, args: list[Any], kwargs: dict[str, Any], keys: _Side, values: _Side) -> None:
    """Put the operator in the place of the product, and its results in that of the cache and of the joined heads."""
    heads, value_width = kwargs["heads"], tensor_of(node).shape[3]
    fake = tensor_of(node)
    with fake.fake_mode:  # type: ignore[attr-defined]
        joined = fake.transpose(1, 2).reshape(fake.shape[0], fake.shape[2], heads * value_width)
    results = (joined, tensor_of(keys.all), tensor_of(values.all))
    call = new_node(node, target, args, kwargs, results)
    output, *cache = (new_node(node, operator.getitem, (call, i), None, result) for i, result in enumerate(results))
    if len(args) > 4:
        for side, present in zip((keys, values), cache, strict=True):
            replaced_behind(side.all, present, node)
    apart = new_node(node, aten.unflatten.int, (output, 2, [heads, value_width]))
    back = new_node(node, aten.transpose.int, (apart, 1, 2), None, fake)
    node.replace_all_uses_with(back)
    for end in _joined_heads(back, dims(output)):
        end.replace_all_uses_with(output)


def _joined_heads(node: Node, wanted: list[Any]) -> list[Node]:
    """Where the heads are put side by side again."""
    found: list[Node] = []
    for user in list(node.users):
        if not is_tensor(user) or (user.args and user.args[0] is not node):
            continue
        if source(user) is source(node):
            found += _joined_heads(user, wanted)
        elif is_swap(user, 1, 2):
            for end in list(user.users):
                ends = [end, *end.users] if is_tensor(end) and source(end) is user else [end]
                found += [e for e in ends if e.target in RESHAPES and is_tensor(e) and dims(e) == wanted]
    return found
