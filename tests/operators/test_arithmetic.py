"""Arithmetic against eager torch: every element type, promotion, wrap-around, signs, infinities and NaN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare

INTEGERS = [torch.int64, torch.int32, torch.uint8, torch.int8]
FLOATS = [torch.float32, torch.float64, torch.float16]
INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 7.25, INF, -INF, NAN, 1e-3, 300.0]
WHOLE = [0, 1, -1, 2, -2, 7, -7, 100, -128, 127]


def pairs(values: list[Any], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair of the values, wrapped into the type."""
    first, second = zip(*itertools.product(values, values))
    if dtype.is_floating_point or dtype is torch.bool:
        return torch.tensor(first).to(dtype), torch.tensor(second).to(dtype)
    return torch.tensor(first, dtype=torch.int64).to(dtype), torch.tensor(second, dtype=torch.int64).to(dtype)


def ops_of(program: Any) -> list[str]:
    return [node.op_type for node in program.model.graph]


BINARY: list[Callable[..., torch.Tensor]] = [
    torch.add,
    torch.mul,
    torch.div,
    torch.maximum,
    torch.minimum,
    torch.fmax,
    torch.fmin,
    torch.heaviside,
    torch.hypot,
    torch.copysign,
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_floats(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    export_and_compare(function, pairs(SPECIAL, dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [torch.remainder, torch.fmod, torch.floor_divide], ids=lambda f: f.__name__)
def test_division_with_remainder(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    values = [0.0, 1.0, -1.0, 0.1, -2.5, 7.25, INF, -INF, NAN, 300.0]
    export_and_compare(function, pairs(values, dtype))


@pytest.mark.parametrize("mode", ["floor", "trunc", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8], ids=str)
def test_rounding_modes(mode: str | None, dtype: torch.dtype) -> None:
    a, b = pairs([1, 2, 7, -7, 100, -128], dtype)
    export_and_compare(lambda a, b: torch.div(a, b, rounding_mode=mode), (a, b))


def test_half_precision_quotients_are_rounded_before_they_are_truncated() -> None:
    a, b = (torch.randn(2000) * 50).half(), torch.randn(2000).half()
    export_and_compare(lambda a, b: torch.div(a, b, rounding_mode="trunc"), (a, b))
    export_and_compare(lambda a, b: torch.div(a, b, rounding_mode="trunc"), (a, torch.tensor(0.37).half()))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=str)
def test_integers_and_bools(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return a + b, a * b, a / b, torch.maximum(a, b), torch.minimum(a, b), torch.fmax(a, b), torch.fmin(a, b)

    export_and_compare(function, pairs(WHOLE, dtype))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_division(dtype: torch.dtype) -> None:
    a, b = pairs([v for v in WHOLE if v], dtype)
    keep = ~((a == torch.iinfo(dtype).min) & (b == -1)) if dtype.is_signed else b != 0

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return a // b, a % b, torch.fmod(a, b), a // 3, a % 3, torch.fmod(a, 3)

    export_and_compare(function, (a[keep], b[keep]))


def test_floor_division_of_the_lowest_integer() -> None:
    lowest = torch.tensor([torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max, -1])
    export_and_compare(lambda a: (a // 3, a % 3, a // -5), (lowest,))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_powers_wrap(dtype: torch.dtype) -> None:
    export_and_compare(torch.pow, pairs([0, 1, -1, 2, 3, -7, 70, 127], dtype))
    export_and_compare(lambda a: (a**0, a**1, a**3, a**9), (pairs(WHOLE, dtype)[0],))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1, -0.5, -2, 2.5, -3])
def test_powers_of_floats(exponent: float) -> None:
    export_and_compare(lambda a: a**exponent, (torch.tensor(SPECIAL * 3),))  # more than a vector of onnxruntime's


def test_power_of_a_number() -> None:
    export_and_compare(lambda a: (2**a, 0.5**a), (torch.tensor([-2.0, 0.0, 3.5, INF, NAN]),))
    export_and_compare(lambda a: 2**a, (torch.arange(0, 65),))
    export_and_compare(lambda a: torch.float_power(a, 2), (torch.arange(5),))


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.permutations([torch.uint8, torch.int32, torch.float16, torch.float32, torch.bool], 2)),
    ids=str,
)
def test_promotion(first: torch.dtype, second: torch.dtype) -> None:
    a, b = torch.tensor([0, 1, 200, 3]).to(first), torch.tensor([1, 0, 2, 100]).to(second)
    export_and_compare(lambda a, b: (a + b, a * b, torch.maximum(a, b), a / b, a < b, a == b), (a, b))


def test_zero_dimensional_tensors_rank_below_dimensioned_ones() -> None:
    a, b = torch.tensor([1, 2], dtype=torch.int32), torch.tensor(3, dtype=torch.int64)
    export_and_compare(lambda a, b: a + b, (a, b))
    export_and_compare(lambda a, b: a + b, (a, torch.tensor(2.5, dtype=torch.float64)))


@pytest.mark.parametrize("number", [-1, 3, 300, 2.5, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.float16], ids=str)
def test_numbers(number: float, dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, 7, 200]).to(dtype)
    export_and_compare(lambda a: (a + number, a * number, number * a, a / 3), (a,))


def test_alpha() -> None:
    a, b = torch.randn(3), torch.randn(3)
    export_and_compare(
        lambda a, b: (torch.add(a, b, alpha=2.5), torch.sub(a, b, alpha=3), torch.rsub(a, b, alpha=2), 1 - a), (a, b)
    )
    integers = torch.arange(3)
    export_and_compare(lambda a: (torch.add(a, a, alpha=3), torch.add(a, 2, alpha=3)), (integers,))


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS], ids=str)
def test_unary(dtype: torch.dtype) -> None:
    a = torch.tensor(SPECIAL).to(dtype) if dtype.is_floating_point else torch.tensor(WHOLE).to(dtype)
    export_and_compare(lambda a: (-a, a.abs(), a.sign(), a.square(), a.sqrt(), a.reciprocal(), a.rsqrt()), (a,))


@pytest.mark.parametrize("bounds", [(-1, 1), (None, 1), (0.5, None), (2, -2), (NAN, 1.0), (-INF, INF)], ids=str)
def test_clamp(bounds: tuple[float | None, float | None]) -> None:
    export_and_compare(lambda a: torch.clamp(a, *bounds), (torch.tensor(SPECIAL),))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int16, torch.float16], ids=str)
def test_clamp_of_other_types(dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, 5, 100, 127]).to(dtype)
    export_and_compare(lambda a: (a.clamp(1, 5), a.clamp(min=2), a.clamp_max(3), a.clamp(0.5, 3.5)), (a,))


def test_clamp_with_tensors() -> None:
    a, b = pairs(SPECIAL, torch.float32)
    export_and_compare(lambda a, b: (torch.clamp(a, b), torch.clamp(a, b, b + 1), torch.clamp(a, None, b)), (a, b))
    export_and_compare(lambda a, b: torch.clamp(a, b), (torch.arange(4), torch.tensor([0.5, 1.5, 2.5, 9.0])))


def test_multiply_and_add() -> None:
    a, b, c = torch.randn(2, 3), torch.randn(3), torch.randn(2, 1) + 3

    def function(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.addcmul(a, b, c, value=0.5),
            torch.addcdiv(a, b, c, value=2),
            torch.lerp(a, b.expand(2, 3), 0.3),
            torch.lerp(a, b.expand(2, 3), 0.7),
            torch.lerp(a, b.expand(2, 3), torch.sigmoid(a)),
        )

    export_and_compare(function, (a, b, c))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_gcd_and_lcm(dtype: torch.dtype) -> None:
    export_and_compare(lambda a, b: (torch.gcd(a, b), torch.lcm(a, b)), pairs([0, 1, 2, 3, 4, 6, 9, 12], dtype))
    export_and_compare(torch.gcd, (torch.zeros(0, 3, dtype=dtype), torch.zeros(3, dtype=dtype)))


def test_where_of_every_type() -> None:
    for dtype in [*INTEGERS, *FLOATS, torch.int16, torch.bool]:
        a, b = torch.tensor([0, 1, 1]).to(dtype), torch.tensor([1, 0, 1]).to(dtype)
        mask = torch.tensor([True, False, True])
        export_and_compare(lambda m, a, b: (torch.where(m, a, b), torch.where(m, a, 1)), (mask, a, b))


def test_where_of_bools_is_logic() -> None:
    mask, a, b = (torch.tensor(v) for v in ([True, False, True, False], [True, True, False, False], [False] * 4))

    def function(m: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sides = ((a, True), (a, False), (True, a), (False, a), (a, b), (a, 2), (True, False))
        return tuple(torch.where(m, *pair) for pair in sides)

    export_and_compare(function, (mask, a, b))
    assert ops_of(export_and_compare(lambda m, a: torch.where(m, a, False), (mask, a))) == ["And"]


def test_nan_to_num() -> None:
    a = torch.tensor(SPECIAL)
    export_and_compare(lambda a: (torch.nan_to_num(a), torch.nan_to_num(a, 1.0, 2.0, -3.0)), (a,))
    export_and_compare(lambda a: (torch.nan_to_num(a), torch.nan_to_num(a, posinf=INF)), (a.half(),))


@pytest.mark.parametrize("opset", [18, 26])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neighbours(dtype: torch.dtype, opset: int) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 0.1, 1e30, torch.finfo(dtype).max, torch.finfo(dtype).tiny, INF, -INF, NAN, 5.0]
    a = torch.tensor(values, dtype=dtype)
    first, second = a.repeat_interleave(len(a)), a.repeat(len(a))
    export_and_compare(torch.nextafter, (first, second), opset_version=opset, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_parts_of_numbers(dtype: torch.dtype) -> None:
    a = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.75, 8.0, 7.999, 1e-5, 6e4, INF, -INF, NAN], dtype=dtype)
    export_and_compare(lambda a: (*torch.frexp(a), torch.signbit(torch.nan_to_num(a))), (a,))
    export_and_compare(torch.ldexp, (a, torch.arange(12) - 6))
    export_and_compare(torch.ldexp, (torch.tensor([0.0, 1e-30, 1.0], dtype=dtype), torch.tensor([2000, 120, -1050])))


def test_frexp_of_the_smallest_and_greatest() -> None:
    for dtype in (torch.float32, torch.float64):
        info = torch.finfo(dtype)
        a = torch.tensor([info.tiny, info.smallest_normal / 8, info.max, -info.max], dtype=dtype)
        export_and_compare(torch.frexp, (a,), rtol=0, atol=0)


def test_common_cases_are_one_node() -> None:
    a, b = torch.randn(3), torch.randn(3)
    for function, expected in (
        (lambda a, b: a + b, ["Add"]),
        (lambda a, b: a - b, ["Sub"]),
        (lambda a, b: a * 2.0 + b, ["Mul", "Add"]),
        (lambda a, b: (a / b) ** 2, ["Div", "Mul"]),
        (lambda a, b: a.clamp(0, 1) + b, ["Clip", "Add"]),
    ):
        assert ops_of(export_and_compare(function, (a, b))) == expected


def test_empty_and_zero_dimensional() -> None:
    for shape in ((0,), (2, 0, 3), ()):
        a = torch.ones(shape)
        export_and_compare(lambda a: (a + 1, a // 2, a % 3, a**2.5, a.clamp(0, 1)), (a,))
        export_and_compare(lambda a: (a + 1, a // 2, a % 3, a**2, a**a), (a.long(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8], ids=str)
def test_symbolic_sizes_as_numbers(dtype: torch.dtype) -> None:
    def function(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = a.shape[0]
        return a + n, n - a, a * n, a / n, a // n, a % n, a.clamp(max=n), a < n, a == n, torch.where(a > 1, a, n), a**n

    rows = torch.export.Dim("rows", min=2, max=50)
    first, second = torch.arange(3).to(dtype), torch.arange(5).to(dtype)
    export_and_compare(function, (first,), dynamic_shapes=({0: rows},), other_args=(second,))


def test_numbers_read_from_tensors() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        number = b.item()
        return a + number, a * number, torch.add(a, a, alpha=number), a / number

    export_and_compare(function, (torch.randn(3), torch.tensor(2.5)))
    export_and_compare(function, (torch.randn(3), torch.tensor(2)))
