"""Files that take part in a generation loop: the cache goes in and comes out, and tokens are those of eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal, flat_tensors, run_model
from torch import nn

transformers = pytest.importorskip("transformers")

_SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


pytestmark = pytest.mark.usefixtures("unregistered_caches")  # onnxport registers them, and no other library


def _mistral() -> nn.Module:
    return transformers.MistralForCausalLM(transformers.MistralConfig(**_SMALL, sliding_window=4)).eval()


def _gemma2() -> nn.Module:
    """One layer slides, the other is full."""
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**_SMALL, sliding_window=4)).eval()


def _step(model: nn.Module, batch: int, past: int, length: int) -> dict[str, Any]:
    """The inputs of a forward after ``past`` tokens."""
    ids = torch.randint(0, 64, (batch, past + length))
    with torch.no_grad():
        cache = model(input_ids=ids[:, :past], use_cache=True).past_key_values
    return {"input_ids": ids[:, past:], "attention_mask": torch.ones_like(ids), "past_key_values": cache}


def _greedy(call: Callable[..., tuple[torch.Tensor, Any]], ids: torch.Tensor, cache: Any, steps: int) -> torch.Tensor:
    """The tokens that follow, one at a time; a step gives logits and the next cache."""
    token = ids[:, -1:]
    for _ in range(steps):
        mask = torch.ones_like(ids)
        logits, cache = call(input_ids=token, attention_mask=mask, past_key_values=cache)
        token = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, token], 1)
    return ids


def test_a_full_window_goes_on_at_any_position() -> None:
    """The keys say no more how many tokens a layer has seen: that is an input of the file."""
    torch.manual_seed(0)
    model = _gemma2()
    calls = [_step(model, *sizes) for sizes in ((2, 6, 3), (3, 8, 2), (4, 9, 4))]
    _, _, shapes = onnxport.infer_dynamic_shapes(model, copy.deepcopy(calls))
    assert "cumulative_length" in shapes["past_key_values"][0]
    program = onnxport.export(model, kwargs=copy.deepcopy(calls[0]), dynamic_shapes=shapes)
    assert "past_key_values_0_cumulative_length" in [value.name for value in program.model.graph.inputs]
    for call in calls:
        with torch.no_grad():
            expected = flat_tensors(model(**copy.deepcopy(call)))
        actual = run_model(program, (), call)
        for got, want in zip(actual, expected, strict=True):
            expect_equal(got, want)


def test_the_count_of_a_window_is_an_input_where_its_keys_are_dynamic() -> None:
    """A list of axes, one for each tensor of the cache, says nothing of it."""
    torch.manual_seed(0)
    model = _mistral()
    call = _step(model, 2, 6, 3)
    batch = {0: "batch"}
    shapes = {"input_ids": batch, "attention_mask": {**batch, 1: "total"}, "past_key_values": [batch] * 4}
    program = onnxport.export(model, kwargs=copy.deepcopy(call), dynamic_shapes=shapes)
    later = _step(model, 3, 9, 3)
    with torch.no_grad():
        expected = model(**copy.deepcopy(later)).logits
    expect_equal(run_model(program, (), later)[0], expected)
    still = onnxport.export(model, kwargs=copy.deepcopy(call))
    with pytest.raises(onnxport.InputError, match="cumulative_length' was 6 when"):
        still(**later)


def test_tokens_of_a_loop_are_those_of_generate() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**_SMALL)
    model = transformers.LlamaForCausalLM(config).eval()
    prompt = torch.randint(0, 64, (2, 5))
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(prompt)
    _, kwargs, shapes = onnxport.infer_dynamic_shapes(
        model, [_step(model, *sizes) for sizes in ((2, 6, 1), (3, 8, 1), (4, 9, 1))]
    )
    program = onnxport.export(model, kwargs=kwargs, dynamic_shapes=shapes)
    with torch.no_grad():
        wanted = model.generate(prompt, attention_mask=mask, **options)
        cache = model(input_ids=prompt[:, :-1], use_cache=True).past_key_values

    def run(past_key_values: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        logits, *states = run_model(program, (), {**kwargs, "past_key_values": past_key_values})
        pairs = list(zip(states[::2], states[1::2], strict=True))
        return logits, transformers.DynamicCache(pairs, config=config)

    assert torch.equal(_greedy(run, prompt, cache, 6), wanted)
