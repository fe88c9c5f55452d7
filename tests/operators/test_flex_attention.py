"""flex_attention: score and mask functions as broadcast arithmetic, at two lengths and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types
from torch.nn.attention.flex_attention import (
    AuxRequest,
    create_block_mask,
    flex_attention,
    or_masks,
)

SIZES = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}


def heads(length: int, batch: int = 2, count: int = 4) -> torch.Tensor:
    return torch.randn(batch, count, length, 8)


class Model(torch.nn.Module):
    """An attention whose functions may use tables and a layer."""

    def __init__(self, attend: Callable[..., Any]) -> None:
        super().__init__()
        self.slopes = torch.nn.Parameter(torch.randn(4))
        self.table = torch.nn.Parameter(torch.randn(40, 4))
        self.rows = torch.nn.Parameter(torch.randn(4, 3))
        self.register_buffer("factor", torch.tensor(0.3))
        self.attend = attend

    def forward(self, *args: torch.Tensor) -> Any:
        return self.attend(self, *args)


def compare(
    attend: Callable[..., Any], *extra: torch.Tensor, other: tuple[Any, ...] = (), sizes: Any = ()
) -> list[str]:
    """Export with dynamic batch and lengths; the second comparison has others."""
    program = export_and_compare(
        Model(attend),
        (heads(6), heads(6), heads(6), *extra),
        dynamic_shapes=((SIZES, SIZES, SIZES, *sizes),),
        other_args=(heads(9, 3), heads(9, 3), heads(9, 3), *other),
    )
    return op_types(program)


def scored(score: Callable[..., Any], **named: Any) -> Callable[..., Any]:
    """An attention with this score function of (model, score, b, h, i, j)."""

    def attend(m: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return flex_attention(q, k, v, score_mod=lambda *places: score(m, *places), **named)

    return attend


def test_without_functions() -> None:
    ops = compare(lambda m, q, k, v: flex_attention(q, k, v, scale=0.5))
    assert ops == ["Transpose", "MatMul", "Mul", "Softmax", "MatMul"]


SCORES: dict[str, Callable[..., Any]] = {
    "causal": lambda m, s, b, h, i, j: torch.where(i >= j, s, -float("inf")),
    "all places": lambda m, s, b, h, i, j: 20 * torch.tanh((s * (h + 1) + b) / 20) * m.factor + torch.tensor(2.0),
    "tables": lambda m, s, b, h, i, j: s * m.rows[h, 0] + m.slopes[h] * (i - j).abs() + m.table[i - j + 20, h],
    "not of the score": lambda m, s, b, h, i, j: (i - j) * 1.0,
    "rows of a table": lambda m, s, b, h, i, j: s + (m.rows[h] * m.rows[0]).sum(),  # not elementwise
}


@pytest.mark.parametrize("name", SCORES)
def test_score(name: str) -> None:
    compare(scored(SCORES[name]))


def test_log_sum_of_rows_without_keys() -> None:
    def score(s: Any, b: Any, h: Any, i: Any, j: Any) -> Any:
        return torch.where((i > 0) & (j < i), s, -float("inf"))

    def attend(m: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        out, aux = flex_attention(q, k, v, score_mod=score, return_aux=AuxRequest(lse=True))
        return out, aux.lse

    compare(attend)


def test_bias_of_all_four_places() -> None:
    def attend(m: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> Any:
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[b, h, i, j])

    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    compare(attend, torch.randn(2, 4, 6, 6), other=(torch.randn(3, 4, 9, 9),), sizes=(sizes,))


def test_grouped_queries_and_other_lengths_of_keys() -> None:
    class Grouped(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            shift = k.shape[2] - q.shape[2]
            score = lambda s, b, h, i, j: torch.where(i + shift >= j, s * (h + 1) + b, -float("inf"))  # noqa: E731
            return flex_attention(q, k, v, score_mod=score, enable_gqa=True)

    export_and_compare(
        Grouped(),
        (heads(4), heads(6, count=2), heads(6, count=2)),
        dynamic_shapes=(SIZES,) * 3,
        other_args=(heads(5, 3), heads(9, 3, 2), heads(9, 3, 2)),
    )


def test_block_mask_made_in_forward() -> None:
    def attend(m: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor) -> Any:
        mask = create_block_mask(
            lambda b, h, i, j: (i >= j) & (j < lengths[b]), q.shape[0], None, q.shape[2], k.shape[2], device="cpu"
        )
        return flex_attention(q, k, v, block_mask=mask)

    sizes = ({0: torch.export.Dim.DYNAMIC},)
    compare(attend, torch.tensor([5, 3]), other=(torch.tensor([0, 3, 9]),), sizes=sizes)


def test_block_masks_of_several_functions() -> None:
    def attend(m: Model, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        mask = or_masks(lambda b, h, i, j: ~(i < j), lambda b, h, i, j: (h == 1) | (j < 2))
        block_mask = create_block_mask(mask, None, 4, q.shape[2], k.shape[2], device="cpu")
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + m.slopes[h], block_mask=block_mask)

    compare(attend)


def test_block_mask_made_before() -> None:
    documents = torch.tensor([0, 0, 1, 1, 2, 2])
    mask = create_block_mask(
        lambda b, h, i, j: (i >= j) & (documents[i] == documents[j]), None, None, 6, 6, device="cpu"
    )
    export_and_compare(lambda q, k, v: flex_attention(q, k, v, block_mask=mask), (heads(6), heads(6), heads(6)))


def test_halves() -> None:
    inputs = [heads(6).half() for _ in range(3)]
    export_and_compare(lambda q, k, v: flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + (i - j)), inputs)
