"""Every model of the zoo is exported, checked, and run on onnxruntime at the traced and at another shape."""

from __future__ import annotations

import pytest
import torch
from support import export_and_compare, op_types

from models.zoo import ZOO

_LARGE = ("efficientnet_v2_s", "densenet121", "convnext_tiny", "vit_b_16", "swin_v2_t")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in _LARGE else n for n in ZOO])
def test_model_computes_what_eager_does(name: str) -> None:
    torch.manual_seed(0)
    example = ZOO[name]()
    program = export_and_compare(
        example.model,
        example.args,
        example.kwargs,
        dynamic_shapes=example.dynamic_shapes,
        other_args=example.other_args or None,
        other_kwargs=example.other_kwargs or None,
        rtol=2e-3,
        atol=example.atol,
    )
    kinds = op_types(program)
    if name in ("lstm", "gru"):
        assert kinds.count(name.upper()) == 2
    if name == "cond":
        assert "If" in kinds
