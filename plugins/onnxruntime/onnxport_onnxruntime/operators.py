"""Operators that stand in FX graphs for several nodes that one kernel of onnxruntime computes.

torch computes them by the functions below, which are also how other runtimes and :func:`onnxport.find_mismatch` see
them, and what a node becomes that no kernel takes after all.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMESPACE = "onnxport_onnxruntime"
_library = torch.library.Library(NAMESPACE, "DEF")


def _define(schema: str, function: object) -> torch._ops.OpOverload:
    name = schema.partition("(")[0]
    _library.define(schema)
    _library.impl(name, function, "CompositeImplicitAutograd")
    return getattr(getattr(torch.ops, NAMESPACE), name).default  # type: ignore[no-any-return]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    heads: int,
    kv_heads: int,
    scale: float | None = None,
    is_causal: bool = False,
    window: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled dot-product attention, with the heads side by side in the last axis.

    Args:
        query: (B, S, heads * D).
        key, value: (B, T, kv_heads * D), those of new tokens where there is a past.
        mask: (1 or B, 1 or heads, S, T), bools that are True where a key is read, or floats to add to the scores.
        past_key, past_value: (B, kv_heads, P, D), which go before the new ones.
        is_causal: queries read no keys behind their own position; the last one is at the position of the last key. The
            mask, if there is one, says the same.
        window: queries read so many keys up to their own position.

    Returns:
        The result (B, S, heads * D), and all keys and values as (B, kv_heads, T, D).
    """
    q = query.unflatten(2, [heads, query.shape[2] // heads]).transpose(1, 2)
    k, v = (x.unflatten(2, [kv_heads, x.shape[2] // kv_heads]).transpose(1, 2) for x in (key, value))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    if mask is None and is_causal:
        behind = torch.arange(k.shape[2], device=q.device) - (k.shape[2] - q.shape[2])
        ahead = torch.arange(q.shape[2], device=q.device).unsqueeze(1) - behind
        mask = ahead >= 0
        if window >= 0:
            mask = mask & (ahead < window)
    result = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=heads != kv_heads)
    return result.transpose(1, 2).flatten(2, 3), k, v


_ARGUMENTS = (
    "(Tensor query, Tensor key, Tensor value, Tensor? mask=None, Tensor? past_key=None, Tensor? past_value=None, *, "
    "int heads, int kv_heads, float? scale=None, bool is_causal=False, int window=-1) -> (Tensor, Tensor, Tensor)"
)
group_query_attention = _define(f"group_query_attention{_ARGUMENTS}", _attention)
multi_head_attention = _define(f"multi_head_attention{_ARGUMENTS}", _attention)


def _rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, *, heads: int) -> Tensor:
    """Each head's first half and second half turned against each other.

    Args:
        x: (B, S, heads * D).
        cos, sin: (1 or B, S, D / 2).
    """
    first, second = x.unflatten(2, [heads, 2, x.shape[2] // heads // 2]).unbind(3)
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], 3).flatten(2, 4)


rotary_embedding = _define(
    "rotary_embedding(Tensor x, Tensor cos, Tensor sin, *, int heads) -> Tensor",
    _rotary_embedding,
)


def _skip_layer_norm(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of a sum over its last axis, and the sum."""
    total = x + skip
    return torch.nn.functional.layer_norm(total, [x.shape[-1]], weight, bias, eps), total


skip_layer_norm = _define(
    "skip_layer_norm(Tensor x, Tensor skip, Tensor weight, Tensor? bias, float eps) -> (Tensor, Tensor)",
    _skip_layer_norm,
)


def _skip_rms_norm(x: Tensor, skip: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The root-mean-square norm of a sum over its last axis, and the sum."""
    total = x + skip
    return weight * (total * torch.rsqrt(total.pow(2).mean(-1, keepdim=True) + eps)), total


skip_rms_norm = _define(
    "skip_rms_norm(Tensor x, Tensor skip, Tensor weight, float eps) -> (Tensor, Tensor)",
    _skip_rms_norm,
)


def _fast_gelu(x: Tensor) -> Tensor:
    """GELU by its approximation with tanh."""
    return torch.nn.functional.gelu(x, approximate="tanh")


fast_gelu = _define("fast_gelu(Tensor x) -> Tensor", _fast_gelu)


def _quick_gelu(x: Tensor, alpha: float) -> Tensor:
    """``x * sigmoid(alpha * x)``: SiLU, where alpha is 1."""
    return x * torch.sigmoid(alpha * x)


quick_gelu = _define("quick_gelu(Tensor x, float alpha) -> Tensor", _quick_gelu)


def _mixture(
    x: Tensor,
    logits: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    *,
    count: int,
    is_normalized: bool,
    is_turned: bool,
    is_interleaved: bool,
    alpha: float,
    beta: float,
    limit: float | None,
) -> Tensor:
    """The sum of the chosen experts' gated products, each times its weight.

    Args:
        x: (T, H).
        logits: (T, E); the softmax of the chosen ones, or of all, gives the weights.
        up: (E, H, 2 * I), or (E, 2 * I, H) where stacks are turned: the gate and what it is multiplied with.
        up_bias: (E, 2 * I).
        down: (E, I, H), or (E, H, I).
        down_bias: (E, H).
        count: how many experts each token has.
        is_normalized: the weights of a token add up to 1.
        is_interleaved: the columns of the gate are every second one; if not, they are the first half.
        alpha, beta, limit: of ``min(gate, limit) * sigmoid(alpha * min(gate, limit)) * (clip(up) + beta)``.
    """
    best, ids = logits.topk(count, -1)
    weights = best.softmax(-1) if is_normalized else logits.softmax(-1).gather(1, ids)
    first, second = (stack.transpose(1, 2) if is_turned else stack for stack in (up, down))
    both = torch.matmul(x, first)
    both = both if up_bias is None else both + up_bias.unsqueeze(1)
    gate, other = (both[..., ::2], both[..., 1::2]) if is_interleaved else both.chunk(2, -1)
    if limit is not None:
        gate, other = gate.clamp(max=limit), other.clamp(-limit, limit)
    results = torch.matmul(gate * torch.sigmoid(alpha * gate) * (other + beta), second)
    results = results if down_bias is None else results + down_bias.unsqueeze(1)
    spread = torch.zeros_like(logits).scatter(1, ids, weights)
    return (results * spread.t().unsqueeze(2)).sum(0)


mixture = _define(
    "mixture(Tensor x, Tensor logits, Tensor up, Tensor? up_bias, Tensor down, Tensor? down_bias, *, int count, "
    "bool is_normalized, bool is_turned, bool is_interleaved, float alpha, float beta, float? limit) -> Tensor",
    _mixture,
)
