"""Which constants and weights half precision can hold, and how they are converted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from onnxport.kit import ONNX_TO_TORCH, TorchTensor


@dataclass(frozen=True)
class Span:
    """How the numbers of a tensor fit into a dtype.

    Attributes:
        is_large: a finite number exceeds the largest of the dtype.
        is_small: a constant, not 0, is below the smallest number that the dtype holds in full precision.
    """

    is_large: bool = False
    is_small: bool = False


class Ranges:
    """Tells, and converts, for one dtype.

    Args:
        dtype: FLOAT16 or BFLOAT16.
    """

    def __init__(self, dtype: ir.DataType) -> None:
        self.dtype = dtype
        self.torch_dtype = ONNX_TO_TORCH[dtype]
        info = torch.finfo(self.torch_dtype)
        self.largest, self._smallest = float(info.max), float(info.smallest_normal)
        self._half = _Half(self.torch_dtype, self.largest)
        self._spans: dict[int, tuple[ir.TensorProtocol, Span]] = {}

    def span(self, tensor: ir.TensorProtocol) -> Span:
        """How a tensor's numbers fit; those of a tensor without data are taken to fit."""
        if id(tensor) not in self._spans:
            self._spans[id(tensor)] = tensor, self._span(tensor)
        return self._spans[id(tensor)][1]

    def _span(self, tensor: ir.TensorProtocol) -> Span:
        if isinstance(tensor, TorchTensor):
            if not tensor.has_data:
                return Span()
            numbers = tensor.raw.detach()
        else:
            numbers = torch.from_numpy(np.array(tensor.numpy()))
        if not numbers.numel():
            return Span()
        if numbers.numel() == 1:
            size = abs(float(numbers))
            return Span(self.largest < size < float("inf"), 0 < size < self._smallest)
        low, high = (float(limit) for limit in torch.aminmax(torch.nan_to_num(numbers, 0.0, 0.0, 0.0)))
        return Span(max(-low, high) > self.largest)

    def converted(self, tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
        """A tensor in the dtype. Numbers that are too large become the largest; infinities stay."""
        if isinstance(tensor, TorchTensor):
            made = tensor.derive(self._half)
            made.name = name
            return made
        numbers = torch.from_numpy(np.array(tensor.numpy()))
        made = TorchTensor(self._half(numbers), name)
        made.source = None
        return made


class _Half:
    """Numbers in half precision; those that are too large become the largest, and infinities stay.

    Args:
        dtype: the half precision.
        largest: its largest number.
    """

    is_conversion = True  # which quantizers look through

    def __init__(self, dtype: torch.dtype, largest: float) -> None:
        self._dtype, self._largest = dtype, largest

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        half = numbers.to(self._dtype)
        return torch.where(numbers.isfinite(), half.clamp(-self._largest, self._largest), half)
