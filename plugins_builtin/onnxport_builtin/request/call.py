"""A call of a model, in the order in which torch.export flattens it: positional arguments, then keywords as given.

torch.export flattens ``(args, kwargs)``, but names what it flattened by binding the call to the signature of forward.
Where the two disagree (``**kwargs`` beside named parameters, keywords in another order, a decorator that takes other
keywords than the function it wraps), the forward gets the signature of the call for as long as the capture lasts.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import keyword
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from onnxport import InputError
from torch.export import ExportedProgram

from onnxport_builtin.program.call_spec import CallSpec

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")


@dataclass
class Call:
    """One call of a model.

    Attributes:
        args: the positional arguments.
        kwargs: the keyword arguments, in the order of the leaves.
        arguments: name and value of each argument in the order of the leaves. All of ``*args`` are one argument; each
            of ``**kwargs`` is one of its own.
        bound: the same as forward's own signature names and orders it; empty where that can't be bound to the call.
        variadic: the name in ``bound`` of forward's ``**kwargs``; empty where the call has none.
        signature: the signature of this call, where forward's is another.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: list[tuple[str, Any]]
    bound: dict[str, Any]
    variadic: str = ""
    signature: inspect.Signature | None = None


def call_of(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Bind a call to a model's forward.

    A trailing dict of ``args`` is keyword arguments, as torch's exporter takes it, where forward takes them so.

    Raises:
        InputError: forward doesn't accept the arguments.
    """
    signature = inspect.signature(model.forward)
    if not kwargs and args and isinstance(args[-1], dict) and _means_keywords(signature, args):
        args, kwargs = args[:-1], dict(args[-1])
    if reserved := [name for name in kwargs if keyword.iskeyword(name)]:
        raise InputError(
            f"Keyword arguments with these names are words of Python, which torch.export can't have as names of "
            f"inputs: {reserved}. Wrap the model in an nn.Module whose forward takes them by other names.",
            parameter="kwargs",
        )
    bound, error = _bound(signature, args, kwargs)
    if bound is None:  # a decorator may take what the function that it wraps doesn't
        outer = inspect.signature(model.forward, follow_wrapped=False)
        if _bound(outer, args, kwargs)[0] is None:
            raise InputError(
                f"The forward of {type(model).__name__} doesn't accept the example inputs: {error}.\n"
                f"    forward{signature}\n    given: {len(args)} positional{_types(args)}, keywords "
                f"{sorted(kwargs) or 'none'}\n"
                "Give the positional ones as a tuple args=(...), and the keyword ones as kwargs={...}.",
                parameter="args",
            )
        if kwargs.keys() <= signature.parameters.keys():  # nor are the names of the others those of the wrapped one
            signature = outer
        bound = {}
    arguments = [*_positional(signature, args, kwargs), *kwargs.items()]
    rest = next((p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), "")
    variadic = rest if rest in bound else ""
    own = None
    if variadic or list(bound) != [name for name, _ in arguments] or not _has_code(model.forward):
        own = _signature_of(arguments, len(arguments) - len(kwargs), signature)
    return Call(args, kwargs, arguments, bound, variadic, own)


def _bound(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    try:
        return dict(signature.bind(*args, **kwargs).arguments), ""
    except TypeError as error:
        return None, str(error)


def _positional(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """The positional arguments with the names of their parameters, none of them a keyword's."""
    named: list[tuple[str, Any]] = []
    rest = args
    for parameter in signature.parameters.values():
        if not rest or parameter.kind not in (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL):
            break
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            named.append((parameter.name, rest))
            rest = ()
        else:
            named.append((parameter.name, rest[0]))
            rest = rest[1:]
    named += [(f"args_{i}", value) for i, value in enumerate(rest, len(named))]
    taken = {*kwargs, *(name for name, _ in named)}
    for i, (name, value) in enumerate(named):
        if name in kwargs:  # positional-only, and a keyword of this name goes to **kwargs
            free = next(new for n in range(len(taken) + 1) if (new := f"{name}_{n}") not in taken)
            taken.add(free)
            named[i] = free, value
    return named


def _means_keywords(signature: inspect.Signature, args: tuple[Any, ...]) -> bool:
    """Whether a trailing dict is keyword arguments, as torch's exporter takes every one.

    It isn't where forward doesn't take its keys so, nor where the parameter in its place is annotated as a dict and
    the keys name no others.
    """
    *given, last = args
    if any(not isinstance(key, str) for key in last) or _bound(signature, given, last)[0] is None:
        return False
    parameters = list(signature.parameters.values())
    if last and {p.name for p in parameters if p.kind in _NAMED}.issuperset(last):
        return True
    free = [p for p in parameters if p.kind in _POSITIONAL][len(given) :]
    return not free or not _says_mapping(free[0].annotation)


def _says_mapping(annotation: Any) -> bool:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") + str(annotation)
    return any(name in text for name in _MAPPINGS)


def _types(args: tuple[Any, ...]) -> str:
    return f" ({', '.join(type(a).__name__ for a in args)})" if args else ""


# Signatures ----------------------------------------------------------------------------------------------------------


class _Parameter(inspect.Parameter):
    """A keyword of ``**kwargs`` that is no Python name, such as ``layer.0``."""

    def __init__(self, name: str) -> None:
        super().__init__("_", inspect.Parameter.KEYWORD_ONLY)
        self._name = name  # type: ignore[misc]


def _signature_of(arguments: Sequence[tuple[str, Any]], positional: int, own: inspect.Signature) -> inspect.Signature:
    """A signature that binds exactly these arguments, in this order."""
    many = {p.name for p in own.parameters.values() if p.kind is inspect.Parameter.VAR_POSITIONAL}
    parameters = []
    for i, (name, _) in enumerate(arguments):
        if i >= positional:
            valid = name.isidentifier()
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) if valid else _Parameter(name))
        else:
            several = i == positional - 1 and name in many
            kind = inspect.Parameter.VAR_POSITIONAL if several else inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(name, kind))
    return inspect.Signature(parameters)


def _has_code(forward: Any) -> bool:
    """torch.export asks forward for its code, which only functions, methods and partials of them have."""
    return hasattr(forward.func if isinstance(forward, functools.partial) else forward, "__code__")


@contextlib.contextmanager
def signed(model: torch.nn.Module, signature: inspect.Signature | None) -> Iterator[None]:
    """Let a model's forward have this signature."""
    if signature is None:
        yield
        return
    forward: Any = model.forward
    outer: Any
    if _has_code(forward):
        outer = functools.partial(forward)  # adds no frame to the stack traces of the nodes
    else:

        def outer(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

    outer.__signature__ = signature
    before = vars(model).get("forward")
    vars(model)["forward"] = outer
    try:
        yield
    finally:
        if before is None:
            vars(model).pop("forward", None)
        else:
            vars(model)["forward"] = before


# Programs ------------------------------------------------------------------------------------------------------------


def call_of_program(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Arrange a call as a program's own call specification has it, whatever the model's forward looks like.

    Raises:
        InputError: missing, unknown or repeated arguments, or a container of another structure.
    """
    spec = CallSpec.of(program)
    args, kwargs = spec.arranged(args, kwargs)
    names = spec.names or [f"args_{i}" for i in range(len(args))]
    arguments = [*zip(names, args, strict=False), *kwargs.items()]
    return Call(args, kwargs, arguments, dict(arguments))
