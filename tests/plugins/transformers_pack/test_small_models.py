"""Small models of types of transformers: their sizes fit together, and their example inputs are accepted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers
from onnxport import InputError
from onnxport_transformers import inputs, small, small_configs


def shrunk(config_class: Any) -> Any:
    return next(small_configs.small_configs(config_class))


def test_heads_divide_widths_and_groups_divide_heads() -> None:
    config = shrunk(transformers.LlamaConfig)
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (2, 64, 128)
    assert config.hidden_size % config.num_attention_heads == 0
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert max(config.bos_token_id, config.eos_token_id) < config.vocab_size


def test_parts_of_a_configuration_are_small_too() -> None:
    config = shrunk(transformers.LlavaConfig)
    assert config.text_config.hidden_size == config.vision_config.hidden_size == 64
    assert config.vision_config.image_size == 4 * config.vision_config.patch_size
    assert config.image_token_id < config.text_config.vocab_size


def test_each_kind_of_layer_stays() -> None:
    default, config = transformers.Gemma3TextConfig(), shrunk(transformers.Gemma3TextConfig)
    assert set(config.layer_types) == set(default.layer_types)
    assert len(config.layer_types) == config.num_hidden_layers < default.num_hidden_layers


def test_layers_that_are_read_stay_in_range() -> None:
    config = shrunk(transformers.DPTConfig)
    assert max(config.backbone_out_indices) < config.num_hidden_layers <= 4
    assert len(set(config.backbone_out_indices)) == len(transformers.DPTConfig().backbone_out_indices)


def test_latent_attention_has_keys_for_all_heads() -> None:
    config = shrunk(transformers.DeepseekV3Config)
    assert config.num_key_value_heads == config.num_attention_heads
    assert config.n_routed_experts % config.n_group == 0


def test_an_error_about_rotary_sections_tells_what_they_have_to_be() -> None:
    message = (
        "split_with_sizes expects split_sizes to sum exactly to 8 (dimension -1), but got split_sizes=[16, 24, 24]"
    )
    found = small_configs.repair(message)["rope_parameters"]({"rope_type": "default"})
    assert sum(found["mrope_section"]) == 8 and min(found["mrope_section"]) > 0
    assert small_configs.repair("something else") == {}


def test_texts_have_as_many_tokens_for_images_as_the_model_asks_for() -> None:
    built = small.small_model("llava")
    (graph,) = built.graphs.values()
    token = built.model.config.image_token_id
    counts = (graph.kwargs["input_ids"] == token).sum(1)
    assert built.task == "image-text-to-text"
    assert counts.tolist() == [counts[0]] * len(counts) and counts[0] > 0
    assert graph.others[0]["input_ids"].shape != graph.kwargs["input_ids"].shape


def test_an_encoder_decoder_goes_before_its_parts() -> None:
    assert set(small.small_model("bart").graphs) == {"encoder", "decoder"}


def test_a_part_without_a_task_is_built_by_its_class() -> None:
    built = small.small_model("siglip_vision_model")
    assert built.graphs["model"].dynamic_shapes["pixel_values"] == {0: "batch_size"}


def test_a_forward_that_is_not_known_is_told() -> None:
    class Odd(transformers.LlamaModel):
        def forward(self, gizmo: torch.Tensor) -> torch.Tensor:
            return gizmo

    with pytest.raises(InputError, match="gizmo"):
        inputs.example(Odd(shrunk(transformers.LlamaConfig)))


def test_a_type_that_has_no_models_is_told() -> None:
    with pytest.raises(small.NotBuiltError, match="no class of models"):
        small.small_model("nougat")


def test_the_zoo_has_a_model_of_each_type() -> None:
    pytest.importorskip("onnxport_zoo")
    from onnxport_transformers.zoo import resolver

    assert resolver.matching("llam?") == ["llama"]
    made = resolver.example("llama")
    assert made["dynamic_shapes"]["input_ids"] and made["model"](**made["kwargs"]) is not None
    with pytest.raises(InputError, match="lama2"):
        resolver.example("lama2")
