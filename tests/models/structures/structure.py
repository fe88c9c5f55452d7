"""What a structural test model is, and how one is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

BUFFER, INPUT = "BUFFER_MUTATION", "USER_INPUT_MUTATION"


@dataclass(frozen=True)
class Structure:
    """A model, with what exporting and checking it takes.

    Attributes:
        name: what it shows.
        subject: the file that it is in.
        build: makes the model, in the mode (eval or training) that it is exported in.
        args: example inputs. They are copied before each use.
        dynamic_shapes: what is asked to be dynamic.
        other_args: further sets of inputs, of other sizes or other values.
        mutates: by name of a buffer or input that forward changes, BUFFER or INPUT. All that it changes.
        ops: operator types that the graph must have, those of its subgraphs included.
        absent: operator types that it must not have.
        refused: what the message of the refusal matches, where the model is captured and can't be exported.
        uncaptured: what the message matches where torch.export can't capture it; the reason is upstream's.
        warns: what a warning of the export matches.
        holds: what must be true of the outputs, where they are random.
        second_trace: the in-place fast path doesn't serve it: torch traces the program again.
        options: more arguments of ``onnxport.export``.
    """

    name: str
    subject: str
    build: Callable[[], nn.Module]
    args: tuple[Any, ...] = ()
    dynamic_shapes: Any = None
    other_args: tuple[tuple[Any, ...], ...] = ()
    mutates: Mapping[str, str] = field(default_factory=dict)
    ops: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    refused: str = ""
    uncaptured: str = ""
    warns: str = ""
    holds: Callable[..., bool] | None = None
    second_trace: bool = False
    rtol: float | None = None
    atol: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


STRUCTURES: dict[str, Structure] = {}


def structure(
    *args: Any,
    dynamic: Any = None,
    other: tuple[Any, ...] | list[tuple[Any, ...]] = (),
    buffers: Mapping[str, torch.Tensor] | None = None,
    training: bool = False,
    **fields: Any,
) -> Callable[[Any], Any]:
    """Register a forward function, with the module as its first parameter where it has buffers, or a module class.

    Args:
        args: the example inputs.
        other: inputs of another size, or a list of such sets.
        buffers: made anew for each model.
        training: the model stays in training mode.
        fields: more fields of :class:`Structure`.
    """

    def register(what: Any) -> Any:
        def build() -> nn.Module:
            if inspect.isclass(what):
                model = what()
            else:
                forward = what if next(iter(inspect.signature(what).parameters), "") == "self" else staticmethod(what)
                model = type(what.__name__, (nn.Module,), {"forward": forward})()
            for name, value in (buffers or {}).items():
                model.register_buffer(name, value.clone())
            return model.train(training)

        others = tuple(other) if isinstance(other, list) else (other,) if other else ()
        subject = what.__module__.rpartition(".")[2]
        made = Structure(what.__name__, subject, build, args, dynamic, others, **fields)
        if STRUCTURES.setdefault(made.name, made) is not made:
            raise ValueError(f"two structures are called {made.name}")
        return what

    return register


def floats(*shape: int, scale: float = 2.0) -> torch.Tensor:
    """Values in (-scale, scale), no two near each other equal."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * 1.7 + 0.4).sin().mul(scale).float().reshape(shape)


def ints(*values: int) -> torch.Tensor:
    """A 1-d int64 tensor."""
    return torch.tensor(values, dtype=torch.int64)
