"""Decoding steps of transformers take their cache as past_key_values=, whatever this release calls the parameter."""

from __future__ import annotations

import inspect
from typing import Any

import onnxport
import pytest
import torch
import transformers
from support import expect_equal

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEAD = {**SIZES, "head_dim": 4}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2}
#: Name of the classes, configuration, heads of the cache
DECODERS = {
    "Llama": (SIZES, 2),
    "Mistral": (SIZES, 2),
    "Gemma": (HEAD, 2),
    "Qwen2": (SIZES, 2),
    "Phi": (SIZES, 2),
    "GPT2": (GPT2, 4),
}


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def cache_of(config: Any, heads: int, length: int) -> Any:
    cache = transformers.DynamicCache(config=config)
    for layer in range(2):
        cache.update(seeded(1, heads, length, 4) + layer, seeded(1, heads, length, 4) - layer, layer)
    return cache


def decoder(name: str) -> tuple[torch.nn.Module, int]:
    sizes, heads = DECODERS[name]
    config = getattr(transformers, f"{name}Config")(**sizes)
    suffix = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    return getattr(transformers, f"{name}{suffix}")(config).eval(), heads


def call(model: torch.nn.Module, heads: int, seq: int = 3, past: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "input_ids": torch.arange(3, 3 + seq)[None],
        "attention_mask": torch.ones(1, past + seq, dtype=torch.int64),
        "past_key_values": cache_of(model.config, heads, past),
        **more,
    }


def logits(model: torch.nn.Module, kwargs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**kwargs).logits


@pytest.mark.parametrize("name", DECODERS)
def test_decoding_step(name):
    model, heads = decoder(name)
    program = onnxport.export(model, (), kwargs=call(model, heads))
    names = [value.name for value in program.model.graph.inputs]
    assert names == [
        "input_ids",
        "attention_mask",
        *(f"past_key_values_{layer}_{part}" for layer in range(2) for part in ("key", "value")),
    ]
    found = program(**call(model, heads))
    assert len(found) == 5 and found[1].shape == (1, heads, 8, 4)
    expect_equal(found[0], logits(model, call(model, heads)), atol=1e-4)
    reversed_call = dict(reversed(call(model, heads).items()))
    expect_equal(program(**reversed_call)[0], logits(model, call(model, heads)), atol=1e-4)


SHAPES = {
    "input_ids": {1: "seq"},
    "attention_mask": {1: "past + seq"},
    "past_key_values": {2: "past"},
    "position_ids": {1: "seq"},
}


@pytest.mark.parametrize(
    ("name", "positional"), [("Llama", False), ("Llama", True), ("Mistral", False), ("GPT2", False)]
)
def test_decoding_step_of_any_length(name, positional, tmp_path):
    model, heads = decoder(name)

    def made(seq: int, past: int) -> dict[str, Any]:
        return call(model, heads, seq, past, position_ids=torch.arange(past, past + seq)[None], use_cache=True)

    kwargs = made(3, 5)
    args = (kwargs.pop("input_ids"),) if positional else ()
    program = onnxport.export(model, args, kwargs=kwargs, dynamic_shapes=SHAPES)
    assert str(program.model.graph.inputs[2].shape) == f"[1,{heads},past,4]"
    program.save(tmp_path / "model.onnx")
    for runner in (program, onnxport.ONNXProgram.load(tmp_path / "model.onnx")):
        for seq, past in ((3, 5), (1, 9), (4, 2)):
            kwargs = dict(reversed(made(seq, past).items()))
            args = (kwargs.pop("input_ids"),) if positional else ()
            expect_equal(runner(*args, **kwargs)[0], logits(model, made(seq, past)), atol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"use_cache": True},
        {"cache_position": torch.arange(5, 8), "use_cache": True},
        {"logits_to_keep": 1},
        {"output_hidden_states": True},
    ],
    ids=lambda more: next(iter(more)),
)
def test_other_keywords(more):
    model, heads = decoder("Llama")
    program = onnxport.export(model, (), kwargs=call(model, heads, **more))
    expect_equal(program(**call(model, heads, **more))[0], logits(model, call(model, heads, **more)), atol=1e-4)


def test_the_name_of_the_parameter():
    """The name that forward itself has for the cache works alike."""
    model, heads = decoder("Llama")
    parameter = next(n for n in inspect.signature(model.forward).parameters if n in ("cache", "past_key_values"))

    def made() -> dict[str, Any]:
        kwargs = call(model, heads)
        return {parameter: kwargs.pop("past_key_values"), **kwargs}

    program = onnxport.export(model, (), kwargs=made())
    assert program.model.graph.inputs[0].name == f"{parameter}_0_key"
    expect_equal(program(**made())[0], logits(model, call(model, heads)), atol=1e-4)


def encoder_decoder_cache(heads: int, past: int, length: int) -> Any:
    parts = []
    for size in (past, length):
        part = transformers.DynamicCache()
        for layer in range(2):
            part.update(seeded(1, heads, size, 4) + layer, seeded(1, heads, size, 4) - layer, layer)
        parts.append(part)
    return transformers.EncoderDecoderCache(*parts)


BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
ENCODER_DECODERS = {
    "T5": {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 32},
    "Bart": BART,
    "Whisper": {**BART, "num_mel_bins": 8, "max_source_positions": 6, "begin_suppress_tokens": None},
}


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_decoding_step_of_encoder_decoders(name):
    config = getattr(transformers, f"{name}Config")(**ENCODER_DECODERS[name])
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()

    def made() -> dict[str, Any]:
        return {
            "decoder_input_ids": torch.tensor([[4]]),
            "past_key_values": encoder_decoder_cache(4, 3, 6),
            "encoder_outputs": (seeded(1, 6, 16),),
            "use_cache": True,
        }

    program = onnxport.export(model, (), kwargs=made())
    assert program.model.graph.inputs[1].name == "past_key_values_self_attention_cache_0_key"
    expect_equal(program(**made())[0], logits(model, made()), atol=1e-4)
