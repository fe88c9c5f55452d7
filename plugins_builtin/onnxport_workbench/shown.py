"""Sizes in words, and whether a person sees them: without the libraries of the command line, which load slowly."""

from __future__ import annotations

import contextlib
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Whether a person sees what is written there."""
    with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
        return bool(stream.isatty())
    return False


def model_size(model: Any) -> str:
    """The number of parameters and their bytes, in words; empty where that isn't known."""
    import torch

    try:
        if isinstance(model, torch.nn.Module):
            tensors = [*model.parameters(), *model.buffers()]
        else:
            tensors = [t for t in (getattr(model, "state_dict", None) or {}).values() if isinstance(t, torch.Tensor)]
        elements = sum(tensor.numel() for tensor in tensors)
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    except Exception:  # parameters without a shape yet, or a class of the caller's
        return ""
    if not tensors:
        return ""
    return f"{elements:,} parameters, {shown_bytes(total)}"


def shown_bytes(count: int) -> str:
    """A number of bytes for people, such as ``1.2 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
