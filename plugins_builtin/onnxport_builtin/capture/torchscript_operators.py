"""Operators of TorchScript on numbers, strings and containers: Python's own, which take symbolic sizes.

Named as in a graph's schemas, without ``aten::``; ``prim::`` is part of the others' names.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxport import warn

#: Element types in the order of c10's ScalarType.
DTYPE_OF = dict(enumerate((
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64,
    torch.complex32, torch.complex64, torch.complex128, torch.bool, torch.qint8, torch.quint8, torch.qint32,
    torch.bfloat16,
)))  # fmt: skip
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def whole(value: Any) -> Any:
    """``int(value)``, of a size or a float made of sizes as well; of a tensor, its element."""
    if isinstance(value, torch.Tensor):
        return whole(value.item())
    return torch.sym_int(value) if isinstance(value, _SYMBOLIC) else int(value)


def real(value: Any) -> Any:
    """``float(value)``, as :func:`whole`."""
    if isinstance(value, torch.Tensor):
        return real(value.item())
    return torch.sym_float(value) if isinstance(value, _SYMBOLIC) else float(value)


def _invert(value: Any) -> Any:
    return torch.sym_not(value) if isinstance(value, torch.SymBool) else not value


def _sliced(values: Any, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    return values[slice(start, None if _is_last(end) else end, step)]


def _is_last(end: Any) -> bool:
    return isinstance(end, int) and end == torch.iinfo(torch.int64).max


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(first: Any, *others: Any) -> Any:
        values = [*first] if isinstance(first, list) and not others else [first, *others]
        if any(isinstance(value, list) for value in values):
            return max(values) if function is torch.sym_max else min(values)
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return extreme


def _of_math(name: str) -> Callable[..., Any]:
    return lambda *values: getattr(math, name)(*values)  # looked up late: an export may have replaced it


def _inserted(values: list[Any], *args: Any) -> list[Any]:
    values.insert(*args)
    return values


def _appended(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _removed(values: Any, key: Any) -> None:
    del values[key]


def _sorted_in_place(values: list[Any], reverse: bool = False) -> None:
    values.sort(reverse=reverse)


def _warned(message: str, _level: int = 2) -> None:
    warn(message)


def _range_length(low: Any, high: Any, step: Any) -> Any:
    if step > 0:
        return torch.sym_max((high - low + step - 1) // step, 0)
    return torch.sym_max((low - high - step - 1) // -step, 0)


def _tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


def _as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    return torch.as_tensor(data, dtype=dtype, device=device)


def _to(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
    """The overloads without kernels: the device, the dtype (a number) and two flags, of which any may be missing."""
    for arg in args:
        if isinstance(arg, (torch.device, str)):
            tensor = tensor.to(arg)
        elif isinstance(arg, int) and not isinstance(arg, bool):
            tensor = tensor.to(DTYPE_OF[arg])
    return tensor


OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in (
       "add", "sub", "mul", "neg", "eq", "ne", "lt", "le", "gt", "ge", "pow")},
    **{f"__{name}__": getattr(operator, f"__{name}__") for name in ("and", "or", "xor", "lshift", "rshift", "getitem")},
    **{name: _of_math(name) for name in ("floor", "ceil", "sqrt", "log", "log2", "log10", "log1p", "exp", "sin", "cos",
       "tan", "atan", "tanh", "atan2", "fmod", "gcd", "factorial", "isnan", "isinf", "isfinite", "copysign")},
    "add_": operator.iadd,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "remainder": operator.mod,
    "divmod": lambda a, b: (a // b, a % b),
    "round": lambda value, digits=None: round(value) if digits is None else round(value, digits),
    "__not__": _invert,
    "__is__": operator.is_,
    "__isnot__": operator.is_not,
    "__contains__": lambda values, value: value in values,
    "Int": whole,
    "IntImplicit": whole,
    "Float": real,
    "FloatImplicit": real,
    "ScalarImplicit": lambda value: value.item() if isinstance(value, torch.Tensor) else value,
    "Bool": bool,
    "Complex": complex,
    "str": str,
    "ord": ord,
    "chr": chr,
    "format": lambda text, *values: text.format(*values),
    **{name: (lambda text, *args, name=name: getattr(text, name)(*args)) for name in (
       "upper", "lower", "strip", "lstrip", "rstrip", "startswith", "endswith", "split", "join", "replace", "find",
       "index", "count", "get", "setdefault", "update", "extend", "clear", "reverse",
       "pop", "remove", "popitem")},
    **{name: (lambda values, name=name: list(getattr(values, name)())) for name in ("keys", "values", "items")},
    "to": _to,
    "len": len,
    "list": list,
    "copy": lambda values: values.copy(),
    "slice": _sliced,
    "append": _appended,
    "insert": _inserted,
    "_set_item": operator.setitem,
    "Delete": _removed,
    "sort": _sorted_in_place,
    "sorted": sorted,
    "dict": dict,
    "any": any,
    "all": all,
    "abs": abs,
    "warn": _warned,
    "tensor": _tensor,
    "as_tensor": _as_tensor,
    "__derive_index": lambda index, start, step: start + index * step,
    "__range_length": _range_length,
    "sum": sum,
    "is_scripting": lambda: True,
    "is_autocast_enabled": torch.is_autocast_enabled,
    "is_grad_enabled": lambda: True,  # layers take a fused operator where gradients are off
    "set_grad_enabled": lambda _enabled: None,
    # tensors, whose kernels would give numbers for sizes
    "size": lambda tensor, *dim: tensor.shape[dim[0]] if dim else list(tensor.shape),
    "sym_size": lambda tensor, *dim: tensor.shape[dim[0]] if dim else list(tensor.shape),
    "stride": lambda tensor, *dim: tensor.stride(*dim) if dim else list(tensor.stride()),
    "numel": torch.Tensor.numel,
    "dim": torch.Tensor.dim,
    "item": torch.Tensor.item,
    "storage_offset": torch.Tensor.storage_offset,
    "prim::min": _extreme(torch.sym_min),
    "prim::max": _extreme(torch.sym_max),
    "prim::abs": abs,
    "prim::shape": lambda tensor: list(tensor.shape),
    "prim::device": lambda tensor: tensor.device,
    "prim::layout": lambda tensor: tensor.layout,
    "prim::data": torch.Tensor.detach,
    "prim::is_cuda": lambda tensor: tensor.is_cuda,
    "prim::is_cpu": lambda tensor: tensor.device.type == "cpu",
    "prim::is_quantized": lambda tensor: tensor.is_quantized,
    "prim::is_sparse": lambda tensor: tensor.is_sparse,
    "prim::is_mkldnn": lambda tensor: tensor.is_mkldnn,
    "prim::is_meta": lambda tensor: tensor.is_meta,
    "prim::is_nested": lambda tensor: tensor.is_nested,
    "prim::requires_grad": lambda tensor: tensor.requires_grad,
    "prim::type": lambda device: device.type,
    "prim::index": lambda device: device.index,
    "prim::Print": lambda *_: None,
    "prim::rangelist": lambda count: list(range(count)),
    "prim::StringIndex": operator.getitem,
    "prim::tolist": lambda tensor, *_: tensor.tolist(),
    "prim::unchecked_unwrap_optional": lambda value: value,
    "prim::unchecked_cast": lambda value: value,
}  # fmt: skip


class Number:
    """A 0-d tensor that a trace made of a size (``prim::NumToTensor``), as the number: it stays symbolic."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tensor(self) -> torch.Tensor:
        """As a tensor, for operators that need one."""
        return torch.tensor(self.value)


def _scaled(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda first, second, alpha=1: function(first, second * alpha if alpha != 1 else second)


def _quotient(first: Any, second: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return first / second
    return first // second if rounding_mode == "floor" else whole(first / second)


#: What these numbers stay numbers in.
ON_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": _scaled(operator.add),
    "sub": _scaled(operator.sub),
    "rsub": lambda first, second, alpha=1: second - first * alpha,
    "mul": operator.mul,
    "div": _quotient,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "neg": operator.neg,
    "detach": lambda value: value,
    "clone": lambda value, **_: value,
}
