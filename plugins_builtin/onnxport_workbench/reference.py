"""The FX side of a comparison: the functional graph of an exported program, run node by node with its own weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree


class Reference(Interpreter):
    """Runs the FX graph, keeping the values of some nodes.

    Args:
        module: the graph, without in-place operators.
        keep: names of the nodes whose values are wanted.
        forced: results, by index, that stand for a random node's own.
        probe: note the size of every value instead, and which nodes give other numbers each time.
    """

    def __init__(
        self,
        module: GraphModule,
        keep: Iterable[str] = (),
        forced: Mapping[str, Mapping[int | None, torch.Tensor]] | None = None,
        *,
        probe: bool = False,
    ) -> None:
        super().__init__(module)
        self._keep, self._forced, self._probe = set(keep), forced or {}, probe
        self.bytes: dict[str, int] = {}
        self.random: set[str] = set()
        self.kept: dict[str, Any] = {}

    def of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run on the values of the placeholders; the values kept, by name."""
        with torch.no_grad():
            self.run(*(inputs[node.name] for node in self.module.graph.nodes if node.op == "placeholder"))  # type: ignore[union-attr]
        return self.kept

    def run_node(self, n: Node) -> Any:
        if n.op == "call_function" and not n.users:  # an assertion, or nothing that anybody reads
            return None
        value = super().run_node(n)
        if self._probe and n.op == "call_function":
            tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
            if tensors:
                self.bytes[n.name] = sum(tensor.nbytes for tensor in tensors)
            if _is_symbolic(n) or (_may_draw(n, self.module) and _differ(tensors, super().run_node(n))):  # type: ignore[arg-type]
                self.random.add(n.name)
        self.computed(n, value)
        forced = self._forced.get(n.name)
        if forced and isinstance(value, torch.Tensor):
            value = forced[None].to(value.device)
        elif forced:
            value = [forced[i].to(item.device) if i in forced else item for i, item in enumerate(value)]
        if n.name in self._keep:
            self.kept[n.name] = value
        return value

    def computed(self, node: Node, value: Any) -> None:
        """Called with what a node gives, before its forced results take the place of that."""


def _may_draw(node: Node, owner: GraphModule) -> bool:
    """The operator, or one in its bodies, may draw random numbers, or give memory as it is."""
    target = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):
        bodies = [owner.get_submodule(str(arg.target)) for arg in node.all_input_nodes if arg.op == "get_attr"]
        graphs = [module for body in bodies for module in body.modules() if isinstance(module, GraphModule)]
        return any(_may_draw(inner, module) for module in graphs for inner in module.graph.nodes)
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in target.tags or "empty" in target._schema.name


def precisions(module: GraphModule) -> dict[Node, torch.dtype]:
    """For each node, the coarsest floating-point dtype in which something that it depends on was computed."""
    found: dict[Node, torch.dtype] = {}
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        leaves = [leaf.dtype for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]
        real = [dtype.to_real() if dtype.is_complex else dtype for dtype in leaves]
        dtypes = [dtype for dtype in real if dtype.is_floating_point]
        dtypes += [found[source] for source in node.all_input_nodes if source in found]
        if dtypes:
            found[node] = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
    return found


def _is_symbolic(node: Node) -> bool:
    """``torch.onnx.ops.symbolic``, which only names an ONNX operator: eager torch has no values for it."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "onnx_symbolic"


def _differ(tensors: Sequence[torch.Tensor], again: Any) -> bool:
    others = [leaf for leaf in pytree.tree_leaves(again) if isinstance(leaf, torch.Tensor)]
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(tensors, others))


_TIES = frozenset(
    f"aten::{name}" for name in ("sort", "argsort", "topk", "kthvalue", "max", "min", "median", "nanmedian", "mode")
)


def may_tie(node: Node) -> bool:
    """The operator gives indices of values, and may choose among equal ones."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.name in _TIES and not _value(node, "stable")


def same_choice(node: Node, source: torch.Tensor, expected: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether two different indices of a node's result choose equal values."""
    dim = _value(node, "dim")
    if found.dtype is not torch.int64 or found.shape != expected.shape or not isinstance(dim, int) or not source.dim():
        return False
    if found.dim() < source.dim():  # without keepdim
        expected, found = expected.unsqueeze(dim), found.unsqueeze(dim)
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) < source.shape[dim]:
        return False
    twice = found.sort(dim).values.diff(dim=dim).eq(0).any()
    values = source.gather(dim, expected), source.gather(dim, found.to(source.device))
    return not twice and torch.equal(*values)


def _value(node: Node, name: str) -> object:
    """An argument of an operator's call, or its default."""
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            given = node.args[i] if i < len(node.args) else argument.default_value
            return node.kwargs.get(name, given)
    return None
