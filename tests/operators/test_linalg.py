"""Linear algebra against eager torch: batched, float32 and float64, static and symbolic sizes, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

DYNAMIC = torch.export.Dim.DYNAMIC
FLOATS = [torch.float32, torch.float64]
LOOSE = {"rtol": 1e-3, "atol": 1e-4}


def matrices(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def regular(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Well conditioned, and in need of row swaps."""
    a = matrices(*shape)
    return (torch.linalg.qr(a)[0].flip(-2) @ torch.linalg.qr(a.mT)[0] + 0.1 * a).to(dtype)


def positive(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = matrices(*shape)
    return (a @ a.mT + torch.eye(shape[-1])).to(dtype)


def compare_squares(
    function: Callable[..., Any], make: Callable[..., torch.Tensor], dtype: torch.dtype, **tolerances: float
) -> None:
    """One matrix size for the trace, another for the check, both in batches."""
    export_and_compare(
        function,
        (make(2, 4, 4, dtype=dtype),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC},),),
        other_args=(make(3, 7, 7, dtype=dtype),),
        **tolerances,
    )


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return LOOSE if dtype is torch.float32 else {}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_of_square_matrices(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor) -> list[Any]:
        return [
            torch.linalg.inv(a),
            torch.linalg.det(a),
            torch.linalg.slogdet(a),
            torch.linalg.solve(a, a.mT),
            torch.linalg.solve(a, a, left=False),
            torch.linalg.lu_factor(a),
            torch.linalg.lu(a),
        ]

    compare_squares(function, regular, dtype, **tolerance(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_of_positive_matrices(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor) -> list[Any]:
        factor = torch.linalg.cholesky(a)
        return [
            factor,
            torch.linalg.cholesky(a, upper=True),
            torch.cholesky_solve(a, factor),
            torch.cholesky_inverse(factor),
            torch.linalg.eigvalsh(a),
            torch.linalg.matrix_sqrth(a) if hasattr(torch.linalg, "matrix_sqrth") else a,
            torch.logdet(a),
            *([torch.cholesky(a), torch.cholesky(a, upper=True)] if hasattr(torch.ops.aten, "cholesky") else []),
        ]

    compare_squares(function, positive, dtype, **tolerance(dtype))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_triangular(upper: bool, left: bool) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        return [
            torch.linalg.solve_triangular(a, b, upper=upper, left=left),
            torch.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=True),
            torch.triangular_solve(b.mT if not left else b, a, upper=upper, transpose=left)[0],
        ]

    export_and_compare(function, (positive(2, 4, 4), matrices(*((2, 4, 3) if left else (2, 3, 4)))))


def test_solve_broadcasts_and_takes_vectors() -> None:
    export_and_compare(
        lambda a, b, v: [torch.linalg.solve(a, b), torch.linalg.solve(a[0], v), torch.linalg.solve(a, v.expand(3, 4))],
        (regular(3, 4, 4), matrices(1, 4, 2), matrices(4)),
    )


def test_lu_solve_and_unpack() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        factors, pivots = torch.linalg.lu_factor(a)
        return [
            torch.linalg.lu_solve(factors, pivots, b),
            torch.linalg.lu_solve(factors, pivots, b, adjoint=True),
            torch.linalg.lu_solve(factors, pivots, b.mT, left=False),
            torch.lu_unpack(factors, pivots),
        ]

    export_and_compare(function, (regular(2, 4, 4), matrices(2, 4, 3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_lu_of_symbolic_shapes(dtype: torch.dtype) -> None:
    """Wide ones and tall ones in one model."""
    for first, other in (((3, 4), (6, 5)), ((5, 3), (3, 6))):
        export_and_compare(
            lambda a: [*torch.lu_unpack(*torch.linalg.lu_factor(a)), *torch.linalg.lu(a)],
            (torch.randn(first, dtype=dtype),),
            dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),),
            other_args=(torch.randn(other, dtype=dtype),),
        )


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 2)], ids=str)
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr_has_the_signs_of_lapack(shape: tuple[int, ...], mode: str) -> None:
    export_and_compare(lambda a: [r for r in torch.linalg.qr(a, mode=mode) if r.numel()], (matrices(*shape),))


def test_householder_vectors() -> None:
    def function(a: torch.Tensor, c: torch.Tensor) -> list[Any]:
        compact, tau = torch.geqrf(a)
        return [
            compact,
            tau,
            torch.linalg.householder_product(compact, tau),
            torch.ormqr(compact, tau, c),
            torch.ormqr(compact, tau, c, transpose=True),
            torch.ormqr(compact, tau, c.mT, left=False),
        ]

    export_and_compare(function, (matrices(2, 5, 3), matrices(2, 5, 4)))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 3), (1, 1), (9, 9)], ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_svd_reconstructs(shape: tuple[int, ...], full: bool) -> None:
    def function(a: torch.Tensor) -> list[Any]:
        u, s, vh = torch.linalg.svd(a, full_matrices=full)
        k = s.shape[-1]
        return [s, (u[..., :k] * s[..., None, :]) @ vh[..., :k, :], u.mT @ u, vh @ vh.mT]

    export_and_compare(function, (matrices(*shape),))


def test_svd_of_rank_deficient_and_graded_matrices() -> None:
    a = matrices(2, 6, 4)
    a[0, :, 2] = a[0, :, 1]
    a[1] *= torch.tensor([1.0, 1e-3, 1e-6, 1e-9])
    export_and_compare(
        lambda a: [
            torch.linalg.svdvals(a),
            torch.linalg.matrix_rank(a),
            (lambda u: u.mT @ u)(torch.linalg.svd(a, full_matrices=True)[0]),
        ],
        (a,),
        atol=1e-12,
    )


@pytest.mark.parametrize("n", [1, 2, 5, 8, 17])
def test_eigh_reconstructs(n: int) -> None:
    def function(a: torch.Tensor) -> list[Any]:
        values, vectors = torch.linalg.eigh(a)
        return [values, (vectors * values[..., None, :]) @ vectors.mT, vectors.mT @ vectors]

    a = matrices(2, n, n)
    export_and_compare(function, (a + a.mT,), atol=1e-10)


def test_eigh_reads_one_half_and_meets_equal_eigenvalues() -> None:
    a = torch.eye(5, dtype=torch.float64) * 2
    a[3, 1] = 0.5
    export_and_compare(lambda a: [torch.linalg.eigvalsh(a, UPLO="L"), torch.linalg.eigvalsh(a, UPLO="U")], (a,))


def test_svd_of_symbolic_sizes() -> None:
    def function(a: torch.Tensor) -> list[Any]:
        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return [s, (u * s[..., None, :]) @ vh]

    shapes = (({0: DYNAMIC, 1: DYNAMIC},),)
    export_and_compare(function, (matrices(6, 4),), dynamic_shapes=shapes, other_args=(matrices(9, 5),))
    export_and_compare(torch.linalg.pinv, (matrices(6, 4),), dynamic_shapes=shapes, other_args=(matrices(9, 5),))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_follows_from_singular_values(dtype: torch.dtype) -> None:
    a = matrices(2, 5, 3, dtype=dtype)
    export_and_compare(
        lambda a: [
            torch.linalg.pinv(a),
            torch.linalg.matrix_rank(a),
            torch.linalg.cond(a),
            torch.linalg.matrix_norm(a, 2),
            torch.linalg.matrix_norm(a, -2),
            torch.linalg.matrix_norm(a, "nuc"),
        ],
        (a,),
        **tolerance(dtype),
    )


def test_powers_and_exponential() -> None:
    def function(a: torch.Tensor) -> list[Any]:
        return [torch.linalg.matrix_exp(a), torch.linalg.matrix_power(a, 5), torch.linalg.matrix_power(a, -2)]

    export_and_compare(function, (regular(2, 4, 4),))
    export_and_compare(torch.linalg.matrix_exp, (torch.stack([regular(4, 4) * 6, regular(4, 4) * 0]),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_cross(dtype: torch.dtype) -> None:
    a, b = (matrices(4, 3) * 5).to(dtype), (matrices(1, 3, seed=1) * 5).to(dtype)
    export_and_compare(lambda a, b: [torch.linalg.cross(a, b), torch.linalg.cross(a.mT, a.mT.flip(0), dim=0)], (a, b))


def test_nothing() -> None:
    export_and_compare(
        lambda a: [
            torch.linalg.inv(a),
            torch.linalg.det(a),
            torch.linalg.eigh(a),
            torch.linalg.svd(a),
            torch.linalg.cholesky(a),
            torch.linalg.qr(a),
            torch.linalg.matrix_exp(a),
        ],
        (torch.zeros(2, 0, 0),),
    )


def test_det_of_float32_is_one_node() -> None:
    assert op_types(export_and_compare(torch.linalg.det, (regular(3, 3, dtype=torch.float32),))) == ["Det"]
