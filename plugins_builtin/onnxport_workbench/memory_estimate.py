"""How much memory the values of a captured program take. Nothing is run: the shapes of its graph tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a model, in bytes, at the sizes of the example.

    Attributes:
        weights: of parameters, buffers and constants. Tied ones count once.
        values: the most that inputs, outputs and what is between them take at a time, if each value but the inputs goes
            when its last user has run. Views take nothing.
        outputs: of what the model returns.
    """

    weights: int = 0
    values: int = 0
    outputs: int = 0

    def as_dict(self) -> dict[str, int]:
        """The numbers as JSON takes them."""
        return asdict(self)


def memory_of(program: ExportedProgram) -> MemoryEstimate:
    """The memory that a captured program's weights and values take.

    Weights may be fake or on the meta device.
    """
    tensors = [*program.state_dict.values(), *program.constants.values()]
    weights = {id(tensor): tensor for tensor in tensors if isinstance(tensor, torch.Tensor)}
    outputs = set(program.graph.output_node().all_input_nodes)
    return MemoryEstimate(
        sum(_bytes(tensor) for tensor in _storages(weights.values())),
        _most_at_a_time(program),
        sum(map(_bytes_of, outputs)),
    )


def _storages(tensors: Any) -> list[torch.Tensor]:
    """A tensor for each memory: where several share one, the largest."""
    found: dict[Any, torch.Tensor] = {}
    for tensor in tensors:
        try:
            place: Any = tensor.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):  # sparse tensors, and subclasses without memory of their own
            place = id(tensor)
        if place not in found or _bytes(found[place]) < _bytes(tensor):
            found[place] = tensor
    return list(found.values())


def _most_at_a_time(program: ExportedProgram) -> int:
    graph: Graph = program.graph
    weights = {*program.graph_signature.inputs_to_parameters, *program.graph_signature.inputs_to_buffers}
    weights |= {*program.graph_signature.inputs_to_lifted_tensor_constants}
    owners: dict[Node, Node] = {}  # of the memory that a node's result lies in
    last: dict[Node, int] = {}
    order = list(graph.nodes)
    for place, node in enumerate(order):
        owners[node] = owners[node.all_input_nodes[0]] if _is_view(node) else node
        for source in (node, *node.all_input_nodes):
            last[owners[source]] = place
    ending: dict[int, list[Node]] = {}
    for node, place in last.items():
        if node.op == "placeholder":
            continue  # whoever called holds it
        ending.setdefault(place, []).append(node)
    held = most = 0
    for place, node in enumerate(order):
        if owners[node] is node and node.name not in weights:
            held += _bytes_of(node)
        most = max(most, held)
        held -= sum(_bytes_of(each) for each in ending.get(place, ()))
    return most


def _is_view(node: Node) -> bool:
    """Whether a node's result lies in the memory of its first argument."""
    if getattr(node.target, "__name__", "") == "getitem" and node.all_input_nodes:
        return True  # one of several results
    returns = node.target._schema.returns if isinstance(node.target, torch._ops.OpOverload) else ()
    return bool(node.all_input_nodes) and any(each.alias_info is not None for each in returns)


def _bytes_of(node: Node) -> int:
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return sum(_bytes(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)) if node.op != "output" else 0


def _bytes(tensor: torch.Tensor) -> int:
    count = tensor.element_size()
    for size in tensor.shape:
        count *= size if isinstance(size, int) else (size.node.hint if size.node.has_hint() else 1)
    return int(count)


__all__ = ["MemoryEstimate", "memory_of"]
