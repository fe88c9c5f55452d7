"""Operator counts of well-known modules: a graph can't grow unnoticed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from support import export_and_compare, op_types
from torch import nn

_IMAGE = torch.randn(2, 3, 16, 16)
_ROWS = torch.randn(2, 5, 8)

_GOLDENS: dict[str, tuple[nn.Module, torch.Tensor, dict[str, int]]] = {
    "linear on rows": (nn.Linear(8, 4), torch.randn(2, 8), {"Gemm": 1}),
    "linear on sequences": (nn.Linear(8, 4), _ROWS, {"MatMul": 1, "Add": 1}),
    "linear without bias": (nn.Linear(8, 4, bias=False), _ROWS, {"MatMul": 1}),
    "convolution, norm and relu in place": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        _IMAGE,
        {"Conv": 1, "Relu": 1},
    ),
    "layer norm": (nn.LayerNorm(8), _ROWS, {"LayerNormalization": 1}),
    "gelu": (nn.GELU(), _ROWS, {"Gelu": 1}),
    "softmax": (nn.Softmax(-1), _ROWS, {"Softmax": 1}),
    "max pool": (nn.MaxPool2d(2), _IMAGE, {"MaxPool": 1}),
    "global average pool": (nn.AdaptiveAvgPool2d(1), _IMAGE, {"GlobalAveragePool": 1}),
    "dropout in eval mode": (nn.Sequential(nn.Dropout(), nn.ReLU()), _ROWS, {"Relu": 1}),
    "flatten": (nn.Flatten(), _IMAGE, {"Reshape": 1}),
    "embedding": (nn.Embedding(10, 4), torch.tensor([[1, 2, 3]]), {"Gather": 1}),
}


@pytest.mark.parametrize("name", _GOLDENS)
def test_operator_counts(name: str) -> None:
    module, x, expected = _GOLDENS[name]
    shapes = ({0: "batch"},) if x.shape[0] > 1 else None
    program = export_and_compare(module, (x,), dynamic_shapes=shapes)
    assert dict(Counter(op_types(program))) == expected
