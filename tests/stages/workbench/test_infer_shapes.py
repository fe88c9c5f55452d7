"""Dynamic shapes from calls."""

from __future__ import annotations

import pytest
import torch
from onnxport.errors import InputError
from onnxport.host.discovery import load
from onnxport_builtin.attempts.capture import capture
from onnxport_builtin.request.arguments import prepare
from onnxport_workbench.infer_shapes import infer_dynamic_shapes

rand = torch.rand


class Mix(torch.nn.Module):
    def forward(self, x, d, n=2, f=1.0):
        return x * n * f + d["y"].sum()


def exported(model, found):
    args, kwargs, shapes = found
    request = prepare(model.eval(), args, kwargs, dynamic_shapes=shapes)
    return capture(model, request, load(())).interface


def test_what_varies_is_asked_for():
    found = infer_dynamic_shapes(Mix(), [(rand(2, 3), {"y": rand(2)}), (rand(4, 3), {"y": rand(4)})])
    assert found.dynamic_shapes == {"x": {0: "x_dim_0"}, "d": {"y": {0: "x_dim_0"}}}
    assert [leaf.axes for leaf in exported(Mix(), found).inputs] == [{0: "x_dim_0"}, {0: "x_dim_0"}]


@pytest.mark.parametrize("call", [lambda x, d: {"x": x, "d": d}, lambda x, d: ((x,), {"d": d}), lambda x, d: [x, d]])
def test_forms_of_calls(call):
    found = infer_dynamic_shapes(Mix(), [call(rand(n, 3), {"y": rand(5)}) for n in (2, 3)])
    assert found.dynamic_shapes == {"x": {0: "x_dim_0"}, "d": {"y": None}}


def test_numbers_that_vary_become_inputs():
    found = infer_dynamic_shapes(Mix(), [(rand(2), {"y": rand(2)}, n, f) for n, f in ((2, 1.0), (3, 0.5))])
    assert [leaf.name for leaf in exported(Mix(), found).inputs] == ["x", "d_y", "n", "f"]


def test_nothing_varies():
    assert infer_dynamic_shapes(torch.nn.ReLU(), [rand(2), rand(2)]).dynamic_shapes is None


@pytest.mark.parametrize(
    "inputs",
    [
        [(rand(2),)],
        [],
        [(rand(2),), (rand(2, 2),)],
        [(rand(2),), (torch.ones(2, dtype=torch.int64),)],
    ],
)
def test_inputs_that_do_not_compare(inputs):
    with pytest.raises(InputError):
        infer_dynamic_shapes(torch.nn.ReLU(), inputs)


def test_different_structures():
    with pytest.raises(InputError, match="structures"):
        infer_dynamic_shapes(Mix(), [(rand(2), {"y": rand(2)}), (rand(2), {"y": rand(2), "z": rand(2)})])


def test_hooks_are_removed_after_an_error():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        infer_dynamic_shapes(model, [rand(4), rand(3)])
    assert not model._forward_pre_hooks


def test_generation_with_a_growing_cache(unregistered_caches):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20
    )
    model = transformers.LlamaForCausalLM(config).eval()

    def generate():
        cache, mask = transformers.DynamicCache(config=config), torch.ones(2, 0, dtype=torch.int64)
        for tokens in (3, 1, 2, 4):
            ids = torch.ones(2, tokens, dtype=torch.int64)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            model(input_ids=ids, attention_mask=mask, past_key_values=cache)

    args, kwargs, shapes = infer_dynamic_shapes(model, generate)
    assert not args and kwargs["past_key_values"].layers[0].keys.shape[2] == 6
    assert shapes["input_ids"] == {1: "input_ids_dim_1"}
    assert shapes["past_key_values"][0]["key"] == {2: "past_key_values_0_key_dim_2"}
    assert shapes["attention_mask"] == {1: "input_ids_dim_1 + past_key_values_0_key_dim_2"}
    interface = exported(model, (args, kwargs, shapes))
    assert {"input_ids_dim_1", "past_key_values_0_key_dim_2"} <= set(interface.dim_names.values())
