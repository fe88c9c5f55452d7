"""Discrete Fourier transforms: the ``fft`` module and its primitives.

Every transform is a sequence of one-dimensional ones: real to complex (all bins or the first half), complex to complex,
and complex of a half spectrum to real. A one-dimensional transform is written in one of two ways, as measured on
onnxruntime 1.32 (CPU, one thread):

- a product with a constant matrix, into which zero padding, truncation, scale and conjugate symmetry are folded: exact
  to 4e-7 in float32, and quicker than DFT up to 256 points, and up to `MATRIX_LIMIT` where that isn't a power of two;
- DFT, for powers of two as it is (5e-7), for other sizes and symbolic ones in float64 and forwards only: its float32
  is wrong in the fourth digit at 1000 points, its float64 inverse in the eighth.

Milliseconds of 100 real signals by the product, by DFT, and by DFT in float64: 64 points 0.05, 0.20, 0.21; 400 points
0.45, 23, 32; 512 points 0.57, 1.0, 1.9; 1000 points 2.8, 39, 45; 1024 points 2.6, 2.1, 2.4; 4096 points 129, 51, 67.
The matrix of 512 points is 1 MB for real signals, 4 MB for complex ones: there DFT is worth its time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Size, Tensor, promote, translation
from onnxport.authoring import Dim, axis_of, permute, product, reshape

from onnxport_builtin.aten.padding import pad_axes

if TYPE_CHECKING:
    from onnxport import Builder

#: Above this many points the matrix is larger than it is worth (8 MB in float32 at 1024 points).
MATRIX_LIMIT = 1024
#: Powers of two above this many points are left to DFT.
_FAST = 256

FORWARD, INVERSE = -1, 1
Norm = str | None


def use_matrix(n: Dim) -> bool:
    """Whether a transform of `n` points is a product with a constant matrix."""
    return isinstance(n, int) and n <= MATRIX_LIMIT and (n <= _FAST or n & (n - 1) != 0)


def half(n: Dim) -> Dim:
    """How many bins of `n` are independent for real signals."""
    return n // 2 + 1


def dft_matrix(rows: int, n: int, columns: int, sign: int) -> np.ndarray:
    """``exp(sign * 2 pi i j k / n)`` for row j and column k; rows from n on, which are truncated, are zero."""
    angle = np.outer(np.arange(rows), np.arange(columns)) % max(n, 1) * (2 * np.pi / max(n, 1))
    matrix = np.cos(angle) + 1j * sign * np.sin(angle)
    matrix[n:] = 0
    return matrix


def _pairs(matrix: np.ndarray) -> np.ndarray:
    """A complex matrix [m, k] as the real one that acts on interleaved parts, [2m, 2k]."""
    blocks = np.stack(
        [np.stack([matrix.real, matrix.imag], axis=-1), np.stack([-matrix.imag, matrix.real], axis=-1)], axis=1
    )
    return blocks.reshape(2 * matrix.shape[0], 2 * matrix.shape[1])


def real_spectrum_matrix(rows: int, n: int, sign: int) -> np.ndarray:
    """From the interleaved first half of a conjugate-symmetric spectrum to the n real values, [2 rows, n].

    The other half counts by a weight of 2; the imaginary parts of the bins that are their own mirror don't count.
    """
    bins = half(n)
    matrix = dft_matrix(rows, n, n, sign)
    matrix[bins:] = 0
    weight = np.full((rows, 1), 2.0)
    weight[0] = 1.0
    if n % 2 == 0 and n // 2 < rows:
        weight[n // 2] = 1.0
    matrix = matrix * weight
    return np.stack([matrix.real, -matrix.imag], axis=1).reshape(2 * rows, n)


class Line:
    """A one-dimensional transform.

    Attributes:
        axis: the logical axis.
        n: points: the input is padded with zeros or cut to so many (to the first half of so many, if `to_real`).
        sign: of the exponent: FORWARD or INVERSE.
        to_real: from a half spectrum to real values.
        onesided: of a real input, the first half of the spectrum only.
    """

    __slots__ = ("axis", "n", "onesided", "sign", "to_real")

    def __init__(self, axis: int, n: Dim, sign: int, *, to_real: bool = False, onesided: bool = False) -> None:
        self.axis, self.n, self.sign = axis, n, sign
        self.to_real, self.onesided = to_real, onesided

    @property
    def size(self) -> Dim:
        """The size of the result's axis."""
        return half(self.n) if self.onesided else self.n


def transform(op: Builder, x: Tensor, line: Line, scale: Any = None) -> Tensor:
    """`x` transformed along one axis.

    Args:
        x: float32 or float64, real or complex (complex if `line.to_real`).
        scale: a number or size-dependent tensor to multiply by; None for 1.
    """
    if use_matrix(line.n) and isinstance(x.shape[line.axis], int) and (scale is None or isinstance(scale, float)):
        return _by_matrix(op, x, line, 1.0 if scale is None else scale)
    y = _by_dft(op, x, line)
    if scale is None:
        return y
    return _like(op, op.Mul(y, scale if isinstance(scale, float) else op.cast(scale, y.dtype)), y)


def _like(op: Builder, physical: Tensor, like: Tensor) -> Tensor:
    """An elementwise result with the shape and flag of its operand."""
    if like.is_complex:
        return op.as_complex(physical, like.shape)
    physical.shape = like.shape
    return physical


def _by_matrix(op: Builder, x: Tensor, line: Line, scale: float) -> Tensor:
    rank = len(x.shape)
    order = [a for a in range(rank) if a != line.axis] + [line.axis]
    dims = [x.shape[a] for a in order]
    rows = dims[-1]
    if line.to_real:
        matrix = real_spectrum_matrix(rows, line.n, line.sign)
    else:
        complex_matrix = dft_matrix(rows, line.n, line.size, line.sign)
        if x.is_complex:
            matrix = _pairs(complex_matrix)
        else:
            matrix = np.stack([complex_matrix.real, complex_matrix.imag], axis=-1).reshape(rows, -1)
    value = x
    if x.is_complex:
        value = permute(op, value, [*order, rank])
        value = reshape_to(op, value, [*dims, 2], [*dims[:-1], 2 * rows])
    else:
        value = permute(op, value, order)
    value = op.MatMul(value, op.const(matrix * scale, x.dtype))
    back = [order.index(a) for a in range(rank)]
    if line.to_real:
        value.shape = ir.Shape([*dims[:-1], line.n])
        return permute(op, value, back)
    value = reshape_to(op, value, [*dims[:-1], 2 * line.size], [*dims[:-1], line.size, 2])
    value = permute(op, value, [*back, rank])
    return op.as_complex(value, ir.Shape([line.size if a == line.axis else d for a, d in enumerate(x.shape)]))


def reshape_to(op: Builder, x: Tensor, source: Sequence[Dim], target: Sequence[Dim]) -> Tensor:
    """`reshape` of a physical value whose dims are `source`."""
    if list(source) == list(target):
        return x
    if x.is_complex:
        x = op.Identity(x)
    x.shape = ir.Shape(source)
    return reshape(op, x, target)


def _by_dft(op: Builder, x: Tensor, line: Line) -> Tensor:
    exact = isinstance(line.n, int) and line.n & (line.n - 1) == 0
    dims = list(x.shape)
    value = op.cast(x, x.dtype if exact else DataType.DOUBLE)
    if line.to_real:
        value = _full_spectrum(op, value, dims, line)
    elif not x.is_complex:
        value = op.Unsqueeze(value, [-1])
    length = None
    if dims[line.axis] != line.n and not line.to_real:
        if isinstance(line.n, int):
            length = op.tensor(line.n, DataType.INT64)
        else:  # onnxruntime 1.32 takes the result for as long as the input where it can't read the length
            value = _fitted(op, value, len(dims) + 1, line.axis, dims[line.axis], line.n)
    inverse = line.sign == INVERSE
    swapped = inverse and not line.onesided
    # exp(+i) of z is exp(-i) of z with its parts exchanged, exchanged again
    if swapped:
        value = _exchanged(op, value) if x.is_complex else value
    if op.opset >= 20:
        value = op.DFT(value, length, op.const(line.axis), onesided=1 if line.onesided else None)
    else:
        value = op.DFT(value, length, axis=line.axis, onesided=1 if line.onesided else None)
    value = op.cast(value, x.dtype)
    if line.to_real:
        value = op.Gather(value, 1 if swapped else 0, axis=-1)
        value.shape = ir.Shape([line.n if a == line.axis else d for a, d in enumerate(dims)])
        return value
    if swapped and x.is_complex:
        value = _exchanged(op, value)
    elif inverse:  # of real values: the conjugate
        value = op.Mul(value, op.const([1.0, -1.0], x.dtype))
    return op.as_complex(value, ir.Shape([line.size if a == line.axis else d for a, d in enumerate(dims)]))


def _exchanged(op: Builder, value: Tensor) -> Tensor:
    return op.Gather(value, op.const([1, 0], DataType.INT64), axis=-1)


def _fitted(op: Builder, value: Tensor, rank: int, axis: int, have: Dim, want: Dim) -> Tensor:
    """One of the `rank` axes cut or padded with zeros to a size."""
    if have == want:
        return value
    value = op.Slice(value, [0], op.sizes([want]), [axis])
    if isinstance(have, int) and isinstance(want, int) and have > want:
        return value
    missing = op.Max(op.Sub(op.sizes([want]), op.sizes([have])), op.const([0], DataType.INT64))
    return pad_axes(op, value, rank, {axis: (0, missing)})


def _full_spectrum(op: Builder, value: Tensor, dims: Sequence[Dim], line: Line) -> Tensor:
    """All n bins of a conjugate-symmetric spectrum from its first half, cut or padded with zeros to n // 2 + 1."""
    n, axis = line.n, line.axis
    bins = half(n)
    value = _fitted(op, value, len(dims) + 1, axis, dims[axis], bins)
    # bins n - n // 2 - 1 down to 1 are the mirrored ones
    mirrored = op.Slice(value, op.sizes([n - bins]), [0], [axis], [-1])
    return op.Concat(value, op.Mul(mirrored, op.const([1.0, -1.0], value.dtype)), axis=axis)


# ---- torch's arguments


def _floating(op: Builder, x: Tensor) -> Tensor:
    """Integers in the default float type; half precision in float32."""
    if x.is_complex:
        return x
    dtype = promote(x, int_to_float=True)
    return op.cast(x, op.results[0].dtype if dtype not in (DataType.FLOAT, DataType.DOUBLE) else dtype)


def scale_of(op: Builder, sizes: Sequence[Dim], normalization: int) -> Any:
    """The factor for torch's normalization codes: none, by the root of n, by n; None for 1."""
    n = product(sizes)
    if normalization == 0 or n == 1:
        return None
    if isinstance(n, int):
        return 1 / (math.sqrt(n) if normalization == 1 else n) if n else None
    points = op.tensor(n, DataType.DOUBLE)
    return op.Reciprocal(op.Sqrt(points) if normalization == 1 else points)


def _normalization(norm: Norm, sign: int) -> int:
    if norm == "ortho":
        return 1
    whole = "forward" if sign == FORWARD else "backward"
    return 2 if (norm or "backward") == whole else 0


def run(op: Builder, x: Tensor, lines: Sequence[Line], normalization: int) -> Tensor:
    """The transforms one after another; the scale with the last of them."""
    x = _floating(op, x)
    if not lines:
        return x if x.is_complex else op.complex(x, op.Mul(x, 0.0))
    scale = scale_of(op, [line.n for line in lines], normalization)
    for i, line in enumerate(lines):
        x = transform(op, x, line, scale if i == len(lines) - 1 else None)
    return x


def _axes(x: Tensor, s: Sequence[Dim] | None, dim: Sequence[int] | None) -> tuple[list[int], list[Dim]]:
    """Axes and the number of points that is asked for along each of them (-1: the input's)."""
    rank = len(x.shape)
    if dim is not None:
        axes = [axis_of(x, d) for d in dim]
    else:
        axes = list(range(rank))[rank - len(s) :] if s is not None else list(range(rank))
    return axes, [-1] * len(axes) if s is None else list(s)


def _points(x: Tensor, axes: Sequence[int], sizes: Sequence[Dim]) -> list[Dim]:
    return [x.shape[a] if isinstance(n, int) and n == -1 else n for a, n in zip(axes, sizes, strict=True)]


def to_complex(op: Builder, x: Tensor, axes: Sequence[int], sizes: Sequence[Dim], sign: int, norm: Norm) -> Tensor:
    """fft and ifft along `axes`."""
    points = _points(x, axes, sizes)
    lines = [Line(a, n, sign) for a, n in zip(axes, points, strict=True)]
    return run(op, x, lines[::-1], _normalization(norm, sign))


def to_half(op: Builder, x: Tensor, axes: Sequence[int], sizes: Sequence[Dim], sign: int, norm: Norm) -> Tensor:
    """rfft (and ihfft, with the other sign): the half spectrum along the last of `axes`, the whole along the others."""
    points = _points(x, axes, sizes)
    lines = [Line(a, n, sign) for a, n in zip(axes[:-1], points[:-1], strict=True)]
    lines.append(Line(axes[-1], points[-1], sign, onesided=True))
    return run(op, x, lines[::-1], _normalization(norm, sign))


def from_half(op: Builder, x: Tensor, axes: Sequence[int], sizes: Sequence[Dim], sign: int, norm: Norm) -> Tensor:
    """irfft (and hfft, with the other sign): the last of `axes` holds a half spectrum."""
    points = _points(x, axes, sizes)
    if isinstance(sizes[-1], int) and sizes[-1] == -1:
        points[-1] = (x.shape[axes[-1]] - 1) * 2
    if not x.is_complex:
        x = _floating(op, x)
        x = op.complex(x, op.Mul(x, 0.0))
    lines = [Line(a, n, sign) for a, n in zip(axes[:-1], points[:-1], strict=True)]
    lines.append(Line(axes[-1], points[-1], sign, to_real=True))
    return run(op, x, lines, _normalization(norm, sign))


_ONE = {
    "fft": (to_complex, FORWARD),
    "ifft": (to_complex, INVERSE),
    "rfft": (to_half, FORWARD),
    "irfft": (from_half, INVERSE),
    "hfft": (from_half, FORWARD),
    "ihfft": (to_half, INVERSE),
}


def _kind(op: Builder) -> tuple[Any, int]:
    name = str(op.node.target._schema.name).removeprefix("aten::fft_")
    return _ONE[name.rstrip("2").removesuffix("n")]


@translation(*(f"aten::fft_{name}" for name in _ONE), complex=True)
def fft(op: Builder, self: Tensor, n: Dim | None = None, dim: int = -1, norm: Norm = None) -> Tensor:
    function, sign = _kind(op)
    return function(op, self, [axis_of(self, dim)], [-1 if n is None else n], sign, norm)


@translation(*(f"aten::fft_{name}{count}" for name in _ONE for count in ("2", "n")), complex=True)
def fftn(
    op: Builder, self: Tensor, s: Sequence[Dim] | None = None, dim: Sequence[int] | None = None, norm: Norm = None
) -> Tensor:
    function, sign = _kind(op)
    axes, sizes = _axes(self, s, dim)
    return function(op, self, axes, sizes, sign, norm)


@translation("aten::_fft_r2c", complex=True)
def fft_r2c(op: Builder, self: Tensor, dim: Sequence[int], normalization: int, onesided: bool) -> Tensor:
    axes = [axis_of(self, d) for d in dim]
    lines = [Line(a, self.shape[a], FORWARD) for a in axes]
    if lines:
        lines[-1].onesided = onesided
    return run(op, self, lines[::-1], normalization)


@translation("aten::_fft_c2c", complex=True)
def fft_c2c(op: Builder, self: Tensor, dim: Sequence[Any], normalization: int, forward: bool) -> Tensor:
    lines = [Line(axis_of(self, d), self.shape[axis_of(self, d)], FORWARD if forward else INVERSE) for d in dim]
    return run(op, self, lines, normalization)


@translation("aten::_fft_c2r", complex=True)
def fft_c2r(op: Builder, self: Tensor, dim: Sequence[int], normalization: int, last_dim_size: Dim) -> Tensor:
    axes = [axis_of(self, d) for d in dim]
    lines = [Line(a, self.shape[a], INVERSE) for a in axes[:-1]]
    lines.append(Line(axes[-1], last_dim_size, INVERSE, to_real=True))
    return run(op, self, lines, normalization)


@translation("prims::fft_r2c", complex=True)
def prims_r2c(op: Builder, self: Tensor, *, dim: Sequence[int], onesided: bool) -> Tensor:
    return fft_r2c(op, self, dim, 0, onesided)


@translation("prims::fft_c2c", complex=True)
def prims_c2c(op: Builder, self: Tensor, *, dim: Sequence[int], forward: bool) -> Tensor:
    return fft_c2c(op, self, dim, 0, forward)


@translation("prims::fft_c2r", complex=True)
def prims_c2r(op: Builder, self: Tensor, *, dim: Sequence[int], last_dim_size: Dim) -> Tensor:
    return fft_c2r(op, self, dim, 0, last_dim_size)


@translation("aten::fft_fftshift", complex=True)
def fftshift(op: Builder, self: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """The zero frequency to the middle."""
    return _shifted(op, self, dim, lambda n: n - n // 2)


@translation("aten::fft_ifftshift", complex=True)
def ifftshift(op: Builder, self: Tensor, dim: Sequence[int] | None = None) -> Tensor:
    """The middle to the front."""
    return _shifted(op, self, dim, lambda n: n // 2)


def _shifted(op: Builder, x: Tensor, dim: Sequence[int] | None, first: Any) -> Tensor:
    """`x` rotated along each dim so that the element at `first(size)` is the first."""
    value = x
    for axis in range(len(x.shape)) if dim is None else [axis_of(x, d) for d in dim]:
        start = op.sizes([first(x.shape[axis])])
        end = op.const([np.iinfo(np.int64).max], DataType.INT64)
        value = op.Concat(op.Slice(value, start, end, [axis]), op.Slice(value, [0], start, [axis]), axis=axis)
    return value if value is x else _like(op, value, x)


def _frequencies(op: Builder, n: Dim, d: float, count: Dim, wraps: bool) -> Tensor:
    k: Any = op.Range(0, count, 1)
    if wraps:
        k = op.Where(op.Less(k, (n + 1) // 2), k, op.Sub(k, op.tensor(n, DataType.INT64)))
    dtype = op.result.dtype
    return op.Div(op.cast(k, dtype), op.Mul(op.tensor(n, dtype), float(d)))


@translation("aten::fft_fftfreq")
def fftfreq(op: Builder, n: int | Size, d: float = 1.0, **_: Any) -> Tensor:
    return _frequencies(op, n, d, n, True)


@translation("aten::fft_rfftfreq")
def rfftfreq(op: Builder, n: int | Size, d: float = 1.0, **_: Any) -> Tensor:
    return _frequencies(op, n, d, half(n), False)


__all__ = ["FORWARD", "INVERSE", "Line", "dft_matrix", "reshape_to", "transform", "use_matrix"]
