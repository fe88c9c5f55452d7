"""Capturing ``tensor.data``, which torch.export's non-strict trace (torch 2.14) doesn't see.

A tensor that is read from ``.data`` would be a constant without a value, and an assignment to it would be lost. Here
reading it is ``detach()``, which shares the memory as well, and assigning to it is ``set_()``. The replacement lasts
while an export captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement
from torch._export import non_strict_utils


def data_attribute() -> Iterator[Replacement]:
    """While any thread is in it, torch's function is replaced."""
    handler = getattr(non_strict_utils, "_NonStrictTorchFunctionHandler", None)
    if hasattr(handler, "_override"):
        yield Replacement(handler, "_override", _seen)


def _seen(original: Callable[..., Any]) -> Callable[..., Any]:
    methods: dict[str, Any] = {"__get__": torch.Tensor.detach, "__set__": torch.Tensor.set_}

    def override(self: Any, func: Any, args: Any, kwargs: Any) -> Any:
        if getattr(func, "__self__", None) is torch.Tensor.data and func.__name__ in methods:  # type: ignore[comparison-overlap]
            return methods[func.__name__], args[: 1 + (func.__name__ == "__set__")], {}
        return original(self, func, args, kwargs)

    return override
