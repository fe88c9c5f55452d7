"""Checks of what callers give: one of a wrong type is refused with the parameter's name, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from onnxport.errors import ArgumentError

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
