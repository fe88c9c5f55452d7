"""What Python and NumPy compute of a dynamic size is computed in the graph, at every size."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from math import log as natural_logarithm
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from onnxport_builtin.capture.arithmetic_of_sizes import _is_called_alone
from support import expect_equal


class Module(torch.nn.Module):
    """Its module is this file, whose ``int``, ``float`` and imported functions follow sizes."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def numbers(*functions: Callable[[Any], Any]) -> Callable[[torch.Tensor], Any]:
    return lambda x: tuple(torch.ones(()) * function(x.shape[1]) for function in functions)


def of_math(*names: str) -> list[Callable[[Any], Any]]:
    """Functions that forward looks up when it is called, as a model does."""
    return [lambda n, name=name: getattr(math, name)(n) for name in names]  # type: ignore[misc]


SCALES: dict[str, Callable[[torch.Tensor], Any]] = {
    "logarithms": numbers(*of_math("log", "log2", "log10", "log1p"), lambda n: natural_logarithm(n)),
    "logarithms to a base": numbers(lambda n: math.log(n, 2), lambda n: math.log(n, 10), lambda n: math.log(100, n)),
    "exponentials": numbers(lambda n: math.exp(n / 9), lambda n: math.expm1(1 / n), lambda n: math.exp2(n / 4)),
    "roots": numbers(*of_math("sqrt", "isqrt", "cbrt"), lambda n: math.hypot(n, 3), lambda n: float(n) ** 0.5),
    "trigonometry": numbers(*of_math("sin", "cos", "radians", "degrees"), lambda n: math.tan(1 / n)),
    "hyperbolic": numbers(*of_math("tanh", "asinh", "acosh"), lambda n: math.sinh(n / 9), lambda n: math.atanh(1 / n)),
    "combinations": numbers(lambda n: math.comb(n, 2), lambda n: math.perm(n, 3), lambda n: math.pow(n, 2)),
    "ufuncs": numbers(
        np.sqrt, np.log, lambda n: float(np.log2(n)), lambda n: np.exp(n / 9), lambda n: np.power(n, 0.5)
    ),
    "ufuncs that round": numbers(lambda n: np.floor(n / 3), lambda n: np.ceil(n / 3), lambda n: np.round(n / 3)),
    "ufuncs of two": numbers(lambda n: np.maximum(n // 2, 5), lambda n: np.float64(2.5) * n, lambda n: n % np.int64(3)),
    "divmod": numbers(*(lambda n, i=i: divmod(n, 3)[i] for i in (0, 1)), lambda n: divmod(n / 2, 3)[1]),
    "rounded": numbers(lambda n: round(n, -1), lambda n: round(n * 5, -2), lambda n: round(n / 3)),
    "inverse trigonometry": numbers(
        *of_math("atan"), lambda n: math.atan2(n, 3), lambda n: math.asin(1 / n), lambda n: np.arccos(1 / n)
    ),
    "divisors": numbers(
        lambda n: math.gcd(n, 12), lambda n: math.gcd(8, n, 2 * n), lambda n: math.lcm(n, 6), lambda n: np.gcd(n, 30)
    ),
    "decimals": lambda x: (
        torch.ones((), dtype=torch.float64) * round(x.shape[1] / 40, 2),
        torch.ones((), dtype=torch.float64) * round(-x.shape[1] * 2.675, 2),
        torch.ones((), dtype=torch.float64) * np.round(x.shape[1] / 40, 2),
    ),
    "signs": numbers(lambda n: np.sign(n - 12), lambda n: math.copysign(2.5, 8 - n), lambda n: n ^ 5, lambda n: ~n),
    "attributes": numbers(lambda n: n.real + n.imag, lambda n: n.numerator // n.denominator, lambda n: n.conjugate()),
    "types": numbers(
        lambda n: n if isinstance(n, int) else 0, lambda n: n / 2 if isinstance(n / 2, (str, float)) else 0
    ),
    "largest": numbers(lambda n: max(math.log(n), 2.0), lambda n: min(np.sqrt(n), 3)),
}

SIZES: dict[str, Callable[[Any], Any]] = {
    "next power of two": lambda n: 2 ** math.ceil(math.log2(n)),
    "by a logarithm to a base": lambda n: int(2 ** math.ceil(math.log(n, 2))),
    "by a quotient": lambda n: 1 << math.ceil(math.log(n) / math.log(2)),
    "by NumPy": lambda n: int(2 ** np.ceil(np.log2(n))),
    "by bits": lambda n: 1 << (n - 1).bit_length(),
    "digits": lambda n: int(math.log10(n)) + 1,
    "digits by a quotient": lambda n: int(math.log(n, 10)) + 1,
    "a root": lambda n: int(math.sqrt(n)),
    "a ceiling": lambda n: int(np.ceil(n / 3)),
    "a divmod": lambda n: divmod(n, 3)[0] + 1,
    "a type of NumPy": lambda n: np.ceil(n / 3).astype(int) + np.sqrt(n).astype(np.int64),
    "the largest of several": lambda n: max(n, 9, 2 * n - 12) + min([n, 8, 11]) + max((k for k in (n, 7)), default=1),
    "clipped": lambda n: np.clip(n, 8, 20) + int(np.clip(n / 2, 1.5, 7.5)),
    "parts": lambda n: int(n * 0.7) + int(float(n) / 2),
}


def export(function: Callable[[torch.Tensor], Any]) -> onnxport.ONNXProgram:
    return onnxport.export(Module(function), (torch.randn(1, 12),), dynamic_shapes=({1: "t"},))


@pytest.mark.parametrize("name", SCALES)
def test_numbers(name: str) -> None:
    program = export(SCALES[name])
    for size in (12, 8, 15, 25, 125, 1000):
        x = torch.randn(1, size)
        for got, want in zip(program(x), SCALES[name](x), strict=True):
            expect_equal(got, want, rtol=1e-5)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    """Also where a logarithm is a whole number: eager's own error there is a size."""
    program = export(lambda x: torch.zeros(SIZES[name](x.shape[1]), dtype=torch.int8))
    for size in (12, 2, 3, 4, 5, 7, 8, 9, 64, 99, 100, 101, 125, 128, 243, 1000, 1024, 1025, 4096, 100000):
        assert program(torch.zeros(1, size))[0].shape == (SIZES[name](size),), size


def test_functions_are_pythons_own_afterwards() -> None:
    before = dict(vars(math))
    with pytest.raises(onnxport.CaptureError, match="on purpose"):
        export(lambda x: x * _failing(x.shape[1]))
    assert vars(math) == before
    assert not {"int", "isinstance", "max"} & globals().keys()
    assert natural_logarithm is math.log
    assert not hasattr(torch.SymInt, "__array_ufunc__")


def _failing(_size: Any) -> float:
    raise ValueError("on purpose")


@pytest.mark.parametrize(
    "function",
    [lambda n: np.int64(n) * 2, lambda n: np.float32(n), lambda n: math.erf(n / 9), lambda n: math.lgamma(n)],
    ids=["int64", "float32", "erf", "lgamma"],
)
def test_what_has_no_graph_is_told_with_its_line_and_what_to_write(function: Callable[[Any], Any]) -> None:
    with pytest.raises(onnxport.DynamicShapesError, match=r"test_math_of_a_size\.py:.*\n.*use the size itself"):
        export(numbers(function))


@pytest.mark.parametrize(
    ("source", "is_replaced"),
    [
        ("def f(n): return int(n / 2)", True),
        ("def f(a): return a.astype(int)", True),
        ("def f(n): return np.zeros(3, dtype=int)", True),
        ("def f(x): return x.to(int)", False),
        ("def f(n): return torch.zeros(3, dtype=int)", False),
        ("def f(n): return type(n) is int", False),
        ("def f(n): return 1 if None is not int else 0", False),
    ],
)
def test_where_int_may_be_another(source: str, is_replaced: bool, tmp_path: Any, monkeypatch: Any) -> None:
    name = f"module_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(f"import numpy as np\nimport torch\n\n{source}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _is_called_alone(importlib.import_module(name), "int") is is_replaced
