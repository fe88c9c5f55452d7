"""Operands of a reduction are broadcast first, as in eager: what is reduced has the length of both."""

from __future__ import annotations

from collections.abc import Callable

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import FunctionModule, expect_equal, export_and_compare

Shape = tuple[int, ...]
SHAPES: list[tuple[Shape, Shape]] = [
    ((4, 3), (1, 3)),
    ((4, 3), (4, 1)),
    ((4, 3), (1,)),
    ((1, 3), (4, 3)),
    ((2, 1, 3), (4, 1)),
    ((4, 3), ()),
    ((), (4, 3)),
    ((), ()),
    ((0, 3), (1, 3)),
]
REDUCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "pairwise_distance": lambda x, y: F.pairwise_distance(x, y),
    "pairwise_distance of order 1": lambda x, y: F.pairwise_distance(x, y, p=1.0, keepdim=True),
    "dist": lambda x, y: torch.dist(x, y, 3.0),
    "mse_loss": lambda x, y: F.mse_loss(x, y),
    "l1_loss": lambda x, y: F.l1_loss(x, y),
    "huber_loss": lambda x, y: F.huber_loss(x, y),
    "smooth_l1_loss": lambda x, y: F.smooth_l1_loss(x, y, reduction="sum"),
    "kl_div": lambda x, y: F.kl_div(x, y.abs(), reduction="batchmean"),
    "binary_cross_entropy, weighted": lambda x, y: F.binary_cross_entropy(
        (x + y * 0).sigmoid(), (x + y * 0).cos().abs(), weight=y.abs()
    ),
    "poisson_nll_loss": lambda x, y: F.poisson_nll_loss(x, y.abs()),
    "hinge_embedding_loss": lambda x, y: F.hinge_embedding_loss(x, y.sign()),
    "margin_ranking_loss": lambda x, y: F.margin_ranking_loss(x + y * 0, x * 2 + y * 0, y.sign()),
    "cosine_embedding_loss": lambda x, y: F.cosine_embedding_loss(x, y, torch.ones(x.shape[:1])),
    "triplet_margin_loss": lambda x, y: F.triplet_margin_loss(x, y, y + 1, swap=True),
    "vecdot": lambda x, y: torch.linalg.vecdot(x, y),
    "vector_norm": lambda x, y: torch.linalg.vector_norm(x - y, dim=0),
    "cross": lambda x, y: torch.linalg.cross(x, (x + y)[:1]),
    "addcmul": lambda x, y: torch.addcmul(x, y, y + 1, value=0.5).sum(),
    "lerp": lambda x, y: torch.lerp(x, x + 1, y).sum(0),
    "where": lambda x, y: torch.where(x > 0, x, y).amax(0),
    "einsum": lambda x, y: torch.einsum("...i,...i->...", x, y),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_cosine_similarity(shapes: tuple[Shape, Shape]) -> None:
    x, y = (torch.randn(shape) for shape in shapes)
    rank = max(1, *map(len, shapes))

    def every_axis(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [F.cosine_similarity(x, y, dim=dim) for dim in range(-rank, rank)]

    export_and_compare(every_axis, (x, y))


@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float16", "float32"), ("int64", "float64")], ids=str)
def test_types_of_the_operands(dtypes: tuple[str, str]) -> None:
    a, b = (torch.full(shape, 300).to(getattr(torch, dtype)) for shape, dtype in zip([(4, 3), (4, 1)], dtypes))
    program = onnxport.export(FunctionModule(lambda x, y: F.cosine_similarity(x, y)), (a, b))
    expect_equal(program(a, b)[0], F.cosine_similarity(a, b), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("y", [(1, 3), (1,)], ids=str)
def test_along_a_dynamic_axis(y: Shape) -> None:
    def both(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.cosine_similarity(x, y, dim=0), F.cosine_similarity(x, y, dim=1)

    args, other = (torch.randn(5, 3), torch.randn(y)), (torch.randn(8, 3), torch.randn(y))
    export_and_compare(both, args, dynamic_shapes=(({0: "n"}, None),), other_args=other)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_what_else_reduces_two_operands() -> None:
    def every(x: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> list[torch.Tensor]:
        found = [reduction(x, row) for reduction in REDUCTIONS.values()]
        return found + [reduction(x, column) for reduction in REDUCTIONS.values()]

    export_and_compare(every, (torch.randn(4, 3), torch.randn(1, 3), torch.randn(4, 1)))


def test_distances_of_broadcast_batches() -> None:
    def every(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cdist(x, y, p=p) for p in (0.0, 1.0, 2.0, 3.0, float("inf"))]

    export_and_compare(every, (torch.randn(3, 1, 4, 3), torch.randn(2, 5, 3)))


def test_distances_of_narrow_floats_do_not_overflow() -> None:
    x = torch.full((2, 4), 300.0, dtype=torch.float16)
    program = onnxport.export(FunctionModule(lambda x: F.pairwise_distance(x, -x)), (x,))
    expect_equal(program(x)[0], F.pairwise_distance(x, -x))
