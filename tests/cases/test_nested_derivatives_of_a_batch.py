"""Jacobians and Hessians of each row leave the batch dynamic where torch's rules of vmap make it a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.autograd.forward_ad as duals
import torch.nn.functional as F
from support import FunctionModule, expect_equal
from torch.func import hessian, jacfwd, jacrev, vmap

Tensor = torch.Tensor
torch.manual_seed(0)
NORM = torch.nn.LayerNorm(3).requires_grad_(False)
NETWORK = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).requires_grad_(False)
WEIGHT = torch.tensor([1.0, -2.0, 3.0])


def mixed(row: Tensor) -> Tensor:
    return (row.sin() * row.roll(1)).sum()


def pieces(row: Tensor) -> Tensor:
    first, rest = row.split([1, 2])
    return torch.cat([rest * first, row[1:] * row[:-1], row[::2] ** 2, torch.outer(row, row).diagonal(1)])


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "hessian of a network": vmap(hessian(lambda row: NETWORK(row).sum())),
    "reverse of forward": vmap(jacrev(jacfwd(mixed))),
    "second of pieces": vmap(hessian(lambda row: pieces(row).sin().sum() * row[0] * row[-1] ** 2)),
    "second of a norm": vmap(hessian(lambda row: (NORM(row) * WEIGHT).pow(2).sum())),
    "of gelu": vmap(jacrev(lambda row: F.gelu(row) + F.gelu(row, approximate="tanh"))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_follow_the_batch(name: str) -> None:
    function = FUNCTIONS[name]
    program = onnxport.export(FunctionModule(function), (torch.randn(4, 3),), dynamic_shapes=(({0: "batch"},),))
    for batch in (4, 2, 7):
        x = torch.randn(batch, 3)
        expect_equal(program(x)[0], function(x), rtol=1e-3, atol=1e-3)


def test_rules_are_torchs_own_afterwards() -> None:
    x = torch.randn(4, 3)
    before = vmap(jacrev(pieces))(x)
    onnxport.export(FunctionModule(vmap(jacrev(pieces))), (x,))
    expect_equal(vmap(jacrev(pieces))(x), before)


@pytest.mark.parametrize("name", ["dual numbers", "a convolution"])
def test_what_stays_refused_tells_what_to_write(name: str) -> None:
    def dual(x: Tensor) -> Tensor:
        with duals.dual_level():
            return duals.unpack_dual(NETWORK(duals.make_dual(x, torch.ones_like(x)))).tangent

    def convolved(x: Tensor) -> Any:
        return vmap(jacrev(lambda row: F.conv1d(row[None], torch.ones(2, 1, 2))))(x)

    function, cure = (dual, "torch.func.jvp") if name == "dual numbers" else (convolved, "on the whole batch")
    with pytest.raises(onnxport.OnnxExporterError, match=rf"test_nested_derivatives_of_a_batch\.py:\d+: (.|\n)*{cure}"):
        onnxport.export(FunctionModule(function), (torch.randn(4, 3),), dynamic_shapes=(({0: "batch"},),))
