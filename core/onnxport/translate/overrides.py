"""Nodes that a table or a third party translates: nothing may compute or inline them before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.fx import Node

from onnxport.errors import Unsupported

if TYPE_CHECKING:
    from onnxport.host.registry import Registry
    from onnxport.translate.expansion import Decomposer


class Overrides:
    """Tells these nodes by the registry.

    Args:
        registry: of the call.
        decomposer: expands nodes.
    """

    def __init__(self, registry: Registry, decomposer: Decomposer) -> None:
        self._registry = registry
        self._decomposer = decomposer
        self._exist = registry.has_overrides()

    def of(self, node: Node) -> bool:
        """A table or a third party translates the node, or a step of the decomposition that it is to be expanded by."""
        if not self._exist or node.op != "call_function":
            return False
        target: Any = node.target
        candidates = self._registry.candidates(target)
        if candidates or not hasattr(target, "overloadpacket"):
            return bool(candidates and candidates[0].tier)
        try:
            steps = self._decomposer.expand(node).graph_module.graph.nodes
        except Unsupported:  # then it is refused, unless it can be computed now
            return False
        return any(map(self.of, steps))
