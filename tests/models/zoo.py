"""The architectures that the exporter is held to: small or standard configurations with random weights.

Each entry builds a model, its example inputs, the dynamic dimensions asked for, and inputs of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Example:
    """A model with what exporting and checking it takes.

    Attributes:
        model: in eval mode.
        args, kwargs: example inputs.
        dynamic_shapes: what is asked to be dynamic.
        other_args, other_kwargs: inputs of another size.
        atol: how far float32 results may be apart.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic_shapes: Any = None
    other_args: tuple[Any, ...] = ()
    other_kwargs: dict[str, Any] = field(default_factory=dict)
    atol: float = 2e-4


ZOO: dict[str, Callable[[], Example]] = {}


def entry(function: Callable[[], Example]) -> Callable[[], Example]:
    """Register a builder under its name."""
    ZOO[function.__name__] = function
    return function


def _image_model(model: nn.Module, size: int = 224) -> Example:
    return Example(
        model.eval(),
        (torch.randn(2, 3, size, size),),
        dynamic_shapes=({0: "batch"},),
        other_args=(torch.randn(3, 3, size, size),),
    )


def _torchvision(name: str, size: int = 224) -> Callable[[], Example]:
    def build() -> Example:
        import torchvision

        return _image_model(getattr(torchvision.models, name)(weights=None), size)

    return build


def _timm(name: str) -> Callable[[], Example]:
    def build() -> Example:
        import timm

        return _image_model(timm.create_model(name, pretrained=False))

    return build


for _name in (
    "resnet50",
    "mobilenet_v3_small",
    "efficientnet_v2_s",
    "densenet121",
    "convnext_tiny",
    "vit_b_16",
    "swin_v2_t",
):
    ZOO[_name] = _torchvision(_name)
ZOO["timm_vit_tiny"] = _timm("vit_tiny_patch16_224")
ZOO["timm_levit_128s"] = _timm("levit_128s")


@entry
def mlp() -> Example:
    """The model of torch's own documentation: a tensor, a dict and a list as inputs."""

    class MLPModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc0 = nn.Linear(8, 8)
            self.fc1 = nn.Linear(8, 4)
            self.fc2 = nn.Linear(4, 2)
            self.fc3 = nn.Linear(2, 2)
            self.fc_combined = nn.Linear(8 + 8 + 8, 8)

        def forward(self, tensor_x: torch.Tensor, input_dict: dict, input_list: list) -> torch.Tensor:
            combined = torch.cat([tensor_x, input_dict["tensor_x"], input_list[0]], dim=1)
            combined = torch.sigmoid(self.fc_combined(combined))
            combined = torch.sigmoid(self.fc0(combined))
            combined = torch.sigmoid(self.fc1(combined))
            combined = torch.sigmoid(self.fc2(combined))
            return self.fc3(combined)

    def inputs(batch: int) -> tuple[Any, ...]:
        return torch.rand(batch, 8), {"tensor_x": torch.rand(batch, 8)}, [torch.rand(batch, 8)]

    return Example(
        MLPModel().eval(),
        inputs(97),
        dynamic_shapes=({0: "batch_size"}, {"tensor_x": {0: "batch_size"}}, [{0: "batch_size"}]),
        other_args=inputs(5),
    )


def _tokens(batch: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 100, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _text(model: nn.Module) -> Example:
    axes = {0: "batch", 1: "sequence"}
    return Example(
        model.eval(),
        kwargs=_tokens(2, 7),
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        other_kwargs=_tokens(3, 11),
    )


_SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@entry
def bert() -> Example:
    from transformers import BertConfig, BertModel

    return _text(BertModel(BertConfig(**_SMALL)))


@entry
def gpt2() -> Example:
    from transformers import GPT2Config, GPT2LMHeadModel

    return _text(GPT2LMHeadModel(GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, use_cache=False)))


@entry
def llama() -> Example:
    from transformers import LlamaConfig, LlamaForCausalLM

    return _text(LlamaForCausalLM(LlamaConfig(**_SMALL, num_key_value_heads=2, use_cache=False)))


@entry
def mixtral() -> Example:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**_SMALL, num_key_value_heads=2, num_local_experts=4, use_cache=False)
    return _text(MixtralForCausalLM(config))


@entry
def llama_with_cache() -> Example:
    """A ``DynamicCache`` goes in and comes out."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**_SMALL, num_key_value_heads=2)

    def inputs(batch: int, past: int, length: int) -> dict[str, Any]:
        pairs = [(torch.randn(batch, 2, past, 8), torch.randn(batch, 2, past, 8)) for _ in range(2)]
        return {
            "input_ids": torch.randint(0, 100, (batch, length)),
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "past_key_values": DynamicCache(pairs),
        }

    cache_axes = {0: "batch", 2: "past"}
    return Example(
        LlamaForCausalLM(config).eval(),
        kwargs=inputs(2, 5, 3),
        dynamic_shapes={
            "input_ids": {0: "batch", 1: "sequence"},
            "attention_mask": {0: "batch", 1: "past+sequence"},
            "past_key_values": [cache_axes] * 4,
        },
        other_kwargs=inputs(3, 9, 4),
    )


@entry
def t5() -> Example:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False)

    def inputs(batch: int, source: int, target: int) -> dict[str, torch.Tensor]:
        return {
            "input_ids": torch.randint(0, 100, (batch, source)),
            "decoder_input_ids": torch.randint(0, 100, (batch, target)),
        }

    return Example(
        T5Model(config).eval(),
        kwargs=inputs(2, 7, 5),
        dynamic_shapes={
            "input_ids": {0: "batch", 1: "source"},
            "decoder_input_ids": {0: "batch", 1: "target"},
        },
        other_kwargs=inputs(3, 9, 4),
    )


@entry
def whisper() -> Example:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(
        vocab_size=128, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16, max_source_positions=50,
        max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
        suppress_tokens=None, begin_suppress_tokens=None, use_cache=False,
    )  # fmt: skip

    def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
        return {
            "input_features": torch.randn(batch, 16, 100),
            "decoder_input_ids": torch.randint(0, 100, (batch, length)),
        }

    return Example(
        WhisperModel(config).eval(),
        kwargs=inputs(2, 5),
        dynamic_shapes={"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "sequence"}},
        other_kwargs=inputs(3, 8),
    )


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        output, state = self.rnn(x)
        return self.head(output), state


def _recurrent(kind: type[nn.Module]) -> Example:
    return Example(
        _Recurrent(kind).eval(),
        (torch.randn(2, 7, 6),),
        dynamic_shapes=({0: "batch", 1: "time"},),
        other_args=(torch.randn(4, 11, 6),),
    )


ZOO["lstm"] = lambda: _recurrent(nn.LSTM)
ZOO["gru"] = lambda: _recurrent(nn.GRU)


@entry
def cond() -> Example:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: self.left(x).relu(), lambda x: self.right(x) - 1.0, (x,))

    return Example(
        Branches().eval(),
        (torch.full((2, 4), 0.5),),
        dynamic_shapes=({0: "batch"},),
        other_args=(torch.full((3, 4), -0.5),),
    )
