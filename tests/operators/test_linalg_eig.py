"""Eigenvalues of matrices that are not symmetric, by their invariants: the order is LAPACK's only by chance."""

from __future__ import annotations

from collections.abc import Callable

import onnxport
import pytest
import torch
from support import as_module, export_and_compare

DOUBLE = torch.float64


def random(*shape: int, dtype: torch.dtype = DOUBLE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="module")
def of_any_size() -> onnxport.ONNXProgram:
    """eig of float64 matrices of symbolic size."""
    shapes = (({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),)
    return onnxport.export(as_module(torch.linalg.eig), (random(4, 4),), dynamic_shapes=shapes)


def expect_eigen(a: torch.Tensor, values: torch.Tensor, vectors: torch.Tensor, multiplicity: int = 2) -> None:
    """Vectors of length 1 whose residuals are some units of the precision times the norm, and eager's eigenvalues as
    far as the precision determines them: a multiple one to the root of it."""
    expected = torch.linalg.eig(a)[0]
    assert values.dtype == expected.dtype
    assert vectors.shape == a.shape
    precision = torch.finfo(a.dtype).eps
    size = torch.linalg.matrix_norm(a).max().item()
    residual = a.to(values.dtype) @ vectors - vectors * values.unsqueeze(-2)
    assert float(residual.abs().max()) <= 40 * precision * size
    torch.testing.assert_close(vectors.norm(dim=-2), torch.ones_like(values.real))
    tolerance = 10 * precision ** (1 / multiplicity) * size
    distance = (values.unsqueeze(-1) - expected.unsqueeze(-2)).abs()
    assert float(distance.min(-1).values.max()) <= tolerance
    assert float(distance.min(-2).values.max()) <= tolerance


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.complex64, torch.complex128], ids=str)
def test_random_matrices(n: int, dtype: torch.dtype) -> None:
    a = random(2, n, n, dtype=dtype)
    program = onnxport.export(as_module(torch.linalg.eig), (a,))
    expect_eigen(a, *program(a))


def _rotated(t: torch.Tensor) -> torch.Tensor:
    q = torch.linalg.qr(random(*t.shape))[0]
    return q @ t @ q.mT


ONES = torch.ones(7, dtype=DOUBLE)
SPECIAL: dict[str, Callable[[], torch.Tensor]] = {
    "zero": lambda: torch.zeros(4, 4, dtype=DOUBLE),
    "identity": lambda: torch.eye(5, dtype=DOUBLE),
    "permutation, where the usual shift stands still": lambda: torch.eye(5, dtype=DOUBLE).roll(1, 0),
    "rotation by a right angle": lambda: torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=DOUBLE),
    "symmetric": lambda: random(6, 6) + random(6, 6).mT,
    "skew": lambda: random(6, 6) - random(6, 6).mT,
    "triangular": lambda: random(6, 6).triu(),
    "lower triangular": lambda: random(6, 6).tril(),
    "one Jordan block": lambda: torch.diag(ONES, 1) + 2 * torch.eye(8, dtype=DOUBLE),
    "nilpotent": lambda: torch.diag(ONES, 1),
    "nilpotent, rotated": lambda: _rotated(torch.diag(ONES, 1)),
    "double eigenvalues": lambda: _rotated(torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0, 3.0], dtype=DOUBLE))),
    "rank 1": lambda: torch.ones(6, 6, dtype=DOUBLE),
    "diagonal blocks": lambda: torch.block_diag(*random(3, 2, 2)),
    "large": lambda: random(5, 5) * 1e150,
    "small": lambda: random(5, 5) * 1e-150,
    "graded": lambda: random(6, 6) * torch.logspace(0, -12, 6, dtype=DOUBLE),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_matrices(name: str, of_any_size: onnxport.ONNXProgram) -> None:
    a = SPECIAL[name]()
    expect_eigen(a, *of_any_size(a), multiplicity=8 if "nilpotent" in name else 2)


def test_real_eigenvalues_of_real_matrices_are_real(of_any_size: onnxport.ONNXProgram) -> None:
    values, vectors = of_any_size(random(6, 6) + random(6, 6).mT)
    assert not values.imag.any()
    assert not vectors.imag.any()


def test_nan_ends() -> None:
    program = onnxport.export(as_module(torch.linalg.eigvals), (random(4, 4),))
    assert program(random(4, 4) * float("nan"))[0].isnan().all()


def test_functions_of_all_eigenvalues() -> None:
    """What doesn't depend on the order is eager's."""

    def function(a: torch.Tensor) -> list[torch.Tensor]:
        values = torch.linalg.eigvals(a)
        return [values.sum(-1), values.prod(-1), values.abs().max(-1).values, values.real.sort(-1).values]

    export_and_compare(
        function,
        (random(2, 5, 5),),
        dynamic_shapes=(({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},),),
        other_args=(random(3, 8, 8),),
        rtol=1e-10,
    )


def test_vectors_rebuild_the_matrix() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        values, vectors = torch.linalg.eig(a)
        return (vectors * values.unsqueeze(-2)) @ torch.linalg.inv(vectors)

    export_and_compare(function, (random(6, 6, dtype=torch.complex128),), rtol=1e-10)
    export_and_compare(function, (random(2, 3, 5, 5),), rtol=1e-10)


def test_of_no_elements() -> None:
    export_and_compare(lambda a: [torch.linalg.eigvals(a), torch.linalg.eig(a)], (torch.zeros(2, 0, 0),))
