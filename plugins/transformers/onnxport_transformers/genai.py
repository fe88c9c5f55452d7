"""The package of onnxruntime-genai: ``genai_config.json`` beside a decoder's file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxport import InputError

NAMED_TYPES = frozenset(
    (
        *("chatglm", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gpt2", "granite", "internlm2", "llama", "mistral"),
        *("nemotron", "olmo", "phi", "phi3", "phi3small", "phimoe", "qwen2", "qwen3", "smollm3"),
    )
)
"""Decoders that onnxruntime-genai 0.18 has a name for. It runs them all alike, by the inputs of their file."""
_OTHER_TYPES = {"gpt_oss": "gptoss"}
_GENERAL = "llama"
_SEARCH: dict[str, Any] = {
    "diversity_penalty": 0.0,
    "do_sample": False,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
"""The settings of transformers that genai has too, with what they are where nothing is said."""


def model_type(config: Any) -> str:
    """What genai calls a decoder; for one that it doesn't list, the name of the general one."""
    name = config.get_text_config(decoder=True).model_type
    return name if name in NAMED_TYPES else _OTHER_TYPES.get(name, _GENERAL)


def write_config(
    folder: Path, model: Any, inputs: Sequence[str], outputs: Sequence[str], cache: Sequence[Any], file_name: str
) -> Path:
    """Write ``genai_config.json``.

    Args:
        folder: where the file of the model is.
        model: of transformers.
        inputs, outputs: their names in the file.
        cache: the shapes of the inputs ``past_key_values.0.key`` and so on, (B, H, P, D).
        file_name: of the ONNX file.

    Raises:
        InputError: genai can't feed an input of the file.
    """
    config = model.config.get_text_config(decoder=True)
    layers = sum(name.endswith(".key") for name in inputs)
    known = {"input_ids", "attention_mask", "position_ids"}
    known |= {f"past_key_values.{i}.{kind}" for i in range(layers) for kind in ("key", "value")}
    unknown = [name for name in inputs if name not in known]
    if unknown or not layers:
        raise InputError(
            f"onnxruntime-genai can't run this decoder: it has no "
            f"{'input ' + unknown[0] if unknown else 'cache of keys and values'}. Export without --genai, and run the "
            "file with onnxruntime.",
            parameter="genai",
        )
    heads, width = (int(size) for size in (cache[0][1], cache[0][3]))
    generation = getattr(model, "generation_config", None)
    context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
    named = {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
    pattern = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    present = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    written = {
        "model": {
            **_tokens(generation, config),
            "context_length": int(context),
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": file_name,
                "head_size": width,
                "hidden_size": int(config.hidden_size),
                "inputs": {**named, **pattern},
                "outputs": {"logits": outputs[0], **present},
                "num_attention_heads": int(config.num_attention_heads),
                "num_hidden_layers": layers,
                "num_key_value_heads": heads,
            },
            "type": model_type(model.config),
            "vocab_size": int(config.vocab_size),
        },
        "search": {
            **{name: _setting(generation, name, value) for name, value in _SEARCH.items()},
            "early_stopping": True,
            "max_length": int(context),
            "min_length": 0,
            "past_present_share_buffer": False,  # the file's caches grow with each token
        },
    }
    path = folder / "genai_config.json"
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return path


def _setting(generation: Any, name: str, default: Any) -> Any:
    value = getattr(generation, name, None)
    return default if value is None else value


def _tokens(generation: Any, config: Any) -> dict[str, Any]:
    """The tokens that begin, end and fill a text; those of the generation settings go first."""
    found: dict[str, Any] = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = (getattr(source, name, None) for source in (generation, config))
        found[name] = next((value for value in given if value is not None), None)
    ends = found["eos_token_id"]
    last = ends[0] if isinstance(ends, (list, tuple)) and ends else ends
    found["eos_token_id"] = 0 if ends is None else ends
    found["pad_token_id"] = (last or 0) if found["pad_token_id"] is None else found["pad_token_id"]
    if found["bos_token_id"] is None:
        del found["bos_token_id"]
    return found
