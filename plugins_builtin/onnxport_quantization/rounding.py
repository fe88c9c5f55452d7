"""Rounding to the nearest, a block of numbers at a time.

With ``b`` bits, a block ``w`` is stored as integers ``q``, a scale ``s`` and, where it isn't symmetric, the integer
``z`` that stands for 0; its numbers are then ``(q - z) * s``:

- symmetric: ``s = m / -2**(b-1)``, where ``m`` is the number of the largest magnitude with its sign, so that it is met
  exactly; ``q = round(w / s)`` in ``-2**(b-1) .. 2**(b-1) - 1``.
- asymmetric: ``s = (max - min) / (2**b - 1)`` over the block and 0, ``z = round(-min / s)`` and
  ``q = round(w / s) + z`` in ``0 .. 2**b - 1``.

Halves are rounded away from 0. These are the numbers that onnxruntime's own quantizer gives
(``onnxruntime.quantization.matmul_nbits_quantizer``, algorithm DEFAULT), bit for bit: quotients are products with the
scale's reciprocal, in float32, as the file has the scale (float16 weights have scales of float16, but those of bfloat16
are rounded only after the integers are known). With 8 bits, ``z`` is added before the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from onnxport import WeightError

from onnxport_quantization.formats import WeightFormat

TILE = 1 << 20
"""About how many numbers are rounded at a time."""


class Blocks(NamedTuple):
    """Some columns of some blocks of a weight, rounded.

    Attributes:
        codes: integers (rows, columns), uint8; signed ones with ``2**(bits-1)`` added.
        scales: (blocks, columns), of the weight's dtype.
        zeros: (blocks, columns), uint8: the code that stands for 0.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor


def rounded(weight: torch.Tensor, form: WeightFormat, block: int, *, codes: bool = True) -> Blocks:
    """Round a matrix (K, N) in blocks of ``block`` rows, the last of which may have less.

    Args:
        codes: whether the integers are needed, and not the scales alone.

    Raises:
        WeightError: a number isn't finite.
    """
    rows, columns = weight.shape
    count = -(-rows // block)
    numbers = weight.detach().to(torch.float32)
    numbers = torch.nn.functional.pad(numbers, (0, 0, 0, count * block - rows)).reshape(count, block, columns)
    low, high = numbers.amin(1).clamp_(max=0), numbers.amax(1).clamp_(min=0)
    if not bool(torch.isfinite(high - low).all()):
        raise WeightError("A weight that has infinite numbers or NaN can't be rounded. Leave it out of quantize=.")
    top, middle = 2**form.bits - 1, 2 ** (form.bits - 1)
    if form.symmetric:
        scales = torch.where(high > -low, high, low) / -middle
        zeros = torch.full_like(scales, middle)
    else:
        scales = (high - low) / top
        zeros = torch.where(scales > 0, _nearest((-low / scales).clamp_(0, top)), 0.0)
    stored = scales.to(weight.dtype)
    if weight.dtype is torch.float16:
        scales = stored.to(torch.float32)
    result = numbers.new_empty((0,), dtype=torch.uint8)
    if codes:
        inverse = scales.reciprocal()
        usable = inverse.isfinite()
        quotients = numbers * torch.where(usable, inverse, 0.0).unsqueeze(1)
        if not bool(usable.all()):  # scales of 0, and denormal ones, which have no reciprocal
            exact = numbers.double() / torch.where(scales == 0, 1.0, scales).double().unsqueeze(1)
            quotients = torch.where(usable.unsqueeze(1), quotients, exact.float())
        if form.bits == 4:
            quotients = _nearest(quotients).add_(zeros.unsqueeze(1))
        else:
            quotients = _nearest(quotients.add_(zeros.unsqueeze(1)))
        result = quotients.clamp_(0, top).to(torch.uint8).reshape(-1, columns)[:rows]
    return Blocks(result, stored, zeros.to(torch.uint8))


def _nearest(numbers: torch.Tensor) -> torch.Tensor:
    """The nearest whole numbers, halves away from 0. ``floor(x + 0.5)`` would round the sum before."""
    whole = numbers.trunc()
    return whole.add_((numbers - whole).mul_(2).trunc_())


def dequantized(blocks: Blocks, block: int, dtype: torch.dtype) -> torch.Tensor:
    """The numbers (K, N) that a runtime makes of the integers."""
    rows = len(blocks.codes)
    zeros = blocks.zeros.to(torch.float32).repeat_interleave(block, 0)[:rows]
    scales = blocks.scales.to(torch.float32).repeat_interleave(block, 0)[:rows]
    return (blocks.codes.to(torch.float32).sub_(zeros)).mul_(scales).to(dtype)


def tiles(rows: int, columns: int, block: int) -> Iterator[tuple[slice, list[slice]]]:
    """Cut a matrix (rows, columns) into bands of whole blocks, and each band into pieces of about `TILE` numbers."""
    band = max(1, TILE // max(1, block * columns)) * block
    width = max(1, TILE // min(band, max(rows, 1)))
    for start in range(0, rows, band):
        yield (
            slice(start, min(start + band, rows)),
            [slice(left, min(left + width, columns)) for left in range(0, columns, width)],
        )


def as_rounded(weight: torch.Tensor, form: WeightFormat, axis: int) -> torch.Tensor:
    """A matrix whose numbers are those that a file has in its place; blocks run along ``axis``."""
    result = torch.empty_like(weight.detach())
    source, target = (tensor if axis == 0 else tensor.t() for tensor in (weight.detach(), result))
    block = form.block(source.shape[0])
    for band, pieces in tiles(source.shape[0], source.shape[1], block):
        for piece in pieces:
            target[band, piece] = dequantized(rounded(source[band, piece], form, block), block, weight.dtype)
    return result
