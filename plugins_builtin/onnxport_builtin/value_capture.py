"""Capturing what branches on known values.

These are changes to torch 2.14 that last while an export captures:

- torch knows the values of tensors of one element that the forward makes of literals, and so can branch on them. Here
  it knows those of a few more: ``if (torch.tensor(std) == 0).any()`` of a normalization is decided.
- Python's ``max`` and ``min`` of sizes are symbolic in a non-strict capture, but not of quotients of sizes: those
  compare, and the answer for the example's sizes is the graph's. Here they are symbolic too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement
from torch._export import non_strict_utils
from torch._subclasses import fake_tensor
from torch.fx.experimental import proxy_tensor

_KNOWN_VALUES = 64  # elements: means and deviations of channels, corners of a box, a small matrix


def known_values() -> Iterator[Replacement]:
    """While any thread is in it, torch's functions are replaced."""
    for module in (fake_tensor, proxy_tensor):
        if hasattr(module, "CONSTANT_NUMEL_LIMIT"):
            yield Replacement(module, "CONSTANT_NUMEL_LIMIT", lambda _: _KNOWN_VALUES)
    if hasattr(non_strict_utils, "_tensor_min_max"):
        yield Replacement(non_strict_utils, "_tensor_min_max", _of_quotients)


def _of_quotients(original: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(*args: Any, **kwargs: Any) -> Any:
        numbers = all(isinstance(arg, (int, float, torch.SymInt, torch.SymFloat)) for arg in args)
        if len(args) != 2 or not numbers or not any(isinstance(arg, torch.SymFloat) for arg in args):
            return original(*args, **kwargs)
        return (torch.sym_max if kwargs["tensor_callable"] is torch.maximum else torch.sym_min)(*args)

    return extreme
