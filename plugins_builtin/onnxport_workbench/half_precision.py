"""Models that ``dtype=`` wrote in half precision: how they are compared with the float32 model."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnxport.kit import keys

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def half_of(model: ir.Model) -> torch.dtype | None:
    """The half precision in which a float32 model was written; None for other models."""
    return _HALVES.get(model.metadata_props.get(keys.DTYPE, ""))


def in_type_of(found: torch.Tensor, expected: Any) -> Any:
    """What the float32 model gives, in the floating-point type of what the file gives."""
    is_float = isinstance(expected, torch.Tensor) and expected.is_floating_point() and found.is_floating_point()
    return expected.to(found.dtype) if is_float else expected


__all__ = ["half_of", "in_type_of"]
