"""Architectures of transformers, by the type of their configuration, small and with random weights.

``transformers:llama`` is the base model of the type: two layers, and sizes that its configuration's names tell. A type
whose sizes depend on each other in other ways can't be made, which is its result; a function of one's own makes it.
"""

from __future__ import annotations

from typing import Any

import torch

from onnxport_zoo.resolvers import Resolver

_SMALL = {
    "vocab_size": 128,
    "hidden_size": 64,
    "d_model": 64,
    "n_embd": 64,
    "embedding_size": 64,
    "intermediate_size": 96,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "d_ff": 96,
    "n_inner": 96,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "image_size": 64,
    "patch_size": 16,
}
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "sep_token_id")


def _names() -> list[str]:
    from transformers import MODEL_MAPPING

    return sorted({config.model_type for config in MODEL_MAPPING if config.model_type})


def _example(name: str) -> dict[str, Any]:
    from transformers import AutoConfig, AutoModel

    defaults = AutoConfig.for_model(name)
    small = {key: value for key, value in _SMALL.items() if isinstance(getattr(defaults, key, None), int)}
    small |= {key: 1 for key in _TOKENS if (getattr(defaults, key, None) or 0) >= _SMALL["vocab_size"]}
    if hasattr(defaults, "use_cache"):
        small["use_cache"] = False
    model = AutoModel.from_config(AutoConfig.for_model(name, **small)).eval()
    batch = {0: "batch"}
    kind = getattr(model, "main_input_name", "input_ids")
    if kind == "pixel_values":
        size = getattr(model.config, "image_size", 64)
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        channels = getattr(model.config, "num_channels", 3)
        kwargs = {"pixel_values": torch.randn(2, channels, height, width)}
        return {"model": model, "kwargs": kwargs, "dynamic_shapes": {"pixel_values": batch}}
    tokens = {0: "batch", 1: "sequence"}
    kwargs = {"input_ids": torch.randint(2, 100, (2, 8))}
    shapes = {"input_ids": tokens}
    if getattr(model.config, "is_encoder_decoder", False):
        kwargs["decoder_input_ids"] = torch.randint(2, 100, (2, 6))
        shapes["decoder_input_ids"] = {0: "batch", 1: "target"}
    return {"model": model, "kwargs": kwargs, "dynamic_shapes": shapes}


resolver = Resolver(_names, _example, ("transformers",))
