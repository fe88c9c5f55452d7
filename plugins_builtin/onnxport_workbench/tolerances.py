"""Tolerances that callers give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from onnxport import InputError
from onnxport.kit import shown, wrong


def tolerance_argument(parameter: str, value: Any) -> float | None:
    """A tolerance as a float; None where none is given.

    Raises:
        InputError: it is no number, or NaN, infinite or negative: any model would pass, or none.
    """
    if value is None:
        return None
    number = _number(value)
    if number is None:
        raise wrong(parameter, value, "a number of at least 0, or leave it out")
    if not 0 <= number < math.inf:
        raise InputError(
            f"{parameter}={shown(value)}: a tolerance is a finite number of at least 0. Leave it out for the dtype's.",
            parameter=parameter,
        )
    return number


def _number(value: Any) -> float | None:
    """A real number of Python, numpy or torch; None for anything else, a bool or a text of digits among it."""
    try:
        if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
            value = value.item() if value.ndim == 0 else None
        if isinstance(value, (bool, str, bytes, bytearray)) or not hasattr(type(value), "__float__"):
            return None
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:  # a tensor without data, or a class of the caller's
        return None
