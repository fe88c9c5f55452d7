"""ONNX's Attention from opset 23 on, where a model lays heads apart by a reshape and a transpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

HEADS, WIDTH = 3, 4
BOTH = {0: Dim.AUTO, 1: Dim.AUTO}


class Layer(nn.Module):
    """Attention over (B, S, H * D)."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, mask, **self.options)
        return y.transpose(1, 2).flatten(2)


def rows(batch: int, queries: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    shapes = (batch, queries, HEADS * WIDTH), (batch, keys, HEADS * WIDTH), (batch, keys, HEADS * (WIDTH - 1))
    return tuple(torch.randn(shape).to(dtype) for shape in shapes)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"scale": 1.0, "is_causal": True}], ids=str
)
def test_one_node(options: dict[str, Any], opset: int) -> None:
    program = export_and_compare(
        Layer(**options),
        rows(2, 5, 7),
        other_args=rows(3, 9, 4),
        dynamic_shapes=(BOTH, BOTH, BOTH),
        opset_version=opset,
    )
    kinds = op_types(program)
    assert kinds.count("Attention") == 1
    assert not {"Transpose", "Reshape", "Softmax", "MatMul"} & set(kinds)
    static = export_and_compare(Layer(**options), rows(1, 5, 7), opset_version=opset)
    assert op_types(static) == ["Attention"]


MASKS = {
    "bool": lambda allowed: allowed,
    "minus infinity": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, -float("inf")),
    "least float": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min),
    "numbers": lambda allowed: torch.randn(allowed.shape),
}
SHAPES = [(5, 7), (1, 7), (1, 5, 7), (HEADS, 5, 7), (2, 1, 5, 7), (2, HEADS, 5, 7), (2, 1, 1, 7), (1, 1, 5, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_masks(kind: str, shape: tuple[int, ...]) -> None:
    """Rows without a key give zeros, or the mean of the values where the mask is of the least float.

    The kernel of onnxruntime 1.32 gives zeros for both, so masks of floats take the steps.
    """
    allowed = torch.rand(shape) > 0.4
    allowed[..., 0, :] = False
    program = export_and_compare(Layer(), (*rows(2, 5, 7), MASKS[kind](allowed)), opset_version=23)
    assert op_types(program).count("Attention") == (kind == "bool")


def test_constant_mask_of_numbers() -> None:
    class Biased(Layer):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return super().forward(q, k, v, torch.arange(35.0).reshape(5, 7) / 10)

    program = export_and_compare(Biased(), rows(2, 5, 7), opset_version=23)
    assert op_types(program).count("Attention") == 1


def test_mask_of_dynamic_sizes() -> None:
    def args(batch: int, queries: int, keys: int) -> tuple[torch.Tensor, ...]:
        allowed = torch.rand(batch, 1, 1, keys) > 0.4
        allowed[0] = False
        return (*rows(batch, queries, keys), allowed)

    program = export_and_compare(
        Layer(),
        args(2, 5, 7),
        other_args=args(3, 9, 4),
        dynamic_shapes=(BOTH, BOTH, BOTH, {0: Dim.AUTO, 3: Dim.AUTO}),
        opset_version=23,
    )
    assert op_types(program).count("Attention") == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types_take_the_steps(dtype: torch.dtype) -> None:
    program = export_and_compare(Layer(), rows(2, 5, 7, dtype), opset_version=23)
    assert "Attention" not in op_types(program)


def test_what_takes_the_steps() -> None:
    """Another scale, no keys, heads that come apart otherwise, shared key heads, an older opset."""

    class Apart(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, k)

    class Shared(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            q, k = (x.unflatten(-1, (-1, WIDTH)).transpose(1, 2) for x in (q, k))
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    cases: list[tuple[nn.Module, Any, int]] = [
        (Layer(scale=-0.5), rows(2, 5, 7), 23),
        (Layer(scale=0.0), rows(2, 5, 7), 23),
        (Layer(), rows(2, 5, 0), 23),
        (Layer(), rows(2, 5, 7), 20),
        (Apart(), (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)), 23),
        (Shared(), (torch.randn(2, 5, 24), torch.randn(2, 7, 8)), 23),
    ]
    for module, args, opset in cases:
        assert "Attention" not in op_types(export_and_compare(module, args, opset_version=opset))
