"""GELUs that models write themselves: one node from opset 20 on, one kernel in onnxruntime below."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types, optimized_types
from torch.export import Dim

Function = Callable[[torch.Tensor], torch.Tensor]


def new(x: torch.Tensor) -> torch.Tensor:
    """transformers: gelu_new."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def fast(x: torch.Tensor) -> torch.Tensor:
    """transformers: gelu_fast."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def of_bloom(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))


def of_halves(x: torch.Tensor) -> torch.Tensor:
    return x * (0.5 * (1 + torch.tanh((x + x**3 * 0.044715) * math.sqrt(2 / math.pi))))


def erf(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def erf_of_product(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x * (torch.erf(x * math.sqrt(0.5)) + 1))


def compare(function: Function, opset: int, dtype: torch.dtype = torch.float32) -> list[str]:
    x, other = torch.randn(3, 4).to(dtype) * 3, torch.randn(5, 4).to(dtype) * 3
    program = export_and_compare(
        function, (x,), other_args=(other,), dynamic_shapes=(({0: Dim.AUTO},),), opset_version=opset
    )
    return op_types(program)


@pytest.mark.parametrize("function", [new, fast, of_bloom, of_halves, erf, erf_of_product])
def test_one_node(function: Function) -> None:
    assert compare(function, 20) == compare(function, 23) == ["Gelu"]
    compare(function, 18)


@pytest.mark.parametrize("function", [new, erf])
def test_other_types_keep_their_steps(function: Function) -> None:
    for dtype in (torch.float64, torch.float16):
        assert "Gelu" not in compare(function, 20, dtype)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_torch_below_opset_20(approximate: str) -> None:
    program = export_and_compare(
        lambda x: F.relu(F.gelu(x, approximate=approximate)), (torch.randn(3, 4),), opset_version=18
    )
    assert optimized_types(program) == ["FastGelu" if approximate == "tanh" else "Gelu", "Relu"]


def other_factor(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x, 3.0))))


def other_power(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 2.0))))


def other_half(x: torch.Tensor) -> torch.Tensor:
    return x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def squared(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def of_another(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x + 1) * (1.0 + torch.erf(x / math.sqrt(2.0)))


def sum_twice(x: torch.Tensor) -> torch.Tensor:
    total = 1.0 + torch.erf(x / math.sqrt(2.0))
    return 0.5 * x * total * total


def inverse(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x / (1.0 + torch.erf(x / math.sqrt(2.0)))


@pytest.mark.parametrize("function", [other_factor, other_power, other_half, squared, of_another, sum_twice, inverse])
def test_what_is_no_gelu(function: Function) -> None:
    assert "Gelu" not in export_op_types(function)


def export_op_types(function: Function) -> list[str]:
    return op_types(export_and_compare(function, (torch.randn(3, 4),), opset_version=20))


def test_many_products() -> None:
    """Products of products are followed a few steps: their number doubles with each."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x
        for _ in range(40):
            y = y * y
        return torch.tanh(y) + torch.erf(y)

    export_and_compare(forward, (torch.rand(3),))
