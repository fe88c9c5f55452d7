"""Ranges written into a tensor: ``torch.arange(n, out=x)``, ``linspace``, ``logspace`` and ``range``.

Eager keeps the shape of ``out=`` where it has as many elements as the range. torch 2.14 records one axis instead. While
an export captures, such a range is made first and copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement


def ranges() -> Iterator[Replacement]:
    """While any thread is in it, a range keeps the shape of ``out=``."""
    for name in ("arange", "linspace", "logspace", "range"):
        yield Replacement(torch, name, _in_shape)


def _in_shape(original: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return original(*args, **kwargs)
        if out.dim() == 1 or torch.compiler.is_dynamo_compiling():
            return original(*args, out=out, **kwargs)
        values = original(*args, **{**kwargs, "dtype": out.dtype, "device": out.device})
        if values.numel() != out.numel():
            return original(*args, out=out, **kwargs)
        return out.copy_(values.view(out.shape))

    return function
