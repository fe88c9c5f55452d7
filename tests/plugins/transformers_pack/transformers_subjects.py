"""Small random models of transformers whose greedy tokens vary."""

from __future__ import annotations

from typing import Any

import torch
import transformers

WORDS = 64
_SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_local_experts": 12, "num_experts_per_tok": 2}
OWN: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {},
    "Gemma3": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "Phi": {},
    "Mistral": {"sliding_window": 4},
    "GptOss": {"sliding_window": 4, **_EXPERTS},
    "Mixtral": _EXPERTS,
}


def decoder(name: str, **options: Any) -> Any:
    """A causal language model with weights that are large enough for its tokens to vary."""
    kind = "Gemma3Text" if name == "Gemma3" else name
    config = getattr(transformers, f"{kind}Config")(**{**_SIZES, **OWN.get(name, {}), **options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    return enlarged(model)


def enlarged(model: Any) -> Any:
    """Give weights of products four times their size: random models repeat one token otherwise."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(4)
    return model


def greedy(model: Any, prompt: list[int], steps: int) -> list[int]:
    """The prompt and the tokens that eager torch puts behind it, without an end, and without a cache."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            tokens = torch.tensor([ids])
            logits = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids
