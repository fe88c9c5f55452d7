"""The library: a custom operator ``demo::scaled_add(x, y, scale) = x + scale * y``."""

from __future__ import annotations

import torch


@torch.library.custom_op("demo::scaled_add", mutates_args=())
def scaled_add(x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
    return x + scale * y


@scaled_add.register_fake
def _(x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
    return torch.empty_like(x + y)
