"""``flex_attention``: its score and mask functions written for all places at once, as broadcast arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from onnxport import Tensor, translation
from torch._higher_order_ops.flat_apply import flat_apply
from torch._higher_order_ops.flex_attention import math_attention
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from onnxport import Builder
    from torch.fx import GraphModule, Node

aten = torch.ops.aten

# Elementwise operators none of whose overloads torch tags so.
_ELEMENTWISE = frozenset({"__and__", "__or__", "floor_divide", "multiply", "subtract", "divide", "type_as"})
_COMPARISONS = frozenset({"greater_equal", "greater", "less_equal", "less", "not_equal"})
# Those that are elementwise on tensors without axes.
_COPIES = frozenset({"to", "_to_copy", "clone", "detach", "alias", "lift_fresh_copy"})
_FILLS = frozenset({"new_ones", "new_zeros", "new_full", "ones_like", "zeros_like", "full_like"})


@translation("higher_order::flex_attention")
def flex_attention(op: Builder, query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> Any:
    """(output, log-sum-exp, maximal scores), the latter two divided by log(2), as torch's operator gives them.

    Traced with the node's fake tensors, so that sizes stay symbolic.
    """
    node: Any = op.node
    owner = node.graph.owning_module
    given = list(torch.fx.map_arg((node.args, node.kwargs), lambda n: _described(owner, n)))
    flat, spec = pytree.tree_flatten(given)
    values, _ = pytree.tree_flatten([(query, key, value, *others), named])
    places = [i for i, leaf in enumerate(flat) if isinstance(leaf, (torch.Tensor, torch.SymInt))]

    def dense(*leaves: Any) -> Any:
        filled = list(flat)
        for place, leaf in zip(places, leaves):
            filled[place] = leaf
        args, kwargs = pytree.tree_unflatten(filled, spec)
        return (_broadcast_attention if is_elementwise else math_attention)(*args, **kwargs)

    score_mod, block_mask, *_ = given[0][3:]
    is_elementwise = _is_elementwise(score_mod, 5) and _is_elementwise(block_mask[-1], 4)
    with flat[places[0]].fake_mode, torch.no_grad():
        trace = make_fx(dense, pre_dispatch=is_elementwise, _allow_non_fake_inputs=True)
        graph = trace(*(flat[i] for i in places))
    used = {user.args[1] for user in node.users if len(user.args) > 1}
    returned = graph.graph.output_node()
    returned.args = (tuple(r if i in used else None for i, r in enumerate(returned.args[0])),)
    graph.graph.eliminate_dead_code()
    for name, constant in list(vars(graph).items()) + list(graph.named_buffers()):
        if isinstance(constant, FakeTensor) and constant.constant is not None:
            setattr(graph, name, constant.constant)
    return op.inline(graph, *(values[i] for i in places))


def _described(owner: Any, node: Node) -> Any:
    """What stands for an FX argument while tracing: its fake tensor, or the graph module that it names."""
    fake = node.meta.get("val")
    return getattr(owner, str(node.target)) if fake is None and node.op == "get_attr" else fake


def _broadcast_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: GraphModule,
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_mod_other_buffers: Sequence[Any] = (),
    mask_mod_other_buffers: Sequence[Any] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As torch's own dense formula, which applies ``torch.vmap`` four times to each of the functions.

    Here they are called once, with places of shapes (B, 1, 1, 1), (H, 1, 1), (Q, 1) and (K,): right for functions whose
    operators are elementwise or look numbers up in a table.
    """
    mask_mod = block_mask[-1]
    repeats = query.size(1) // key.size(1)
    if repeats != 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    working = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = (query.to(working) @ key.to(working).transpose(-2, -1)) * scale
    places = [torch.arange(n, device=query.device).reshape(-1, *[1] * i) for n, i in zip(scores.shape, (3, 2, 1, 0))]
    changed = scores
    if not _returns_first(score_mod):
        changed = _call(score_mod, scores, *places, *score_mod_other_buffers).to(working)
        if not _reaches_output(score_mod):
            changed = changed.expand(scores.shape)
    is_masked = not _is_constant(mask_mod)
    if is_masked:
        changed = torch.where(_call(mask_mod, *places, *mask_mod_other_buffers), changed, -math.inf)
    softmax = torch.softmax if changed is scores else torch._safe_softmax
    weights: Any = softmax(changed, -1)
    largest = changed.amax(-1)
    sums = torch.where(largest == -math.inf, -math.inf, changed.logsumexp(-1))
    log_2 = math.log(2)
    return weights.to(query.dtype) @ value.to(query.dtype), sums / log_2, largest / log_2


class _AtAllPlaces(torch.fx.Interpreter):
    """Runs a function of numbers on tensors; an index into a table is the operator that torch wrapped for ``vmap``."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is flat_apply:
            indices = list(args[4:])
            if any(index.dim() for index in indices):
                # torch 2.14 leaves indices without axes out when it computes the shape
                indices = [index if index.dim() else index.reshape(1) for index in indices]
            return aten.index.Tensor(args[3], indices) if indices else args[3]
        return super().call_function(target, args, kwargs)


def _call(function: GraphModule, *args: Any) -> torch.Tensor:
    result = _AtAllPlaces(function).run(*args)
    return result if isinstance(result, torch.Tensor) else result[0]


def _result(graph: GraphModule) -> Any:
    returned: Any = graph.graph.output_node().args[0]
    return returned if isinstance(returned, torch.fx.Node) else returned[0]


def _placeholders(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _returns_first(graph: GraphModule) -> bool:
    return _result(graph) is _placeholders(graph)[0]


def _is_constant(mask_mod: GraphModule) -> bool:
    """Whether a mask lets everything be seen, as the one of a call without a mask does."""
    target = getattr(_result(mask_mod), "target", None)
    return target is aten.new_ones.default


def _reached(graph: GraphModule, starts: Sequence[Node]) -> set[Node]:
    """The nodes that depend on these placeholders."""
    found = set(starts)
    for node in graph.graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _reaches_output(score_mod: GraphModule) -> bool:
    return _result(score_mod) in _reached(score_mod, _placeholders(score_mod)[:1])


def _is_elementwise(graph: Any, count: int) -> bool:
    """Whether a function of ``count`` numbers and of tables gives the same for tensors of numbers that broadcast."""
    if not isinstance(graph, torch.fx.GraphModule):
        return False
    dependent = _reached(graph, _placeholders(graph)[:count])
    for node in graph.graph.nodes:
        if node.op != "call_function" or node not in dependent:
            continue
        table = node.args[3] if _is_index(node) else None
        fake = node.meta.get("val")
        if not isinstance(fake, torch.Tensor) or fake.dim() or table in dependent:
            return False
        if table is None and not (isinstance(node.target, torch._ops.OpOverload) and _acts_elementwise(node.target)):
            return False
    return True


def _is_index(node: Node) -> bool:
    """Whether torch wrapped an index into a table: flat_apply(function, specification, name, table, *indices)."""
    return node.target is flat_apply and len(node.args) > 3 and str(node.args[2]).endswith(".ModIndex")


def _acts_elementwise(target: torch._ops.OpOverload) -> bool:
    if torch.Tag.nondeterministic_seeded in target.tags:
        return False
    packet = target.overloadpacket
    tagged = any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    return tagged or (target.namespace == "aten" and packet.__name__ in _ELEMENTWISE | _COMPARISONS | _COPIES | _FILLS)
