"""Caches of keys and values, grown, written at a position, rotated, and read back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

KEYS = floats(2, 2, 5, 4)
NEW = floats(2, 2, 1, 4)
CACHE = {"cache": torch.zeros(2, 2, 8, 4)}


@structure(KEYS, NEW, dynamic=({0: "batch", 2: "past"}, {0: "batch"}), other=(floats(3, 2, 9, 4), floats(3, 2, 1, 4)))
def keys_appended_to_the_past(past: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, ...]:
    keys = torch.cat([past, new], 2)
    return keys, F.scaled_dot_product_attention(new, keys, keys)


@structure(NEW, ints(3), buffers=CACHE, mutates={"cache": BUFFER}, other=[(NEW * 2, ints(7))])
def cache_written_at_a_tensor_position(self: Any, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    self.cache.index_copy_(2, position, new)
    return self.cache.sum(2)


@structure(NEW, ints(3), buffers=CACHE, mutates={"cache": BUFFER}, other=[(NEW * 2, ints(0))])
def cache_written_by_setitem_at_a_tensor(self: Any, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    self.cache[:, :, position] = new
    return self.cache * 1


@structure(NEW, torch.tensor(3), buffers=CACHE, uncaptured=r"valid indices \(got SymInt\)")
def cache_written_by_setitem_at_an_item(self: Any, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    at = position.item()
    torch._check(at >= 0)
    torch._check(at < 8)
    self.cache[:, :, at] = new[:, :, 0]
    return self.cache.mean(2)


@structure(NEW, torch.tensor(3), buffers=CACHE, mutates={"cache": BUFFER}, other=[(NEW * 2, torch.tensor(6))])
def one_step_written_at_an_item(self: Any, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    at = position.item()
    torch._check(at >= 0)
    torch._check(at < 8)
    self.cache.select(2, at).copy_(new[:, :, 0])
    return self.cache.mean(2)


@structure(KEYS, torch.tensor(2), buffers=CACHE, mutates={"cache": BUFFER}, other=[(KEYS * 2, torch.tensor(0))])
def prompt_written_from_an_item_on(self: Any, new: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    start = position.item()
    torch._check(start >= 0)
    torch._check(start + 5 <= 8)
    self.cache.narrow(2, start, 5).copy_(new)
    return self.cache.mean(2)


@structure(KEYS, dynamic=({2: "length"},), other=(floats(2, 2, 3, 4),), buffers=CACHE, mutates={"cache": BUFFER})
def prompt_of_dynamic_length_written(self: Any, new: torch.Tensor) -> torch.Tensor:
    length = new.shape[2]
    self.cache[:, :, :length] = new
    return self.cache[:, :, :length].sum(2)


@structure(NEW, buffers={**CACHE, "length": torch.tensor(2)}, mutates={"cache": BUFFER, "length": BUFFER})
def cache_with_its_own_length(self: Any, new: torch.Tensor) -> torch.Tensor:
    self.cache.index_copy_(2, self.length.view(1), new)
    self.length += 1
    seen = torch.arange(8) < self.length
    scores = (new @ self.cache.mT).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ self.cache


@structure(NEW, ints(1), floats(2, 2, 8, 4), mutates={"keys": INPUT}, other=[(NEW, ints(4), floats(2, 2, 8, 4) * 2)])
def cache_that_is_an_input_written(new: torch.Tensor, position: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    keys.index_copy_(2, position, new)
    return (new @ keys.mT).softmax(-1)


@structure(NEW, buffers={"cache": floats(2, 2, 4, 4)}, mutates={"cache": BUFFER})
def sliding_window_cache(self: Any, new: torch.Tensor) -> torch.Tensor:
    self.cache.copy_(torch.cat([self.cache[:, :, 1:], new], 2))
    return F.scaled_dot_product_attention(new, self.cache, self.cache)


@structure(NEW, buffers={"cache": floats(2, 2, 4, 4)}, mutates={"cache": BUFFER})
def cache_rolled_and_its_end_written(self: Any, new: torch.Tensor) -> torch.Tensor:
    rolled = self.cache.roll(-1, dims=2)
    rolled[:, :, -1:] = new
    self.cache.copy_(rolled)
    return self.cache.amax(2)


@structure(NEW, ints(9), buffers={"cache": floats(2, 2, 4, 4)}, mutates={"cache": BUFFER}, other=[(NEW, ints(2))])
def cache_written_modulo_its_length(self: Any, new: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    self.cache.index_copy_(2, step % 4, new)
    order = (torch.arange(4) + step + 1) % 4
    return self.cache.index_select(2, order)


@structure(KEYS, ints(1, 0), dynamic=({0: "beams", 2: "past"}, {0: "beams"}), other=(floats(3, 2, 7, 4), ints(2, 2, 0)))
def cache_reordered_by_beam(past: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    return past.index_select(0, beams)


@structure(
    NEW, [(KEYS, KEYS + 1), (KEYS * 2, KEYS * 3)], other=(NEW, [(floats(2, 2, 7, 4),) * 2] * 2),
    dynamic=(None, [({2: "past"}, {2: "past"})] * 2),
)  # fmt: skip
def cache_of_two_layers_as_a_list_of_pairs(new: torch.Tensor, past: list[Any]) -> Any:
    present = []
    for keys, values in past:
        keys, values = torch.cat([keys, new], 2), torch.cat([values, new], 2)
        new = F.scaled_dot_product_attention(new, keys, values)
        present.append((keys, values))
    return new, present


@structure(NEW, ints(2, 5), buffers={"pages": torch.zeros(6, 2, 4)}, mutates={"pages": BUFFER})
def pages_written_by_slot(self: Any, new: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    self.pages.index_put_((slots,), new[:, :, 0])
    return self.pages[slots.flip(0)]


@structure(NEW, buffers={"keys": torch.zeros(2, 2, 8, 4, dtype=torch.int8), "scale": torch.ones(2, 2, 8, 1)},
           mutates={"keys": BUFFER, "scale": BUFFER})  # fmt: skip
def cache_of_eight_bit_integers(self: Any, new: torch.Tensor) -> torch.Tensor:
    scale = new.abs().amax(-1, keepdim=True) / 127
    self.keys[:, :, 3:4] = (new / scale).round().to(torch.int8)
    self.scale[:, :, 3:4] = scale
    return new @ (self.keys.float() * self.scale).mT


@structure(floats(2, 1, 6), buffers={"state": torch.zeros(2, 6, 3), "window": torch.zeros(2, 6, 4)},
           mutates={"state": BUFFER, "window": BUFFER})  # fmt: skip
class StateSpaceStep(nn.Module):
    """One step of a Mamba-like layer: a rolled convolution window and a recurrent state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Parameter(floats(6, 4))
        self.decay = nn.Parameter(floats(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.window.copy_(self.window.roll(-1, -1))
        self.window[:, :, -1] = x[:, 0]
        u = F.silu((self.window * self.conv).sum(-1))
        self.state.mul_(self.decay.exp().neg().exp()).add_(u[..., None] * 0.5)
        return self.state.sum(-1)


@structure(floats(2, 4, 6), buffers={"count": torch.zeros(4, dtype=torch.int64)}, mutates={"count": BUFFER})
def tokens_counted_by_expert(self: Any, logits: torch.Tensor) -> torch.Tensor:
    chosen = logits.mean(-1).argmax(-1)
    self.count.scatter_add_(0, chosen, torch.ones_like(chosen))
    return self.count / self.count.sum()


@structure(floats(1, 3, 6), dynamic=({1: "length"},), other=(floats(1, 5, 6),), atol=1e-4)
class TransformersStaticCache(nn.Module):
    """A Llama layer that writes into a StaticCache it makes anew."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        self.model = LlamaModel(
            LlamaConfig(
                vocab_size=16, hidden_size=6, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                num_key_value_heads=1,
            )
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from transformers import StaticCache

        cache = StaticCache(config=self.model.config, max_cache_len=8)
        return self.model(inputs_embeds=x, past_key_values=cache).last_hidden_state
