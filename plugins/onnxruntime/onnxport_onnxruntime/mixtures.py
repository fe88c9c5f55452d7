"""Finds mixtures of experts: a router, and products of the tokens that each expert is chosen for.

::

    x ─ linear ─ softmax ─ topk ─ weights / sum ───────────────────────────────────────────┐
                             └─ ids ─ sort ─┬─ offsets ────┬─────────────────────┐         │
    x ─ rows in the order of the experts ───┴─ product 1 ──┴─ gate * up ─ product 2 ─ times weights ─ sum over k

becomes ``linear ─ mixture``. Graphs of transformers have this form, whose products take the tokens sorted by expert.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from onnxport_onnxruntime import operators
from onnxport_onnxruntime.graphs import RESHAPES, aten, dims, is_tensor, new_node, source, tensor_of

_GROUPED = frozenset({"transformers::grouped_mm_fallback", "aten::_grouped_mm"})
_END = 2**63 - 1


@dataclass(frozen=True)
class _Routing:
    """Who chooses the experts.

    Attributes:
        logits: (T, E), what the choice is made of.
        weights: (T, k), of the chosen ones.
        ids: (T, k).
        count: k.
        is_normalized: the weights of a token add up to 1.
    """

    logits: Node
    weights: Node
    ids: Node
    count: int
    is_normalized: bool


@dataclass(frozen=True)
class _Product:
    """Rows, sorted by expert, times the matrix of each expert.

    Attributes:
        rows: (T * k, K).
        stack: (E, K, N), or (E, N, K) where it is turned.
        bias: (E, N), if there is one.
        offsets: behind the rows of each expert.
    """

    rows: Node
    stack: Node
    is_turned: bool
    bias: Node | None
    offsets: Node


@dataclass(frozen=True)
class _Gate:
    """``min(gate, limit) * sigmoid(alpha * gate) * (clip(up, -limit, limit) + beta)``, of the halves of a product."""

    product: Node
    is_interleaved: bool
    alpha: float
    beta: float
    limit: float | None


def fuse(module: GraphModule) -> int:
    """Put ``mixture`` for mixtures of experts; the number of these."""
    count = 0
    for node in list(module.graph.nodes):
        if node.target is aten.sum.dim_IntList and is_tensor(node) and tensor_of(node).dtype is torch.float32:
            count += _fused(node)
    if count:
        module.graph.eliminate_dead_code()
    return count


def _fused(node: Node) -> bool:
    """Put the operator for the sum over the experts of each token."""
    apart = source(node.args[0])
    if list(node.args[1]) != [1] or len(node.args) > 2 or node.kwargs or not _is(apart, RESHAPES):  # type: ignore[arg-type]
        return False
    weighted, order = _scattered(source(apart.args[0]))
    down = None if weighted is None else _product(weighted, order)
    gate = None if down is None else _gate(down.rows)
    up = None if gate is None else _product(gate.product, order)
    if down is None or gate is None or up is None or up.offsets is not down.offsets:
        return False
    routing = _routing(order)
    x = None if routing is None else _chosen(up.rows, order, routing.count)
    weight = _weight_of(weighted, order)
    if routing is None or x is None or weight is not routing.weights or not _fits(node, apart, x, routing, up, down):
        return False
    if not _are_offsets(up.offsets, order, tensor_of(routing.logits).shape[1]):
        return False
    args = (x, routing.logits, up.stack, up.bias, down.stack, down.bias)
    kwargs = {
        "count": routing.count,
        "is_normalized": routing.is_normalized,
        "is_turned": up.is_turned,
        "is_interleaved": gate.is_interleaved,
        "alpha": gate.alpha,
        "beta": gate.beta,
        "limit": gate.limit,
    }
    node.replace_all_uses_with(new_node(node, operators.mixture, args, kwargs, tensor_of(node)))
    return True


def _fits(node: Node, apart: Node, x: Node, routing: _Routing, up: _Product, down: _Product) -> bool:
    """The shapes and types are those of one mixture."""
    tokens, width = dims(node)
    if dims(x) != [tokens, width] or dims(apart) != [tokens, routing.count, width] or up.is_turned != down.is_turned:
        return False
    if (up.bias is None) != (down.bias is None):
        return False
    tensors = (x, routing.logits, up.stack, down.stack, *filter(None, (up.bias, down.bias)))
    if any(tensor_of(each).dtype is not torch.float32 for each in tensors) or dims(routing.logits)[0] != tokens:
        return False
    experts = dims(routing.logits)[1]
    inner = dims(down.stack)[2 if down.is_turned else 1]
    wide, narrow = [experts, 2 * inner, width], [experts, width, inner]
    if not up.is_turned:
        wide[1:], narrow[1:] = wide[:0:-1], narrow[:0:-1]
    biases = {up.bias: 2 * inner, down.bias: width}
    fit = all(bias is None or dims(bias) == [experts, size] for bias, size in biases.items())
    return (
        fit
        and dims(up.stack) == wide
        and dims(down.stack) == narrow
        and all(type(size) is int for size in tensor_of(up.stack).shape)
    )


def _is(node: Any, targets: Any) -> bool:
    return isinstance(node, Node) and (
        node.target in targets if isinstance(targets, frozenset) else node.target is targets
    )


def _indexed(node: Any) -> tuple[Node, Node] | None:
    """Values, and the indices of the rows that are taken of them."""
    if not _is(node, aten.index.Tensor) or len(node.args[1]) != 1:
        return None
    return source(node.args[0]), source(node.args[1][0])


def _scattered(node: Node) -> tuple[Node | None, Any]:
    """What stands sorted by expert before it is brought back, and the order that it was sorted in."""
    found = _indexed(node)
    if found is None:
        return None, None
    rows, inverse = found
    if not _is(inverse, aten.index_put.default) or len(inverse.args) > 3 or len(inverse.args[1]) != 1:  # type: ignore[arg-type]
        return None, None
    order, numbers = source(inverse.args[1][0]), source(inverse.args[2])  # type: ignore[index]
    if not _is(numbers, aten.arange.default) or dims(numbers) != dims(order):
        return None, None
    return rows, order


def _weight_of(weighted: Node | None, order: Node) -> Node | None:
    """The weights (T, k) that a row is multiplied with."""
    for _, factor in _factors(weighted):
        found = _row_weight(factor, order)
        if found is not None:
            return found
    return None


def _row_weight(factor: Node, order: Node) -> Node | None:
    if not _is(factor, aten.unsqueeze.default) or factor.args[1] not in (1, -1):
        return None
    found = _indexed(source(factor.args[0]))
    if found is None or found[1] is not order or not _is(found[0], RESHAPES) or len(dims(found[0])) != 1:
        return None
    return source(found[0].args[0])  # type: ignore[no-any-return]


def _factors(node: Node | None) -> list[tuple[Node, Node]]:
    if not _is(node, aten.mul.Tensor) or not all(map(is_tensor, node.args)):  # type: ignore[union-attr]
        return []
    left, right = (source(each) for each in node.args)  # type: ignore[union-attr]
    return [(left, right), (right, left)]


def _product(node: Node, order: Node) -> _Product | None:
    """The grouped product that a node is, or that a bias or the weights of tokens were put on."""
    for inner, factor in _factors(node):
        if _row_weight(factor, order) is not None:
            return _product(inner, order)
    bias = None
    if _is(node, aten.add.Tensor) and not node.kwargs and all(map(is_tensor, node.args)):
        for inner, added in (node.args, reversed(node.args)):
            found = _indexed(source(added))
            if found is not None and _ids_in_order(found[1]) is order:
                bias, node = found[0], source(inner)
                break
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.name not in _GROUPED:
        return None
    given = {**dict(zip(("rows", "stack", "offs"), node.args)), **node.kwargs}
    if set(given) != {"rows", "stack", "offs"} or not is_tensor(given["offs"]):
        return None
    stack, is_turned = source(given["stack"]), False
    if _is(stack, aten.transpose.int) and {axis % 3 for axis in stack.args[1:3]} == {1, 2}:
        stack, is_turned = source(stack.args[0]), True
    if tensor_of(stack).dim() != 3:
        return None
    return _Product(source(given["rows"]), stack, is_turned, bias, source(given["offs"]))


def _ids_in_order(node: Node) -> Node | None:
    """The order in which ids were sorted, if a node is them, sorted."""
    return _result_of_sort(node, 0)


def _result_of_sort(node: Any, index: int) -> Any:
    """The second result of a sort whose result with an index a node is."""
    if not _is(node, operator.getitem) or node.args[1] != index or not _is(node.args[0], aten.sort.default):
        return None
    return next((user for user in node.args[0].users if _is(user, operator.getitem) and user.args[1] == 1), None)


def _chosen(rows: Node, order: Node, count: int) -> Node | None:
    """The tokens, of rows that are theirs in the order of the experts."""
    found = _indexed(rows)
    if found is None or not _is(found[1], aten.floor_divide.default):
        return None
    places, divisor = found[1].args
    return found[0] if source(places) is order and divisor == count else None


def _routing(order: Any) -> _Routing | None:
    """The router whose choice was sorted."""
    if _result_of_sort(order, 1) is not order:
        return None
    sort = order.args[0]
    flat = source(sort.args[0])
    if sort.kwargs or len(sort.args) != 1 or not _is(flat, RESHAPES) or len(dims(flat)) != 1:
        return None
    ids = source(flat.args[0])
    if not _is(ids, operator.getitem) or ids.args[1] != 1 or not _is(ids.args[0], aten.topk.default):
        return None
    topk = ids.args[0]
    values, count, axis, largest, *_ = (*topk.args, *(None, None, -1, True)[len(topk.args) :])
    if topk.kwargs or tensor_of(values).dim() != 2 or axis % 2 != 1 or largest is not True or type(count) is not int:
        return None
    best = next((user for user in topk.users if _is(user, operator.getitem) and user.args[1] == 0), None)
    values = source(values)
    if best is None:
        return None
    for user in best.users:
        if _is_softmax(user):
            return None if _is_softmax(values) else _Routing(values, user, ids, count, True)
    if not _is_softmax(values):
        return None
    for user in best.users:
        if _is(user, aten.div.Tensor) and user.args[0] is best and not user.kwargs and _is_sum(user.args[1], best):
            return _Routing(source(values.args[0]), user, ids, count, True)
    return _Routing(source(values.args[0]), best, ids, count, False)


def _is_softmax(node: Any) -> bool:
    """A softmax over the last of two axes, in float32."""
    if not _is(node, aten.softmax.int) or not is_tensor(node) or tensor_of(node).dim() != 2:
        return False
    return bool(node.args[1] % 2 == 1 and tensor_of(node).dtype is torch.float32)


def _is_sum(node: Any, of: Node) -> bool:
    if not _is(node, aten.sum.dim_IntList) or source(node.args[0]) is not of or len(node.args) != 3 or node.kwargs:
        return False
    return [axis % 2 for axis in node.args[1]] == [1] and node.args[2] is True


def _are_offsets(node: Node, order: Node, experts: Any) -> bool:
    """They count the rows of each expert and of those before it."""
    if not _is(node, aten.cumsum.default) or node.args[1] != 0:
        return False
    counts = source(node.args[0])
    if not _is(counts, aten.histc.default) or counts.args[1:] != (experts, 0, experts - 1) or counts.kwargs:
        return False
    ids = source(counts.args[0])
    if _is(ids, frozenset({aten.to.dtype, aten.to.dtype_layout})):
        ids = source(ids.args[0])
    return _ids_in_order(ids) is order


def _gate(node: Node) -> _Gate | None:
    """The gated activation that a node ends."""
    for left, right in _factors(node):
        gate, alpha = _swish(left)
        up, beta = (right, 0.0) if gate is None else _shifted(right)
        if gate is None:
            continue
        gate, most = _clipped(gate, is_low_open=True)
        up, limit = _clipped(up, is_low_open=False)
        product, is_interleaved = _halves(gate, up)
        if product is not None and most == limit:
            return _Gate(product, is_interleaved, alpha, beta, limit)
    return None


def _swish(node: Node) -> tuple[Node | None, float]:
    """``x`` and alpha of ``x * sigmoid(alpha * x)``."""
    if _is(node, aten.silu.default):
        return source(node.args[0]), 1.0
    for x, gate in _factors(node):
        if not _is(gate, aten.sigmoid.default):
            continue
        inner = source(gate.args[0])
        if inner is x:
            return x, 1.0
        if _is(inner, aten.mul.Tensor) and isinstance(inner.args[1], (int, float)) and source(inner.args[0]) is x:
            return x, float(inner.args[1])
    return None, 0.0


def _shifted(node: Node) -> tuple[Node, float]:
    """A tensor and the number that is added to it."""
    if _is(node, aten.add.Tensor) and not node.kwargs and isinstance(node.args[1], (int, float)):
        return source(node.args[0]), float(node.args[1])
    return node, 0.0


def _clipped(node: Node, *, is_low_open: bool) -> tuple[Node, float | None]:
    """A tensor and the number that it is clipped at: above, or on both sides."""
    if not _is(node, aten.clamp.default) or node.kwargs:
        return node, None
    x, low, high = (*node.args, None, None)[:3]
    if not isinstance(high, (int, float)) or high <= 0 or low != (None if is_low_open else -high):
        return node, None
    return source(x), float(high)


def _halves(gate: Node, up: Node) -> tuple[Node | None, bool]:
    """The product whose last axis holds the columns of the gate and the others, and whether these take turns."""
    for node in (gate, up):
        if not is_tensor(node) or tensor_of(node).dim() != 2:
            return None, False
    pair = [_half(node) for node in (gate, up)]
    if None in pair or pair[0][0] is not pair[1][0]:  # type: ignore[index]
        return None, False
    kinds = [each[1:] for each in pair]  # type: ignore[index]
    if kinds == [(0, False), (1, False)]:
        return pair[0][0], False  # type: ignore[index]
    return (pair[0][0], True) if kinds == [(0, True), (1, True)] else (None, False)  # type: ignore[index]


def _half(node: Node) -> tuple[Node, int, bool] | None:
    """What a node is a half of, which one, and whether it has every second column."""
    if _is(node, operator.getitem) and _is(node.args[0], frozenset({aten.chunk.default, aten.split.Tensor})):
        parts = node.args[0]
        whole = source(parts.args[0])  # type: ignore[union-attr]
        axis = (*parts.args[2:], 0)[0]  # type: ignore[union-attr]
        is_half = axis % 2 == 1 and 2 * dims(node)[1] == dims(whole)[1]
        return (whole, int(node.args[1]), False) if is_half else None  # type: ignore[call-overload]
    if not _is(node, aten.slice.Tensor):
        return None
    whole, axis, start, end, step = (*node.args, *(None, 0, None, None, 1)[len(node.args) :])
    whole, start = source(whole), start or 0
    width = tensor_of(whole).shape[1]
    if axis % 2 != 1 or type(width) is not int or width % 2 or not isinstance(start, int):  # type: ignore[operator]
        return None
    end = width if end is None or (isinstance(end, int) and end >= width) else end
    if step == 2 and start in (0, 1) and end == width:
        return whole, start, True
    if step == 1 and (start, end) in ((0, width // 2), (width // 2, width)):
        return whole, int(start > 0), False
    return None
