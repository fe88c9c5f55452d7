"""Comparisons, logic and bits against eager torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from support import export_and_compare

INTEGERS = [torch.int64, torch.int32, torch.uint8, torch.int8]
FLOATS = [torch.float32, torch.float64, torch.float16]
SPECIAL = [0.0, -0.0, 1.0, -1.5, math.inf, -math.inf, math.nan]
WHOLE = [0, 1, -1, 7, 100, -128]


def pairs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    values: list[float] | list[int] = SPECIAL if dtype.is_floating_point else WHOLE
    first, second = zip(*itertools.product(values, values))
    return torch.tensor(first).to(dtype), torch.tensor(second).to(dtype)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, torch.bool], ids=str)
def test_comparisons(dtype: torch.dtype) -> None:
    export_and_compare(lambda a, b: (a == b, a != b, a < b, a <= b, a > b, a >= b), pairs(dtype))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, torch.bool], ids=str)
def test_logic(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.logical_and(a, b), torch.logical_or(a, b), torch.logical_xor(a, b), torch.logical_not(a)

    export_and_compare(function, pairs(dtype))


@pytest.mark.parametrize("number", [-1, 0, 0.5, True, 2**40])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool], ids=str)
def test_comparisons_with_numbers(number: float, dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, -1, 2**40]).to(dtype)
    export_and_compare(lambda a: (a == number, a != number, a < number, a >= number), (a,))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("opset", [18, 20])
def test_kinds_of_numbers(dtype: torch.dtype, opset: int) -> None:
    def function(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.isnan(a),
            torch.isinf(a),
            torch.isfinite(a),
            torch.isposinf(a),
            torch.isneginf(a),
            torch.isreal(a),
        )

    export_and_compare(function, (pairs(dtype)[0],), opset_version=opset)


_CLOSE = [(torch.float32, True), (torch.float32, False), (torch.int64, False), (torch.int8, False), (torch.bool, False)]


@pytest.mark.parametrize(("dtype", "equal_nan"), _CLOSE, ids=str)
def test_isclose(dtype: torch.dtype, equal_nan: bool) -> None:
    a, b = pairs(dtype)
    export_and_compare(lambda a, b: torch.isclose(a, b, equal_nan=equal_nan), (a, b))
    export_and_compare(lambda a, b: torch.isclose(a, b, rtol=0, atol=0, equal_nan=equal_nan), (a, b))


def test_isclose_tolerances() -> None:
    a = torch.tensor([1.0, 1.0, 100.0])
    b = torch.tensor([1.05, 1.2, 109.0])
    export_and_compare(lambda a, b: torch.isclose(a, b, rtol=0.1, atol=0.01), (a, b))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.int16, torch.bool], ids=str)
def test_bits(dtype: torch.dtype) -> None:
    export_and_compare(lambda a, b: (a & b, a | b, a ^ b, ~a, a & 1, a | True), pairs(dtype))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.int16], ids=str)
def test_shifts(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, -1, 7, 100, -128]).to(dtype)
    amounts = torch.tensor([0, 1, 3, 7, 8, 15, 31, 63, 64, -1]).to(dtype)
    a, b = values.repeat_interleave(len(amounts)), amounts.repeat(len(values))
    export_and_compare(lambda a, b: (a << b, a >> b, a << 2, a >> 2), (a, b))


def test_shifts_of_a_number() -> None:
    a = torch.tensor([0, 1, 5, 63])
    export_and_compare(lambda a: (torch.bitwise_left_shift(3, a), torch.bitwise_right_shift(1000, a)), (a,))


def test_comparison_is_one_node() -> None:
    a, b = torch.randn(3), torch.randn(3)
    program = export_and_compare(lambda a, b: a < b, (a, b))
    assert [node.op_type for node in program.model.graph] == ["Less"]
