"""Real models whose in-place writes need no second trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functional_support import Model, check


def _torchvision(name: str) -> Any:
    models = pytest.importorskip("torchvision.models")
    return getattr(models, name)(weights=None).eval(), (torch.randn(2, 3, 32, 32),)


def _segmentation() -> Any:
    models = pytest.importorskip("torchvision.models.segmentation")
    return models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval(), (torch.randn(2, 3, 64, 64),)


def _t5() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, use_cache=False
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    return Model(lambda ids: model(input_ids=ids, decoder_input_ids=ids).logits), (torch.randint(0, 99, (2, 7)),)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _torchvision("resnet18"),
        lambda: _torchvision("mobilenet_v3_small"),
        _segmentation,
        _t5,
    ],
    ids=["resnet18", "mobilenet_v3_small", "lraspp", "t5"],
)
def test_models_need_no_second_trace(make: Any) -> None:
    model, args = make()
    check(model, args)
