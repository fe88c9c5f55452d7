"""Tensors that forward makes of sizes: ``torch.as_tensor(x.shape)``, ``torch.LongTensor([n])``, ``x.new_tensor(n)``.

torch.export follows a dynamic size into ``torch.tensor`` alone; the other functions, the constructors of tensor types
and arrays of NumPy ask for the example's number. While a non-strict capture traces, they all are ``torch.tensor``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from onnxport.kit import Replacement
from torch.utils import _pytree as pytree

from onnxport_builtin.capture.non_strict import calls, while_traced

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def tensors_of_sizes() -> Iterator[Replacement]:
    """While any thread is in it, tensors made of sizes follow them."""
    yield from calls(
        {
            torch.tensor: _tensor,
            torch.as_tensor: _tensor,
            torch.asarray: _tensor,
            torch.Tensor.new_tensor: _like,
            torch.Tensor.new: _like_list,
            torch.Tensor.type: _to_type,
            torch._shape_as_tensor: lambda input: functools.partial(_shape, input),
        }
    )
    yield from while_traced(_constructors)
    yield Replacement(torch, "from_numpy", _of_array)
    yield Replacement(torch, "as_tensor", _of_number)


def _data(data: Any) -> Any:
    """The data as nested lists, where there are symbolic numbers among them; else None."""
    if isinstance(data, np.ndarray):
        data = data.tolist() if data.dtype == object else None
    elif isinstance(data, torch.Size):
        data = list(data)
    return data if any(isinstance(leaf, _SYMBOLIC) for leaf in pytree.tree_leaves(data)) else None


def _made(data: Any, dtype: torch.dtype | None, device: Any, requires_grad: bool = False) -> Callable[[], torch.Tensor]:
    return functools.partial(torch._refs.tensor, data, dtype=dtype, device=device, requires_grad=requires_grad)


def _of_floats(data: Any) -> bool:
    return any(isinstance(leaf, (float, torch.SymFloat)) for leaf in pytree.tree_leaves(data))


def _tensor(
    data: Any,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **_others: Any,
) -> Callable[[], torch.Tensor] | None:
    listed = _data(data)
    if listed is None:
        return None
    if isinstance(data, np.ndarray) and dtype is None and _of_floats(listed):
        dtype = torch.float64  # as NumPy's floats are
    return _made(listed, dtype, device, requires_grad)


def _like(
    self: torch.Tensor,
    data: Any,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **_others: Any,
) -> Callable[[], torch.Tensor] | None:
    return _tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)


def _like_list(self: torch.Tensor, *args: Any, **_others: Any) -> Callable[[], torch.Tensor] | None:
    """``x.new([n])``; ``x.new(n)`` and ``x.new(x.shape)`` give a tensor of that size."""
    is_data = len(args) == 1 and not isinstance(args[0], (torch.Size, torch.SymInt))
    return _like(self, args[0]) if is_data else None


def _shape(input: torch.Tensor) -> torch.Tensor:
    return (
        torch._refs.tensor(list(input.shape), dtype=torch.int64) if input.dim() else torch.zeros(0, dtype=torch.int64)
    )


def _of_array(original: Callable[..., Any]) -> Callable[..., Any]:
    def from_numpy(array: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # a strict capture follows NumPy's functions: this is a tensor
            return torch.as_tensor(array)
        return original(array) if _data(array) is None else torch.tensor(array)

    return from_numpy


def _of_number(original: Callable[..., Any]) -> Callable[..., Any]:
    def as_tensor(data: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() and not args and isinstance(data, int):
            return torch.tensor(data, **kwargs)  # a strict capture follows sizes into this alone, too
        return original(data, *args, **kwargs)

    return as_tensor


# Constructors ---------------------------------------------------------------------------------------------------------


class _TensorType:
    """Stands for ``torch.LongTensor`` and similar classes, whose call alone can't be replaced."""

    def __init__(self, original: Any, dtype: torch.dtype) -> None:
        self.original, self.dtype = original, dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        is_data = len(args) == 1 and not isinstance(args[0], (torch.Size, torch.SymInt))
        data = _data(args[0]) if is_data else None
        return self.original(*args, **kwargs) if data is None else torch.tensor(data, dtype=self.dtype)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self.original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __eq__(self, other: object) -> bool:
        return self.original is getattr(other, "original", other)

    def __hash__(self) -> int:
        return hash(self.original)


def _constructors() -> Iterator[Replacement]:
    for name in ("Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double", "Bool"):
        original = getattr(torch, f"{name}Tensor")
        yield Replacement(torch, f"{name}Tensor", functools.partial(_TensorType, dtype=original.dtype))
    yield Replacement(torch.Tensor, "__new__", _of_data)


def _of_data(original: Callable[..., Any]) -> Callable[..., Any]:
    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        is_data = cls is torch.Tensor and len(args) == 1 and not isinstance(args[0], (torch.Size, torch.SymInt))
        data = _data(args[0]) if is_data else None
        return original(cls, *args, **kwargs) if data is None else torch.tensor(data, dtype=torch.get_default_dtype())

    return new


def _to_type(self: torch.Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Callable[[], Any] | None:
    if not isinstance(dtype, _TensorType):
        return None
    return functools.partial(torch.Tensor.type, self, dtype.original, *args, **kwargs)
