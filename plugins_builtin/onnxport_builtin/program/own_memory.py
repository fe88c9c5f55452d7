"""Memory that the system gets back at once, for weights that are read one after the other.

What an allocator of C frees stays with the process: glibc keeps blocks of up to 32 MiB, and hands them out again only
where the next block fits with its alignment. So weights that are read in turn add up to what all of them take. A
mapping of its own is given back when its tensor is dropped.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch

MAPPED_BYTES = 1024 * 1024
"""Smaller tensors are left to the allocator."""

_PRIVATE: dict[str, Any] = {} if not hasattr(mmap, "MAP_PRIVATE") else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}


def own_memory(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous tensor on the CPU that isn't initialized, in memory of its own where it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size < MAPPED_BYTES:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size, **_PRIVATE), dtype=torch.uint8).view(dtype).reshape(tuple(shape))
