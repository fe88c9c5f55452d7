"""Functions that take a plain number follow a dynamic size, or are an error with the model's line."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import expect_equal, flat_tensors


class Module(torch.nn.Module):
    """Its module is this file, whose ``len`` and ``range`` follow sizes."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def export(function: Callable[[torch.Tensor], Any]) -> onnxport.ONNXProgram:
    return onnxport.export(Module(function), (torch.randn(2, 12),), dynamic_shapes=({1: "t"},))


def n(x: torch.Tensor) -> Any:
    return x.shape[1]


FOLLOWED: dict[str, Callable[[torch.Tensor], Any]] = {
    "correction": lambda x: (x.std(1, correction=n(x) - 2), torch.var(x, (0, 1), correction=n(x) / 4, keepdim=True)),
    "correction of all": lambda x: (torch.var(x, correction=n(x) // 2), *torch.std_mean(x, 1, correction=n(x) // 2)),
    "correction beyond": lambda x: torch.var(x.double(), 1, correction=n(x) + 3),
    "cov": lambda x: (torch.cov(x), torch.cov(x[0], correction=n(x) // 2), x.corrcoef(), torch.cov((x * 4).long())),
    "one_hot": lambda x: (F.one_hot(x.argmax(1), n(x)), F.one_hot(x.argmax(), num_classes=2 * n(x))),
    "triangles": lambda x: (torch.tril_indices(n(x), n(x)), torch.triu_indices(n(x), 5, n(x) - 9, dtype=torch.int32)),
    "triangles, negative": lambda x: (torch.tril_indices(n(x), n(x) + 2, -2), torch.triu_indices(3, n(x), offset=-1)),
    "pairs of a triangle": lambda x: x[:, torch.triu_indices(n(x), n(x), 1)[0]].reshape(2, n(x) * (n(x) - 1) // 2),
    "linspace of integers": lambda x: torch.linspace(0, n(x), n(x), dtype=torch.int64),
    "linspace, rounded ends": lambda x: torch.linspace(0.9, n(x) * 1.5, n(x) // 2, dtype=torch.int32),
    "linspace, complex": lambda x: torch.view_as_real(torch.linspace(1, 1 + 2j, n(x))),
    "logspace": lambda x: (
        torch.logspace(0, 2, n(x)),
        torch.logspace(-1, 1, steps=n(x), base=2.0, dtype=torch.float64),
    ),
    "range": lambda x: (torch.range(0, n(x)), torch.range(1, n(x) / 2, 0.5)),
    "vander": lambda x: (torch.vander(x[0]), torch.vander(x[0, :3], n(x) // 3, increasing=True)),
    "linalg.vander": lambda x: (torch.linalg.vander(x), torch.linalg.vander((x[:, :3] * 3).long(), N=n(x) // 3)),
    "fftfreq": lambda x: (torch.fft.fftfreq(n(x)), torch.fft.fftfreq(n(x), 1 / n(x)), torch.fft.fftfreq(8, n(x))),
    "rfftfreq": lambda x: (torch.fft.rfftfreq(n(x)), torch.fft.rfftfreq(n(x), d=0.5, dtype=torch.float64)),
    "scale of attention": lambda x: F.scaled_dot_product_attention(
        x[None], x[None], x[None], scale=1 / math.sqrt(n(x))
    ),
    "quantile": lambda x: (torch.quantile(x, 1 / n(x), 1), x.nanquantile(3 / n(x), dim=1, keepdim=True)),
    "trapezoid": lambda x: (torch.trapezoid(x, dx=1 / n(x)), torch.cumulative_trapezoid(x, dx=n(x) / 3, dim=0)),
    "one step": lambda x: torch.cat([x[:, i : i + n(x)] for i in range(0, n(x), n(x))], 1),
    "steps of a multiple": lambda x: [x[:, i // 2] for i in range(0, n(x) * 2, n(x))],
    "steps back": lambda x: [x[:, i - 1] for i in range(n(x), 0, -n(x))],
    "a step beyond": lambda x: sum(x[:, i] for i in range(0, n(x), n(x) + 1)) * len(range(n(x), n(x) + 3)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name: str) -> None:
    function = FOLLOWED[name]
    program = export(function)
    for size in (12, 7, 31, 9):
        x = torch.randn(2, size)
        for got, want in zip(program(x), flat_tensors(function(x)), strict=True):
            expect_equal(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lower", [True, False])
def test_a_triangle_has_as_many_elements_as_torch_says(lower: bool) -> None:
    """At offsets on both sides of all corners."""
    function = torch.tril_indices if lower else torch.triu_indices
    offsets = range(-9, 10, 2)
    program = export(lambda x: [function(n(x), 4, offset) for offset in offsets])
    for size in (2, 4, 6):
        for got, offset in zip(program(torch.randn(2, size)), offsets, strict=True):
            expect_equal(got, function(size, 4, offset))


def test_integers_of_a_linspace_are_torchs() -> None:
    functions = [
        lambda size: torch.linspace(-7, 90, size, dtype=torch.int64),
        lambda size: torch.linspace(5, -size, size, dtype=torch.int16),
    ]
    program = export(lambda x: [function(n(x)) for function in functions])
    for size in range(2, 200):
        for got, function in zip(program(torch.zeros(2, size)), functions, strict=True):
            expect_equal(got, function(size))


REFUSED: dict[str, Callable[[torch.Tensor], Any]] = {
    "windows": lambda x: x.unfold(1, n(x) // 2, 1),
    "a stride": lambda x: F.avg_pool1d(x[None], n(x) // 3),
    "an eps": lambda x: F.layer_norm(x, (n(x),), eps=1 / n(x)),
    "a scale": lambda x: F.interpolate(x[None], scale_factor=n(x) / 8),
    "a power": lambda x: torch.matrix_power(x[:, :2], n(x) // 6),
    "a loop": lambda x: sum(x[:, i] for i in range(0, n(x), 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_models_line(name: str) -> None:
    with pytest.raises(onnxport.DynamicShapesError, match=r"because of [^\n]*test_functions_of_sizes\.py:\d+: "):
        export(REFUSED[name])


@pytest.mark.parametrize("function", [np.eye, lambda size: np.linspace(0, 1, size)])
def test_numpys_arrays_follow_a_size(function: Callable[[Any], Any]) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x * torch.from_numpy(np.multiply(function(n(x)), 1.0))[0]

    program = export(forward)
    for size in (7, 12, 20):
        x = torch.randn(2, size)
        expect_equal(program(x)[0], forward(x))


@pytest.mark.parametrize("function", [np.hanning, np.blackman])
def test_numpy_is_told_apart_from_the_model(function: Callable[[Any], Any]) -> None:
    with pytest.raises(onnxport.OnnxExporterError) as caught:
        export(lambda x: x * torch.from_numpy(np.multiply(function(n(x)), 1.0))[0])
    assert "test_functions_of_sizes.py" in str(caught.value).partition("\n")[0] + str(caught.value).partition("\n")[2]
    assert "site-packages/numpy" not in str(caught.value)


def test_numpys_function_is_named_with_torchs() -> None:
    with pytest.raises(onnxport.DynamicShapesError, match=r"because of .*np\.hanning(.|\n)*use torch's function"):
        export(lambda x: x * torch.from_numpy(np.hanning(n(x))))


@pytest.mark.parametrize(
    "function",
    [lambda x: x * len(f"{x.shape}"), lambda x: x * len(str(n(x))), lambda x: x + len(f"{n(x) / 2}")],
)
def test_text_of_a_size_is_warned_about(function: Callable[[torch.Tensor], Any]) -> None:
    with pytest.warns(UserWarning, match=r"makes text of a dynamic size: .*test_functions_of_sizes\.py:\d+: "):
        export(function)


def test_text_for_people_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        print(f"a tensor of {x.shape}")
        assert x.dim() == 2, f"not {x.shape}"
        if x.dim() != 2:
            raise ValueError(f"not {x.shape}")
        return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(forward)
    assert "a tensor of" in capsys.readouterr().out
