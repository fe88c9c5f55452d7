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
from onnxport.authoring import Dim, iota, reshape

from onnxport_builtin.aten.complex_parts import Pair, flagged, joined, pair
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
from onnxport_builtin.aten.padding import pad_axes
from onnxport_builtin.capture import signals as _operators  # noqa: F401  # defines onnxport::istft

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


_STORED = 2**15
"""Elements of a matrix from which on a file has one row of it, and the steps by which the others follow."""


def _kernels(op: Builder, n_fft: int, bins: int, scale: float, dtype: DataType) -> Tensor:
    """The rows of the DFT matrix, real and imaginary parts in turn: [2 * bins, 1, n_fft].

    Row j has at k what row 1 has at ``j * k % n_fft``. A runtime computes that once, when it loads a file.
    """
    if 2 * bins * n_fft <= _STORED:
        matrix = dft_matrix(n_fft, n_fft, bins, FORWARD).T * scale
        return op.const(np.stack([matrix.real, matrix.imag], axis=1).reshape(2 * bins, 1, n_fft), dtype)
    row = dft_matrix(n_fft, n_fft, 2, FORWARD)[:, 1] * scale
    places = op.Mul(op.Unsqueeze(op.Range(0, bins, 1), [1]), op.Range(0, n_fft, 1))
    parts = op.Gather(op.const(np.stack([row.real, row.imag]), dtype), op.Mod(places, n_fft), axis=1)
    return op.Reshape(op.Transpose(parts, perm=[1, 0, 2]), [2 * bins, 1, n_fft])


def _inverse_kernels(op: Builder, n_fft: int, bins: int, scale: float, dtype: DataType) -> Tensor:
    """The matrix from the parts of half a spectrum to a frame, [2 * bins, 1, n_fft]: the rows of the DFT, weighted."""
    if bins not in (half(n_fft), n_fft) or 2 * bins * n_fft <= _STORED:
        return op.const(real_spectrum_matrix(bins, n_fft, INVERSE)[:, None, :] * scale, dtype)
    weights = np.full((2 * bins, 1, 1), 2.0)  # bins stand for their mirrors as well
    weights[[0, 1]] = 1.0
    if n_fft % 2 == 0:
        weights[[n_fft, n_fft + 1]] = 1.0  # its own mirror, as bin 0
    weights[2 * half(n_fft) :] = 0.0
    return op.Mul(_kernels(op, n_fft, bins, scale, dtype), op.const(weights, dtype))


def spectrogram(
    op: Builder, signal: Tensor, count: Dim, n_fft: int, hop: int, window: Tensor | None, scale: float, onesided: bool
) -> Tensor:
    """Complex [batch, bins, count] of a signal [batch, time]."""
    batch = signal.shape[0]
    bins = half(n_fft) if onesided else n_fft
    if _by_convolution(signal.dtype, n_fft) and not signal.is_complex:
        weight = _kernels(op, n_fft, bins, scale, signal.dtype)
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
        rank = op.rank(signal) + int(signal.is_complex)
        padded = pad_axes(op, signal, rank, {1: (n_fft // 2, n_fft // 2)}, mode=mode)
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


@translation("aten::istft", "onnxport::istft", complex=True)
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
    if window is not None and window.is_complex and not return_complex:
        raise Unsupported("istft with a complex window to real signals")
    spectrum = self if self.is_complex else op.as_complex(op.Identity(self))
    shape = list(spectrum.shape)
    squeeze = len(shape) == 2
    if squeeze:
        shape = [1, *shape]
        spectrum = op.as_complex(op.Unsqueeze(spectrum, [0]), ir.Shape(shape))
    scale = n_fft ** (-0.5 if normalized else -1.0)
    whole = (shape[2] - 1) * hop + n_fft
    start = n_fft // 2 if center else 0
    end: Any = whole - start if length is None else start + length

    def cut(value: Tensor) -> Tensor:
        return op.Slice(value, [start], op.sizes([end]), [1])

    def finished(value: Tensor) -> Tensor:
        if length is not None and not (isinstance(end, int) and isinstance(whole, int) and end <= whole):
            missing = op.Max(op.Sub(op.sizes([end]), op.sizes([whole])), op.const([0], DataType.INT64))
            value = pad_axes(op, value, 2, {1: (0, missing)})
        return op.Squeeze(value, [0]) if squeeze else value

    if return_complex:
        windows = [
            _window(op, part, width, n_fft, spectrum.dtype)
            for part in ([window] if window is None or not window.is_complex else [op.real(window), op.imag(window)])
        ]
        real_only = bool(onesided) if onesided is not None else shape[1] != n_fft
        if real_only:
            raise Unsupported("istft of half a spectrum to complex signals")
        signal, envelope = _complex_signal(op, spectrum, n_fft, hop, windows, scale)
        value = Pair(op, cut(signal.re), cut(signal.imag)) / Pair(
            op, cut(envelope.re), None if envelope.im is None else cut(envelope.im)
        )
        return joined(op, finished(value.re), finished(value.imag), op.result.shape)
    frame = _window(op, window, width, n_fft, spectrum.dtype)
    return finished(op.Div(*map(cut, _real_signal(op, spectrum, n_fft, hop, frame, scale))))


def _real_signal(
    op: Builder, spectrum: Tensor, n_fft: int, hop: int, window: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The overlapping frames added up, and so their squared windows. Of a whole spectrum the first half counts."""
    batch, bins, count = spectrum.shape
    dtype = spectrum.dtype
    ones = op.const(np.ones(n_fft), dtype)
    square = ones if window is None else op.Mul(window, window)
    if _by_convolution(dtype, n_fft):
        weight = _inverse_kernels(op, n_fft, bins, scale, dtype)
        if window is not None:
            weight = op.Mul(weight, window)
        channels = op.Reshape(op.Transpose(spectrum, perm=[0, 1, 3, 2]), op.sizes([batch, 2 * bins, count]))
        row = op.Expand(op.const(1, dtype), op.sizes([1, 1, count]))
        signal = op.ConvTranspose(channels, weight, strides=[hop])
        envelope = op.ConvTranspose(row, op.Reshape(square, [1, 1, n_fft]), strides=[hop])
        return op.Squeeze(signal, [1]), op.Squeeze(envelope, [1])
    turned = op.as_complex(op.Transpose(spectrum, perm=[0, 2, 1, 3]), ir.Shape([batch, count, bins]))
    frames = transform(op, turned, Line(2, n_fft, INVERSE, to_real=True), scale)
    if window is not None:
        frames = op.Mul(frames, window)
    squares = op.Expand(square, op.sizes([1, count, n_fft]))
    return overlap_add(op, frames, hop, batch, count, n_fft), overlap_add(op, squares, hop, 1, count, n_fft)


def _complex_signal(
    op: Builder, spectrum: Tensor, n_fft: int, hop: int, windows: list[Tensor | None], scale: float
) -> tuple[Pair, Pair]:
    """The same of complex frames, whose window is one real tensor, or two parts."""
    batch, bins, count = spectrum.shape
    turned = op.as_complex(op.Transpose(spectrum, perm=[0, 2, 1, 3]), ir.Shape([batch, count, bins]))
    frames = pair(op, transform(op, turned, Line(2, n_fft, INVERSE), scale))
    first = op.const(np.ones(n_fft), spectrum.dtype) if windows[0] is None else windows[0]
    window = Pair(op, first, windows[1] if len(windows) > 1 else None)

    def added(value: Pair, rows: Dim) -> Pair:
        parts = [
            None if part is None else overlap_add(op, part, hop, rows, count, n_fft) for part in (value.re, value.im)
        ]
        return Pair(op, *parts)  # type: ignore[arg-type]

    square = window * window
    spread = [None if part is None else op.Expand(part, op.sizes([1, count, n_fft])) for part in (square.re, square.im)]
    return added(frames * window, batch), added(Pair(op, *spread), 1)  # type: ignore[arg-type]
