"""Short-time Fourier transforms and their inverse.

In float32 a transform of frames is one Conv with the window times the rows of the DFT matrix as kernels, the inverse
one ConvTranspose, which adds the overlapping frames as well; long frames, float64 (for which onnxruntime 1.32 has
neither) and complex signals are cut into frames and transformed as any other tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Tensor, Unsupported, translation

from onnxport_builtin.aten.complex_parts import flagged
from onnxport_builtin.aten.fft import (
    FORWARD,
    INVERSE,
    MATRIX_LIMIT,
    Line,
    dft_matrix,
    half,
    real_spectrum_matrix,
    transform,
)
from onnxport_builtin.aten.shape import Dim, iota, reshape

if TYPE_CHECKING:
    from onnxport import Builder


def _window(op: Builder, window: Tensor | None, length: int, n_fft: int, dtype: DataType) -> Tensor | None:
    """The window in the middle of a frame; None for a frame of ones."""
    if window is None and length == n_fft:
        return None
    value = op.const(np.ones(length), dtype) if window is None else op.cast(op.real(window), dtype)
    before = (n_fft - length) // 2
    return op.Pad(value, [before, n_fft - length - before]) if length < n_fft else value


def _frames(op: Builder, signal: Tensor, count: Dim, n_fft: int, hop: int) -> Tensor:
    """[batch, time(, 2)] cut to [batch, count, n_fft(, 2)]."""
    starts = op.Unsqueeze(op.Mul(iota(op, count), hop) if hop != 1 else iota(op, count), [1])
    value = op.Gather(signal, op.Add(starts, op.const(np.arange(n_fft))), axis=1)
    shape = ir.Shape([signal.shape[0], count, n_fft])
    if signal.is_complex:
        return op.as_complex(value, shape)
    value.shape = shape
    return value


def _by_convolution(dtype: DataType, n_fft: int) -> bool:
    return dtype is DataType.FLOAT and n_fft <= MATRIX_LIMIT


def spectrogram(
    op: Builder, signal: Tensor, count: Dim, n_fft: int, hop: int, window: Tensor | None, scale: float, onesided: bool
) -> Tensor:
    """Complex [batch, bins, count] of a signal [batch, time]."""
    batch = signal.shape[0]
    bins = half(n_fft) if onesided else n_fft
    if _by_convolution(signal.dtype, n_fft) and not signal.is_complex:
        matrix = dft_matrix(n_fft, n_fft, bins, FORWARD).T * scale
        kernels = np.stack([matrix.real, matrix.imag], axis=1).reshape(2 * bins, 1, n_fft)
        weight = op.const(kernels, signal.dtype)
        if window is not None:
            weight = op.Mul(weight, window)
        value = op.Conv(op.Unsqueeze(signal, [1]), weight, strides=[hop])
        value.shape = ir.Shape([batch, 2 * bins, count])
        value = op.Transpose(reshape(op, value, [batch, bins, 2, count]), perm=[0, 1, 3, 2])
    else:
        frames = _frames(op, signal, count, n_fft, hop)
        if window is not None:
            factor = op.Unsqueeze(window, [-1]) if frames.is_complex else window
            windowed = op.Mul(frames, factor)
            shape = frames.shape
            if frames.is_complex:
                frames = op.as_complex(windowed, shape)
            else:
                frames = windowed
                frames.shape = shape
        line = Line(2, n_fft, FORWARD, onesided=onesided and not frames.is_complex)
        spectrum = transform(op, frames, line, None if scale == 1 else scale)
        value = op.Transpose(spectrum, perm=[0, 2, 1, 3])
        if frames.is_complex and onesided:
            value = op.Slice(value, [0], [bins], [1])
    return op.as_complex(value, ir.Shape([batch, bins, count]))


@translation("aten::stft", "aten::stft.center", complex=True)
def stft(
    op: Builder,
    self: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = False,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    if not all(isinstance(v, int) for v in (n_fft, hop, length)):
        raise Unsupported("stft with symbolic frame sizes")
    if align_to_window:
        raise Unsupported("stft with align_to_window")
    result = op.result
    signal = self
    if window is not None and window.is_complex:
        raise Unsupported("stft with a complex window")
    shape = list(signal.shape)
    if len(shape) == 1:
        signal = op.Unsqueeze(self, [0])
        if self.is_complex:
            signal = op.as_complex(signal, ir.Shape([1, *shape]))
    if center:
        mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}.get(pad_mode)
        if mode is None:
            raise Unsupported(f"stft with pad_mode {pad_mode!r}")
        before = [n_fft // 2, n_fft // 2]
        padded = op.Pad(signal, before, None, [1], mode=mode)
        new = ir.Shape([*list(signal.shape)[:1], shape[-1] + n_fft // 2 * 2])
        if signal.is_complex:
            signal = op.as_complex(padded, new)
        else:
            signal = padded
            signal.shape = new
    logical = list(result.shape) if result.is_complex else list(result.shape)[:-1]
    whole = bool(onesided) if onesided is not None else not self.is_complex
    scale = n_fft**-0.5 if normalized else 1.0
    frame = _window(op, window, length, n_fft, signal.dtype)
    value = spectrogram(op, signal, logical[-1], n_fft, hop, frame, scale, whole)
    return _shaped(op, value, logical, result.is_complex, squeeze=len(shape) == 1)


def _shaped(op: Builder, value: Tensor, logical: list[Dim], is_complex: bool, *, squeeze: bool) -> Tensor:
    """Without the batch axis if the signal had none; as pairs of real numbers if torch is asked for those."""
    if squeeze:
        value = flagged(op, op.Squeeze(value, [0]), logical)
    if is_complex:
        return value
    pairs = op.Identity(value)
    pairs.shape = ir.Shape([*logical, 2])
    return pairs


def overlap_add(op: Builder, frames: Tensor, hop: int, batch: Dim, count: Dim, n_fft: int) -> Tensor:
    """[batch, count, n_fft] added up at every `hop`: [batch, n_fft + hop * (count - 1)]."""
    places = op.Add(op.Unsqueeze(op.Mul(iota(op, count), hop), [1]), op.const(np.arange(n_fft)))
    updates = op.Reshape(op.Transpose(frames, perm=[1, 2, 0]), op.sizes([-1, batch]))
    total = (count - 1) * hop + n_fft
    zeros = op.Expand(op.const(0, frames.dtype), op.sizes([total, batch]))
    added = op.ScatterND(zeros, op.Reshape(places, [-1, 1]), updates, reduction="add")
    return op.Transpose(added, perm=[1, 0])


@translation("aten::istft", complex=True)
def istft(
    op: Builder,
    self: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Dim | None = None,
    return_complex: bool = False,
) -> Tensor:
    """Frames times the window, added where they overlap, over the sum of the squared windows."""
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if return_complex or (window is not None and window.is_complex):
        raise Unsupported("istft to complex signals")
    spectrum = self if self.is_complex else op.as_complex(op.Identity(self))
    shape = list(spectrum.shape)
    if len(shape) == 2:
        shape = [1, *shape]
        spectrum = op.as_complex(op.Unsqueeze(spectrum, [0]), ir.Shape(shape))
    batch, bins, count = shape
    dtype = spectrum.dtype
    half_only = (bins != n_fft) if onesided is None else onesided
    scale = n_fft ** (-0.5 if normalized else -1.0)
    frame = _window(op, window, width, n_fft, dtype)
    ones = op.const(np.ones(n_fft), dtype)
    square = ones if frame is None else op.Mul(frame, frame)
    first = bins if half_only else n_fft
    if _by_convolution(dtype, n_fft):
        if half_only:
            matrix = real_spectrum_matrix(first, n_fft, INVERSE)
        else:
            full = dft_matrix(n_fft, n_fft, n_fft, INVERSE)
            matrix = np.stack([full.real, -full.imag], axis=1).reshape(2 * n_fft, n_fft)
        weight = op.const(matrix[:, None, :] * scale, dtype)
        if frame is not None:
            weight = op.Mul(weight, frame)
        channels = op.Reshape(op.Transpose(spectrum, perm=[0, 1, 3, 2]), op.sizes([batch, 2 * first, count]))
        signal = op.Squeeze(op.ConvTranspose(channels, weight, strides=[hop]), [1])
        row = op.Expand(op.const(1, dtype), op.sizes([1, 1, count]))
        envelope = op.ConvTranspose(row, op.Reshape(square, [1, 1, n_fft]), strides=[hop])
        envelope = op.Squeeze(envelope, [1])
    else:
        turned = op.as_complex(op.Transpose(spectrum, perm=[0, 2, 1, 3]), ir.Shape([batch, count, bins]))
        if half_only:
            frames = transform(op, turned, Line(2, n_fft, INVERSE, to_real=True), scale)
        else:
            frames = op.real(transform(op, turned, Line(2, n_fft, INVERSE), scale))
        if frame is not None:
            frames = op.Mul(frames, frame)
        signal = overlap_add(op, frames, hop, batch, count, n_fft)
        squares = op.Expand(square, op.sizes([1, count, n_fft]))
        envelope = overlap_add(op, squares, hop, 1, count, n_fft)
    start = n_fft // 2 if center else 0
    whole = (count - 1) * hop + n_fft
    end: Any = whole - start if length is None else start + length
    signal, envelope = (op.Slice(v, [start], op.sizes([end]), [1]) for v in (signal, envelope))
    value = op.Div(signal, envelope)
    if length is not None:
        missing = op.Max(op.Sub(op.sizes([end]), op.sizes([whole])), op.const([0], DataType.INT64))
        if not (isinstance(end, int) and isinstance(whole, int)) or end > whole:
            value = op.Pad(value, op.Concat([0], missing, axis=0), None, [1])
    return op.Squeeze(value, [0]) if len(self.shape) == (2 if self.is_complex else 3) else value
