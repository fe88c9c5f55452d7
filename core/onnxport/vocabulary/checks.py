"""Checks of what callers give: one of a wrong type is refused with the parameter's name, before anything is done."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from onnxport.errors import ArgumentError, InputError

_LONGEST = 60


def wrong(parameter: str, value: object, wanted: str) -> ArgumentError:
    """The error for an argument of a wrong type.

    Args:
        parameter: its name, such as ``rtol`` or ``other_inputs[0]``.
        value: what was given.
        wanted: what to give in its place.
    """
    return ArgumentError(f"{parameter}={shown(value)}: give {wanted}.", parameter=parameter.partition("[")[0])


def shown(value: object) -> str:
    """A value as a message shows it, in a line; whatever its ``repr`` does."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, (torch.nn.Module, np.ndarray)):
        return f"a {type(value).__name__}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of a class of the caller's
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def path_argument(parameter: str, value: object, wanted: str = "the path of a file") -> str:
    """A path as a string. Numbers, which ``open`` takes for file descriptors and closes, are none.

    Raises:
        InputError: it is neither a string nor an ``os.PathLike`` that gives one, or it is empty, or has a NUL.
    """
    path: object = None
    if isinstance(value, (str, os.PathLike)):
        try:
            path = os.fspath(value)
        except Exception:  # a class of the caller's: it raises, or gives a number
            path = None
    if isinstance(path, bytes) and not isinstance(value, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        raise wrong(parameter, value, wanted)
    if not path or "\0" in path:
        raise InputError(f"{parameter}={shown(value)}: give {wanted}.", parameter=parameter)
    return path


def optional(parameter: str, value: Any, kind: type | tuple[type, ...], wanted: str) -> Any:
    """The value, which is None or an instance.

    Raises:
        InputError: it is anything else.
    """
    if value is not None and not isinstance(value, kind):
        raise wrong(parameter, value, f"{wanted}, or leave it out")
    return value


def listed(value: Any) -> list[Any] | None:
    """The items of a list, tuple or other collection; None for a text, an array, or what can't be iterated over."""
    if isinstance(value, (str, bytes, bytearray, Mapping, torch.Tensor, np.ndarray)):
        return None
    try:
        return list(value)
    except Exception:  # no collection, or a class of the caller's
        return None


def is_empty(value: Any) -> bool:
    """Whether a parameter was left out or is an empty collection. An array is never empty."""
    return value is None or (isinstance(value, (tuple, list, dict)) and not value)


def require_flags(**flags: Any) -> None:
    """Refuse what can't be meant as True, False or None; an array, say, would fail wherever it is first asked.

    Raises:
        InputError: names the parameter.
    """
    for name, value in flags.items():
        if value is not None and not isinstance(value, int):
            raise ArgumentError(f"{name}={shown(value)}: it must be True or False.", parameter=name)


def takes(function: Any, *args: Any) -> bool:
    """Whether something can be called with these arguments; true where Python can't tell, as for some built-ins."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*args)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def classes_of(given: Any) -> tuple[type | str, ...]:
    """``functions``, a collection of module classes and of their names.

    Raises:
        InputError: it is anything else.
    """
    classes = None if isinstance(given, type) else listed(given)
    if classes is None or not all(isinstance(f, (str, type)) for f in classes):
        raise InputError(
            f"functions={shown(given)}: it must be a list of module classes or of their qualified names.",
            parameter="functions",
        )
    return tuple(classes)
