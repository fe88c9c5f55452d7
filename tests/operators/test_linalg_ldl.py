"""Bunch and Kaufman's factors against LAPACK's: the same numbers, swaps and blocks."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from support import as_module, expect_equal, export_and_compare

DYNAMIC = torch.export.Dim.DYNAMIC
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def indefinite(*shape: int, dtype: torch.dtype, hermitian: bool = False) -> torch.Tensor:
    """Some matrices of the batch with zeros on the diagonal, which need blocks of two."""
    a = random(*shape, dtype=dtype)
    a = a + (a.mH if hermitian else a.mT)
    a[::2].diagonal(dim1=-2, dim2=-1).zero_()
    return a


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-3, "atol": 1e-4} if dtype in (torch.float32, torch.complex64) else {}


@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_factors_and_solution(dtype: torch.dtype, hermitian: bool) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        factors, pivots, info = torch.linalg.ldl_factor_ex(a, hermitian=hermitian)
        return [factors, pivots, info, torch.linalg.ldl_solve(factors, pivots, b, hermitian=hermitian)]

    export_and_compare(
        function,
        (indefinite(4, 5, 5, dtype=dtype, hermitian=hermitian), random(4, 5, 2, dtype=dtype)),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC}, {0: DYNAMIC, 1: DYNAMIC}),),
        other_args=(indefinite(3, 9, 9, dtype=dtype, hermitian=hermitian), random(3, 9, 2, dtype=dtype)),
        **tolerance(dtype),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_sizes(n: int) -> None:
    a = indefinite(3, n, n, dtype=torch.float64)
    export_and_compare(lambda a: torch.linalg.ldl_factor(a + torch.eye(n) * 0.1), (a,))


def test_zero_columns_are_reported() -> None:
    a = torch.diag(torch.tensor([1.0, 0.0, 2.0, 0.0]))
    export_and_compare(torch.linalg.ldl_factor_ex, (torch.stack([a, a * 0, torch.eye(4)]),))


def test_magnitudes() -> None:
    a = indefinite(4, 6, 6, dtype=torch.float64)
    scale = torch.tensor([1e-200, 1e-60, 1e60, 1e200], dtype=torch.float64)[:, None, None]
    export_and_compare(lambda a: [x / a.abs().max() for x in torch.linalg.ldl_factor(a)[:1]], (a * scale.sqrt(),))
    export_and_compare(lambda a: torch.linalg.ldl_factor(a)[1], (a * scale,))


def test_systems_broadcast() -> None:
    """Against systems that are expanded: eager torch 2.14 reads beyond the pivots of others and may crash."""
    a, b = indefinite(3, 4, 4, dtype=torch.float64), random(2, 1, 4, 5, dtype=torch.float64)
    factors, pivots = torch.linalg.ldl_factor(a)
    program = onnxport.export(as_module(torch.linalg.ldl_solve), (factors, pivots, b))
    expected = torch.linalg.ldl_solve(
        factors.expand(2, 3, 4, 4).contiguous(), pivots.expand(2, 3, 4).contiguous(), b.expand(2, 3, 4, 5).contiguous()
    )
    expect_equal(program(factors, pivots, b)[0], expected)


def test_of_no_elements() -> None:
    export_and_compare(torch.linalg.ldl_factor_ex, (torch.zeros(2, 0, 0),))
    pivots = torch.zeros(2, 0, dtype=torch.int32)
    export_and_compare(torch.linalg.ldl_solve, (torch.zeros(2, 0, 0), pivots, torch.zeros(2, 0, 3)))
