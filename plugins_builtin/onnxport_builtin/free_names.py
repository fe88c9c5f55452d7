"""Names for what passes add to a model."""

from __future__ import annotations

import itertools

import onnx_ir as ir
from onnxport.kit import nodes_of


class FreeNames:
    """Names that no value and no node of some bodies has.

    Args:
        model: the model, whose weights' names aren't free in any body.
        bodies: the main graph, or graphs of functions; they are read when a name is first asked for.
    """

    def __init__(self, model: ir.Model, *bodies: ir.Graph) -> None:
        self._model, self._bodies = model, bodies
        self._taken: set[str | None] = set()

    def take(self, base: str) -> str:
        """``base``, or ``base_1`` and so on, whichever is the first that is free; it isn't any longer."""
        if not self._taken:
            self._taken.update(self._model.graph.initializers)
            for body in self._bodies:
                self._taken.update(value.name for value in body.inputs)
                for node in nodes_of(body):
                    self._taken.add(node.name)
                    self._taken.update(value.name for value in (*node.inputs, *node.outputs) if value is not None)
        numbered = (f"{base}_{number}" for number in itertools.count(1))
        name = next(name for name in itertools.chain([base], numbered) if name not in self._taken)
        self._taken.add(name)
        return name
