"""Products of matrices in every dtype, einsum against eager, and the node counts of linear layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

BATCH = {0: Dim.AUTO}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.int16]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 20, shape).to(dtype)


def test_linear_of_a_matrix_is_one_gemm() -> None:
    program = export_and_compare(nn.Linear(3, 4), (values(2, 3),), other_args=(values(5, 3),), dynamic_shapes=(BATCH,))
    assert op_types(program) == ["Gemm"]


def test_linear_of_a_batch_is_a_product_and_a_sum() -> None:
    both = {0: Dim.AUTO, 1: Dim.AUTO}
    program = export_and_compare(
        nn.Linear(3, 4), (values(2, 5, 3),), other_args=(values(4, 6, 3),), dynamic_shapes=(both,)
    )
    assert op_types(program) == ["MatMul", "Add"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_products(dtype: torch.dtype) -> None:
    a, b, v, w = (values(*s, dtype=dtype) for s in ((3, 4), (4, 5), (4,), (3,)))
    ones = torch.ones(3, 5, dtype=dtype)

    def products(
        a: torch.Tensor, b: torch.Tensor, v: torch.Tensor, w: torch.Tensor, m: torch.Tensor
    ) -> list[torch.Tensor]:
        return [
            a @ b,
            a.mv(v),
            v.dot(v),
            torch.outer(w, v),
            torch.addmm(m, a, b, beta=2, alpha=3),
            torch.addmm(m, a, b, beta=0),
            torch.addmv(w, a, v),
            torch.addr(a, w, v, alpha=2),
            torch.inner(a, a),
            torch.linalg.multi_dot([w, a, b]),
            torch.tensordot(a, b, dims=([1], [0])),
        ]

    tolerance = 0.1 if dtype == torch.float16 else None
    export_and_compare(products, (a, b, v, w, ones), rtol=tolerance, atol=tolerance)


def test_beta_zero_hides_nans() -> None:
    nans = torch.full((3, 5), float("nan"), dtype=torch.float64)
    export_and_compare(
        lambda m, a, b: torch.addmm(m, a, b, beta=0, alpha=0.3), (nans, values(3, 4).double(), values(4, 5).double())
    )


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bhij,bhjd->bihd", [(2, 3, 4, 6), (2, 3, 6, 5)]),
        ("ii->i", [(4, 4)]),
        ("ii", [(4, 4)]),
        ("ij->ji", [(3, 4)]),
        ("i,j->ij", [(3,), (4,)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]),
        ("bij,bj,bk->bik", [(2, 3, 4), (2, 4), (2, 5)]),
        ("ab,cb->", [(3, 4), (5, 4)]),
        ("ab,ab->ab", [(1, 4), (3, 4)]),
        ("abcd,acbe->de", [(2, 3, 4, 5), (2, 4, 3, 6)]),
        ("ij,kj", [(3, 4), (5, 4)]),
        ("aj,bj->ab", [(3, 1), (5, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    export_and_compare(lambda *t: torch.einsum(equation, *t), tuple(values(*s) for s in shapes))


def test_einsum_of_dynamic_sizes() -> None:
    def attend(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bqhd,bkhd->bhqk", q, k)

    both = {0: Dim.AUTO, 1: Dim.AUTO}
    export_and_compare(
        attend,
        (values(2, 3, 4, 5), values(2, 6, 4, 5)),
        other_args=(values(3, 7, 4, 5), values(3, 2, 4, 5)),
        dynamic_shapes=((both, both),),
    )


def test_bilinear_and_trilinear() -> None:
    export_and_compare(nn.Bilinear(3, 4, 5), (values(2, 6, 3), values(2, 6, 4)))
    export_and_compare(
        lambda a, b, c: torch._trilinear(a, b, c, [1, 3], [0], [1, 2], [2, 3]),
        (values(2, 3), values(5, 3, 4), values(2, 4)),
    )
    assert F.bilinear is not None
