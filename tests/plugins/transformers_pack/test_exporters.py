"""The exporter that transformers has of its own, which calls ``torch.onnx.export``, under ``as_torch_onnx()``."""

from __future__ import annotations

import copy
from typing import Any

import onnxport
import pytest
import torch

pytest.importorskip("transformers.exporters", reason="this transformers has no exporters")

from transformers.exporters import OnnxConfig, OnnxExporter
from transformers_subjects import WORDS, decoder

IDS = torch.randint(3, WORDS, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fusions", [None, pytest.param("cpu", marks=pytest.mark.grid)])
def test_a_decoder(fusions: Any) -> None:
    model = decoder("Llama")
    with onnxport.as_torch_onnx():
        config = OnnxConfig(dynamic=True, ort_fusions=fusions)
        exported = OnnxExporter().export(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}, config)
    assert exported.program.producer_name == "onnxport"
    for ids in (IDS, IDS[:1, :4]):
        with torch.no_grad():
            expected = model(input_ids=ids).logits
        found = exported(input_ids=ids, attention_mask=torch.ones_like(ids))["logits"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.grid
def test_its_parts_for_generation() -> None:
    from transformers.exporters.utils import decompose_for_generation

    model = decoder("Llama")
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with onnxport.as_torch_onnx():
        exported = OnnxExporter().export_for_generation(model, dict(given), OnnxConfig(dynamic=True))
    parts = decompose_for_generation(model, dict(given))
    assert set(exported.components) == set(parts) and len(parts) > 1
    for name, (part, kwargs) in parts.items():
        assert exported.components[name].program.producer_name == "onnxport"
        found = exported.runners[name](**copy.deepcopy(kwargs))
        with torch.no_grad():
            expected = part(**copy.deepcopy(kwargs))
        torch.testing.assert_close(found["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
