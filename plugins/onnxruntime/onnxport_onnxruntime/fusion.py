"""The passes of the pack: one for each profile and each kind of operator."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from onnxport import Pass
from torch.fx import GraphModule

from onnxport_onnxruntime.attention import Attention


def _attentions(profile: str, module: GraphModule) -> int:
    from onnxport_onnxruntime.attention import fuse

    return fuse(module, kernel_of)


def kernel_of(attention: Attention) -> Any:
    """The operator of the pack that stands for a kernel which computes it; None where there is none."""
    from onnxport_onnxruntime import operators

    if attention.dtype is not torch.float32 or attention.scale == 0:
        return None
    is_better = attention.has_past or attention.heads != attention.kv_heads or attention.reach.window is not None
    if is_better and has_grouped_query(attention):
        return operators.group_query_attention
    return operators.multi_head_attention if has_multi_head(attention) else None


def has_grouped_query(attention: Attention) -> bool:
    """Whether ``GroupQueryAttention`` computes it."""
    return (
        attention.reach.is_causal
        and attention.is_self
        and attention.width == attention.value_width
        and attention.width % 8 == 0
        and attention.mask in (None, torch.bool)
    )


def has_multi_head(attention: Attention) -> bool:
    """Whether ``MultiHeadAttention`` computes it."""
    return attention.heads == attention.kv_heads and attention.reach.window is None


def passes() -> list[Pass]:
    """All passes, in their order."""
    return [
        Pass(f"{profile}.attention", partial(_attentions, profile), profile=profile) for profile in ("onnxruntime-cpu",)
    ]
