"""The kind of verification for generation: tokens over many steps, and a batch with padding on the left."""

from __future__ import annotations

import functools
from pathlib import Path

import onnxport
import pytest
import torch

pytest.importorskip("transformers")

import onnxport_transformers
from onnxport_transformers import Generation, decoding
from transformers_subjects import OWN, decoder, enlarged


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "Gemma3" else pytest.mark.grid) for n in OWN])
def test_a_decoder_passes(name: str, tmp_path: Path) -> None:
    """Windows of 4 tokens are left behind by prompts and steps."""
    package = onnxport_transformers.export_model(decoder(name), tmp_path, verify=True)
    assert "verify" in package.seconds
    result = onnxport.verify(package.files["model"], decoder(name), kind=Generation(steps=24, prompts=(2, 9)))
    assert result.passed and len(result.comparisons) == 3
    assert result.comparisons[-1].label == "2 prompts, padded, 24 steps"
    assert result.comparisons[-1].outputs[0].shape == [2, 24]


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    model = decoder("Llama")
    graph = decoding.decoder(model)
    program = onnxport.export(graph.model, **graph.options())
    kind = Generation(steps=12, prompts=(3, 6))
    assert onnxport.verify(program, model, kind=kind).passed
    other = onnxport.verify(program, enlarged(decoder("Llama")), kind=kind)
    assert not other.passed and "output 'tokens'" in "\n".join(other.failures())
    rounded = onnxport.export(graph.model, **graph.options(), quantize="int4")
    assert onnxport.verify(rounded, model, kind=kind).passed  # with the model's weights rounded likewise

    class Unmasked(type(model)):  # reads padding
        @functools.wraps(type(model).forward)
        def forward(self, *args, attention_mask=None, **kwargs):
            return super().forward(*args, attention_mask=torch.ones_like(attention_mask), **kwargs)

    model.__class__ = Unmasked
    result = onnxport.verify(program, model, kind=kind)
    assert [comparison.passed for comparison in result.comparisons] == [True, True, False]


def test_what_generation_is_not_for(tmp_path: Path) -> None:
    linear = torch.nn.Linear(3, 3).eval()
    program = onnxport.export(linear, (torch.zeros(1, 3),))
    with pytest.raises(onnxport.InputError, match="it is no decoder's"):
        onnxport.verify(program, linear, kind=Generation())
    with pytest.raises(onnxport.InputError, match="kind"):
        onnxport.verify(program, linear, kind="generation")  # type: ignore[arg-type]
