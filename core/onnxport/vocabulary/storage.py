"""Whether tensors have data."""

from __future__ import annotations

import torch

from onnxport.vocabulary.upstream import FakeTensor


def has_data(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor holds values: false for fake tensors and those on the meta device."""
    return not isinstance(tensor, FakeTensor) and tensor.device.type != "meta"
