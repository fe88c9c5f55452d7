"""A graph under construction (the model's, a branch, a loop's body, a function's), and the FX node at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir
    import sympy

    from onnxport.emit.tensor import Tensor

Place = tuple["Tensor", int | None]
"""Where a symbol is read from: the size of a tensor's axis, or with None the value of a tensor of one element."""


@dataclass(eq=False, slots=True)
class Frame:
    """One graph under construction.

    A branch or a loop's body sees the values of the frame around it, and shares its constants and names. A function
    sees nothing of the graph that calls it; the symbols that it reads there become inputs of it.

    Attributes:
        outer: the frame whose values this one sees; None for the model's graph and for a function's.
        caller: for a function, the frame that its first call stands in.
        root: for a function, the path of the module whose call it is: metadata of its nodes is relative to it.
        nodes: in the order in which they are emitted.
        bindings: where each symbol is read from.
        sizes: the values that were computed of symbols, by expression.
        captured: inputs of a function for symbols of the graph that calls it.
        initializers: weights and constants by name.
        constants: constants by content.
        names: the names that are taken, with the number that the next one of it gets.
        complexes: complex values; their shapes get the axis of 2 when the graph is complete.
        journal: what was added to caches, so that it can be taken back.
    """

    outer: Frame | None = None
    caller: Frame | None = None
    root: str | None = None
    nodes: list[ir.Node] = field(default_factory=list)
    bindings: dict[Any, Place] = field(default_factory=dict)
    sizes: dict[Any, Tensor] = field(default_factory=dict)
    captured: dict[sympy.Basic, Tensor] = field(default_factory=dict)
    initializers: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[Any, Tensor] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    complexes: list[Tensor] = field(default_factory=list)
    journal: list[tuple[dict[Any, Any], Any]] = field(default_factory=list)

    def branch(self) -> Frame:
        """A frame for a graph in this one."""
        return Frame(
            outer=self,
            root=self.root,
            initializers=self.initializers,
            constants=self.constants,
            names=self.names,
            complexes=self.complexes,
        )

    def function(self, root: str | None) -> Frame:
        """A frame for a function that is called here."""
        return Frame(caller=self, root=root)

    def visible(self) -> Iterator[Frame]:
        """This frame and those whose values it sees, outwards."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.outer

    @property
    def base(self) -> Frame:
        """The outermost frame that this one sees: the model's, or that of the function around."""
        return self if self.outer is None else self.outer.base

    def place(self, symbol: sympy.Basic) -> Place | None:
        """The place of a symbol in this frame or one that it sees; None where there is none."""
        frame: Frame | None = self
        while frame is not None:
            if symbol in frame.bindings:
                return frame.bindings[symbol]
            frame = frame.outer
        return None

    def place_around(self, symbol: sympy.Basic) -> Place | None:
        """The place of a symbol outside of the current function, through any number of nested calls."""
        caller = self.base.caller
        return None if caller is None else caller.place(symbol) or caller.place_around(symbol)

    def remember(self, cache: dict[Any, Any], key: Any, value: Any) -> None:
        """Add to a cache in a way that :meth:`Builder.rollback` can take back."""
        cache[key] = value
        self.journal.append((cache, key))


class Position:
    """The FX node that a builder emits for, as a context; a class of its own, since one is entered for each node."""

    __slots__ = ("_new", "_old", "_op")

    def __init__(self, op: Any, node: Any, source: Any, origin: Any) -> None:
        self._op, self._new = op, (node, source, origin)

    def __enter__(self) -> None:
        op = self._op
        self._old = op.node, op.source, op.origin
        op.node, op.source, op.origin = self._new

    def __exit__(self, *_error: object) -> None:
        op = self._op
        op.node, op.source, op.origin = self._old
