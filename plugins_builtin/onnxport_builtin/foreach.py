"""`torch._foreach_*`: one call for each tensor of a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import torch

_NAMES = (
    "abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min clone copy cos cosh div erf erfc exp expm1 floor "
    "frac lerp lgamma log log10 log1p log2 max maximum minimum mm mul neg norm pow powsum reciprocal round rsqrt "
    "sigmoid sign sin sinh sqrt sub tan tanh trunc zero"
)


def _maximum(tensor: torch.Tensor, other: Any) -> torch.Tensor:
    return torch.maximum(tensor, other) if isinstance(other, torch.Tensor) else tensor.clamp_min(other)


def _minimum(tensor: torch.Tensor, other: Any) -> torch.Tensor:
    return torch.minimum(tensor, other) if isinstance(other, torch.Tensor) else tensor.clamp_max(other)


def _addcdiv(tensor: torch.Tensor, first: torch.Tensor, second: torch.Tensor, value: float = 1) -> torch.Tensor:
    return torch.addcdiv(tensor, first, second, value=value)


def _addcmul(tensor: torch.Tensor, first: torch.Tensor, second: torch.Tensor, value: float = 1) -> torch.Tensor:
    return torch.addcmul(tensor, first, second, value=value)


def _copy(tensor: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    return source.to(tensor.dtype).expand(tensor.shape)


def _norm(tensor: torch.Tensor, ord: float = 2, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.linalg.vector_norm(tensor, ord, dtype=dtype)


def _powsum(tensor: torch.Tensor, ord: float = 2, dtype: torch.dtype | None = None) -> torch.Tensor:
    return tensor.abs().pow(ord).sum(dtype=dtype)


_OWN: Mapping[str, Callable[..., Any]] = {
    "addcdiv": _addcdiv,
    "addcmul": _addcmul,
    "copy": _copy,
    "maximum": _maximum,
    "minimum": _minimum,
    "norm": _norm,
    "powsum": _powsum,
    "zero": torch.zeros_like,
}


def _each(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    """`function` on the elements of the lists among `args`, with what is no list the same for all."""
    columns = [arg if isinstance(arg, (list, tuple)) else cycle([arg]) for arg in args]
    return [function(*row, **kwargs) for row in zip(*columns)]


def decompositions() -> dict[Any, Callable[..., Any]]:
    """A decomposition for each overload that writes nothing."""
    found = {}
    for name in _NAMES.split():
        packet = getattr(torch.ops.aten, f"_foreach_{name}", None)
        for overload in (getattr(packet, key) for key in packet.overloads()) if packet else ():
            scalars = any(str(a.type) == "Tensor" for a in overload._schema.arguments if a.name == "scalars")
            if not overload._schema.is_mutable and not scalars:  # a tensor of scalars can't be captured (torch 2.14)
                found[overload] = partial(_each, _OWN.get(name) or getattr(torch, name))
    return found
