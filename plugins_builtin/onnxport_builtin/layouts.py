"""Tensors that aren't dense."""

from __future__ import annotations

import torch

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or the dense one that a sparse one stands for: in a file all are dense."""
    if tensor.layout in _SPARSE:
        return tensor.to_dense()
    return tensor.clone() if getattr(tensor._base, "layout", None) in _SPARSE else tensor  # its indices or values
