"""Decoders for onnxruntime's CPU in three types: softcaps, sinks, windows, parts of heads that turn."""

from __future__ import annotations

from typing import Any

import onnxport
import onnxport_onnxruntime
import pytest
import torch
from onnxport_onnxruntime import fusion, measure

transformers = pytest.importorskip("transformers")

DYNAMIC = torch.export.Dim.DYNAMIC
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODERS: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 8, "sliding_window": 4},  # softcaps of scores and logits, windows in every other layer
    "GptOss": {"head_dim": 8, "sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2},  # sinks
    "Mistral": {"sliding_window": 4},
    "Qwen3": {"head_dim": 8},  # norms of heads
    "GPTNeoX": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}},
    "Glm": {"head_dim": 8},  # half of a head turns, pairs of neighbours
    "Cohere": {},  # pairs of neighbours
}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of the largest logit."""

OWN: dict[str, Any] = {"runtime": "onnxruntime-cpu", "plugins": [onnxport_onnxruntime]}
EVERY: dict[str, Any] = {"runtime": "onnxruntime-cpu", "plugins": [measure.Chosen("onnxruntime-cpu", *fusion.FORMS)]}
OFTEN = {("Gemma2", torch.float32), ("GptOss", torch.bfloat16), ("Glm", torch.float16)}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in OFTEN else pytest.mark.grid)
        for name in DECODERS
        for dtype in TOLERANCE
    ],
)
def test_decoder(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **DECODERS[name]})
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)

    def call(batch: int, length: int) -> dict[str, Any]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, : length // 3] = 0
        ids = torch.randint(3, 64, (batch, length))
        return {"input_ids": ids, "attention_mask": mask, "use_cache": False}

    axes = {0: DYNAMIC, 1: DYNAMIC}
    shapes = {"input_ids": axes, "attention_mask": axes, "use_cache": None}
    first = onnxport.export(model, kwargs=call(2, 7), dynamic_shapes=shapes, **OWN)
    others = [OWN | {"opset_version": 20}] + ([EVERY] if dtype is torch.float32 else [])
    programs = [first, *(onnxport.export(first.exported_program, **options) for options in others)]
    for size in ((2, 7), (1, 9), (3, 1)):
        given = call(*size)
        with torch.no_grad():
            expected = model(**given).logits
        kept = given["attention_mask"].bool()  # what padding reads, nobody reads
        for program in programs:
            logits = program(given["input_ids"], given["attention_mask"])[0]
            assert logits.dtype is dtype
            difference = (logits - expected)[kept].abs().max() / expected[kept].abs().max()
            assert difference < TOLERANCE[dtype]
