"""Signals whose lengths are dynamic: windows of a size, and ``istft`` of as many frames or to such a length.

torch's operators take plain numbers there, or compare lengths with the example's. While a non-strict capture traces,
windows are computed from their formulas, and an inverse transform is an operator of this package.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement

from onnxport_builtin.capture.non_strict import calls

_library = torch.library.Library("onnxport", "FRAGMENT")
_library.define(
    "istft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool center=True, "
    "bool normalized=False, bool? onesided=None, SymInt? length=None, bool return_complex=False) -> Tensor"
)


def _istft(self: torch.Tensor, *args: Any, length: Any = None, **kwargs: Any) -> torch.Tensor:
    return torch.istft(self, *args, length=None if length is None else int(length), **kwargs)


def _istft_shape(
    self: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> torch.Tensor:
    hop = n_fft // 4 if hop_length is None else hop_length
    whole = (self.shape[-1] - 1) * hop + n_fft
    size = length if length is not None else whole - 2 * (n_fft // 2) if center else whole
    return self.new_empty([*self.shape[:-2], size], dtype=self.dtype if return_complex else self.dtype.to_real())


_library.impl("istft", _istft, "CompositeExplicitAutograd")
torch.library.register_fake("onnxport::istft", _istft_shape, lib=_library)


def signals_of_sizes() -> Iterator[Replacement]:
    """While any thread is in it, lengths of windows and of inverse transforms may be dynamic."""
    yield from calls(
        {
            torch.hann_window: functools.partial(_window, _hamming, (0.5, 0.5)),
            torch.hamming_window: functools.partial(_window, _hamming, (0.54, 0.46)),
            torch.blackman_window: functools.partial(_window, _blackman, ()),
            torch.bartlett_window: functools.partial(_window, _bartlett, ()),
            torch.kaiser_window: functools.partial(_window, _kaiser, (12.0,)),
            torch.istft: _to_length,
            torch.Tensor.istft: _to_length,
        }
    )


def _to_length(
    input: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Callable[[], torch.Tensor] | None:
    dynamic = isinstance(length, torch.SymInt) or isinstance(input.shape[-1], torch.SymInt)
    if not dynamic or not input.is_complex() or (torch.is_grad_enabled() and input.requires_grad):
        return None
    given = (n_fft, hop_length, win_length, window, center, normalized, onesided, length, return_complex)
    return functools.partial(torch.ops.onnxport.istft, input, *given)


# Windows --------------------------------------------------------------------------------------------------------------


def _window(
    formula: Callable[..., torch.Tensor],
    defaults: tuple[float, ...],
    window_length: Any,
    periodic: bool = True,
    *coefficients: float,
    dtype: torch.dtype | None = None,
    device: Any = None,
    **others: Any,
) -> Callable[[], torch.Tensor] | None:
    if not isinstance(window_length, torch.SymInt):
        return None
    named = [others.pop(name) for name in ("alpha", "beta") if name in others]
    rest = defaults[len(coefficients) + len(named) :]
    return functools.partial(_computed, formula, (*coefficients, *named, *rest), window_length, periodic, dtype, device)


def _computed(
    formula: Callable[..., torch.Tensor],
    coefficients: tuple[float, ...],
    length: Any,
    periodic: bool,
    dtype: torch.dtype | None,
    device: Any,
) -> torch.Tensor:
    wanted = dtype or torch.get_default_dtype()
    work = torch.float64 if wanted == torch.float64 else torch.float32
    index = torch.arange(length, dtype=work, device=device)
    steps = length if periodic else length - 1
    values = formula(index, torch.scalar_tensor(steps, dtype=work, device=device), *coefficients)
    # One element is 1, whatever the formula says; a tensor asks so at every size, and no guard is added.
    return torch.where(torch.scalar_tensor(length, device=device) == 1, torch.ones_like(values), values).to(wanted)


def _hamming(index: torch.Tensor, steps: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return alpha - beta * torch.cos(index * (2 * math.pi / steps))


def _blackman(index: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    angle = index * (2 * math.pi / steps)
    return 0.08 * torch.cos(2 * angle) - 0.5 * torch.cos(angle) + 0.42


def _bartlett(index: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    return 1 - torch.abs(index * (2 / steps) - 1)


def _kaiser(index: torch.Tensor, steps: torch.Tensor, beta: float) -> torch.Tensor:
    root = torch.sqrt(torch.clamp(1 - (index * (2 / steps) - 1) ** 2, min=0))
    return torch.i0(beta * root) / torch.i0(torch.full_like(steps, beta))
