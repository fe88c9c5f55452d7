"""FX nodes and ONNX values as hashable descriptions: what is described equally is translated equally.

Symbols that are bound are described as themselves. Those that a piece of a graph creates (the size of a
`nonzero`, the sizes in the body of a loop) have other names each time, and are described by their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch
import torch.fx
from onnxport import Size, Tensor
from onnxport.kit import SYMBOLIC, TorchTensor, has_data
from torch._ops import OpOverload

if TYPE_CHECKING:
    from onnxport import Builder

_SMALL = 1024
"""Bytes: constants up to this size are described by what they hold."""


class Structure:
    """Describes one piece of a graph.

    Args:
        op: knows which symbols are bound.

    Attributes:
        fresh: the symbols that weren't bound when they were met, in that order.
    """

    def __init__(self, op: Builder) -> None:
        self._op = op
        self._expressions: dict[sympy.Basic, Any] = {}
        self._shapes: dict[int, Any] = {}
        self._ranges: Mapping[sympy.Basic, Any] = {}
        self.fresh: dict[sympy.Basic, int] = {}
        self._draws = False

    @property
    def is_repeatable(self) -> bool:
        """Nothing in the description creates symbols or draws seeded random numbers."""
        return not self.fresh and not self._draws

    def nodes(self, nodes: Iterable[torch.fx.Node], outside: Callable[[torch.fx.Node], Any]) -> tuple[Any, ...]:
        """Describe nodes in their order; ``outside`` describes the nodes that they read and that aren't among them."""
        places: dict[torch.fx.Node, int] = {}
        described = []
        for node in nodes:
            described.append(self._node(node, places, outside))
            places[node] = len(places)
        return tuple(described)

    def graph(self, graph_module: torch.fx.GraphModule) -> tuple[Any, ...]:
        """Describe a graph with the graphs nested in it."""

        def attribute(node: torch.fx.Node) -> Any:
            value: Any = graph_module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return self.value(value)

        nodes = [node for node in graph_module.graph.nodes if node.op != "get_attr"]
        return self.nodes(nodes, attribute)

    def value(self, value: Any) -> Any:
        """Describe what stands for an FX node: a tensor by its type and shape, anything else by its value."""
        if isinstance(value, Tensor):
            shape = value.shape
            return value.dtype, value.is_complex, None if shape is None else self._dims(shape)
        if isinstance(value, Size):
            return value.kind, self.expression(value.expr)
        if isinstance(value, (list, tuple)):
            return tuple(self.value(item) for item in value)
        if isinstance(value, torch.fx.GraphModule):
            return self.graph(value)
        return literal(value)

    def expression(self, expr: sympy.Basic) -> Any:
        """Describe a symbolic number."""
        found = self._expressions.get(expr)
        if found is None:
            if expr.is_Symbol and self._op.symbols.bound(expr) is None:
                found = "fresh", self.fresh.setdefault(expr, len(self.fresh)), str(self._ranges.get(expr))
            elif expr.args:
                parts = [self.expression(arg) for arg in expr.args]
                found = expr if all(p is a for p, a in zip(parts, expr.args)) else (expr.func, *parts)
            else:
                found = expr
            self._expressions[expr] = found
        return found

    def _dims(self, shape: Any) -> Any:
        """Frozen shapes are few: see :meth:`Symbols.shape`."""
        found = self._shapes.get(id(shape)) if shape.frozen else None
        if found is None:
            found = tuple([self.expression(d.expr) if isinstance(d, Size) else d for d in shape])
            if shape.frozen:
                self._shapes[id(shape)] = found
        return found

    def _node(
        self, node: torch.fx.Node, places: Mapping[torch.fx.Node, int], outside: Callable[[torch.fx.Node], Any]
    ) -> tuple[Any, ...]:
        target: Any = node.target if node.op == "call_function" else node.op
        arguments = self._argument(node.args, places, outside), self._argument(node.kwargs, places, outside)
        own = None
        if self._op.seed is not None and isinstance(target, OpOverload):
            random = torch.Tag.nondeterministic_seeded in target.tags
            own = node if random else None  # with a seed, each draws numbers of its own
            self._draws |= random
        return target, own, *arguments, self._fake(node.meta.get("val"))

    def _argument(self, arg: Any, places: Mapping[torch.fx.Node, int], outside: Callable[[torch.fx.Node], Any]) -> Any:
        if isinstance(arg, torch.fx.Node):
            fake = arg.meta.get("val")
            if isinstance(fake, SYMBOLIC):
                return self.expression(fake.node.expr)
            place = places.get(arg)
            return ("outside", outside(arg)) if place is None else ("node", place)
        if isinstance(arg, (list, tuple)):
            return tuple([self._argument(item, places, outside) for item in arg])
        if isinstance(arg, dict):
            return tuple([(k, self._argument(v, places, outside)) for k, v in sorted(arg.items())])
        if isinstance(arg, slice):
            return "slice", self._argument((arg.start, arg.stop, arg.step), places, outside)
        return literal(arg)

    def _fake(self, fake: Any) -> Any:
        if isinstance(fake, torch.Tensor):
            if not self._ranges:
                symbolic: Any = (d for d in fake.shape if isinstance(d, torch.SymInt))
                self._ranges = next((d.node.shape_env.var_to_range for d in symbolic), {})
            return fake.dtype, self._dims(self._op.symbols.shape(fake))
        if isinstance(fake, SYMBOLIC):
            return self.expression(fake.node.expr)
        if isinstance(fake, (list, tuple)):
            return tuple([self._fake(item) for item in fake])
        return literal(fake)


def content(data: ir.TensorProtocol) -> tuple[Any, ...]:
    """Element type, shape and bytes of a constant."""
    return data.dtype, tuple(data.shape), data.tobytes()


def literal(value: Any) -> Any:
    """A Python value. Numbers are told apart that compare as equal: 1, 1.0 and True, 0.0 and -0.0."""
    if isinstance(value, SYMBOLIC):
        return type(value), str(value)
    if isinstance(value, (int, float, complex)):
        return type(value), repr(value)
    if isinstance(value, torch.Tensor):
        small = has_data(value) and value.layout is torch.strided and value.nbytes <= _SMALL
        return content(TorchTensor(value)) if small else _Same(value)
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


class _Same:
    """An object that can't be hashed: equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)
