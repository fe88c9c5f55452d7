"""Names of torch that are private or may change, used by the core: here alone, each with what stands on it.

``tests/test_private_names.py`` is their canary, and holds that no other file of the core has one.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree  # structures of arguments and results; torch.export stands on it too
from torch._C import _functorch
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

if TYPE_CHECKING:
    from torch.utils._sympy.functions import CeilDiv, CleanDiv, FloorDiv, Mod, PythonMod

#: Names whose modules import sympy, which takes as long as a small export: they are loaded when they are asked for.
_LATER = {
    "torch.utils._sympy.functions": {"CeilDiv", "CleanDiv", "FloorDiv", "Mod", "PythonMod"},
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            globals()[name] = value = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Operators ------------------------------------------------------------------------------------------------------------


def overload_of(target: OpOverload) -> str:
    """The name of an overload; ``default`` for the one without."""
    return target._overloadname


def schema_of(target: OpOverload) -> torch.FunctionSchema:
    """The names, types and aliases of an operator's arguments and results."""
    return target._schema


# Tensors and modules --------------------------------------------------------------------------------------------------


def storage_key(storage: Any) -> int:
    """What identifies a storage, a fake one included."""
    return storage._cdata  # type: ignore[no-any-return]


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor belongs to a transform of torch.func."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def uncompiled(model: Any) -> Any:
    """The module behind ``torch.compile``, whose forward takes ``*args``; any other as it is."""
    return getattr(model, "_orig_mod", model)


# Captures -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """A caller's autocast casts nothing meanwhile."""
    with torch._C._DisableAutocast():
        yield


__all__ = [
    "CeilDiv", "CleanDiv", "FakeTensor", "FloorDiv",
    "HigherOrderOperator", "Mod", "OpOverload", "OpOverloadPacket", "PythonMod",
    "pytree", "unset_fake_temporarily",
]  # fmt: skip
