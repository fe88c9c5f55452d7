"""Records for the stages of an export: containers, passes, strategies of a capture, and actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True)
class Container:
    """A class whose instances hold tensors and may stand among a model's inputs or outputs.

    Attributes:
        cls: the class; or its name, ``"mylib.states:State"``, where its library isn't to be imported for this.
        flatten: gives ``(children, context)`` of an instance; ``context`` must be hashable or comparable.
        unflatten: makes an instance from ``(children, context)``.
        names: gives one name a child from an instance, for the names of the model's inputs and outputs; an int for a
            child that goes by its position.
        serialized_name: the name under which an ExportedProgram keeps the class; by default its qualified name.
        subclasses: all classes that are derived from it are such containers too.
        counters: names of numbers, at any depth, that count what the tensors beside them hold: where these have a
            dynamic size, so is the number.
    """

    cls: type | str
    flatten: Callable[[Any], tuple[list[Any], Any]]
    unflatten: Callable[[Iterable[Any], Any], Any]
    names: Callable[[Any], Sequence[str | int]] | None = None
    serialized_name: str | None = None
    subclasses: bool = False
    counters: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """A named step over an FX graph module or an ONNX model.

    Attributes:
        name: unique among all passes of its kind; reports count its changes under it.
        function: changes its argument in place, and returns how many changes it made.
        before: name of the pass directly before which it runs.
        after: name of the pass behind which it runs. With neither, it runs last.
        is_required: a model is wrong or can't run without it: it also runs where ``optimize=False``.
        profile: pattern of the profiles that it is for, such as ``"onnxruntime-*"``; None for all.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
    """

    name: str
    function: Callable[[Any], int]
    before: str | None = None
    after: str | None = None
    is_required: bool = False
    profile: str | None = None
    plugin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ProgramPass:
    """A named step over the captured program, before its writes are made pure.

    Attributes:
        name: unique among all program passes.
        function: gives the program to go on with: its argument, which it never changes, or another.
        weights: where the step renames weights or takes them apart: gives the named tensors of a state dict by the
            names and in the form that the program has behind it.
        before: name of the pass directly before which it runs.
        after: name of the pass behind which it runs. With neither, it runs last.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
    """

    name: str
    function: Callable[[ExportedProgram], ExportedProgram]
    weights: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    before: str | None = None
    after: str | None = None
    plugin: str = field(default="", compare=False)


class Turn(IntEnum):
    """When a strategy's turn comes, after an error of another."""

    NEVER = 0
    LAST = 1
    """Where a strict capture has failed as well."""
    INSTEAD = 2
    """In place of a strict capture."""
    NOW = 3
    """At once; the error is the strategy's own call for it, and isn't told."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """Another way to capture a model, for what ``torch.export.export`` can't follow.

    Attributes:
        name: what messages call it.
        capture: called as ``(model, args, kwargs, dynamic_shapes)``; gives an ExportedProgram.
        turn: tells by the error of another way when its turn comes.
        check: raises where a program that ``torch.export.export`` gives lacks what only this way captures.
        final: called as ``(model, args, kwargs, is_bound, error)`` with the caller's example where a non-strict attempt
            failed; True where no other way can give another answer. ``is_bound``: no dynamic dimension may become a
            number. Where it registers a class with pytree and gives False, the attempt is made again.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
    """

    name: str
    capture: Callable[..., ExportedProgram]
    turn: Callable[[Exception], Turn]
    check: Callable[[ExportedProgram], None] | None = None
    final: Callable[..., bool] | None = None
    plugin: str = field(default="", compare=False)


ACTIONS = {
    "choose_target": "(opset_version, runtime, portable, function that gives profiles by name) -> opset, Profile",
    "check_call": "(function, its arguments by name) -> the module classes of functions=",
    "prefer": "(registry, operators with plugins, names of the plugins that take part) -> registry",
    "prepare": "(model, args, kwargs, **dynamic shapes, names and containers of the call) -> Request",
    "capture": "(model, Request, plugins, tell) -> Captured",
    "check_dynamic": "(program, Request) -> None; a dimension that was asked to be dynamic and isn't is an error",
    "decomposer": "(functions by OpOverload, function that makes a graph pure) -> Decomposer",
    "missing_operator": "(qualified name) -> message that torch has no such operator; empty where it has, or may have",
    "advertised": "(namespace of operators) -> the distribution of the pack that serves it, empty where none is known",
    "call_spec": "(exported program) -> how it is called, as run takes it",
    "run": "(program, args, kwargs, all_outputs) -> tensors",
    "call_reference": "(program, args, kwargs) -> tensors",
    "compute_values": "(program, value_names, args, kwargs) -> tensors by name",
    "open_session": "(program, initializer, providers, session_options) -> session, function that removes its files",
    "stage": "(program, folder, outputs) -> bytes, or the path of a file in the folder",
    "check_destination": "(destination, external_data) -> whether there will be external data",
    "save": "(program, destination, **options of ONNXProgram.save) -> None",
    "load": "(class of programs, path) -> program",
    "apply_weights": "(program, state_dict, strict, plugins) -> None",
    "rename_axes": "(program, rename_mapping) -> None",
    "fix": "(program, sizes) -> None",
    "copy_model": "(program) -> onnx_ir.Model",
    "reduce": "(program, function that gives its class) -> what __reduce__ returns",
}
"""What plugins do by name, with the arguments that the function of each gets: the steps around a capture, the expansion
of nodes, and what an ``ONNXProgram`` does."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that is done by plugins, such as to capture a model or to save a program.

    Attributes:
        name: one of :data:`ACTIONS`.
        function: does it, or gives ``NotImplemented`` where another plugin is to do it.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
    """

    name: str
    function: Callable[..., Any]
    plugin: str = field(default="", compare=False)
