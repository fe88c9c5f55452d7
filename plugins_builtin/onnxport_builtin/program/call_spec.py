"""How an exported program is called: the structure and names of its arguments, and what its placeholders stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnxport import InputError
from onnxport.kit import counted, has_data, pytree
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec


def check_layout(program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Make sure that a program flattens a call as it is known here: leaves are told apart by their order alone.

    Raises:
        InputError: it has other arguments, or as many leaves in others of them.
    """
    theirs, ours = _layout(program.call_spec.in_spec), _layout(pytree.tree_structure((args, dict(kwargs))))  # type: ignore[arg-type]
    if [*theirs.items()] != [*ours.items()]:  # dicts are equal in any order
        raise InputError(
            f"The exported program takes its arguments as {theirs}, each with its number of tensors and constants, "
            f"but the call has {ours}. Give the arguments as the program's call_spec has them."
        )


def _layout(spec: pytree.TreeSpec) -> dict[str, int]:
    """The number of leaves of each argument, in their order."""
    args, kwargs = spec.children()
    counts = {f"argument {i}": child.num_leaves for i, child in enumerate(args.children(), 1)}
    return counts | {
        str(name): child.num_leaves for name, child in zip(kwargs.context or [], kwargs.children(), strict=True)
    }


@dataclass(frozen=True)
class CallSpec:
    """How a program is called: all that its arguments are bound by. It can be pickled where their classes can.

    Attributes:
        in_spec: the structure of ``(args, kwargs)``.
        names: of the arguments, positional ones first; none where the program doesn't tell.
        defaults: by name, the examples of the arguments that hold no tensors, which calls may leave out.
        leaves: for each leaf, the name of its placeholder, whether it was baked in, and then its value.
    """

    in_spec: pytree.TreeSpec
    names: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    leaves: tuple[tuple[str, bool, Any], ...] = ()

    @classmethod
    def of(cls, program: ExportedProgram) -> CallSpec:
        """That of a program."""
        in_spec: Any = program.call_spec.in_spec
        args_spec, kwargs_spec = in_spec.children()
        signature = program.module_call_graph[0].signature if program.module_call_graph else None
        names = tuple(getattr(signature, "forward_arg_names", None) or ())
        if len(names) != args_spec.num_children + kwargs_spec.num_children:
            names = ()
        example_args, example_kwargs = program.example_inputs or ((), {})
        examples = {**dict(zip(names, example_args, strict=False)), **(example_kwargs or {})}
        defaults = {
            name: value
            for name, value in examples.items()
            if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
        }
        arguments = [s.arg for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
        leaves = tuple((arg.name, isinstance(arg, ConstantArgument), getattr(arg, "value", None)) for arg in arguments)
        return cls(in_spec, names, defaults, leaves)

    def flatten(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Flatten a call's arguments in the order of the program's user inputs.

        Positional arguments may be given by keyword and the other way round; arguments that are left out get the
        value that was baked in.

        Raises:
            InputError: missing, unknown or repeated arguments, or a container of another structure.
        """
        return pytree.tree_leaves(self.arranged(args, kwargs))

    def arranged(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in the places and the order of the specification.

        Raises:
            InputError: as :meth:`flatten`.
        """
        args_spec, kwargs_spec = self.in_spec.children()
        keywords = list(kwargs_spec.context or [])
        count = args_spec.num_children
        if len(args) != count or set(kwargs) != set(keywords):
            args, kwargs = self._rearranged(args, kwargs, count, keywords)
        named = [*zip((f"argument {i + 1}" for i in range(count)), args, args_spec.children(), strict=True)]
        named += [
            (f"argument {name!r}", kwargs[name], spec)
            for name, spec in zip(keywords, kwargs_spec.children(), strict=True)
        ]
        values = []
        for label, value, spec in named:
            values.append(_in_order(value, spec))
            structure = pytree.tree_structure(values[-1])
            if structure != spec:
                raise InputError(
                    f"The {label} is not nested as in the export: expected {_structure(spec)}, got "
                    f"{_structure(structure)}."
                )
        return tuple(values[:count]), dict(zip(keywords, values[count:], strict=True))

    def _rearranged(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], count: int, keywords: list[str]
    ) -> tuple[list[Any], dict[str, Any]]:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"The model takes {counted(count, 'positional argument')} and these keyword arguments: {keywords}; "
                f"got {len(args)} and {list(kwargs)}. Pass what it takes."
            )
        bound = dict(zip(names, args, strict=False))
        problems = []
        if len(args) > len(names):
            problems.append(f"{counted(len(args) - len(names), 'positional argument')} too many")
        problems += [f"{name!r} given twice" for name in kwargs if name in bound]
        problems += [f"{name!r} unknown" for name in kwargs if name not in names]
        bound.update(kwargs)
        for name in names:
            if name not in bound:
                if name in self.defaults:
                    bound[name] = self.defaults[name]
                else:
                    problems.append(f"{name!r} missing")
        if problems:
            raise InputError(f"The arguments don't fit the model's forward({', '.join(names)}): {'; '.join(problems)}.")
        return [bound[name] for name in names[:count]], {name: bound[name] for name in keywords}


def call_spec(program: ExportedProgram) -> CallSpec:
    """How a program is called."""
    return CallSpec.of(program)


def flatten_arguments(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Flatten a call's arguments in the order of a program's user inputs: see :meth:`CallSpec.flatten`."""
    return CallSpec.of(program).flatten(args, kwargs)


def _in_order(value: Any, spec: pytree.TreeSpec) -> Any:
    """Put the items of plain dicts into the order they had at export."""
    if spec.type is dict and type(value) is dict and set(value) == set(spec.context):
        return {key: _in_order(value[key], child) for key, child in zip(spec.context, spec.children(), strict=True)}
    if spec.type in (list, tuple) and type(value) is spec.type and len(value) == spec.num_children:
        return spec.type(_in_order(item, child) for item, child in zip(value, spec.children(), strict=True))
    return value


def _structure(spec: pytree.TreeSpec) -> str:
    if spec.is_leaf():
        return "a tensor or number"
    kind, keys = getattr(spec.type, "__name__", str(spec.type)), spec.context if isinstance(spec.context, list) else []
    below = [_structure(child) for child in spec.children()]
    if len(keys) == len(below):
        below = [f"{key!r}: {text}" for key, text in zip(keys, below, strict=True)]
    return f"{kind} of ({', '.join(below)})"


def placeholder_values(exported: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What each placeholder of the graph stands for."""
    leaves = iter(flatten_arguments(exported, args, kwargs))
    values: dict[str, Any] = {}
    for spec in exported.graph_signature.input_specs:
        values[spec.arg.name] = next(leaves) if spec.kind is InputKind.USER_INPUT else _weight(exported, spec)
    empty = [name for name, v in values.items() if isinstance(v, torch.Tensor) and not has_data(v)]
    if empty:
        raise InputError(
            f"The exported program has no data for {', '.join(empty[:5])}{', ...' if empty[5:] else ''}: export the "
            "model with its weights, and pass that ExportedProgram as `exported_program`.",
            parameter="exported_program",
        )
    return values


def _weight(exported: ExportedProgram, spec: InputSpec) -> Any:
    value = exported.state_dict.get(spec.target or "", exported.constants.get(spec.target or ""))
    return value.detach() if isinstance(value, torch.Tensor) else value
