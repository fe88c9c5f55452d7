"""What a caller asked for, in one form: the arguments, their leaves, and what was asked of each."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Asked:
    """What was asked of one axis, or of a number.

    Attributes:
        dim: as the caller gave it: a string, a ``Dim`` or a hint.
        name: the dimension name, such as ``batch`` or ``2*seq``; None for a hint.
        expression: the arithmetic over names, for a name that is more than one word.
        contract: it must come out dynamic.
        automatic: the name was made up, so that it says nothing about which axes are of one size.
    """

    dim: Any
    name: str | None = None
    expression: sympy.Expr | None = None
    contract: bool = True
    automatic: bool = False

    @property
    def label(self) -> str:
        """The name for the file; empty when there is none."""
        return self.name or ""

    @property
    def bounds(self) -> tuple[int, int | None]:
        """The least and the greatest size that the caller allows."""
        low, high = getattr(self.dim, "min", None), getattr(self.dim, "max", None)
        return (low if isinstance(low, int) else 0), (high if isinstance(high, int) else None)


@dataclass
class Leaf:
    """One leaf of the example inputs.

    Attributes:
        path: readable place, such as ``past_key_values.0.key``.
        value: the example: a tensor, or a constant.
        asked: what was asked of it: by axis of a tensor, or under the key None for a number that becomes an input.
    """

    path: str
    value: Any
    asked: dict[int | None, Asked] = field(default_factory=dict)

    @property
    def is_input(self) -> bool:
        """Whether it becomes an input of the ONNX model, rather than a constant."""
        return isinstance(self.value, torch.Tensor) or None in self.asked


@dataclass
class Request:
    """What the caller asked for.

    Attributes:
        args: positional arguments, normalised.
        kwargs: keyword arguments, as they were given.
        arguments: name and value of each argument that is given, in the order of the leaves.
        bound: the same as forward's own signature names and orders it; empty where that can't be bound to the call.
        variadic: the name in ``bound`` of forward's ``**kwargs``; empty where the call has none.
        signature: the signature that forward has while it is captured, where its own differs from the call.
        leaves: the leaves of ``args`` and ``kwargs``.
        dynamic_shapes: in the form that ``torch.export.export`` takes; None when nothing is dynamic.
        requested: by path of a leaf, by axis, the name (or Dim) that was asked for; None where no name was given.
        input_names: names of the inputs, in order.
        output_names: names of the outputs, in order.
        output_axes: by name of an output, by axis, the dimension name that ``dynamic_axes`` gave.
        additional: the ``AdditionalInputs`` that the captured program must accept.
        passthrough: ``dynamic_shapes`` is a spec that only torch.export reads.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: list[tuple[str, Any]] = field(default_factory=list)
    bound: dict[str, Any] = field(default_factory=dict)
    variadic: str = ""
    signature: inspect.Signature | None = None
    leaves: list[Leaf] = field(default_factory=list)
    dynamic_shapes: Any = None
    input_names: list[str] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    output_axes: dict[str, dict[int, str]] = field(default_factory=dict)
    additional: Any = None
    passthrough: bool = False

    def path_of(self, name: str) -> str:
        """The readable place of an argument: those of forward's ``**kwargs`` are below its name."""
        return f"{self.variadic}.{name}" if name in self.bound.get(self.variadic, ()) else name

    @property
    def requested(self) -> dict[str, dict[int | None, Any]]:
        """By path of a leaf and axis, what was asked for."""
        return {leaf.path: {k: a.name or a.dim for k, a in leaf.asked.items()} for leaf in self.leaves if leaf.asked}
