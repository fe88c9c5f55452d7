"""The FX side of a comparison: the functional graph of an exported program, run node by node with its own weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import Graph, GraphModule, Interpreter, Node, map_arg
from torch.utils import _pytree as pytree

from onnxport import runtime
from onnxport.errors import InputError
from onnxport.weights import has_data


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
        value = super().run_node(n)
        if self._probe and n.op == "call_function":
            tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
            if tensors:
                self.bytes[n.name] = sum(tensor.nbytes for tensor in tensors)
            if _may_draw(n) and _differ(tensors, super().run_node(n)):
                self.random.add(n.name)
        forced = self._forced.get(n.name)
        if forced and isinstance(value, torch.Tensor):
            value = forced[None].to(value.device)
        elif forced:
            value = [forced[i].to(item.device) if i in forced else item for i, item in enumerate(value)]
        if n.name in self._keep:
            self.kept[n.name] = value
        return value


def _may_draw(node: Node) -> bool:
    """The operator draws random numbers, or gives memory as it is; with some arguments, mostly."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in target.tags or "empty" in target._schema.name


def _differ(tensors: Sequence[torch.Tensor], again: Any) -> bool:
    others = [leaf for leaf in pytree.tree_leaves(again) if isinstance(leaf, torch.Tensor)]
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(tensors, others))


def placeholder_values(exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What each placeholder of the graph stands for."""
    leaves = iter(runtime.flatten_arguments(exported, args, kwargs))
    values: dict[str, Any] = {}
    for spec in exported.graph_signature.input_specs:
        values[spec.arg.name] = next(leaves) if spec.kind is InputKind.USER_INPUT else _weight(exported, spec)
    empty = [name for name, v in values.items() if isinstance(v, torch.Tensor) and not has_data(v)]
    if empty:
        raise InputError(
            f"The exported program has no data for {', '.join(empty[:5])}{', ...' if empty[5:] else ''}: export the "
            "model with its weights, and pass that ExportedProgram as `exported_program`."
        )
    return values


def _weight(exported: ExportedProgram, spec: InputSpec) -> Any:
    value = exported.state_dict.get(spec.target or "", exported.constants.get(spec.target or ""))
    return value.detach() if isinstance(value, torch.Tensor) else value


def one_node(owner: GraphModule, node: Node, values: Mapping[Node, Any]) -> tuple[GraphModule, tuple[Any, ...]]:
    """A module that calls one node's operator, and its arguments; numbers are baked in."""
    graph = Graph()
    env: dict[Node, Any] = {}
    arguments = []
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            env[source] = graph.get_attr(str(source.target))
        elif isinstance(values[source], torch.Tensor):
            env[source] = graph.placeholder(source.name)
            arguments.append(values[source])
        else:
            env[source] = values[source]
    args, kwargs = map_arg((node.args, node.kwargs), env.__getitem__)
    graph.output(graph.create_node("call_function", node.target, args, kwargs))
    return GraphModule(owner, graph), tuple(arguments)
