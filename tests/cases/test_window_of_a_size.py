"""A window as long as a dynamic size is computed from it in the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal
from torch import hann_window

WINDOWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "hann": lambda x: torch.hann_window(x.shape[-1]),
    "hann, imported, symmetric": lambda x: hann_window(x.shape[-1], False),
    "hann of half of it": lambda x: torch.hann_window(x.shape[-1] // 2, dtype=torch.float64),
    "hamming": lambda x: torch.hamming_window(x.shape[-1], periodic=False, dtype=x.dtype, device=x.device),
    "hamming of coefficients": lambda x: torch.hamming_window(x.shape[-1] + 1, True, 0.5, 0.4),
    "blackman": lambda x: (torch.blackman_window(x.shape[-1]), torch.blackman_window(x.shape[-1], False)),
    "bartlett": lambda x: (torch.bartlett_window(x.shape[-1]), torch.bartlett_window(x.shape[-1], False)),
    "kaiser": lambda x: torch.kaiser_window(2 * x.shape[-1]),
    "kaiser of a beta": lambda x: torch.kaiser_window(window_length=x.shape[-1], periodic=False, beta=5.0),
    "of the package signal": lambda x: torch.signal.windows.gaussian(x.shape[-1], std=3.0, sym=False),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_every_length(name: str) -> None:
    function = WINDOWS[name]
    module, axes = FunctionModule(function), (({1: "t"},),)
    program = onnxport.export(module, (torch.randn(2, 8),), dynamic_shapes=axes)
    for length in (8, 13, 3, 2, 40):
        x = torch.randn(2, length)
        want = function(x)
        for got, window in zip(program(x), want if isinstance(want, tuple) else (want,), strict=True):
            expect_equal(got, window, atol=1e-6)


def test_a_window_of_a_number_stays_a_constant() -> None:
    def windowed(x: torch.Tensor) -> torch.Tensor:
        return x * torch.hann_window(8)

    program = onnxport.export(FunctionModule(windowed), (torch.randn(2, 8),), dynamic_shapes=(({0: "b"},),))
    assert [node.op_type for node in program.model.graph] == ["Mul"]
