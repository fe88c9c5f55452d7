"""Pieces of an FX graph that are alike: told by comparing them with one that was described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
import torch.fx
from onnxport import Tensor
from onnxport.kit import SYMBOLIC, TorchTensor
from torch._ops import OpOverload

from onnxport_functions.fingerprints import literal

_SMALL = 1024
"""Bytes: constants up to this size are held by the functions themselves."""


class Template:
    """A described piece of a graph, against which others are held, which costs less than describing them.

    The fake values of torch's own operators aren't compared: they follow from those of what is read.

    Args:
        nodes: what was described; the description was repeatable.
        reads: the nodes outside that they read.
    """

    def __init__(self, nodes: Sequence[torch.fx.Node], reads: Sequence[torch.fx.Node]) -> None:
        self._nodes = nodes
        self._places = {node: i for i, node in enumerate(nodes)}
        self._reads = {node: i for i, node in enumerate(reads)}

    def reads_of(self, nodes: Sequence[torch.fx.Node]) -> list[torch.fx.Node] | None:
        """What other nodes read in place of what these read, where they are alike but for that; else None."""
        if len(nodes) != len(self._nodes):
            return None
        match = _Match(self._places, self._reads)
        for own, other in zip(self._nodes, nodes):
            if own.target is not other.target or not match.arguments(own.args, other.args):
                return None
            if (own.kwargs or other.kwargs) and not match.arguments(own.kwargs, other.kwargs):
                return None
            if not _is_of_torch(own.target) and not match.values(own.meta.get("val"), other.meta.get("val")):
                return None
            match.places[other] = len(match.places)
        return match.reads  # type: ignore[return-value]


class _Match:
    """What was found to stand for what, while one piece of a graph is held against a template."""

    def __init__(self, own_places: Mapping[torch.fx.Node, int], own_reads: Mapping[torch.fx.Node, int]) -> None:
        self._own_places = own_places
        self._own_reads = own_reads
        self._read: dict[torch.fx.Node, int] = {}
        self.places: dict[torch.fx.Node, int] = {}
        self.reads: list[torch.fx.Node | None] = [None] * len(own_reads)

    def arguments(self, own: Any, other: Any) -> bool:
        if type(own) is not type(other):
            return False
        if isinstance(own, torch.fx.Node):
            return self._node(own, other)
        if isinstance(own, (list, tuple)):
            return len(own) == len(other) and all(map(self.arguments, own, other))
        if isinstance(own, dict):
            return own.keys() == other.keys() and all(self.arguments(own[key], other[key]) for key in own)
        if isinstance(own, slice):
            return self.arguments((own.start, own.stop, own.step), (other.start, other.stop, other.step))
        return own is other or bool(literal(own) == literal(other))

    def _node(self, own: torch.fx.Node, other: torch.fx.Node) -> bool:
        place = self._own_places.get(own)
        if place is not None:
            if self.places.get(other) == place:
                return True
        elif not isinstance(own.meta.get("val"), SYMBOLIC):
            place = self._own_reads[own]
            if self.reads[place] is None and other not in self._read and other not in self.places:
                self.reads[place], self._read[other] = other, place
            return self.reads[place] is other
        # numbers are described by their expressions, wherever they come from
        own_fake, fake = own.meta.get("val"), other.meta.get("val")
        is_number = isinstance(own_fake, SYMBOLIC) and type(own_fake) is type(fake)
        return is_number and bool(own_fake.node.expr == fake.node.expr)  # type: ignore[union-attr]

    def values(self, own: Any, other: Any) -> bool:
        """Whether fake values are alike."""
        if isinstance(own, torch.Tensor):
            alike = type(own) is type(other) and own.dtype is other.dtype
            return alike and self.values(tuple(own.shape), tuple(other.shape))
        if isinstance(own, SYMBOLIC):
            return type(own) is type(other) and bool(own.node.expr == other.node.expr)
        if isinstance(own, (list, tuple)):
            return type(own) is type(other) and len(own) == len(other) and all(map(self.values, own, other))
        return own is other or bool(literal(own) == literal(other))


def _is_of_torch(target: Any) -> bool:
    return isinstance(target, OpOverload) and target.namespace in ("aten", "prims")


def small_constant(value: Any) -> ir.TensorProtocol | None:
    """The content of a small constant, which a function holds itself; None for anything else, weights included."""
    data = value.const_value if isinstance(value, Tensor) and not value.is_complex else None
    if data is None or data.nbytes > _SMALL or (isinstance(data, TorchTensor) and data.is_weight):
        return None
    return data
