"""What the caller asked for -> what torch.export wants, and what the ONNX file must say.

``prepare`` reads example inputs, names and dynamic shapes into a :class:`Request`; ``interface_of`` reads a captured
program and the request into an :class:`Interface`: the final names of inputs, outputs and dimensions.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from onnxport import containers as _containers
from onnxport.errors import DynamicShapesError, InputError, NamesError
from onnxport.shapes import Asked, ShapeReader, expressions_of, torch_shapes

if TYPE_CHECKING:
    import sympy

    from onnxport.hookspecs import Container

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
_CONSTANTS = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)


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
        kwargs: keyword arguments, in the order of forward's signature.
        arguments: name and value of each argument of forward that is given, in the order of the leaves.
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
    leaves: list[Leaf] = field(default_factory=list)
    dynamic_shapes: Any = None
    input_names: list[str] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    output_axes: dict[str, dict[int, str]] = field(default_factory=dict)
    additional: Any = None
    passthrough: bool = False

    @property
    def requested(self) -> dict[str, dict[int | None, Any]]:
        """By path of a leaf and axis, what was asked for."""
        return {leaf.path: {k: a.name or a.dim for k, a in leaf.asked.items()} for leaf in self.leaves if leaf.asked}


@dataclass
class InputLeaf:
    """One leaf of the model's inputs, as the file has it.

    Attributes:
        placeholder: name of the FX placeholder.
        name: name in the file; empty when it is baked in.
        path: readable place among the arguments.
        kind: ``"tensor"``, ``"number"`` (a symbolic int, written as a 0-d tensor) or ``"baked"``.
        value: the constant that is baked in.
        axes: requested name by axis.
    """

    placeholder: str
    name: str
    path: str
    kind: str
    value: Any = None
    axes: dict[int, str] = field(default_factory=dict)


@dataclass
class Interface:
    """The final names of the file's inputs, outputs and dimensions.

    Attributes:
        inputs: all leaves of the inputs, baked ones included.
        outputs: one name for each output of the user; empty where the output is None.
        output_paths: readable place of each of them.
        output_axes: by index of an output, by axis, the dimension name that was asked for.
        dim_names: by symbol of the shape environment, the dimension name.
    """

    inputs: list[InputLeaf] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    output_paths: list[str] = field(default_factory=list)
    output_axes: dict[int, dict[int, str]] = field(default_factory=dict)
    dim_names: dict[sympy.Symbol, str] = field(default_factory=dict)

    @property
    def baked(self) -> list[InputLeaf]:
        """What was hard-coded into the model."""
        return [leaf for leaf in self.inputs if leaf.kind == "baked"]


# Arguments -----------------------------------------------------------------------------------------------------------


def prepare(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    containers: Iterable[Container] = (),
) -> Request:
    """Check a call's arguments and bring them to one form.

    Raises:
        InputError: the model is none, or its forward doesn't accept the example inputs.
        NamesError: ``input_names`` or ``output_names`` are duplicated, too many, or no strings.
        DynamicShapesError: ``dynamic_shapes`` or ``dynamic_axes`` don't fit the inputs.
    """
    _check_model(model)
    _containers.register(containers)
    _containers.register_caches()
    args, kwargs = _arguments(args, kwargs)
    if isinstance(model, ExportedProgram):
        request = _of_program(model, args, kwargs)
    else:
        request = _bound(model, args, kwargs)
    _containers.register_dataclasses_in([value for _, value in request.arguments])
    request.leaves = [Leaf(path, value) for name, value in request.arguments for path, value in walk(name, value)]
    _check_leaves(request.leaves)
    request.input_names = _names("input_names", input_names)
    request.output_names = _names("output_names", output_names)
    reader = ShapeReader(request.arguments, request.leaves, request.input_names)
    if dynamic_axes is not None:
        warnings.warn(
            "dynamic_axes is deprecated: give dynamic_shapes, by argument of forward and with the same names.",
            DeprecationWarning,
            stacklevel=4,
        )
    if dynamic_shapes is not None:
        dynamic_shapes = _resolved(model, dynamic_shapes, request)
        if request.passthrough:
            request.dynamic_shapes = dynamic_shapes
        else:
            reader.read(dynamic_shapes)
    elif dynamic_axes is not None:
        request.output_axes = reader.read_axes(dynamic_axes, request.output_names)
    if not request.passthrough:
        request.dynamic_shapes = torch_shapes(request)
    _input_names(request)  # too many names are an error before the capture
    return request


def walk(path: str, value: Any) -> list[tuple[str, Any]]:
    """All leaves below a value with their readable paths, in pytree's order."""
    if not _containers.is_registered(value):
        return [(path, value)]
    keys, items = _containers.children(value)
    return [
        pair
        for key, item in zip(keys, items, strict=True)
        for pair in walk(f"{path}.{key}" if path else str(key), item)
    ]


def _check_model(model: Any) -> None:
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            "A TorchScript model can't be captured by torch.export. Give the nn.Module that it was scripted or traced from."
        )
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise InputError(
            f"The model is the class {model.__name__}, not an instance of it: give {model.__name__}(...).eval()."
        )
    if isinstance(model, (torch.nn.Module, ExportedProgram)):
        if isinstance(model, torch.nn.Module) and model.training:
            _warn_training(model)
        return
    if callable(model):
        raise InputError(
            f"The model is a function ({getattr(model, '__name__', model)!s}). torch.export captures modules: wrap it in an "
            "nn.Module whose forward calls it, so that its weights have an owner."
        )
    raise InputError(f"The model is a {type(model).__name__}: give an nn.Module in eval mode, or an ExportedProgram.")


def _warn_training(model: torch.nn.Module) -> None:
    changed = {
        type(m).__name__
        for m in model.modules()
        if m.training
        and (
            (isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.p > 0)
            or (isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.track_running_stats)
            or (isinstance(m, torch.nn.RNNBase) and m.dropout > 0)
            or (isinstance(m, torch.nn.MultiheadAttention) and m.dropout > 0)
        )
    }
    if changed:
        warnings.warn(
            f"The model is in training mode, in which {', '.join(sorted(changed))} behave as they do in training, in the "
            "exported model too. Call model.eval() before exporting, unless that is what you want.",
            stacklevel=5,
        )


def _arguments(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(args, list) or (isinstance(args, tuple) and type(args) is not tuple):
        args = tuple(args)
    elif isinstance(args, Mapping):
        raise InputError("args is a mapping: give keyword inputs as kwargs=..., positional ones as a tuple.")
    elif args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InputError(f"kwargs is a {type(kwargs).__name__}: give a dict of forward's keyword arguments.")
    kwargs = {} if kwargs is None else dict(kwargs)
    if any(not isinstance(key, str) for key in kwargs):
        raise InputError("kwargs has keys that are no strings: give a dict of forward's keyword arguments.")
    return args, kwargs


def _bound(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    signature = inspect.signature(model.forward)
    if not kwargs and args and isinstance(args[-1], dict) and _means_kwargs(signature, args):
        args, kwargs = args[:-1], dict(args[-1])
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"The forward of {type(model).__name__} doesn't accept the example inputs: {error}.\n"
            f"    forward{signature}\n    given: {len(args)} positional{_described(args)}, keywords {sorted(kwargs) or 'none'}\n"
            "Give the positional ones as a tuple args=(...), and the keyword ones as kwargs={...}."
        ) from None
    arguments = list(bound.arguments.items())
    # Leaves come in the order of the positional, then of the keyword arguments, and keywords in forward's order.
    order = {name: i for i, name in enumerate(signature.parameters)}
    kwargs = dict(sorted(kwargs.items(), key=lambda item: order.get(item[0], len(order))))
    arguments.sort(key=lambda item: (item[0] in kwargs, order[item[0]]))
    return Request(args, kwargs, arguments)


def _means_kwargs(signature: inspect.Signature, args: tuple[Any, ...]) -> bool:
    """Whether a trailing dict is keyword arguments, as torch's exporter takes it: its keys are names of free parameters."""
    free = [p.name for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_POSITIONAL][
        len(args) - 1 :
    ]
    return bool(args[-1]) and all(key in free for key in args[-1])


def _described(args: tuple[Any, ...]) -> str:
    return f" ({', '.join(type(a).__name__ for a in args)})" if args else ""


def _of_program(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    if not args and not kwargs and program.example_inputs is not None:
        args, kwargs = program.example_inputs[0], dict(program.example_inputs[1] or {})
    placeholders = [
        getattr(s.arg, "name", "") for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"
    ]
    arguments: list[tuple[str, Any]] = []
    start = 0
    for key, value in [*enumerate(args), *kwargs.items()]:
        below = walk("", value)
        names = placeholders[start : start + len(below)]
        start += len(below)
        name = key if isinstance(key, str) else f"args_{key}"
        if names and not isinstance(key, str):  # forward's own name is left only in those of the placeholders
            suffix = "_" + re.sub(r"\W", "_", below[0][0]) if below[0][0] else ""
            name = names[0].removesuffix(suffix) or name
        arguments.append((name, value))
    return Request(args, kwargs, arguments)


def _check_leaves(leaves: list[Leaf]) -> None:
    for leaf in leaves:
        value = leaf.value
        if isinstance(value, (torch.Tensor, torch.ScriptObject, *_CONSTANTS, *_SYMBOLIC)) or callable(value):
            continue
        raise InputError(
            f"The example input {leaf.path} is a {type(value).__name__}, which torch.export can't read. Give tensors, numbers, "
            "strings, None, and lists, tuples, dicts or dataclasses of those; a class of your own needs a Container "
            "(hook onnxport_containers), a mapping can be given as dict(...)."
        )


# Dynamic shapes ------------------------------------------------------------------------------------------------------


def _resolved(model: Any, dynamic_shapes: Any, request: Request) -> Any:
    """The builders of torch.export, as plain structures."""
    if isinstance(dynamic_shapes, (torch.export.ShapesCollection, torch.export.AdditionalInputs)):
        try:
            found = dynamic_shapes.dynamic_shapes(model, request.args, request.kwargs)
        except Exception as error:
            raise DynamicShapesError(f"The {type(dynamic_shapes).__name__} doesn't fit the inputs: {error}") from error
        if isinstance(dynamic_shapes, torch.export.AdditionalInputs):
            request.additional = dynamic_shapes
        return found
    request.passthrough = type(dynamic_shapes).__name__ in ("ShapesSpec", "ParamsSpec")
    return dynamic_shapes


# Names ---------------------------------------------------------------------------------------------------------------


def _names(parameter: str, names: Any) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise NamesError(f"{parameter} is {names!r}: give a list of strings.")
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not name:
            raise NamesError(f"{parameter} contains {name!r}: each name must be a string, and not empty.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NamesError(
            f"{parameter} contains {', '.join(map(repr, twice))} more than once: names in a file are unique."
        )
    return names


def _input_names(request: Request) -> dict[int, str]:
    """The name asked for, by index of a leaf. Names count inputs, or all leaves where constants have a name too."""
    names = request.input_names
    inputs = [i for i, leaf in enumerate(request.leaves) if leaf.is_input]
    if len(names) <= len(inputs) or not request.leaves:
        return dict(zip(inputs, names, strict=False))
    if len(names) == len(request.leaves):
        return {i: names[i] for i in inputs}
    listing = "".join(
        f"\n    {leaf.path}: {described(leaf.value)}{'' if leaf.is_input else ' (baked in, takes no name)'}"
        for leaf in request.leaves
    )
    raise NamesError(f"input_names has {len(names)} names, but the model has {len(inputs)} inputs:{listing or ' none'}")


def described(value: Any) -> str:
    """A short word for an example input."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return repr(value)[:60]


# The program's side --------------------------------------------------------------------------------------------------


def interface_of(program: ExportedProgram, request: Request) -> Interface:
    """Settle the names of a captured program's inputs, outputs and dimensions.

    Raises:
        NamesError: more ``output_names`` than outputs, or a name for both an input and an output.
        InputError: the program has other inputs than the request.
    """
    specs = [s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    leaves = request.leaves
    if not leaves:  # a program without example inputs
        leaves = [Leaf(s.arg.name, values.get(s.arg.name)) for s in specs]
        request.leaves = leaves
    if len(leaves) != len(specs):
        raise InputError(
            f"The exported program has {len(specs)} inputs, but {len(leaves)} are given. Give its own, or none."
        )
    asked = _input_names(request)
    result = Interface()
    for i, (spec, leaf) in enumerate(zip(specs, leaves, strict=True)):
        value = values.get(spec.arg.name)
        if isinstance(value, torch.Tensor) or isinstance(value, _SYMBOLIC):
            kind = "tensor" if isinstance(value, torch.Tensor) else "number"
            axes = {axis: a.label for axis, a in leaf.asked.items() if a.label and axis is not None}
            result.inputs.append(InputLeaf(spec.arg.name, asked.get(i, ""), leaf.path, kind, None, axes))
        else:
            result.inputs.append(InputLeaf(spec.arg.name, "", leaf.path, "baked", leaf.value))
    _name_outputs(program, request, result)
    result.dim_names = _dim_names(result, leaves, values)
    return result


def _name_outputs(program: ExportedProgram, request: Request, result: Interface) -> None:
    specs = [s for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    constants = [not hasattr(s.arg, "value") or s.arg.value is not None for s in specs]
    result.output_paths = _output_paths(program, [values.get(s.arg.name) for s in specs])
    named = [i for i, present in enumerate(constants) if present]
    names = request.output_names
    if len(names) > len(named):
        if len(names) != len(specs):
            listing = "".join(f"\n    {result.output_paths[i]}" for i in named)
            raise NamesError(
                f"output_names has {len(names)} names, but the model has {len(named)} outputs:{listing or ' none'}"
            )
        names = [names[i] for i in named]
    chosen = dict(zip(named, names, strict=False))
    both = sorted(set(chosen.values()) & {leaf.name for leaf in result.inputs if leaf.name})
    if both:
        raise NamesError(
            f"{', '.join(map(repr, both))} is named both in input_names and output_names: names in a file are unique."
        )
    taken = set(chosen.values()) | {leaf.name for leaf in result.inputs}
    for leaf in result.inputs:
        if not leaf.name and leaf.kind != "baked":
            leaf.name = _free(leaf.placeholder, taken)
            if leaf.name != leaf.placeholder:
                warnings.warn(
                    f"The input {leaf.path} is named {leaf.name!r}, since {leaf.placeholder!r} was given to something else. "
                    "Give input_names to choose another.",
                    stacklevel=5,
                )
    named_inputs = {leaf.name for leaf in result.inputs}
    for i, spec in enumerate(specs):
        if i in chosen or not constants[i]:
            result.outputs.append(chosen.get(i, ""))
            continue
        path = result.output_paths[i]
        readable = re.sub(r"\W", "_", re.sub(r"^[\d.]+", "", path))
        name = readable or spec.arg.name or f"output_{i}"
        result.outputs.append(_free(f"{name}_out" if name in named_inputs else name, taken))
    for name, axes in request.output_axes.items():
        if name not in result.outputs:
            raise DynamicShapesError(
                f"dynamic_axes names {name!r}, which is neither an input nor an output. Inputs: "
                f"{', '.join(leaf.name for leaf in result.inputs if leaf.name)}; outputs: {', '.join(filter(None, result.outputs))}."
            )
        result.output_axes[result.outputs.index(name)] = axes


def _output_paths(program: ExportedProgram, values: list[Any]) -> list[str]:
    try:
        paths = [path for path, _ in walk("", program.call_spec.out_spec.unflatten(values))]
    except Exception:  # a container may refuse to be built of fake tensors; its leaves are numbered then
        paths = []
    return paths if len(paths) == len(values) else [str(i) for i in range(len(values))]


def _free(name: str, taken: set[str]) -> str:
    free, n = name, 0
    while free in taken:
        n += 1
        free = f"{name}_{n}"
    taken.add(free)
    return free


def _dim_names(interface: Interface, leaves: list[Leaf], values: dict[str, Any]) -> dict[sympy.Symbol, str]:
    """What each symbol is called: names of plain dimensions first, then the roots of derived ones, then defaults."""
    found: dict[sympy.Symbol, str] = {}
    defaults: dict[sympy.Symbol, str] = {}
    for entry, leaf in zip(interface.inputs, leaves, strict=True):
        value = values.get(entry.placeholder)
        for axis, size in enumerate(value.shape) if isinstance(value, torch.Tensor) else [(None, value)]:
            expression = getattr(getattr(size, "node", None), "expr", None)
            if expression is None or axis not in leaf.asked:
                continue
            asked = leaf.asked[axis]
            for symbol, name in expressions_of(asked, expression):
                found.setdefault(symbol, name)
            if not asked.label and expression.is_Symbol:
                defaults.setdefault(expression, entry.name if axis is None else f"{entry.name}_dim_{axis}")
    return {**defaults, **found}
