"""Packages that onnxruntime-genai runs: the tokens are those of eager torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import pytest
import torch

og = pytest.importorskip("onnxruntime_genai")
pytest.importorskip("transformers")

import onnxport_transformers  # noqa: E402
from transformers_subjects import OWN, WORDS, decoder, greedy  # noqa: E402

_OFTEN = ("Gemma3", "Mixtral")
STEPS = 64


def generated(folder: Path, expected: list[int], length: int) -> list[int]:
    """What genai makes of a prompt, the first tokens of what is expected; it goes on behind each of these."""
    path = folder / "genai_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model"]["eos_token_id"] = next(token for token in range(WORDS) if token not in expected)
    path.write_text(json.dumps(config), "utf-8")
    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(expected), do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([expected[:length]], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in _OFTEN else pytest.mark.grid) for n in OWN])
def test_tokens_of_genai(name: str, tmp_path: Path) -> None:
    model = decoder(name)
    package = onnxport_transformers.export_model(model, tmp_path / "package", genai=True)
    assert package.task == "text-generation" and package.files["model"].is_file()
    for length in (1, 6, 19):
        prompt = torch.randint(3, WORDS, (length,)).tolist()
        expected = greedy(model, prompt, STEPS)
        assert generated(package.folder, expected, length) == expected
        assert len(set(expected[length:])) > 2  # else it says little


def test_tokens_of_a_batch(tmp_path: Path) -> None:
    """genai masks padding at the end of prompts alone, and counts positions on behind it."""
    model = decoder("Llama")
    package = onnxport_transformers.export_model(model, tmp_path / "package", genai=True)
    prompts = [torch.randint(5, WORDS, (length,)).tolist() for length in (1, 7, 20)]
    expected = [greedy(model, prompt, STEPS)[len(prompt) :] for prompt in prompts]
    path = package.folder / "genai_config.json"
    config = json.loads(path.read_text("utf-8"))
    end = next(token for token in range(1, WORDS) if not any(token in tokens for tokens in expected))
    config["model"] |= {"pad_token_id": 0, "eos_token_id": end}
    path.write_text(json.dumps(config), "utf-8")
    loaded = og.Model(str(package.folder))
    params = og.GeneratorParams(loaded)
    params.set_search_options(max_length=20 + STEPS, do_sample=False, batch_size=len(prompts))
    generator = og.Generator(loaded, params)
    generator.append_tokens(np.array([prompt + [0] * (20 - len(prompt)) for prompt in prompts], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    assert [[int(token) for token in generator.get_sequence(i)][20:] for i in range(len(prompts))] == expected


def test_tokens_of_a_decoder_that_nobody_listed(tmp_path: Path) -> None:
    from invented_decoder import InventedConfig, InventedForCausalLM
    from transformers import DynamicCache

    model: Any = InventedForCausalLM(InventedConfig(words=WORDS)).eval()
    package = onnxport_transformers.export_model(model, tmp_path / "package", genai=True)
    ids = [4, 8, 15, 16, 23, 42]
    for _ in range(24):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), past_key_values=DynamicCache()).logits[0, -1].argmax()))
    assert generated(package.folder, ids, 6) == ids
    assert len(set(ids[6:])) > 2


def test_what_genai_cannot_run_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(onnxport.InputError, match="genai is for text generation; this is fill-mask"):
        onnxport_transformers.export_model(transformers.BertForMaskedLM(config), tmp_path, genai=True)
