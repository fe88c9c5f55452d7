"""Scaled dot-product attention with every kind of mask, and whole attention layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

LENGTHS = {0: Dim.AUTO, 2: Dim.AUTO}
BOTH = {0: Dim.AUTO, 1: Dim.AUTO}


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"scale": 1.0, "is_causal": True}], ids=str
)
def test_plain(options: dict[str, Any], dtype: torch.dtype) -> None:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, **options)

    args = tuple(values(2, 3, n, 8, dtype=dtype) for n in (5, 7, 7))
    other = tuple(values(4, 3, n, 8, dtype=dtype) for n in (9, 6, 6))
    export_and_compare(attend, args, other_args=other, dynamic_shapes=((LENGTHS, LENGTHS, LENGTHS),))
    export_and_compare(attend, tuple(x[0] for x in args))


@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 5, 7), (2, 3, 5, 7), (2, 1, 1, 7)])
def test_masks(shape: tuple[int, ...]) -> None:
    q, k, v = values(2, 3, 5, 8), values(2, 3, 7, 8), values(2, 3, 7, 4)
    allowed = torch.rand(shape) > 0.5
    allowed[..., 0, :] = False  # a query that nothing is left for gives zeros
    export_and_compare(F.scaled_dot_product_attention, (q, k, v, allowed))
    added = torch.where(allowed, torch.randn(shape), torch.tensor(-float("inf")))
    export_and_compare(F.scaled_dot_product_attention, (q, k, v, added))
    export_and_compare(F.scaled_dot_product_attention, (q, k, v, torch.randn(shape)))


def test_grouped_queries() -> None:
    export_and_compare(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True),
        (values(2, 6, 5, 8), values(2, 3, 7, 8), values(2, 3, 7, 8)),
        other_args=(values(3, 6, 4, 8), values(3, 3, 4, 8), values(3, 3, 4, 8)),
        dynamic_shapes=((LENGTHS, LENGTHS, LENGTHS),),
    )


def test_five_nodes() -> None:
    x = values(2, 3, 5, 8)
    program = export_and_compare(F.scaled_dot_product_attention, (x, x.clone(), x.clone()))
    assert op_types(program) == ["Mul", "Transpose", "MatMul", "Softmax", "MatMul"]


def test_core_forms() -> None:
    q, k, v = values(2, 3, 5, 8), values(2, 3, 7, 8), values(2, 3, 7, 8)
    aten = torch.ops.aten
    export_and_compare(aten._scaled_dot_product_flash_attention_for_cpu, (q, k, v))
    export_and_compare(aten._scaled_dot_product_attention_math, (q, k, v, torch.rand(5, 7) > 0.3))


@pytest.mark.parametrize("options", [{}, {"average_attn_weights": False}, {"need_weights": False}], ids=str)
def test_multi_head_attention(options: dict[str, Any]) -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True)

    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = module

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> Any:
            return [y for y in self.attention(x, x, x, key_padding_mask=padding, **options) if y is not None]

    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    other = torch.tensor([[False] * 6 + [True]])
    export_and_compare(
        Self(),
        (values(2, 5, 8), padding),
        other_args=(values(3, 7, 8), other.expand(3, 7)),
        dynamic_shapes=(BOTH, BOTH),
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first, activation="gelu")
    export_and_compare(layer, (values(2, 5, 8),), other_args=(values(3, 7, 8),), dynamic_shapes=(BOTH,))


def test_fused_encoder_layer() -> None:
    shapes = [(24, 8), (24,), (8, 8), (8,), (8,), (8,), (8,), (8,), (16, 8), (16,), (8, 16), (8,)]
    parameters = [values(*shape) * 0.3 for shape in shapes]

    def layer(x: torch.Tensor, *p: torch.Tensor) -> torch.Tensor:
        return torch._transformer_encoder_layer_fwd(x, 8, 2, *p[:4], True, False, 1e-5, *p[4:])

    export_and_compare(layer, (values(2, 5, 8), *parameters))
