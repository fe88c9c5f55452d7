"""Special functions: against values of 30 digits from mpmath (torch's own are less accurate in places), and eager."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import onnxport
import pytest
import torch
from support import FunctionModule, export_and_compare

special = torch.special
INF, NAN = math.inf, math.nan
#: relative error allowed; near a zero of the function, the same as an absolute error
ACCURACY = {torch.float32: 2e-7, torch.float64: 2e-14}


def output(function: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
    """What the exported model gives."""
    return onnxport.export(FunctionModule(function).eval(), args)(*args)[0]


def expect_exact(actual: torch.Tensor, reference: Callable[..., Any], *args: torch.Tensor) -> None:
    bound = ACCURACY[actual.dtype]
    with mp.workdps(60):
        for i in range(actual.numel()):
            point = [mp.mpf(a[i].item()) for a in args]
            expected, got = reference(*point), actual[i].item()
            limit = bound * max(abs(expected), mp.mpf(1) if abs(expected) > 1e-3 else abs(expected))
            if abs(expected) > torch.finfo(actual.dtype).max:
                assert math.isinf(got), f"at {point}: {got}, not infinite"
            elif abs(expected) > torch.finfo(actual.dtype).tiny:
                assert abs(got - expected) <= limit, f"at {point}: {got} instead of {mp.nstr(expected, 17)}"


def scaled_k(order: int) -> Callable[[Any], Any]:
    return lambda x: mp.besselk(order, x) * mp.exp(x)


BOTH_SIDES = [-35.0, -9.7, -5.3, -2.6, -1.0, -0.4, -1e-3, 1e-6, 0.02, 0.5, 1.3, 2.0, 4.9, 7.99, 8.01, 13.0, 27.0, 80.0]
POSITIVE = [1e-6, 0.02, 0.5, 1.0, 1.99, 2.01, 4.9, 7.99, 8.01, 13.0, 27.0, 80.0]
OFF_POLES = [-35.3, -9.7, -5.3, -2.6, -1.1, -0.4, -1e-3, 1e-6, 0.02, 0.5, 1.3, 2.5, 4.9, 9.9, 10.1, 27.0, 800.0, 1e6]

CASES: list[tuple[str, Callable[..., torch.Tensor], Callable[[Any], Any], list[float]]] = [
    ("erf", torch.erf, mp.erf, BOTH_SIDES),
    ("erfc", torch.erfc, mp.erfc, [-3.0, -0.5, 0.0, 0.5, 3.0, 5.0, 9.0]),
    ("erfcx", special.erfcx, lambda x: mp.exp(x * x) * mp.erfc(x), [-5.0, -0.5, 0.0, 0.5, 3.0, 9.0, 20.0]),
    ("ndtr", special.ndtr, mp.ncdf, [-12.0, -5.0, -1.0, 0.0, 0.5, 4.0]),
    ("log_ndtr", special.log_ndtr, lambda x: mp.log(mp.ncdf(x)), [-30.0, -5.0, -1.0, 0.0, 0.5, 4.0]),
    ("erfinv", torch.erfinv, mp.erfinv, [-0.9999, -0.5, 1e-5, 0.3, 0.9, 0.99]),
    ("ndtri", special.ndtri, lambda p: mp.sqrt(2) * mp.erfinv(2 * p - 1), [1e-20, 1e-5, 0.1, 0.5001, 0.9]),
    ("lgamma", torch.lgamma, lambda x: mp.re(mp.loggamma(x)), OFF_POLES),
    ("digamma", torch.digamma, mp.digamma, OFF_POLES),
    ("i0", torch.i0, lambda x: mp.besseli(0, x), BOTH_SIDES),
    ("i0e", special.i0e, lambda x: mp.exp(-abs(x)) * mp.besseli(0, x), BOTH_SIDES),
    ("i1", special.i1, lambda x: mp.besseli(1, x), BOTH_SIDES),
    ("i1e", special.i1e, lambda x: mp.exp(-abs(x)) * mp.besseli(1, x), BOTH_SIDES),
    ("j0", special.bessel_j0, lambda x: mp.besselj(0, x), BOTH_SIDES),
    ("j1", special.bessel_j1, lambda x: mp.besselj(1, x), BOTH_SIDES),
    ("y0", special.bessel_y0, lambda x: mp.bessely(0, x), POSITIVE),
    ("y1", special.bessel_y1, lambda x: mp.bessely(1, x), POSITIVE),
    ("k0", special.modified_bessel_k0, lambda x: mp.besselk(0, x), POSITIVE),
    ("k1", special.modified_bessel_k1, lambda x: mp.besselk(1, x), POSITIVE),
    ("k0e", special.scaled_modified_bessel_k0, scaled_k(0), POSITIVE),
    ("k1e", special.scaled_modified_bessel_k1, scaled_k(1), POSITIVE),
    ("airy", special.airy_ai, mp.airyai, [-35.0, -8.01, -7.9, -2.0, 0.0, 0.5, 1.99, 2.01, 5.0, 20.0]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "function", "reference", "points"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_accuracy(name: str, function: Any, reference: Any, points: list[float], dtype: torch.dtype) -> None:
    a = torch.tensor(points, dtype=dtype)
    expect_exact(output(function, a), reference, a)


EDGES = [
    torch.erf,
    torch.erfc,
    special.erfcx,
    special.ndtr,
    special.log_ndtr,
    torch.lgamma,
    torch.digamma,
    special.i0e,
    special.modified_bessel_k0,
    special.scaled_modified_bessel_k1,
    special.bessel_y0,
    special.spherical_bessel_j0,
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", EDGES, ids=lambda f: f.__name__)
def test_edges(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> None:
    a = torch.tensor([0.0, -0.0, -1.0, 1.0, 2.0, INF, -INF, NAN], dtype=dtype)
    export_and_compare(function, (a,))


@pytest.mark.parametrize("function", [torch.erfinv, special.ndtri], ids=lambda f: f.__name__)
def test_edges_of_inverses(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    a = torch.tensor([0.0, 1.0, -1.0, 1.5, -1.5, NAN, 1e-45, 1 - 2**-24])
    export_and_compare(function, (a,))
    export_and_compare(function, (a.double(),))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_polygamma(n: int) -> None:
    a = torch.tensor([-9.7, -2.6, -0.4, 0.02, 0.5, 1.3, 4.9, 30.0], dtype=torch.float64)
    expect_exact(output(lambda a: torch.polygamma(n, a), a), lambda x: mp.polygamma(n, x), a)
    export_and_compare(lambda a: torch.polygamma(n, a), (torch.tensor([1, 2, 30]),))


def test_zeta() -> None:
    s = torch.tensor([2.0, 3.0, 1.01, 30.0, 7.5, 200.0], dtype=torch.float64)
    q = torch.tensor([1.0, 0.1, 5.0, 0.5, 1000.0, 3.0], dtype=torch.float64)
    expect_exact(output(special.zeta, s, q), mp.zeta, s, q)
    values = torch.tensor([2.0, 3.0, 2.5, 1.0, 0.5, 3.0, 4.0, NAN, 6.0])
    where = torch.tensor([-1.5, -2.0, -1.5, 1.0, 1.0, 0.0, -10.25, 1.0, INF])
    export_and_compare(special.zeta, (values, where))
    export_and_compare(special.zeta, (torch.rand(2, 3, 1) + 1.5, torch.rand(4)))
    export_and_compare(lambda q: (special.zeta(2, q), special.zeta(q + 1, 0.5)), (torch.rand(4) + 1,))


def test_incomplete_gamma() -> None:
    points = [*itertools.product([1e-3, 0.5, 1.0, 7.3, 60.0], [1e-4, 0.4, 1.0, 6.0, 70.0]), (1000.0, 990.0)]
    a = torch.tensor([p[0] for p in points], dtype=torch.float64)
    x = torch.tensor([p[1] for p in points], dtype=torch.float64)
    for function, ends in ((torch.igamma, lambda x: (0, x)), (torch.igammac, lambda x: (x, mp.inf))):
        actual = output(function, a, x)
        for i, (first, second) in enumerate(points):
            expected = mp.gammainc(first, *ends(second), regularized=True)
            if expected > 1e-290:
                error = abs(actual[i].item() - expected)
                assert error <= 2e-12 * expected + 1e-14, f"{function.__name__}{points[i]}"


def test_edges_of_incomplete_gamma() -> None:
    values = [0.0, 1.0, 2.5, INF, -1.0, NAN]
    a, x = (torch.tensor(side) for side in zip(*itertools.product(values, values)))
    export_and_compare(lambda a, x: (torch.igamma(a, x), torch.igammac(a, x)), (a, x))
    export_and_compare(torch.igamma, (torch.ones(0, 2), torch.ones(2)))


def test_multivariate_gamma() -> None:
    a = torch.rand(2, 3) * 10 + 3
    export_and_compare(lambda a: torch.mvlgamma(a, 4), (a,))
    export_and_compare(lambda a: torch.mvlgamma(a, 1), (torch.tensor([1, 2, 5]),))


POLYNOMIALS = [
    special.chebyshev_polynomial_t,
    special.chebyshev_polynomial_u,
    special.chebyshev_polynomial_v,
    special.chebyshev_polynomial_w,
    special.shifted_chebyshev_polynomial_t,
    special.shifted_chebyshev_polynomial_u,
    special.shifted_chebyshev_polynomial_v,
    special.shifted_chebyshev_polynomial_w,
    special.hermite_polynomial_h,
    special.hermite_polynomial_he,
    special.laguerre_polynomial_l,
    special.legendre_polynomial_p,
]


@pytest.mark.parametrize("function", POLYNOMIALS, ids=lambda f: f.__name__)
def test_polynomials(function: Callable[..., torch.Tensor]) -> None:
    x = torch.tensor([-1.0, -0.3, 0.0, 0.25, 0.5, 1.0, 1.7], dtype=torch.float64)
    n = torch.tensor([[-1.0], [0.0], [1.0], [2.0], [3.0], [8.0]], dtype=torch.float64)
    export_and_compare(function, (x, n), rtol=1e-10, atol=1e-10)
    export_and_compare(lambda x: (function(x, 4), function(0.5, x.abs())), (x.float(),), atol=1e-5)


def test_integers_become_floats() -> None:
    def function(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.lgamma(a), torch.erfc(a), torch.i0(a), special.bessel_j0(a), torch.digamma(a), special.ndtr(a)

    export_and_compare(function, (torch.arange(1, 5),))


def test_empty_and_zero_dimensional() -> None:
    def function(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.lgamma(a),
            torch.erfc(a),
            special.i1(a),
            special.bessel_y1(a),
            torch.igamma(a, a),
            special.zeta(a + 1, a),
        )

    export_and_compare(function, (torch.tensor(1.5),))
    export_and_compare(function, (torch.ones(2, 0),))


def test_polygamma_of_infinity() -> None:
    """The limit; torch 2.14 has NaN from the second derivative on."""
    x = torch.tensor([INF, NAN, 1e30], dtype=torch.float64)
    export_and_compare(lambda x: torch.polygamma(1, x), (x,))
    assert output(lambda x: torch.polygamma(2, x), x)[0] == 0
