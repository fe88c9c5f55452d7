"""Embeddings and bags of them: every mode, offsets, weights, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

TABLE = torch.linspace(-3, 3, 40).reshape(10, 4).sin()
WORDS = torch.tensor([1, 2, 2, 0, 9, 4, 4, 2, 7, 3])


def test_rows() -> None:
    module = nn.Embedding(10, 4, padding_idx=2)
    words = torch.randint(0, 10, (3, 5))
    program = export_and_compare(
        module, (words,), other_args=(words[:2, :3],), dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},)
    )
    assert op_types(program) == ["Gather"]
    export_and_compare(module, (words.int(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"include_last_offset": True}], ids=str)
def test_bags(options: dict[str, Any], mode: str, dtype: torch.dtype) -> None:
    def bags(words: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(words, TABLE.to(dtype), offsets, mode=mode, **options)

    ends = [10] if options.get("include_last_offset") else []
    offsets = torch.tensor([0, 3, 3, 6, *ends])
    other = torch.tensor([0, 1, 2, 2, 4, *ends])
    export_and_compare(bags, (WORDS, offsets), other_args=(WORDS, other), dynamic_shapes=((None, {0: Dim.AUTO}),))


def test_bags_of_one_size() -> None:
    program = export_and_compare(nn.EmbeddingBag(10, 4, mode="sum"), (torch.randint(0, 10, (3, 5)),))
    assert len(op_types(program)) <= 4


def test_weights_of_samples() -> None:
    export_and_compare(
        lambda words, offsets, weights: F.embedding_bag(words, TABLE, offsets, mode="sum", per_sample_weights=weights),
        (WORDS, torch.tensor([0, 4, 9]), torch.rand(10)),
    )


def test_renorm() -> None:
    for p in (1.0, 2.0, float("inf")):
        export_and_compare(lambda x, p=p: torch.renorm(x, p, 0, 1.5), (TABLE,))
        export_and_compare(lambda w, p=p: F.embedding(w, TABLE.clone(), max_norm=1.0, norm_type=p), (WORDS,))
