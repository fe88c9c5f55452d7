"""Checks of what the workbench's functions are called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxport.kit import wrong


def call_arguments(args: Any, kwargs: Any, label: str = "") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of a model's forward: positional ones, of which a tensor alone is one, and keywords.

    Args:
        args: a tuple or list, or None.
        kwargs: a dict with names as keys, or None.
        label: what they belong to, such as ``other_inputs[0]``.

    Raises:
        InputError: they are of another type.
    """
    names = (label or "args", label or "kwargs")
    if isinstance(args, torch.Tensor):
        args = (args,)
    elif args is None:
        args = ()
    elif not isinstance(args, (tuple, list)):
        raise wrong(names[0], args, "a tuple of forward's positional arguments")
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping) or any(not isinstance(key, str) for key in kwargs):
        raise wrong(names[1], kwargs, "a dict of forward's keyword arguments by their names")
    return tuple(args), dict(kwargs)


def callable_argument(parameter: str, value: Any, wanted: str) -> Callable[..., Any]:
    """A function, or whatever can be called and is no class.

    Raises:
        InputError: it is anything else.
    """
    if not callable(value) or isinstance(value, type):
        raise wrong(parameter, value, wanted)
    return value  # type: ignore[no-any-return]


__all__ = ["call_arguments", "callable_argument"]
