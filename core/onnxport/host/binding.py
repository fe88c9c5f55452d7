"""The arguments of an operator, bound to a translation by the schema's names; and what is wrong with its parameters."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxport.errors import Unsupported
from onnxport.vocabulary.upstream import OpOverload, schema_of

if TYPE_CHECKING:
    from onnxport.records.translations import Translation

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_REQUIRED = object()
_KEPT = 8192
"""Functions whose parameters are remembered; those of a table are new ones for each export, mostly."""


@functools.lru_cache(maxsize=_KEPT)
def _arguments_of(target: OpOverload) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of an operator's arguments, and the defaults of those that have one."""
    arguments = schema_of(target).arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return tuple(a.name for a in arguments), defaults


@functools.lru_cache(maxsize=_KEPT)
def _parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(function).parameters.values())


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The parameters of a function, the builder's first.

    Raises:
        TypeError: Python can't tell them.
    """
    try:
        return _parameters_of(function)
    except ValueError as error:
        raise TypeError(f"its parameters can't be read: {error}") from error
    except TypeError:  # an object that can't be hashed
        return tuple(inspect.signature(function).parameters.values())


def _unknown_to(function: Callable[..., Any], target: OpOverload) -> tuple[str, ...]:
    """Schema arguments of ``target`` that ``function`` has no parameter for."""
    parameters = parameters_of(function)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return ()
    known = {p.name for p in parameters if p.kind in _NAMED}
    return tuple(name for name in _arguments_of(target)[0] if name not in known)


def signature_mismatch(function: Callable[..., Any], target: OpOverload) -> str:
    """The reason why ``function`` can't take all arguments of ``target``'s schema; empty when it can.

    The first parameter is the builder; the others have the schema's names.
    """
    if unknown := _unknown_to(function, target):
        return f"has no parameter for {', '.join(unknown)}"
    return mistake(function, target)


def mistake(function: Callable[..., Any], target: OpOverload) -> str:
    """The mistake in the parameters of a translation, whatever the arguments are; empty when there is none.

    One that lacks a parameter for an argument with a default can still serve calls that leave it at that.
    """
    try:
        return _mistake(function, target)
    except TypeError:  # an object that can't be hashed
        return _mistake.__wrapped__(function, target)


@functools.lru_cache(maxsize=_KEPT)
def _mistake(function: Callable[..., Any], target: OpOverload) -> str:
    try:
        parameters = parameters_of(function)
    except TypeError as error:
        return str(error)
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        return "takes no builder: its first parameter must be op"
    names, defaults = _arguments_of(target)
    behind = parameters[1:]
    for parameter in behind:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            return f"parameter {parameter.name} is positional-only, but arguments are passed by name"
    foreign = [p.name for p in behind if p.kind in _NAMED and p.name not in names]
    needed = [p.name for p in behind if p.name in foreign and p.default is p.empty]
    unknown = _unknown_to(function, target)
    lacking = [name for name in unknown if name not in defaults]
    if not lacking and not needed:  # an optional one that is misspelt would never be given its value
        for name in foreign:
            near = difflib.get_close_matches(name, unknown, 1, 0.7)
            if near:
                needed, lacking = [name], [near[0]]
                break
    found = []
    if needed:
        named = "parameter" if len(needed) == 1 else "parameters"
        found.append(f"has the {named} {', '.join(map(repr, needed))}, which the schema lacks")
    if lacking:
        found.append(f"has no parameter for {', '.join(map(repr, lacking))}")
    if not found:
        return ""
    return f"{', and '.join(found)}; arguments are passed by the names of the schema {schema_of(target)}"


class Unbound(Unsupported):
    """A translation lacks a parameter for an argument."""


def bind(
    translation: Translation, target: object, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The ``(positional, keyword)`` arguments for ``translation.function``, after the builder.

    Arguments of an ``OpOverload`` are all bound by the schema's names, with its defaults filled in.
    Python callables and higher-order operators have no schema: theirs are passed as they stand.

    Raises:
        Unbound: the function lacks a parameter of the schema, as newer torch versions add them,
            and the argument isn't at its default.
    """
    if not isinstance(target, OpOverload):
        return args, kwargs
    names, defaults = _arguments_of(target)
    bound = defaults.copy()
    bound.update(zip(names, args))
    bound.update(kwargs)
    for name in _unknown_to(translation.function, target):
        value = bound.pop(name, None)
        if not _is_default(value, defaults.get(name, _REQUIRED)):
            raise Unbound(
                f"{translation.function_name} doesn't know the argument {name}={value!r}: add such a parameter"
            )
    return (), bound


def _is_default(value: Any, default: Any) -> bool:
    """Tensors and sizes are no defaults, and comparing them would emit nodes."""
    if value is default:
        return True
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return len(value) == len(default) and all(map(_is_default, value, default))
    return isinstance(value, (bool, int, float, complex, str)) and bool(value == default)
