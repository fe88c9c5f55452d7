"""A mask of no axes in an index: ``a[a > 0] = 1.0`` of a 0-d tensor, ``rows[flag]`` with a 0-d ``flag``.

Python's indexing gives the tensor a new axis of one element and takes it or leaves it. torch 2.14 asks for the mask's
value instead, which a capture can't know. While a non-strict capture traces, the axis is made, and the mask is one of
one element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement

from onnxport_builtin.capture.non_strict import calls


def scalar_masks() -> Iterator[Replacement]:
    """Masks without axes are followed."""
    yield from calls({torch.Tensor.__getitem__: _read, torch.Tensor.__setitem__: _write})


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dim() == 0 and index.dtype in (torch.bool, torch.uint8)


def _read(self: torch.Tensor, index: Any) -> Callable[[], torch.Tensor] | None:
    if not any(map(_is_mask, index if isinstance(index, tuple) else (index,))):
        return None
    view, indices = _with_axes(self, index)
    return functools.partial(torch.Tensor.__getitem__, view, indices)


def _write(self: torch.Tensor, index: Any, value: Any) -> Callable[[], None] | None:
    if not any(map(_is_mask, index if isinstance(index, tuple) else (index,))):
        return None
    view, indices = _with_axes(self, index)
    return functools.partial(torch.Tensor.__setitem__, view, indices, value)


def _with_axes(self: torch.Tensor, index: Any) -> tuple[torch.Tensor, tuple[Any, ...]]:
    """The tensor with an axis for each such mask, and the index of that tensor."""
    listed = index if isinstance(index, tuple) else (index,)
    rest = self.dim() - sum(_axes_of(each) for each in listed)
    view, axis, indices = self, 0, []
    for each in listed:
        if _is_mask(each):
            view = view.unsqueeze(axis)
            indices.append(each.reshape(1).to(torch.bool))
            axis += 1
        else:
            indices.append(each)
            axis += rest if each is Ellipsis else _axes_of(each)
    return view, tuple(indices)


def _axes_of(index: Any) -> int:
    """How many axes of the tensor an index takes."""
    if index is None or index is Ellipsis or isinstance(index, bool) or _is_mask(index):
        return 0
    is_mask = isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
    return index.dim() if is_mask else 1
