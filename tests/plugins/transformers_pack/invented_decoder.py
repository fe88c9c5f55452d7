"""A decoder that no list of architectures can know: weighted heads over a linear decay of distance, and gated sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class InventedConfig(PretrainedConfig):
    model_type = "invented"

    def __init__(self, words: int = 50, width: int = 24, heads: int = 3, depth: int = 2, **kwargs: Any) -> None:
        self.vocab_size, self.hidden_size, self.num_attention_heads = words, width, heads
        self.num_hidden_layers, self.max_position_embeddings = depth, 128
        super().__init__(**kwargs)


class Layer(nn.Module):
    def __init__(self, config: InventedConfig, number: int) -> None:
        super().__init__()
        self.number, self.heads = number, config.num_attention_heads
        width = config.hidden_size
        self.mixed = nn.Linear(width, 3 * width)
        self.gate, self.out = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.slopes = nn.Parameter(torch.linspace(0.05, 0.4, self.heads))

    def forward(self, x: torch.Tensor, positions: torch.Tensor, cache: Any, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        query, key, value = self.mixed(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        key, value = cache.update(key, value, self.number)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        keys = torch.arange(key.shape[2])
        distances = (keys.shape[0] - length + torch.arange(length))[:, None] - keys
        scores = scores - self.slopes[:, None, None] * distances
        is_read = (distances >= 0) & (mask[:, None, None, :] != 0)
        weights = scores.masked_fill(~is_read, -1e9).softmax(-1)
        joined = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return x + torch.sigmoid(self.gate(x)) * self.out(joined)


class InventedForCausalLM(PreTrainedModel):
    config_class = InventedConfig

    def __init__(self, config: InventedConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        cache = past_key_values
        past = cache.get_seq_length()
        mask = torch.ones(input_ids.shape[0], past + input_ids.shape[1]) if attention_mask is None else attention_mask
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x, input_ids, cache, mask)
        return CausalLMOutputWithPast(logits=self.head(x), past_key_values=cache)
