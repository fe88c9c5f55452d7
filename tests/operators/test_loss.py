"""Losses and distances with every reduction, weights, ignored targets and dynamic batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch.export import Dim

BATCH = {0: Dim.AUTO}


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


def signs(n: int) -> torch.Tensor:
    return torch.randint(0, 2, (n,)) * 2.0 - 1


ELEMENTWISE: list[tuple[Callable[..., torch.Tensor], dict[str, Any], Callable[[int], tuple[torch.Tensor, ...]]]] = [
    (F.mse_loss, {}, lambda n: (values(n, 4), values(n, 4))),
    (F.l1_loss, {}, lambda n: (values(n, 4), values(n, 4))),
    (F.smooth_l1_loss, {"beta": 0.7}, lambda n: (values(n, 4), values(n, 4))),
    (F.huber_loss, {"delta": 0.7}, lambda n: (values(n, 4), values(n, 4))),
    (F.soft_margin_loss, {}, lambda n: (values(n), signs(n))),
    (F.poisson_nll_loss, {"full": True}, lambda n: (values(n, 4), values(n, 4).abs() * 5)),
    (F.poisson_nll_loss, {"log_input": False}, lambda n: (values(n, 4).abs(), values(n, 4).abs() * 5)),
    (F.kl_div, {}, lambda n: (values(n, 4), torch.rand(n, 4))),
    (F.kl_div, {"log_target": True}, lambda n: (values(n, 4), values(n, 4))),
    (F.binary_cross_entropy, {}, lambda n: (torch.rand(n, 4), torch.rand(n, 4))),
    (F.binary_cross_entropy_with_logits, {}, lambda n: (values(n, 4) * 50, torch.rand(n, 4))),
    (F.binary_cross_entropy_with_logits, {"pos_weight": torch.rand(4)}, lambda n: (values(n, 4), torch.rand(n, 4))),
    (F.hinge_embedding_loss, {}, lambda n: (values(n), signs(n))),
    (F.margin_ranking_loss, {"margin": 0.3}, lambda n: (values(n), values(n), signs(n))),
    (F.cosine_embedding_loss, {"margin": 0.1}, lambda n: (values(n, 4), values(n, 4), signs(n))),
    (F.triplet_margin_loss, {"swap": True}, lambda n: (values(n, 4), values(n, 4), values(n, 4))),
    (F.multi_margin_loss, {"p": 2}, lambda n: (values(n, 4), torch.randint(0, 4, (n,)))),
    (F.multilabel_margin_loss, {}, lambda n: (values(n, 4), torch.tensor([[3, 0, -1, 1]] * n))),
    (F.multilabel_soft_margin_loss, {}, lambda n: (values(n, 4), torch.rand(n, 4))),
    (F.nll_loss, {"ignore_index": 2}, lambda n: (values(n, 4), torch.randint(0, 4, (n,)))),
    (F.nll_loss, {"weight": torch.rand(4)}, lambda n: (values(n, 4, 3), torch.randint(0, 4, (n, 3)))),
    (F.cross_entropy, {}, lambda n: (values(n, 4), torch.randint(0, 4, (n,)))),
    (
        F.cross_entropy,
        {"label_smoothing": 0.2, "weight": torch.rand(4)},
        lambda n: (values(n, 4, 3), torch.randint(0, 4, (n, 3))),
    ),
    (F.cross_entropy, {"label_smoothing": 0.2, "ignore_index": 1}, lambda n: (values(n, 4), torch.randint(0, 4, (n,)))),
    (F.cross_entropy, {"label_smoothing": 0.2, "weight": torch.rand(4)}, lambda n: (values(n, 4), torch.rand(n, 4))),
]


@pytest.mark.parametrize("case", range(len(ELEMENTWISE)))
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_loss(case: int, reduction: str) -> None:
    function, options, example = ELEMENTWISE[case]
    args = example(5)
    export_and_compare(
        lambda *t: function(*t, reduction=reduction, **options),
        args,
        other_args=example(8),
        dynamic_shapes=(tuple(BATCH for _ in args),),
    )


def test_loss_of_one_sample() -> None:
    export_and_compare(F.cross_entropy, (values(4), torch.tensor(2)))
    export_and_compare(F.nll_loss, (values(4), torch.tensor(2)))
    export_and_compare(F.multi_margin_loss, (values(4), torch.tensor(2)))
    export_and_compare(F.multilabel_margin_loss, (values(4), torch.tensor([3, 0, -1, 1])))


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, float("inf")])
def test_distances(p: float) -> None:
    rows = {0: Dim.AUTO, 1: Dim.AUTO}
    export_and_compare(
        lambda a, b: torch.cdist(a, b, p),
        (values(2, 5, 3), values(2, 6, 3)),
        other_args=(values(4, 7, 3), values(4, 9, 3)),
        dynamic_shapes=((rows, rows),),
    )
    if p:
        export_and_compare(lambda a, b: F.pairwise_distance(a, b, p), (values(5, 3), values(5, 3)))
    export_and_compare(lambda x: F.pdist(x, p), (values(5, 3),))
    export_and_compare(lambda x: F.pdist(x, p), (values(5, 3),), other_args=(values(8, 3),), dynamic_shapes=((BATCH,),))


def test_many_rows_by_a_product() -> None:
    export_and_compare(torch.cdist, (values(30, 6), values(28, 6)), rtol=1e-3, atol=1e-3)


def test_cosine_similarity() -> None:
    export_and_compare(lambda a, b: F.cosine_similarity(a, b, dim=1), (values(5, 3, 4), values(1, 3, 4)))
    export_and_compare(lambda a, b: F.cosine_similarity(a, b, dim=-1), (values(5, 4), torch.zeros(5, 4)))


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="this torch has no chunked loss")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_linear_cross_entropy_in_chunks(reduction: str, dtype: torch.dtype) -> None:
    """The operators of torch_nn that compute the loss chunk by chunk."""
    options = torch.nn.LinearCrossEntropyOptions()
    target = torch.tensor([0, 3, -100, 1])

    def function(x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear_cross_entropy(
            x, matrix, target, linear_bias=bias, weight=weight, reduction=reduction, options=options
        )

    arguments = tuple(values(*shape).to(dtype) for shape in ((4, 6), (5, 6), (5,), (5,)))
    program = export_and_compare(function, (*arguments[:3], arguments[3].abs()))
    assert "MatMul" in op_types(program)
