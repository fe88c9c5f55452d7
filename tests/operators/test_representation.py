"""Bits of numbers: hashes of every kind of element, and numbers taken apart at the edges of their range."""

from __future__ import annotations

import math

import pytest
import torch
from support import export_and_compare, op_types

#: zeros of both signs, the least and the largest denormals and normals, neighbours of one, infinities
EDGES = [
    *(0.0, -0.0, 5e-324, -5e-324, 2.225073858507201e-308, 2.2250738585072014e-308, 1e-310, 1.7976931348623157e308),
    *(1.0, -1.5, 0.9999999999999999, 1.0000000000000002, 2.0, 0.5, 1e300, 1e-300, 2.0**53 - 1, math.inf, -math.inf),
]


def each(x: torch.Tensor) -> torch.Tensor:
    return torch.hash_tensor(x.unsqueeze(1), (1,))


@pytest.mark.parametrize("opset", [18, 26])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_hash_of_floats(dtype: torch.dtype, opset: int) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(50, generator=generator, dtype=torch.float64) * torch.logspace(-300, 300, 50).double()
    x = torch.cat([torch.tensor([*EDGES, math.nan], dtype=torch.float64), wide]).to(dtype)
    export_and_compare(
        lambda x: (each(x), torch.hash_tensor(x), torch.hash_tensor(x.view(2, -1), (1,), keepdim=True)),
        (x[: len(x) // 2 * 2],),
        opset_version=opset,
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool], ids=str)
def test_hash_of_integers(dtype: torch.dtype) -> None:
    x = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 1, 12345, -(2**40)]).to(dtype)
    export_and_compare(lambda x: (each(x), torch.hash_tensor(x)), (x,))


def test_hash_with_bitcast_is_small() -> None:
    assert len(op_types(export_and_compare(torch.hash_tensor, (torch.randn(3).double(),), opset_version=26))) <= 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_frexp_and_ldexp_at_the_edges(dtype: torch.dtype) -> None:
    x = torch.tensor([*EDGES, math.nan], dtype=torch.float64).to(dtype)

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mantissa, exponent = torch.frexp(x)
        return mantissa, exponent, torch.ldexp(mantissa, exponent)

    export_and_compare(function, (x,), rtol=0, atol=0)
