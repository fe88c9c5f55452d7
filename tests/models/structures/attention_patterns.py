"""Attention in the forms that models write it in: masks, positions, groups, windows, memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import BUFFER, floats, ints, structure

X, OTHER = floats(2, 5, 8), floats(3, 7, 8)
TOKENS = ({0: "batch", 1: "time"},)
MANY: dict[str, Any] = {"dynamic": TOKENS, "other": (OTHER,)}


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


@structure(X, **MANY)
class CausalSelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.tril(torch.ones(16, 16, dtype=torch.bool)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time = x.shape[1]
        q, k, v = (heads(part) for part in self.qkv(x).split(8, 2))
        scores = (q @ k.mT) * k.shape[-1] ** -0.5
        scores = scores.masked_fill(~self.mask[:time, :time], float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@structure(X, **MANY)
class RelativePositionBiasOfT5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1])
        distance = positions[None] - positions[:, None]
        side, away = (distance > 0).long() * 4, distance.abs()
        large = 2 + (away.float().clamp_min(1).log() / 2).long()
        bucket = side + torch.where(away < 2, away, large.clamp_max(3))
        bias = self.bias(bucket).permute(2, 0, 1)[None]
        q = heads(x)
        return ((q @ q.mT) + bias).softmax(-1)


@structure(X, **MANY)
class LearnedRelativePositionsBySkewing(nn.Module):
    """Music Transformer: relative logits are shifted into place by padding and reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(floats(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, _ = x.shape
        logits = heads(x) @ self.table[-time:].t()
        padded = F.pad(logits, (1, 0)).reshape(batch, 2, time + 1, time)
        return padded[:, :, 1:].softmax(-1)


@structure(X, **MANY)
def linear_biases_of_alibi(x: torch.Tensor) -> torch.Tensor:
    slopes = torch.tensor([2.0**-4, 2.0**-8])[:, None, None]
    positions = torch.arange(x.shape[1])
    bias = slopes * (positions[None] - positions[:, None]).tril()
    causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    q = heads(x)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=bias.masked_fill(~causal, float("-inf")))


@structure(X, **MANY)
class RotaryEmbeddingOfHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rates", 1.0 / (100 ** (torch.arange(0, 4, 2) / 4)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = heads(x)
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.rates)
        cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
        turned = torch.cat([-q[..., 2:], q[..., :2]], -1)
        return q * cos + turned * sin


@structure(X, **MANY)
def rotary_embedding_of_interleaved_pairs_in_place(x: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])
    y = torch.empty_like(x)
    y[..., 0::2] = x[..., 0::2] * angles.cos() - x[..., 1::2] * angles.sin()
    y[..., 1::2] = x[..., 0::2] * angles.sin() + x[..., 1::2] * angles.cos()
    return y


@structure(X, **MANY)
def grouped_queries_with_repeated_keys(x: torch.Tensor) -> torch.Tensor:
    batch, time, _ = x.shape
    q, k = x.view(batch, time, 4, 2).transpose(1, 2), x[..., :4].reshape(batch, time, 2, 2).transpose(1, 2)
    keys = k[:, :, None].expand(batch, 2, 2, time, 2).reshape(batch, 4, time, 2)
    return F.scaled_dot_product_attention(q, keys, keys, is_causal=True).transpose(1, 2).flatten(2)


@structure(X, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), dynamic=TOKENS * 2,
           other=(OTHER, (floats(3, 7) > -1).long()))  # fmt: skip
def padding_mask_joined_with_a_causal_mask(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    time = x.shape[1]
    causal = torch.full((time, time), torch.finfo(x.dtype).min).triu_(1)
    padding = (1.0 - mask[:, None, None].to(x.dtype)) * torch.finfo(x.dtype).min
    q = heads(x)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=torch.maximum(causal + padding, torch.tensor(-3e38)))


@structure(X, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool(), dynamic=TOKENS * 2,
           other=(OTHER, floats(3, 7) > -1.9))  # fmt: skip
class MultiheadAttentionWithKeyPadding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> Any:
        return self.attention(x, x, x, key_padding_mask=~keep, need_weights=True)


@structure(floats(2, 8, 8, 4), dynamic=({0: "batch"},), other=(floats(3, 8, 8, 4),))
def shifted_windows(x: torch.Tensor) -> torch.Tensor:
    batch = x.shape[0]
    shifted = x.roll((-2, -2), (1, 2))
    windows = shifted.view(batch, 2, 4, 2, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4)
    attended = F.scaled_dot_product_attention(windows, windows, windows)
    back = attended.view(batch, 2, 2, 4, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(batch, 8, 8, 4)
    return back.roll((2, 2), (1, 2))


@structure(X, **MANY)
def sliding_window_by_band_mask(x: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(x.shape[1])
    distance = positions[:, None] - positions
    band = (distance >= 0) & (distance < 3)
    q = heads(x)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=band)


@structure(floats(2, 6, 8), dynamic=({0: "batch"},), other=(floats(3, 6, 8),))
def local_attention_by_unfold(x: torch.Tensor) -> torch.Tensor:
    keys = F.pad(x, (0, 0, 1, 1)).unfold(1, 3, 1)
    weights = torch.einsum("btc,btcw->btw", x, keys).softmax(-1)
    return torch.einsum("btw,btcw->btc", weights, keys)


@structure(
    X, floats(2, 3, 8), dynamic=({0: "batch", 1: "time"}, {0: "batch", 1: "memory"}), other=(OTHER, floats(3, 4, 8))
)
class DecoderLayerWithMemory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, norm_first=True)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layer(x, memory, tgt_mask=causal, tgt_is_causal=True)


@structure(X, **MANY)
def linear_attention_with_a_running_state(x: torch.Tensor) -> torch.Tensor:
    q, k = F.elu(x) + 1, F.elu(x * 0.5) + 1
    state = torch.einsum("btc,btd->btcd", k, x).cumsum(1)
    norm = (q * k.cumsum(1)).sum(-1, keepdim=True)
    return torch.einsum("btc,btcd->btd", q, state) / norm


@structure(X, **MANY)
class PerceiverWithLatentQueries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(floats(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.latents.expand(x.shape[0], -1, -1)
        return q + F.scaled_dot_product_attention(q, x, x)


@structure(X, buffers={"memory": torch.zeros(2, 3, 8)}, mutates={"memory": BUFFER})
def recurrent_memory_of_past_segments(self: Any, x: torch.Tensor) -> torch.Tensor:
    context = torch.cat([self.memory, x], 1)
    y = F.scaled_dot_product_attention(x, context, context)
    self.memory.copy_(context[:, -3:].detach())
    return y


@structure(X, **MANY)
class EncoderWithClassTokenAndPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(floats(1, 1, 8))
        self.positions = nn.Parameter(floats(1, 16, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.layer(x + self.positions[:, : x.shape[1]])[:, 0]


@structure(ints(3, 1, 4, 1, 5).reshape(1, 5), dynamic=TOKENS, other=(ints(2, 7, 1, 8, 2, 8).reshape(2, 3),))
class MaskedLanguageHeadWithTiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8, padding_idx=0)
        self.head = nn.Linear(8, 9)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores = self.head(F.gelu(self.embedding(ids)))
        return F.cross_entropy(scores.flatten(0, 1), ids.flatten(), ignore_index=1), scores.log_softmax(-1)
