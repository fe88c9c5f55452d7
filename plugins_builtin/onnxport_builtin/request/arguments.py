"""What a caller gave -> a :class:`Request`: checked, in one form, and in the words of torch.export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from onnxport import ArgumentError, DynamicShapesError, InputError, NamesError, warn
from onnxport.kit import SYMBOLIC, TRACING, Leaf, Request, is_empty, listed, shown, wrong
from torch.export import ExportedProgram

from onnxport_builtin.attempts.upstream import BatchNorm, Dropout
from onnxport_builtin.request import pytrees as _containers
from onnxport_builtin.request.call import call_of, call_of_program, signed
from onnxport_builtin.request.dimensions import torch_shapes
from onnxport_builtin.request.dynamic_shapes import ShapeReader
from onnxport_builtin.request.leaves import input_names_of, leaves_of

if TYPE_CHECKING:
    from onnxport import Container

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


# Arguments -----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Exportable(Protocol):
    """A module that carries its example arguments, names and dynamic shapes: onnxport's own class, or torch's."""

    def example_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any] | None]: ...

    def dynamic_shapes(self) -> Any: ...

    def input_names(self) -> Sequence[str] | None: ...

    def output_names(self) -> Sequence[str] | None: ...


def example_arguments_of(module: Any) -> tuple[Any, Any]:
    """What an exportable module's `example_arguments` returns.

    Raises:
        InputError: it is no pair.
    """
    given = module.example_arguments()
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        wanted = "a pair: a tuple of forward's positional arguments, and a dict of its keyword arguments or None"
        raise wrong("example_arguments()", given, wanted)
    return given[0], given[1]


def prepare(
    model: Any,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    **options: Any,
) -> Request:
    """The request of an export: an exportable module says itself what the caller leaves out.

    Raises:
        InputError, NamesError, DynamicShapesError: as :func:`request_of`.
    """
    if isinstance(model, Exportable):
        own_args, own_kwargs = example_arguments_of(model)
        args, kwargs = own_args if is_empty(args) else args, own_kwargs if is_empty(kwargs) else kwargs
        dynamic_shapes = model.dynamic_shapes() if is_empty(dynamic_shapes) else dynamic_shapes
        input_names = model.input_names() if is_empty(input_names) else input_names
        output_names = model.output_names() if is_empty(output_names) else output_names
    names = {"input_names": input_names, "output_names": output_names}
    return request_of(model, args, kwargs, dynamic_shapes=dynamic_shapes, **names, **options)


def request_of(
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
    args, kwargs = _arguments(args, kwargs)
    if isinstance(model, ExportedProgram):
        request = _of_program(model, args, kwargs)
    else:
        request = Request(**vars(call_of(model, args, kwargs)))
    _containers.register_dataclasses_in([value for _, value in request.arguments])
    request.leaves = [Leaf(path, leaf) for path, leaf in leaves_of(request)]
    _check_leaves(request.leaves)
    request.input_names = _names("input_names", input_names)
    request.output_names = _names("output_names", output_names)
    reader = ShapeReader(request)
    if dynamic_axes is not None:
        warn(
            "dynamic_axes is deprecated: give dynamic_shapes, by argument of forward and with the same names.",
            DeprecationWarning,
        )
    if dynamic_shapes is not None:
        dynamic_shapes = _resolved(model, dynamic_shapes, request)
        if request.passthrough:
            request.dynamic_shapes = dynamic_shapes
            request.signature = None if request.bound else request.signature  # it goes by forward's own names
        else:
            reader.read(dynamic_shapes)
    elif dynamic_axes is not None:
        request.output_axes = reader.read_axes(dynamic_axes, request.output_names)
    if not request.passthrough:
        request.dynamic_shapes = torch_shapes(request)
    input_names_of(request.input_names, request.leaves)  # too many names are an error before the capture
    return request


def _check_model(model: Any) -> None:
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            "A TorchScript model can't be captured by torch.export. Give the nn.Module that it was scripted or "
            "traced from.",
            parameter="model",
        )
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise InputError(
            f"The model is the class {model.__name__}, not an instance of it: give {model.__name__}(...).eval().",
            parameter="model",
        )
    if isinstance(model, (torch.nn.Module, ExportedProgram)):
        if isinstance(model, torch.nn.Module) and model.training:
            _warn_training(model)
        return
    owner = getattr(model, "__self__", None)
    if isinstance(owner, torch.nn.Module):
        raise InputError(
            f"The model is a method of a {type(owner).__name__}: give the module, whose forward is exported, or wrap "
            "it in an nn.Module whose forward calls the method.",
            parameter="model",
        )
    if callable(model):
        raise InputError(
            f"The model is a function ({getattr(model, '__name__', model)!s}). torch.export captures modules: wrap "
            "it in an "
            "nn.Module whose forward calls it, so that its weights have an owner.",
            parameter="model",
        )
    raise ArgumentError(
        f"The model is a {type(model).__name__}: give an nn.Module in eval mode, or an ExportedProgram.",
        parameter="model",
    )


def _warn_training(model: torch.nn.Module) -> None:
    changed = {
        type(m).__name__
        for m in model.modules()
        if m.training
        and (
            (isinstance(m, Dropout) and m.p > 0)
            or (isinstance(m, BatchNorm) and m.track_running_stats)
            or (isinstance(m, torch.nn.RNNBase) and m.dropout > 0)
            or (isinstance(m, torch.nn.MultiheadAttention) and m.dropout > 0)
        )
    }
    if changed:
        warn(
            f"The model is in training mode, in which {', '.join(sorted(changed))} behave as they do in training, in "
            "the exported model too. Call model.eval() before exporting, unless that is what you want."
        )


def _arguments(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(args, list) or (isinstance(args, tuple) and type(args) is not tuple):
        args = tuple(args)
    elif isinstance(args, Mapping):
        raise ArgumentError(
            "args is a mapping: give keyword inputs as kwargs=..., positional ones as a tuple.", parameter="args"
        )
    elif args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ArgumentError(
            f"kwargs is a {type(kwargs).__name__}: give a dict of forward's keyword arguments.", parameter="kwargs"
        )
    kwargs = {} if kwargs is None else dict(kwargs)
    if any(not isinstance(key, str) for key in kwargs):
        raise ArgumentError(
            "kwargs has keys that are no strings: give a dict of forward's keyword arguments.", parameter="kwargs"
        )
    return args, kwargs


def _of_program(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    if not args and not kwargs:
        if program.example_inputs is None:
            return Request((), {})
        args, kwargs = program.example_inputs[0], dict(program.example_inputs[1] or {})
    return Request(**vars(call_of_program(program, args, kwargs)))


def _check_leaves(leaves: list[Leaf]) -> None:
    for leaf in leaves:
        value = leaf.value
        if isinstance(value, (torch.Tensor, torch.ScriptObject, *_CONSTANTS, *SYMBOLIC)) or callable(value):
            continue
        raise InputError(
            f"The example input {leaf.path} is a {type(value).__name__}, which torch.export can't read. Give "
            "tensors, numbers, "
            "strings, None, and lists, tuples, dicts or dataclasses of those; a class of your own needs a Container "
            "(hook onnxport_containers), a mapping can be given as dict(...).",
            parameter="args",
        )


# Dynamic shapes ------------------------------------------------------------------------------------------------------


def _resolved(model: Any, dynamic_shapes: Any, request: Request) -> Any:
    """The builders of torch.export, as plain structures."""
    if isinstance(dynamic_shapes, (torch.export.ShapesCollection, torch.export.AdditionalInputs)):
        try:
            with TRACING, signed(model, request.signature):
                found = dynamic_shapes.dynamic_shapes(model, request.args, request.kwargs)
        except Exception as error:
            raise DynamicShapesError(
                f"The {type(dynamic_shapes).__name__} doesn't fit the inputs: {error}", parameter="dynamic_shapes"
            ) from error
        if isinstance(dynamic_shapes, torch.export.AdditionalInputs):
            request.additional = dynamic_shapes
        return found
    request.passthrough = type(dynamic_shapes).__name__ in ("ShapesSpec", "ParamsSpec")
    return dynamic_shapes


# Names ---------------------------------------------------------------------------------------------------------------


def _names(parameter: str, names: Any) -> list[str]:
    if names is None:
        return []
    given, names = names, listed(names)
    if names is None:
        raise NamesError(f"{parameter} is {shown(given)}: give a list of strings.", parameter=parameter)
    for name in names:
        if not isinstance(name, str) or not name:
            raise NamesError(
                f"{parameter} contains {shown(name)}: each name must be a string, and not empty.", parameter=parameter
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NamesError(
            f"{parameter} contains {', '.join(map(repr, twice))} more than once: names in a file are unique.",
            parameter=parameter,
            names=twice,
        )
    return names
