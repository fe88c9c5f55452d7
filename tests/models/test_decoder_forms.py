"""Decoders of transformers at opset 23: norms and rotations are one node each, and keys are never copied."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal, run_model
from torch import nn

transformers = pytest.importorskip("transformers")

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
#: Configuration, RMS norms and rotations of a layer; a norm of the whole model comes behind
DECODERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "Llama": ({}, 2, 2),
    "Mistral": ({}, 2, 2),
    "Qwen3": ({}, 4, 2),
    "Gemma2": ({}, 4, 2),
    "Gemma": ({}, 2, 2),
    "Cohere": ({}, 0, 2),
    "Phi3": ({}, 2, 2),
    "Olmo2": ({}, 4, 2),
    "Glm": ({"partial_rotary_factor": 0.5}, 2, 2),
    "StableLm": ({}, 0, 2),
    "GPTNeoX": ({}, 0, 2),
}


def _decoder(name: str) -> nn.Module:
    options, _, _ = DECODERS[name]
    config = getattr(transformers, f"{name}Config")(**{**_SIZES, **options})
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def _call(model: nn.Module, batch: int, past: int, length: int) -> dict[str, Any]:
    ids = torch.randint(3, 64, (batch, past + length))
    with torch.no_grad():
        cache = model(input_ids=ids[:, :past], use_cache=True).past_key_values
    return {"input_ids": ids[:, past:], "attention_mask": torch.ones_like(ids), "past_key_values": cache}


_OFTEN = ("Llama", "Cohere", "GPTNeoX")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _OFTEN else pytest.mark.grid) for name in DECODERS]
)
def test_step_at_opset_23(name: str) -> None:
    model = _decoder(name)
    calls = [_call(model, *sizes) for sizes in ((2, 6, 3), (3, 8, 1), (4, 5, 4))]
    _, kwargs, shapes = onnxport.infer_dynamic_shapes(model, copy.deepcopy(calls))
    program = onnxport.export(model, kwargs=kwargs, dynamic_shapes=shapes, opset_version=23)
    for call in calls:
        with torch.no_grad():
            expected = model(**copy.deepcopy(call)).logits
        expect_equal(run_model(program, (), call)[0], expected)
    kinds = Counter(node.op_type for node in program.model.graph)
    _, norms, rotations = DECODERS[name]
    assert kinds["RMSNormalization"] == (2 * norms + 1 if norms else 0)
    assert kinds["RotaryEmbedding"] == 2 * rotations
    assert kinds["Expand"] <= 2  # the tables of the rotations for all of the batch
