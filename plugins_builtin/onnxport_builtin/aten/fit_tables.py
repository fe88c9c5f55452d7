"""Makes ``tables.npz``: ``python -m onnxport_builtin.aten.fit_tables`` (needs mpmath; prints each table's error)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 40

#: name: (function of an mpmath number, low end, high end, intervals, degree)
Specification = tuple[Callable[[Any], Any], float, float, int, int]


def specifications() -> dict[str, Specification]:
    """What is tabulated: the smooth parts of the functions, in variables that keep their domains finite."""
    import mpmath as mp
    from mpmath import mpf

    def erfcx(y: Any) -> Any:
        x = 4 / y - 4  # y = 4 / (4 + x)
        return (mp.exp(x * x) * mp.erfc(x) if x < 1000 else _series_erfcx(x)) / y

    def _series_erfcx(x: Any) -> Any:
        total = term = mpf(1)
        for k in range(1, 8):
            term *= -mpf(2 * k - 1) / (2 * x * x)
            total += term
        return total / (x * mp.sqrt(mp.pi))

    def erfinv_over_x(s: Any) -> Any:
        w = (s + 2) ** 2 - 4  # w = -log(1 - x^2)
        if w < mpf(10) ** -20:
            return mp.sqrt(mp.pi) / 2
        # erfc(r) = d for 1 - x = d = 1 - sqrt(1 - e^-w), by Newton from the asymptotic root
        e = mp.exp(-w)
        d = e / (1 + mp.sqrt(1 - e))
        x = 1 - d
        if x < mpf("0.9"):
            return mp.erfinv(x) / x
        r = mp.sqrt(mp.mpf(w))
        for _ in range(60):
            step = (mp.erfc(r) - d) * mp.sqrt(mp.pi) / 2 * mp.exp(r * r)
            step /= 1 + r * step if 1 + r * step > 0.1 else 1
            r += step
            if abs(step) < mpf(10) ** -35:
                break
        return r / x

    def i_scaled(order: int) -> Callable[[Any], Any]:
        def function(y: Any) -> Any:
            x = 8 / y - 8  # y = 8 / (8 + x)
            if x > 300:
                value = mp.hyp2f0(mpf(1) / 2 + order, mpf(1) / 2 - order, 1 / (2 * x)) / mp.sqrt(2 * mp.pi * x)
                value = mp.re(value)
            else:
                value = mp.exp(-x) * mp.besseli(order, x)
            if order == 0:
                return value * mp.sqrt(1 + x)
            return value / x * (1 + x) ** mpf(1.5) if x > mpf(10) ** -15 else mpf(1) / 2

        return function

    def phase(order: int, part: str) -> Callable[[Any], Any]:
        def function(u: Any) -> Any:
            x = 8 / u
            if x > 10**4:
                m = 4 * order * order
                z = 8 * x
                p = 1 - mpf((m - 1) * (m - 9)) / (2 * z**2) + mpf((m - 1) * (m - 9) * (m - 25) * (m - 49)) / (24 * z**4)
                q = (m - 1) / z - mpf((m - 1) * (m - 9) * (m - 25)) / (6 * z**3)
                return p if part == "p" else q
            chi = x - (2 * order + 1) * mp.pi / 4
            j, y, scale = mp.besselj(order, x), mp.bessely(order, x), mp.sqrt(mp.pi * x / 2)
            c, s = mp.cos(chi), mp.sin(chi)
            return scale * (j * c + y * s) if part == "p" else scale * (y * c - j * s)

        return function

    def y0(x: Any) -> Any:
        return mp.bessely(0, x) - 2 / mp.pi * mp.log(x) * mp.besselj(0, x)

    def y1_over_x(x: Any) -> Any:
        return (mp.bessely(1, x) - 2 / mp.pi * (mp.log(x) * mp.besselj(1, x) - 1 / x)) / x

    def k0(x: Any) -> Any:
        return mp.besselk(0, x) + mp.log(x / 2) * mp.besseli(0, x)

    def k1_over_x(x: Any) -> Any:
        return (mp.besselk(1, x) - mp.log(x / 2) * mp.besseli(1, x) - 1 / x) / x

    def k_scaled(order: int) -> Callable[[Any], Any]:
        def function(v: Any) -> Any:
            x = 2 / v
            if x > 300:
                half = mpf(1) / 2
                value = mp.hyp2f0(half + order, half - order, -1 / (2 * x)) * mp.sqrt(mp.pi / 2)
                return mp.re(value)
            return mp.besselk(order, x) * mp.exp(x) * mp.sqrt(x)

        return function

    def airy_decaying(w: Any) -> Any:
        x = 2 / w ** (mpf(2) / 3)
        zeta = 2 * x ** mpf(1.5) / 3
        return mp.airyai(x) * mp.exp(zeta) * x ** mpf(0.25)

    def airy_phase(part: str) -> Callable[[Any], Any]:
        def function(w: Any) -> Any:
            z = 8 / w ** (mpf(2) / 3)
            theta = 2 * z ** mpf(1.5) / 3 - mp.pi / 4
            a, b, scale = mp.airyai(-z), mp.airybi(-z), mp.sqrt(mp.pi) * z ** mpf(0.25)
            c, s = mp.cos(theta), mp.sin(theta)
            return scale * (a * c - b * s) if part == "p" else scale * (a * s + b * c)

        return function

    return {
        "atan_over_x": (lambda x: mp.atan(x) / x, 0, 1, 16, 9),
        "erf_over_x": (lambda x: mp.erf(x) / x, 0, 6, 24, 13),
        "erfcx_over_y": (erfcx, 0, 1, 32, 10),
        "erfinv_over_x": (erfinv_over_x, 0, 26, 104, 11),
        "i0e": (i_scaled(0), 0, 1, 32, 11),
        "i1e_over_x": (i_scaled(1), 0, 1, 32, 11),
        "j0": (lambda x: mp.besselj(0, x), 0, 8, 16, 11),
        "j1_over_x": (lambda x: mp.besselj(1, x) / x, 0, 8, 16, 11),
        "j0_p": (phase(0, "p"), 0, 1, 8, 10),
        "j0_q": (phase(0, "q"), 0, 1, 8, 10),
        "j1_p": (phase(1, "p"), 0, 1, 8, 10),
        "j1_q": (phase(1, "q"), 0, 1, 8, 10),
        "y0": (y0, 0, 8, 16, 11),
        "y1_over_x": (y1_over_x, 0, 8, 16, 11),
        "k0": (k0, 0, 2, 4, 11),
        "k1_over_x": (k1_over_x, 0, 2, 4, 11),
        "k0e": (k_scaled(0), 0, 1, 16, 11),
        "k1e": (k_scaled(1), 0, 1, 16, 11),
        "airy": (mp.airyai, -8, 2, 40, 11),
        "airy_decaying": (airy_decaying, 0, 1, 16, 11),
        "airy_p": (airy_phase("p"), 0, 1, 8, 10),
        "airy_q": (airy_phase("q"), 0, 1, 8, 10),
    }


def fit(specification: Specification) -> tuple[np.ndarray, float]:
    """Coefficients, and the greatest error between the nodes relative to the interval's greatest value."""
    import mpmath as mp

    function, low, high, intervals, degree = specification
    nodes = [mp.cos(mp.pi * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)]
    vandermonde = mp.matrix(degree + 1, degree + 1)
    for i, node in enumerate(nodes):
        for j in range(degree + 1):
            vandermonde[i, j] = node**j
    inverse = vandermonde**-1
    width = (mp.mpf(high) - low) / intervals
    table, worst = [], 0.0
    for i in range(intervals):

        def at(t: Any, i: int = i) -> Any:
            return function(low + width * (i + (t + 1) / 2))

        values = mp.matrix([at(t) for t in nodes])
        row = np.array([float(c) for c in inverse * values])
        table.append(row)
        scale = max(abs(v) for v in values)
        for t in (mp.mpf("-0.99"), mp.mpf("0.05"), mp.mpf("0.95")):
            error = abs(mp.mpf(float(np.polynomial.polynomial.polyval(float(t), row))) - at(mp.mpf(float(t)))) / scale
            worst = max(worst, float(error))
    return np.array(table), worst


def main() -> None:
    """Write the archive beside this module."""
    import mpmath as mp

    mp.mp.dps = DIGITS
    arrays: dict[str, np.ndarray] = {}
    for name, specification in specifications().items():
        arrays[name], worst = fit(specification)
        arrays[f"{name}.domain"] = np.array(specification[1:3], np.float64)
        print(f"{name:16s} {arrays[name].shape}  relative error {worst:.1e}")
    np.savez_compressed(Path(__file__).with_name("tables.npz"), **arrays)


if __name__ == "__main__":
    main()
