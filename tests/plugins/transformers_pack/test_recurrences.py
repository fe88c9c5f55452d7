"""Recurrences of transformers: equal to its own functions, and one Scan a layer in files of any length."""

from __future__ import annotations

import importlib
from typing import Any

import onnxport
import pytest
import torch

transformers = pytest.importorskip("transformers")

import onnxport_transformers  # noqa: E402
from onnxport_transformers import Generation, decoding, recurrences  # noqa: E402
from transformers_subjects import enlarged  # noqa: E402

BATCH, HEADS, KEYS, VALUES, CHANNELS, NUMBERS, GROUPS = 2, 4, 8, 6, 5, 3, 2
LENGTHS = (1, 5, 70)  # 70 is more than a chunk


def _function(model: str, name: str) -> Any:
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    return getattr(module, name, None) or pytest.skip(f"this transformers has no {name}")


def _assert_same(found: Any, expected: Any) -> None:
    assert (found is None) == (expected is None)
    if isinstance(expected, (tuple, list)):
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other)
    elif expected is not None:
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize(
    ("model", "name", "keys"),
    [
        ("qwen3_next", "torch_chunk_gated_delta_rule", 2),
        ("qwen3_next", "torch_recurrent_gated_delta_rule", 4),
        ("kimi_linear", "chunk_kimi_delta_attention", 4),
        ("kimi_linear", "recurrent_kimi_delta_attention", 4),
    ],
)
def test_delta_rules(model: str, name: str, keys: int, goes_on: bool, length: int) -> None:
    query, key = torch.randn(2, BATCH, length, keys, KEYS).unbind(0)
    value = torch.randn(BATCH, length, HEADS, VALUES)
    decay = torch.rand(BATCH, length, HEADS, *([KEYS] if model == "kimi_linear" else []))
    options = {
        "g": -decay / 4,
        "beta": torch.rand(BATCH, length, HEADS),
        "initial_state": torch.randn(BATCH, HEADS, KEYS, VALUES) if goes_on else None,
        "output_final_state": goes_on,
        "use_qk_l2norm_in_kernel": True,
    }
    expected = _function(model, name)(query, key, value, **options)
    _assert_same(recurrences.gated_delta_rule(query, key, value, **options), expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_selective_scans(length: int) -> None:
    x, dt, z = torch.randn(3, BATCH, CHANNELS, length).unbind(0)
    parts = torch.randn(2, BATCH, NUMBERS, length).unbind(0)
    arguments = (x, dt, -torch.rand(CHANNELS, NUMBERS), *parts)
    options = {"D": torch.randn(CHANNELS), "z": z, "delta_bias": torch.randn(CHANNELS), "delta_softplus": True}
    for last in (False, True):
        expected = _function("mamba", "mamba_selective_scan")(*arguments, **options, return_last_state=last)
        _assert_same(recurrences.selective_scan(*arguments, **options, return_last_state=last), expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("goes_on", [False, True])
def test_grouped_scans(goes_on: bool, length: int) -> None:
    arguments = (torch.randn(BATCH, length, HEADS, VALUES), torch.randn(BATCH, length, HEADS), -torch.rand(HEADS))
    parts = torch.randn(2, BATCH, length, GROUPS, NUMBERS).unbind(0)
    options = {
        "chunk_size": 16,
        "D": torch.randn(HEADS),
        "dt_bias": torch.randn(HEADS),
        "dt_softplus": True,
        "dt_limit": (0.01, 2.0),
        "initial_states": torch.randn(BATCH, HEADS, VALUES, NUMBERS) if goes_on else None,
        "return_final_states": goes_on,
    }
    expected = _function("mamba2", "mamba2_chunk_scan")(*arguments, *parts, **options)
    _assert_same(recurrences.grouped_scan(*arguments, *parts, **options), expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("goes_on", [False, True])
def test_weighted_averages(goes_on: bool, length: int) -> None:
    arguments = (*torch.randn(2, CHANNELS).unbind(0), *torch.randn(2, BATCH, length, CHANNELS).unbind(0))
    state = list(torch.rand(3, BATCH, CHANNELS).unbind(0)) if goes_on else None
    for given in (False, True):
        expected = _function("rwkv", "rwkv_linear_attention")(*arguments, state=state, return_state=given)
        _assert_same(recurrences.weighted_average(*arguments, state=state, return_state=given), expected)


_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DELTA: dict[str, Any] = {
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}


def _model(kind: str, name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, kind)(**{**_SIZES, **options})).eval()


def _scans(program: onnxport.ONNXProgram) -> int:
    return sum(node.op_type == "Scan" for node in program.model.graph)


@pytest.mark.parametrize(
    ("kind", "options", "scans"),
    [
        ("Mamba", {"state_size": 8, "intermediate_size": 48, "time_step_rank": 4}, 2),
        ("Mamba2", {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16}, 2),
        ("Qwen3_5", _DELTA, 1),
    ],
)
def test_decoders_go_on_from_their_states(kind: str, options: dict[str, Any], scans: int) -> None:
    config = "Qwen3_5TextConfig" if kind == "Qwen3_5" else f"{kind}Config"
    model = enlarged(_model(config, f"{kind}ForCausalLM", **options))
    graph = decoding.decoder(model)
    for plugins in ((), [onnxport_transformers]):  # the pack may be installed, or be only imported
        program = onnxport.export(graph.model, **graph.options(), plugins=plugins, verbose=False)
        assert _scans(program) == scans
        result = onnxport.verify(program, model, kind=Generation(steps=6, prompts=(3, 70)))
        assert all(comparison.passed for comparison in result.comparisons), result.failures()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Rwkv", {"attention_hidden_size": 32, "context_length": 64}),
        pytest.param("xLSTM", {"num_heads": 4, "num_blocks": 2}, marks=pytest.mark.grid),
    ],
)
def test_any_length(kind: str, options: dict[str, Any]) -> None:
    model = _model(f"{kind}Config", f"{kind}ForCausalLM", **options)
    shapes = {"input_ids": {0: "batch", 1: "sequence"}, "use_cache": None}
    program = onnxport.export(
        model,
        kwargs={"input_ids": torch.randint(0, 64, (2, 7)), "use_cache": False},
        dynamic_shapes=shapes,
        plugins=[onnxport_transformers],
        verbose=False,
    )
    assert _scans(program) == 2
    for batch, length in ((1, 3), (3, 90)):
        ids = torch.randint(0, 64, (batch, length))
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(program(input_ids=ids)[0], expected, rtol=1e-3, atol=1e-4)


def test_functions_of_others_stay() -> None:
    """A class of somebody else with a function of the same name isn't touched; nor is one with other arguments."""

    def mamba_selective_scan(hidden_states: Any) -> Any:
        return hidden_states

    assert not recurrences._is_known(mamba_selective_scan, recurrences.selective_scan)
    mamba_selective_scan.__module__ = "transformers.models.mamba.modeling_mamba"
    assert recurrences._is_known(mamba_selective_scan, recurrences.selective_scan)

    def newer(hidden_states: Any, window: int = 3) -> Any:
        return hidden_states

    newer.__module__ = mamba_selective_scan.__module__
    assert not recurrences._is_known(newer, recurrences.selective_scan)
