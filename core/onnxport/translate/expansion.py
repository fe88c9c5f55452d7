"""One FX node as a small FX graph, which a decomposition gives; plugins make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch.fx

from onnxport.vocabulary.upstream import pytree


@dataclass(frozen=True)
class Expansion:
    """A decomposed node.

    Attributes:
        graph_module: takes the node's tensor and symbolic arguments in their flat order.
        positions: places of those among the flat arguments.
        single: the node's value is one tensor, not a list.
    """

    graph_module: torch.fx.GraphModule
    positions: tuple[int, ...]
    single: bool

    def select(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments that the graph takes, of the node's own."""
        flat = _flatten(args, kwargs)
        return [flat[i] for i in self.positions]

    def pack(self, values: list[Any]) -> Any:
        """Flat results in the form of the node's value."""
        return values[0] if self.single else values


def _flatten(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    flat, _ = pytree.tree_flatten((list(args), dict(kwargs)), is_leaf=lambda x: x is None)
    return flat


class Decomposer(Protocol):
    """Expands the nodes of one export."""

    def expand(self, node: torch.fx.Node) -> Expansion:
        """The node as a graph of other operators.

        Raises:
            Unsupported: it has no decomposition, or that can't be traced with these arguments.
        """
