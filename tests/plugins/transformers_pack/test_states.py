"""Decoders whose layers keep other states than keys and values: whether they go on from these is tried."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import onnxport
import pytest

transformers = pytest.importorskip("transformers")

import onnxport_transformers  # noqa: E402
from onnxport_transformers import Generation, decoding  # noqa: E402
from transformers_subjects import decoder  # noqa: E402


def _convolutional() -> Any:
    return decoder("Lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3)


def test_states_of_convolutions(tmp_path: Path) -> None:
    """The folder's weights are loaded: without them nothing can be tried."""
    model = _convolutional()
    model.save_pretrained(tmp_path / "model")
    package = onnxport_transformers.export_folder(tmp_path / "model", tmp_path / "package")
    program = onnxport.ONNXProgram.load(package.files["model"])
    names = [value.name for value in program.model.graph.inputs]
    assert "past_key_values.0.conv_state" in names and "past_key_values.1.key" in names
    result = onnxport.verify(package.files["model"], model, kind=Generation(steps=16, prompts=(4, 9)))
    assert all(comparison.passed for comparison in result.comparisons[:2]), result.failures()


def test_a_state_that_is_not_gone_on_from_is_refused() -> None:
    model = _convolutional()

    class Forgetful(type(model)):
        @functools.wraps(type(model).forward)
        def forward(self, *args, **kwargs):
            cache = next((kwargs[name] for name in ("cache", "past_key_values") if kwargs.get(name) is not None), None)
            for layer in cache.layers if cache is not None else ():
                for key, state in getattr(layer, "conv_states", {}).items():
                    layer.conv_states[key] = None if state is None else state * 0
            return super().forward(*args, **kwargs)

    model.__class__ = Forgetful
    with pytest.raises(onnxport.InputError, match="a text in two calls has other logits than in one"):
        decoding.decoder(model)
