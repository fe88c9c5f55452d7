"""Exponentials, logarithms, trigonometry and rounding: accurate near 0 and to the ends of each type's range."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support import export_and_compare

FLOATS = [torch.float32, torch.float64, torch.float16]
INF, NAN = math.inf, math.nan
#: greatest error relative to the result, in units of the type's epsilon
ULPS = 8


def spread(dtype: torch.dtype) -> torch.Tensor:
    """Zeros, infinities, NaN, and magnitudes over the whole range of the type."""
    info = torch.finfo(dtype)
    low, high = math.log10(info.tiny) + 1, math.log10(info.max) - 0.1
    magnitudes = torch.logspace(low, high, 60, dtype=torch.float64)
    middle = torch.linspace(-10, 10, 41, dtype=torch.float64) + 0.01
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, INF, -INF, NAN], dtype=torch.float64)
    return torch.cat([special, magnitudes, -magnitudes, middle]).to(dtype)


ACCURATE = [
    torch.exp,
    torch.exp2,
    torch.expm1,
    torch.log,
    torch.log2,
    torch.log10,
    torch.log1p,
    torch.tan,
    torch.asin,
    torch.acos,
    torch.atan,
    torch.sinh,
    torch.cosh,
    torch.tanh,
    torch.asinh,
    torch.acosh,
    torch.atanh,
    torch.deg2rad,
    torch.rad2deg,
    torch.special.entr,
    torch.nn.functional.logsigmoid,
    torch.nn.functional.softplus,
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", ACCURATE, ids=lambda f: f.__name__)
def test_whole_range(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    a = spread(dtype)
    if function is torch.tan:
        a = a[a.abs() < 1e4]  # beyond, float64 kernels differ in their reduction of the argument
    rtol = 1e-9 if dtype is torch.float64 else ULPS * torch.finfo(dtype).eps
    export_and_compare(function, (a,), rtol=rtol, atol=torch.finfo(dtype).tiny * 8)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [torch.sin, torch.cos, torch.sinc, torch.sigmoid], ids=lambda f: f.__name__)
def test_bounded(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    a = spread(dtype)
    export_and_compare(function, (a[~(a.abs() > 1e5)],), rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounding(dtype: torch.dtype) -> None:
    a = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 2.4, -2.6, 1e4, INF, -INF, NAN], dtype=dtype)
    export_and_compare(lambda a: (a.floor(), a.ceil(), a.round(), a.trunc(), a.frac()), (a,), rtol=0, atol=0)
    export_and_compare(lambda a: (a.round(decimals=1), a.round(decimals=-1)), (a,))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_integers_become_floats(dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, 1, 0]).to(dtype)
    export_and_compare(lambda a: (a.exp(), a.sin(), a.log1p(), a.sigmoid(), a.atan(), a.expm1()), (a,))


def test_rounding_integers_is_nothing() -> None:
    export_and_compare(lambda a: (a.floor(), a.ceil(), a.round(), a.trunc()), (torch.arange(-2, 3),))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_atan2(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-3, -3e4, INF, -INF, NAN], dtype=dtype)
    a, b = values.repeat_interleave(len(values)), values.repeat(len(values))
    export_and_compare(torch.atan2, (a, b), rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [torch.logaddexp, torch.logaddexp2], ids=lambda f: f.__name__)
def test_logaddexp(function: Callable[..., torch.Tensor], dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 50.0, -300.0, INF, -INF, NAN], dtype=dtype)
    a, b = values.repeat_interleave(len(values)), values.repeat(len(values))
    export_and_compare(function, (a, b), atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_products_with_logarithms(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, 2.5, 1e-3, -0.5, INF, NAN], dtype=dtype)
    a, b = values.repeat_interleave(len(values)), values.repeat(len(values))
    export_and_compare(lambda a, b: (torch.xlogy(a, b), torch.special.xlog1py(a, b), torch.xlogy(a, 2.0)), (a, b))


@pytest.mark.parametrize("eps", [None, 1e-6, 0.1])
def test_logit(eps: float | None) -> None:
    a = torch.tensor([0.0, 1.0, 0.5, 1e-7, 0.99, -1.0, 2.0, NAN])
    export_and_compare(lambda a: torch.logit(a, eps), (a,))


def test_one_node_each() -> None:
    def ops(function: Callable[[torch.Tensor], torch.Tensor]) -> list[str]:
        return [node.op_type for node in export_and_compare(function, (torch.rand(3),)).model.graph]

    assert ops(torch.exp) == ["Exp"]
    assert ops(torch.sigmoid) == ["Sigmoid"]
    assert ops(torch.exp2) == ["Pow"]
    assert ops(torch.frac) == ["Mod"]


@pytest.mark.parametrize("opset", [18, 20])
def test_bfloat16_below_the_opset_that_defines_it(opset: int) -> None:
    def function(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        functional = torch.nn.functional
        return a.sin(), a.tan(), a.round(), functional.mish(a), functional.elu(a), functional.softplus(a), a.sinh()

    export_and_compare(function, (torch.randn(3, 4).bfloat16(),), opset_version=opset)
