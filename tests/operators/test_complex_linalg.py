"""Linear algebra of complex matrices against eager torch: batched, symbolic sizes, degenerate, empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare

DYNAMIC = torch.export.Dim.DYNAMIC
DTYPES = [torch.complex64, torch.complex128]
TINY = 1e-10


def matrices(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128).to(dtype)


def regular(*shape: int, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    """Well conditioned, and in need of row swaps."""
    a = matrices(*shape)
    return (torch.linalg.qr(a)[0].flip(-2) + 0.1 * a).to(dtype)


def positive(*shape: int, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    a = matrices(*shape)
    return (a @ a.mH + torch.eye(shape[-1])).to(dtype)


def degenerate(n: int, values: list[float]) -> torch.Tensor:
    """A Hermitian matrix of given eigenvalues."""
    q = torch.linalg.qr(matrices(n, n))[0]
    return (q * torch.tensor(values, dtype=torch.float64)) @ q.mH


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-3, "atol": 1e-4} if dtype is torch.complex64 else {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
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
            torch.linalg.matrix_power(a, -3),
            torch.linalg.matrix_exp(a),
        ]

    export_and_compare(
        function,
        (regular(2, 4, 4, dtype=dtype),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC},),),
        other_args=(regular(3, 7, 7, dtype=dtype),),
        **tolerance(dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_positive_matrices(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor) -> list[Any]:
        factor = torch.linalg.cholesky(a)
        upper = torch.linalg.cholesky(a, upper=True)
        return [
            factor,
            upper,
            torch.linalg.cholesky_ex(a).info,
            torch.cholesky_solve(a, factor),
            torch.cholesky_solve(a, upper, upper=True),
            torch.cholesky_inverse(factor),
            torch.linalg.eigvalsh(a),
            torch.logdet(a),
        ]

    export_and_compare(
        function,
        (positive(2, 4, 4, dtype=dtype),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC, 2: DYNAMIC},),),
        other_args=(positive(3, 6, 6, dtype=dtype),),
        **tolerance(dtype),
    )


def test_cholesky_of_an_indefinite_matrix() -> None:
    a = positive(2, 4, 4)
    a[1, 2, 2] = -1.0
    export_and_compare(lambda a: torch.linalg.cholesky_ex(a).info, (a,))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_triangular(upper: bool, left: bool) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        return [
            torch.linalg.solve_triangular(a, b, upper=upper, left=left),
            torch.linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=True),
            torch.triangular_solve(b.mT if not left else b, a[0], upper=upper, transpose=left),
        ]

    export_and_compare(function, (positive(2, 4, 4), matrices(*((2, 4, 3) if left else (2, 3, 4)))))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("adjoint", [False, True])
def test_lu_solve(left: bool, adjoint: bool) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> list[Any]:
        factors, pivots = torch.linalg.lu_factor(a)
        return [
            torch.linalg.lu_solve(factors, pivots, b, left=left, adjoint=adjoint),
            torch.lu_unpack(factors, pivots),
            torch.lu_unpack(factors, pivots, unpack_data=False)[0],
        ]

    export_and_compare(function, (regular(2, 4, 4), matrices(*((3, 1, 4, 2) if left else (2, 4)))))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4), (1, 1)], ids=str)
def test_lu_of_any_shape(shape: tuple[int, ...]) -> None:
    export_and_compare(lambda a: [torch.linalg.lu(a), torch.linalg.lu_factor_ex(a)], (matrices(*shape),))


def test_singular_matrices() -> None:
    a = regular(2, 4, 4)
    a[0, :, 2] = 0.0
    export_and_compare(
        lambda a: [torch.linalg.det(a), torch.linalg.slogdet(a), torch.linalg.lu_factor_ex(a).info], (a,), atol=1e-14
    )


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr_has_the_phases_of_lapack(shape: tuple[int, ...], mode: str) -> None:
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
            torch.ormqr(compact, tau, c.mT, left=False, transpose=True),
        ]

    export_and_compare(function, (matrices(2, 5, 3), matrices(2, 5, 4)))


def _svd(full: bool) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    def function(a: torch.Tensor) -> list[torch.Tensor]:
        u, s, vh = torch.linalg.svd(a, full_matrices=full)
        k = s.shape[-1]
        return [s, (u[..., :k] * s[..., None, :]) @ vh[..., :k, :], u.mH @ u, vh @ vh.mH]

    return function


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_svd_reconstructs(shape: tuple[int, ...], full: bool) -> None:
    export_and_compare(_svd(full), (matrices(*shape),), atol=TINY)


def test_svd_of_repeated_and_vanishing_values() -> None:
    left, right = (torch.linalg.qr(matrices(6, 4, seed=seed))[0] for seed in (1, 2))
    values = torch.tensor([[3.0, 3.0, 3.0, 1.0], [2.0, 0.0, 0.0, 0.0], [1e-9, 1e-12, 0.0, 0.0]], dtype=torch.float64)
    a = (left * values[:, None, :]) @ right.mH[:, :]
    export_and_compare(_svd(True), (a,), atol=TINY)
    export_and_compare(_svd(False), (torch.stack([torch.eye(4), torch.zeros(4, 4)]).to(a.dtype),), atol=TINY)


def test_svd_of_symbolic_sizes() -> None:
    export_and_compare(
        lambda a: [*_svd(False)(a), torch.linalg.svdvals(a), torch.linalg.pinv(a), torch.linalg.matrix_rank(a)],
        (matrices(6, 4),),
        dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),),
        other_args=(matrices(9, 5),),
        atol=TINY,
    )


def _eigh(a: torch.Tensor) -> list[torch.Tensor]:
    values, vectors = torch.linalg.eigh(a)
    return [values, (vectors * values[..., None, :]) @ vectors.mH, vectors.mH @ vectors]


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_eigh_reconstructs(n: int) -> None:
    a = matrices(2, n, n)
    export_and_compare(_eigh, (a + a.mH,), atol=TINY)


def test_eigh_of_repeated_eigenvalues() -> None:
    cases = [[1.0, 1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 5.0], [1.0, 1.0 + 1e-13, 1.0, -1.0, -1.0]]
    export_and_compare(_eigh, (torch.stack([degenerate(5, values) for values in cases]),), atol=TINY)


def test_eigh_reads_one_half() -> None:
    export_and_compare(
        lambda a: [torch.linalg.eigvalsh(a, UPLO="L"), torch.linalg.eigvalsh(a, UPLO="U")], (matrices(4, 4),)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_follows_from_singular_values(dtype: torch.dtype) -> None:
    export_and_compare(
        lambda a: [
            torch.linalg.pinv(a),
            torch.linalg.pinv(a.mT),
            torch.linalg.pinv(a[..., :3, :] + a[..., :3, :].mH, hermitian=True),
            torch.linalg.matrix_rank(a),
            torch.linalg.cond(a),
            torch.linalg.matrix_norm(a, 2),
            torch.linalg.matrix_norm(a, "nuc"),
            torch.linalg.matrix_norm(a, "fro"),
        ],
        (matrices(2, 5, 3, dtype=dtype),),
        **tolerance(dtype),
    )


def test_tensors_as_matrices() -> None:
    export_and_compare(torch.linalg.tensorinv, (matrices(4, 6, 8, 3),), atol=TINY)
    export_and_compare(torch.linalg.tensorsolve, (matrices(2, 3, 6), matrices(2, 3)), atol=TINY)


def test_magnitudes() -> None:
    """Sizes whose squares leave float64's range."""
    scale = torch.tensor([1e-200, 1e200], dtype=torch.float64)[:, None, None]
    a = regular(2, 4, 4)

    def function(a: torch.Tensor) -> list[Any]:
        return [torch.linalg.inv(a) * a.abs().max(), torch.linalg.lu(a)[1:], torch.linalg.slogdet(a)]

    for i in (0, 1):
        export_and_compare(function, (a[i] * scale[i],), atol=0.0, rtol=1e-8)


def test_of_no_elements() -> None:
    export_and_compare(
        lambda a: [
            torch.linalg.inv(a),
            torch.linalg.det(a),
            torch.linalg.slogdet(a),
            torch.linalg.lu(a),
            torch.linalg.lu_factor_ex(a),
            torch.linalg.eigh(a),
            torch.linalg.svd(a),
            torch.linalg.cholesky(a),
            torch.linalg.qr(a),
            torch.linalg.matrix_exp(a),
        ],
        (torch.zeros(2, 0, 0, dtype=torch.complex64),),
    )
