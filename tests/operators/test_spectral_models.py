"""Models of spectra and complex numbers, at the oldest, the default and the newest opset, at two shapes each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx
import pytest
import torch
from support import export_and_compare
from torch import nn

AUTO = torch.export.Dim.AUTO
OPSETS = [18, 20, onnx.defs.onnx_opset_version()]


def real(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def cplx(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(len(shape)))


class GriffinLim(nn.Module):
    """A signal from the moduli of its spectrogram, one round."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, moduli: torch.Tensor) -> torch.Tensor:
        phases = torch.ones_like(moduli).to(torch.complex64)
        signal = torch.istft(moduli * phases, 16, 4, window=self.window)
        spectrum = torch.stft(signal, 16, 4, window=self.window, return_complex=True)
        phases = spectrum / (spectrum.abs() + 1e-6)
        return torch.istft(moduli * phases, 16, 4, window=self.window)


class LogMel(nn.Module):
    """The input of whisper, with fewer samples."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(400))
        self.register_buffer("filters", torch.rand(201, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = torch.stft(x, 400, 160, window=self.window, return_complex=True)[..., :-1].abs() ** 2
        mel = torch.matmul(power.transpose(-1, -2), self.filters).clamp_min(1e-10).log10()
        return torch.maximum(mel, mel.amax() - 8.0)


class LlamaRotary(nn.Module):
    """Rotary positions as in llama's own code."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(32.0), 10000 ** (-torch.arange(0, 8, 2) / 8))
        self.turns = torch.polar(torch.ones_like(angles), angles)  # neither a parameter nor a buffer

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, ...]:
        turns = self.turns[: q.shape[1]].view(1, q.shape[1], 1, 4)
        pairs = [torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2)) for x in (q, k)]
        return tuple(torch.view_as_real(x * turns).flatten(3).type_as(q) for x in pairs)


class FourierMixing(nn.Module):
    """FNet's token mixing."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real, torch.fft.fftn(x, dim=(1, 2)).real


class SpectralConvolution(nn.Module):
    """The two-dimensional layer of a Fourier neural operator: the lowest modes of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Parameter(cplx(3, 3, 4, 4)), nn.Parameter(cplx(3, 3, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(x)
        mixed = torch.zeros(x.shape[0], 3, x.size(-2), x.size(-1) // 2 + 1, dtype=torch.cfloat)
        mixed[:, :, :4, :4] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :4, :4], self.low)
        mixed[:, :, -4:, :4] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -4:, :4], self.high)
        return torch.fft.irfft2(mixed, s=(x.size(-2), x.size(-1)))


class DiagonalStateSpace(nn.Module):
    """S4D: the kernel of a diagonal state space, then a convolution by FFT."""

    def __init__(self, width: int = 4, states: int = 3) -> None:
        super().__init__()
        self.log_step, self.log_decay = nn.Parameter(torch.rand(width) * -2), nn.Parameter(torch.rand(width, states))
        self.rate, self.skip = nn.Parameter(torch.rand(width, states) * 3), nn.Parameter(real(width))
        self.output = nn.Parameter(torch.view_as_real(cplx(width, states)))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        length = u.size(-1)
        poles = -torch.exp(self.log_decay) + 1j * self.rate
        stepped = poles * self.log_step.exp()[:, None]
        weights = torch.view_as_complex(self.output) * (torch.exp(stepped) - 1.0) / poles
        powers = torch.exp(stepped[..., None] * torch.arange(length))
        kernel = 2 * torch.einsum("hn,hnl->hl", weights, powers).real
        spectrum = torch.fft.rfft(kernel, n=2 * length) * torch.fft.rfft(u, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.skip[:, None]


class LinearRecurrence(nn.Module):
    """A linear recurrent unit: complex states, poles of given moduli."""

    def __init__(self) -> None:
        super().__init__()
        self.poles = nn.Parameter(torch.polar(torch.full((4,), 0.8), torch.rand(4)))
        self.into, self.out = nn.Parameter(cplx(4, 3)), nn.Parameter(cplx(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outputs = torch.zeros(x.shape[0], 4, dtype=torch.complex64), []
        for turn in range(4):
            state = self.poles * state + x[:, turn].to(torch.complex64) @ self.into.T
            outputs.append((state @ self.out.T).real)
        return torch.stack(outputs, 1)


class GlobalFilter(nn.Module):
    """GFNet's mixing of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(real(4, 3, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(x.view(x.shape[0], 4, 4, 2), dim=(1, 2), norm="ortho")
        return torch.fft.irfft2(spectrum * torch.view_as_complex(self.weight), s=(4, 4), dim=(1, 2), norm="ortho")


class PhaseCorrelation(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        cross = torch.fft.fft2(a) * torch.fft.fft2(b).conj()
        return torch.fft.ifft2(cross / (cross.abs() + 1e-9)).real


class Envelope(nn.Module):
    """The analytic signal, by Hilbert's transform."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[-1]
        weight = torch.zeros(n)
        weight[0] = weight[n // 2] = 1
        weight[1 : (n + 1) // 2] = 2
        signal = torch.fft.ifft(torch.fft.fft(x) * weight)
        return signal.abs(), signal.angle()


class CosineTransform(nn.Module):
    """The discrete cosine transform, by an FFT of the reordered signal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        reordered = torch.cat([x[:, ::2], x[:, 1::2].flip(1)], 1)
        return (torch.fft.fft(reordered) * torch.exp(-1j * math.pi * torch.arange(n) / (2 * n))).real


class ConvolutionBySpectra(nn.Module):
    def forward(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        n = x.shape[-1] + kernel.shape[-1] - 1
        return torch.fft.irfft(torch.fft.rfft(x, n=n) * torch.fft.rfft(kernel, n=n), n=n)


class WrittenParts(nn.Module):
    """Writes through each kind of view of a complex tensor."""

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = z.clone()
        pairs = torch.view_as_real(z)
        pairs[..., 0] += 1
        z.real.mul_(2)
        z.imag[0] = 5
        z[:, 1] = 2j
        z.imag.copy_(z.real)
        pairs[..., 1].neg_()
        z.T[2] += 1
        return z, pairs, z.conj().imag, z.conj().resolve_conj()


@dataclass
class Model:
    """A model, inputs of two shapes, and which of their axes are dynamic."""

    build: Any
    args: tuple[torch.Tensor, ...]
    axes: tuple[int, ...]
    other: tuple[torch.Tensor, ...]
    rtol: float = 1e-4
    atol: float = 2e-5


MODELS = [
    Model(GriffinLim, (real(2, 9, 17).abs(),), (0, 2), (real(3, 9, 25).abs(),), 1e-3, 1e-4),
    Model(LogMel, (real(2, 1600),), (0, 1), (real(3, 2400),), 1e-3, 1e-4),
    Model(LlamaRotary, (real(2, 5, 3, 8), real(2, 5, 3, 8)), (0, 1), (real(3, 9, 3, 8), real(3, 9, 3, 8))),
    Model(FourierMixing, (real(2, 6, 8),), (0, 1), (real(3, 12, 8),)),
    Model(SpectralConvolution, (real(2, 3, 10, 12),), (0, 2, 3), (real(3, 3, 16, 20),)),
    Model(DiagonalStateSpace, (real(2, 4, 16),), (0, 2), (real(3, 4, 30),)),
    Model(LinearRecurrence, (real(2, 4, 3),), (0,), (real(5, 4, 3),)),
    Model(GlobalFilter, (real(2, 16, 2),), (0,), (real(3, 16, 2),)),
    Model(PhaseCorrelation, (real(2, 8, 8), real(2, 8, 8).flip(1)), (0,), (real(3, 8, 8), real(3, 8, 8).flip(1))),
    Model(Envelope, (real(2, 16),), (0,), (real(3, 16),)),
    Model(CosineTransform, (real(2, 8),), (0,), (real(3, 8),)),
    Model(ConvolutionBySpectra, (real(2, 16), real(2, 5)), (1,), (real(2, 21), real(2, 8))),
    Model(WrittenParts, (cplx(3, 4),), (0,), (cplx(5, 4),)),
]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.build.__name__)
def test_model(model: Model, opset: int) -> None:
    export_and_compare(
        model.build(),
        model.args,
        dynamic_shapes=tuple(dict.fromkeys(model.axes, AUTO) for _ in model.args),
        other_args=model.other,
        opset_version=opset,
        rtol=model.rtol,
        atol=model.atol,
    )
