"""A spectrogram's DFT matrix is one row in the file, and steps that a runtime takes when it loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal


def mel(x: torch.Tensor) -> torch.Tensor:
    """Whisper's: 400 points, 80 filters."""
    power = torch.stft(x, 400, 160, window=torch.hann_window(400), return_complex=True)[..., :-1].abs() ** 2
    logarithm = (torch.linspace(0, 1, 80 * 201).reshape(80, 201) @ power).clamp(min=1e-10).log10()
    return (torch.maximum(logarithm, logarithm.max() - 8.0) + 4) / 4


def test_size_of_whispers_front_end(tmp_path: Path) -> None:
    program = onnxport.export(FunctionModule(mel), (torch.randn(1, 16000),), dynamic_shapes=(({1: "time"},),))
    program.save(tmp_path / "mel.onnx")
    assert (tmp_path / "mel.onnx").stat().st_size < 130_000
    for length in (16000, 7000):
        x = torch.randn(1, length)
        expect_equal(program(x)[0], mel(x), atol=1e-5)


@pytest.mark.parametrize(
    ("points", "onesided", "normalized"),
    [(400, True, False), (401, True, True), (512, False, False), (1024, True, True)],
)
def test_there_and_back(tmp_path: Path, points: int, onesided: bool, normalized: bool) -> None:
    def run(x: torch.Tensor) -> Any:
        given = {"window": torch.hann_window(points), "onesided": onesided, "normalized": normalized}
        spectrum = torch.stft(x, points, points // 4, return_complex=True, **given)
        return torch.view_as_real(spectrum), torch.istft(spectrum * 2, points, points // 4, **given)

    program = onnxport.export(FunctionModule(run), (torch.randn(2, 4000),), dynamic_shapes=(({1: "time"},),))
    program.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 100_000
    for length in (4000, 2500):
        x = torch.randn(2, length)
        for got, want in zip(program(x), run(x), strict=True):
            expect_equal(got, want, atol=1e-4)
