"""The passes of the pack: for each profile, those that its measurements are for.

Measurements are of forms: an operator of onnxruntime in one use, such as ``GroupQueryAttention with a cache``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from onnxport import Pass
from torch.fx import GraphModule

from onnxport_onnxruntime import activations, attention, mixtures, norms, operators, sums
from onnxport_onnxruntime.attention import Attention

GROUPED, GROUPED_CACHE = "GroupQueryAttention", "GroupQueryAttention with a cache"
MULTI_HEAD, MULTI_HEAD_CAUSAL = "MultiHeadAttention", "MultiHeadAttention, causal"
MULTI_HEAD_MASK, MULTI_HEAD_CACHE = "MultiHeadAttention with a mask", "MultiHeadAttention with a cache"
MULTI_HEAD_LONG = "MultiHeadAttention of a long sequence"
ATTENTIONS = (
    GROUPED,
    GROUPED_CACHE,
    MULTI_HEAD,
    MULTI_HEAD_CAUSAL,
    MULTI_HEAD_MASK,
    MULTI_HEAD_CACHE,
    MULTI_HEAD_LONG,
)

STEPS: dict[str, Callable[[GraphModule], int]] = {
    "MoE": mixtures.fuse,
    "SkipLayerNormalization": norms.fuse_layer_norms,
    "SkipSimplifiedLayerNormalization": norms.fuse_rms_norms,
    "FastGelu": activations.fuse_approximated_gelus,
    "FastGelu for what models write by hand": activations.fuse_fast_gelus,
    "QuickGelu": activations.fuse_quick_gelus,
}
"""By form, what finds it in the FX graph; the larger ones first, which contain others."""

KEPT_APART = {"Sum before LayerNormalization": "LayerNormalization", "Sum before Gelu": "Gelu"}
"""By form, the operator that onnxruntime fuses an Add with when it loads a file."""

FORMS = frozenset({*ATTENTIONS, *STEPS, *KEPT_APART})


def fx_passes(profile: str, used: Collection[str]) -> list[Pass]:
    """The passes of a profile over the FX graph, in their order.

    Args:
        used: the forms that its files have.
    """
    found = [Pass(f"{profile}: {name}", step, profile=profile) for name, step in STEPS.items() if name in used]
    if any(name in used for name in ATTENTIONS):
        step = partial(_fused_attentions, partial(kernel_of, used))
        found.insert(0, Pass(f"{profile}: attention", step, profile=profile))
    return found


def ir_passes(profile: str, used: Collection[str]) -> list[Pass]:
    """The passes of a profile over the ONNX model."""
    kept = [operator for name, operator in KEPT_APART.items() if name in used]
    return [Pass(f"{profile}: sums", partial(sums.keep_apart, kept), profile=profile)] if kept else []


def _fused_attentions(kernel: Callable[[Attention], Any], module: GraphModule) -> int:
    return attention.fuse(module, kernel)


def kernel_of(used: Collection[str], found: Attention) -> Any:
    """The operator of the pack for a kernel that computes an attention; None where there is none, or it isn't used."""
    if found.dtype is not torch.float32 or found.scale == 0:
        return None
    is_grouped = found.has_past or found.heads != found.kv_heads or found.reach.window is not None
    if is_grouped and has_grouped_query(found) and (GROUPED_CACHE if found.has_past else GROUPED) in used:
        return operators.group_query_attention
    if not has_multi_head(found):
        return None
    form = MULTI_HEAD_CAUSAL if found.reach.is_causal else MULTI_HEAD
    if found.mask is not None:
        form = MULTI_HEAD_MASK
    elif found.is_long and not found.reach.is_causal:
        form = MULTI_HEAD_LONG
    return operators.multi_head_attention if (MULTI_HEAD_CACHE if found.has_past else form) in used else None


def has_grouped_query(found: Attention) -> bool:
    """Whether ``GroupQueryAttention`` computes it."""
    return (
        found.reach.is_causal
        and found.is_self
        and found.width == found.value_width
        and found.width % 8 == 0
        and found.mask in (None, torch.bool)
    )


def has_multi_head(found: Attention) -> bool:
    """Whether ``MultiHeadAttention`` computes it."""
    return found.heads == found.kv_heads and found.reach.window is None
