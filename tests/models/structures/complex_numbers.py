"""Complex tensors inside models, as inputs, outputs, weights and buffers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.structures.structure import BUFFER, INPUT, floats, structure

REAL = floats(3, 8)
Z = torch.complex(floats(3, 8), floats(3, 8).cos())
W = torch.complex(floats(5, 8), floats(5, 8).cos())
ROWS = ({0: "rows"},)


@structure(Z, dynamic=ROWS, other=(W,))
def complex_input_and_output(z: torch.Tensor) -> torch.Tensor:
    return (z * z.conj() + 2j * z) / (z.abs() + 1)


@structure(REAL, dynamic=ROWS, other=(floats(5, 8),))
def low_pass_filter_by_fft(x: torch.Tensor) -> torch.Tensor:
    spectrum = torch.fft.rfft(x)
    spectrum[:, 3:] = 0
    return torch.fft.irfft(spectrum, n=8)


@structure(floats(2, 3, 8), dynamic=({0: "batch"},), other=(floats(4, 3, 8),))
class FourierLayer(nn.Module):
    """The spectral convolution of a Fourier neural operator."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.complex(floats(3, 3, 4), floats(3, 3, 4).cos()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(x)
        mixed = torch.zeros(x.shape[0], 3, 5, dtype=torch.complex64)
        mixed[:, :, :4] = torch.einsum("bix,iox->box", spectrum[:, :, :4], self.weight)
        return torch.fft.irfft(mixed, n=8)


@structure(floats(2, 4, 4), dynamic=({0: "batch"},), other=(floats(3, 4, 4),))
def mixing_by_two_dimensional_fft(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft2(x).real + torch.fft.ifft2(torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))).imag


@structure(floats(2, 5, 3, 4), dynamic=({0: "batch", 1: "time"},), other=(floats(1, 7, 3, 4),))
def rotary_positions_by_polar(x: torch.Tensor) -> torch.Tensor:
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float32), torch.tensor([1.0, 0.1]))
    turns = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 2, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


@structure(REAL, dynamic=ROWS, other=(floats(5, 8),), buffers={"phase": torch.ones(8, dtype=torch.complex64)},
           mutates={"phase": BUFFER})  # fmt: skip
def complex_buffer_rotated(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.phase.mul_(torch.tensor(0.6 + 0.8j))
    return (x * self.phase).real


@structure(Z, mutates={"z": INPUT})
def complex_input_written(z: torch.Tensor) -> torch.Tensor:
    z[0] = 1 - 1j
    z.real.mul_(2)
    return z.abs()


@structure(Z, dynamic=ROWS, other=(W,))
def parts_recombined(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.complex(z.imag, z.real), z.angle(), torch.view_as_real(z).sum(-1), z.real.contiguous()


@structure(Z, dynamic=ROWS, other=(W,))
def complex_matrix_products(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    gram = z @ z.mH
    return gram, torch.einsum("rc,rc->r", z, z.conj()), torch.outer(z[0], z[1]).sum(0)


@structure(Z, dynamic=ROWS, other=(W,))
def complex_reductions_and_norms(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return z.sum(1), z.prod(1), torch.linalg.vector_norm(z, dim=1), z.cumsum(1), z.var(1)


@structure(Z, dynamic=ROWS, refused=r"axis 0 of z \('rows'\) is always 3")
def complex_mean_freezes_a_size(z: torch.Tensor) -> torch.Tensor:
    return z.mean()


@structure(Z, dynamic=ROWS, other=(W,))
def complex_rows_gathered_joined_and_masked(z: torch.Tensor) -> torch.Tensor:
    joined = torch.cat([z[[0, 2, 1]], z.flip(0)])
    return torch.where(joined.real > 0, joined, torch.zeros_like(joined)).roll(1, 1).reshape(-1, 4)


@structure(torch.zeros(3), dynamic=({0: "n"},), other=(floats(5),))
def damped_oscillator_by_complex_exponentials(t: torch.Tensor) -> torch.Tensor:
    rates = torch.tensor([-0.1 + 2j, -0.3 - 1j])
    return torch.exp(t[:, None] * rates).sum(1).real


@structure(floats(2, 64), dynamic=({0: "batch"},), other=(floats(3, 64),), atol=1e-4)
class SpectrogramAndBack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        spectrum = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        masked = spectrum * (spectrum.abs() > 0.5)
        return spectrum.abs().clamp_min(1e-5).log(), torch.istft(masked, 16, 4, window=self.window, length=64)


@structure(Z, dynamic=ROWS, other=[(W,), (-Z,)], ops=("If",))
def complex_tensors_in_a_branch(z: torch.Tensor) -> torch.Tensor:
    return torch.cond(z.real.sum() > 0, lambda z: z * 1j, lambda z: z.conj().resolve_conj(), (z,))


@structure(Z, dynamic=ROWS, other=(W,), ops=("Scan",))
def complex_state_in_a_scan(z: torch.Tensor) -> Any:
    from torch._higher_order_ops import scan

    return scan(lambda h, z: (h * 0.5j + z, (h + z).clone()), torch.zeros(8, dtype=torch.complex64), z, dim=0)


@structure(Z.to(torch.complex128))
def double_complex_with_real_promotion(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return z + floats(8), z * 2, z.to(torch.complex64) - 1.5, z.real + 1j
