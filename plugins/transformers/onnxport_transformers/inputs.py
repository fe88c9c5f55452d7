"""Example inputs of a model by its modality, and which of their axes are free."""

from __future__ import annotations

from typing import Any

import torch
from onnxport import InputError

from onnxport_transformers.decoding import BATCH, SEQUENCE, Graph, parameters_of

_BATCH, _LENGTH = 2, 7
IMAGE = 64
"""Height and width of images where the configuration has none."""
SAMPLES = 4096
"""Of speech, in example inputs."""
FRAMES = 96
"""Of spectrograms, where a model takes any number."""


def example(model: Any, task: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of a model's forward, and their dynamic shapes.

    Args:
        model: of transformers.
        task: in zero-shot classification, texts and images are of different number.

    Raises:
        InputError: what its forward takes is not known here.
    """
    takes = parameters_of(model)
    found: dict[str, tuple[torch.Tensor, dict[int, str]]] = {}
    apart = task.startswith("zero-shot")
    if "input_ids" in takes:
        found |= _text(model, takes, "text_batch_size" if apart else BATCH)
    reads_text = "input_ids" in found
    if "pixel_values" in takes and not (reads_text and _config_value(model, "image_token_id", "image_token_index")):
        found["pixel_values"] = _image(model, "image_batch_size" if apart else BATCH)
    if "input_values" in takes and "input_ids" not in takes:
        found["input_values"] = _sound(model)
    if "input_features" in takes and "input_ids" not in takes:
        found["input_features"] = _spectrogram(model)
    if not found:
        raise InputError(
            f"What {type(model).__name__}.forward takes ({', '.join(sorted(takes - {'self'}))}) is not known here. "
            "Export it with onnxport.export, which takes example inputs."
        )
    return {name: tensor for name, (tensor, _) in found.items()}, {name: axes for name, (_, axes) in found.items()}


def single(model: Any, task: str = "") -> Graph:
    """The graph of a model whose forward is called once."""
    kwargs, shapes = example(model, task)
    takes = parameters_of(model)
    fixed = {name: value for name, value in (("use_cache", False), ("return_dict", True)) if name in takes}
    return Graph(model, {**kwargs, **fixed}, {**shapes, **dict.fromkeys(fixed)}, list(kwargs), [])


def _config_value(model: Any, *names: str) -> Any:
    """The first of these settings, in the configuration or in those of its parts."""
    configs = [model.config, *(v for v in vars(model.config).values() if hasattr(v, "model_type"))]
    for name in names:
        for config in configs:
            value = getattr(config, name, None)
            if value is not None:
                return value
    return None


def _text(model: Any, takes: set[str], batch: str) -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
    config = model.config.get_text_config()
    words = getattr(config, "vocab_size", None) or _config_value(model, "vocab_size") or 2
    first = min(5, words - 1)  # behind the special tokens, which some models look for
    axes = {0: batch, 1: SEQUENCE}
    ids = torch.randint(first, words, (_BATCH, _LENGTH))
    found = {"input_ids": (ids, axes)}
    if "attention_mask" in takes:
        found["attention_mask"] = (torch.ones_like(ids), axes)
    if "token_type_ids" in takes and (getattr(config, "type_vocab_size", 0) or 0) > 1:
        found["token_type_ids"] = (torch.zeros_like(ids), axes)
    return found


def _image(model: Any, batch: str) -> tuple[torch.Tensor, dict[int, str]]:
    channels = _config_value(model, "num_channels", "in_channels", "in_chans") or 3
    size = _config_value(model, "image_size", "img_size", "input_size") or IMAGE
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.randn(_BATCH, int(channels), int(height), int(width)), {0: batch}


def _sound(model: Any) -> tuple[torch.Tensor, dict[int, str]]:
    return torch.randn(_BATCH, SAMPLES), {0: BATCH, 1: "sample_count"}


def _spectrogram(model: Any) -> tuple[torch.Tensor, dict[int, str]]:
    bins = _config_value(model, "num_mel_bins", "input_feat_per_channel", "feature_size", "input_dim") or 80
    positions = _config_value(model, "max_source_positions")
    if model.config.model_type == "whisper":  # always 30 seconds, by mel bins
        return torch.randn(_BATCH, bins, 2 * positions), {0: BATCH}
    return torch.randn(_BATCH, FRAMES, bins), {0: BATCH, 1: "frame_count"}
