"""Fourier transforms: by matrix and by DFT, every norm, static and symbolic sizes, and short-time transforms."""

from __future__ import annotations

import pytest
import torch
from support import export_and_compare, op_types

torch.set_num_threads(1)
BATCH_TIME = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)


def _real(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def _complex(*shape: int, dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", ["fft", "ifft", "hfft", "irfft"])
def test_norms_of_complex_input(name: str, norm: str | None) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(lambda x: function(x, dim=0, norm=norm), (_complex(6, 3),))


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", ["rfft", "ihfft", "fft"])
def test_norms_of_real_input(name: str, norm: str | None) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(lambda x: function(x, norm=norm), (_real(2, 7),))


@pytest.mark.parametrize("n", [3, 5, 8, 9])
@pytest.mark.parametrize("name", ["fft", "irfft", "hfft"])
def test_cut_and_padded(name: str, n: int) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(lambda x: function(x, n=n), (_complex(2, 5),))


@pytest.mark.parametrize("n", [100, 400, 512, 1000])
@pytest.mark.parametrize("opset", [18, 20])
def test_accuracy(n: int, opset: int) -> None:
    """Neither the float32 nor the inverse float64 DFT of onnxruntime is exact enough at sizes like these."""

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spectrum = torch.fft.rfft(x)
        return spectrum, torch.fft.irfft(spectrum, n=n)

    export_and_compare(both, (_real(2, n),), opset_version=opset, rtol=1e-5, atol=1e-4)
    export_and_compare(both, (_real(2, n, dtype=torch.float64),), opset_version=opset)


def test_small_transforms_are_products_and_large_powers_of_two_are_not() -> None:
    program = export_and_compare(torch.fft.rfft, (_real(2, 60),))
    assert [name for name in op_types(program) if name in ("MatMul", "DFT")] == ["MatMul"]
    program = export_and_compare(torch.fft.rfft, (_real(2, 512),))
    assert [name for name in op_types(program) if name in ("MatMul", "DFT")] == ["DFT"]


@pytest.mark.parametrize("name", ["rfft", "fft", "ihfft"])
@pytest.mark.parametrize("opset", [18, 20])
def test_symbolic_size(name: str, opset: int) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(
        lambda x: function(x, norm="ortho"),
        (_real(2, 9),),
        dynamic_shapes=BATCH_TIME,
        other_args=(_real(3, 12),),
        opset_version=opset,
    )


@pytest.mark.parametrize("name", ["ifft", "irfft", "hfft", "fft"])
def test_symbolic_size_of_spectra(name: str) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(function, (_complex(2, 9),), dynamic_shapes=BATCH_TIME, other_args=(_complex(3, 12),))


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_symbolic_number_of_points(name: str) -> None:
    """onnxruntime 1.32 can't read a length that is computed: it took the result for as long as the input."""
    function = getattr(torch.fft, name)
    real = name in ("rfft", "ihfft")
    make = _real if real else _complex
    for points in (lambda n: n + 3, lambda n: n - 2):
        export_and_compare(
            lambda x, points=points: function(x, points(x.shape[-1])),
            (make(2, 9),),
            dynamic_shapes=BATCH_TIME,
            other_args=(make(3, 12),),
            atol=1e-4,
        )


@pytest.mark.parametrize("name", ["fft2", "ifft2", "irfft2", "hfft2", "fftn", "irfftn"])
def test_several_axes(name: str) -> None:
    function = getattr(torch.fft, name)
    export_and_compare(function, (_complex(2, 4, 5),))


def test_image_filter() -> None:
    """A global filter network: spectrum, product with complex weights, back."""
    weight = _complex(4, 8, 5)

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=(8, 8), norm="ortho")

    export_and_compare(model, (_real(2, 4, 8, 8),))


def test_shifts_and_frequencies() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[0]
        shifted = torch.fft.fftshift(x)
        return shifted, torch.fft.ifftshift(shifted, dim=1), torch.fft.fftfreq(n, 0.5), torch.fft.rfftfreq(n)

    export_and_compare(model, (_real(5, 4),))
    export_and_compare(
        lambda x: torch.fft.ifftshift(torch.fft.fftshift(x, dim=0)),
        (_real(5, 4),),
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        other_args=(_real(6, 4),),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("win_length", [16, 20])
def test_stft(dtype: torch.dtype, win_length: int) -> None:
    window = torch.hann_window(win_length, dtype=dtype)

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, 20, 5, win_length, window, return_complex=True, normalized=True).abs()

    time = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    export_and_compare(
        model, (_real(2, 100, dtype=dtype),), dynamic_shapes=time, other_args=(_real(3, 160, dtype=dtype),)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(dtype: torch.dtype) -> None:
    window = torch.hann_window(20, dtype=dtype)

    def model(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 20, 5, window=window, return_complex=True)
        return torch.istft(spectrum * 0.5, 20, 5, window=window, length=x.shape[-1])

    program = export_and_compare(model, (_real(2, 100, dtype=dtype),))
    assert ("ConvTranspose" in op_types(program)) is (dtype is torch.float32)
