"""An inverse transform of a dynamic number of frames, to a length that follows the signal's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal

HANN, HAMMING = torch.hann_window(64), torch.hamming_window(64)

LENGTHS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the signal's": lambda x: x.shape[-1],
    "half of it": lambda x: x.shape[-1] // 2,
    "none": lambda x: None,
    "a bounded one": lambda x: max(x.shape[-1] - 7, 100),
    "a fixed one": lambda x: 200,
}


def check(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    axes = (({0: "batch", 1: "time"},),)
    program = onnxport.export(FunctionModule(function), (torch.randn(2, 400),), dynamic_shapes=axes)
    for size in (400, 517, 333):
        x = torch.randn(3, size)
        expect_equal(program(x)[0], function(x), atol=1e-4)


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths(name: str) -> None:
    def roundtrip(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 64, 16, window=HANN, return_complex=True)
        return torch.istft(spectrum * 0.5, 64, 16, window=HANN, length=LENGTHS[name](x))

    check(roundtrip)


@pytest.mark.parametrize(
    "options",
    [{"center": False}, {"onesided": False}, {"normalized": True}, {"hop_length": 10, "win_length": 40}],
    ids=lambda options: "-".join(options),
)
def test_options(options: dict[str, Any]) -> None:
    window = torch.hamming_window(options.get("win_length", 64))
    given: Any = {"n_fft": 64, "hop_length": 16, "window": window, **options}

    def roundtrip(x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, return_complex=True, **given).istft(length=x.shape[-1], **given)

    check(roundtrip)


def test_complex_signals() -> None:
    def roundtrip(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(torch.complex(x, 2 * x), 64, 16, window=HANN, onesided=False, return_complex=True)
        signal = torch.istft(spectrum, 64, 16, window=HANN, onesided=False, length=x.shape[-1] - 9, return_complex=True)
        return torch.view_as_real(signal)

    check(roundtrip)
