"""Names of torch that are private or may change, used by the core: here alone, each with what stands on it.

``tests/test_private_names.py`` is their canary, and holds that no other file of the core has one.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.fx.experimental._config as shape_config
import torch.utils._pytree as pytree  # structures of arguments and results; torch.export stands on it too
from torch._C import _functorch
from torch._decomp import decomposition_table
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout
from torch.nn.modules.module import _global_buffer_registration_hooks
from torch.utils._device import _device_constructors

from onnxport.vocabulary.patching import Replacement

if TYPE_CHECKING:
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
    from torch.utils._sympy.functions import CeilDiv, CleanDiv, FloorDiv, Mod, PythonMod
    from torch.utils._sympy.printers import PythonPrinter

#: Names whose modules import sympy, which takes as long as a small export: they are loaded when they are asked for.
_LATER = {
    "torch.fx.experimental.symbolic_shapes": {"GuardOnDataDependentSymNode"},
    "torch.utils._sympy.functions": {"CeilDiv", "CleanDiv", "FloorDiv", "Mod", "PythonMod"},
    "torch.utils._sympy.printers": {"PythonPrinter"},
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


def can_decompose(target: OpOverload) -> bool:
    """Whether an operator is made of others by a kernel of its own."""
    return target._can_decompose()


def schema_of(target: OpOverload) -> torch.FunctionSchema:
    """The names, types and aliases of an operator's arguments and results."""
    return target._schema


def has_kernel(name: str) -> bool:
    """Whether an operator of that qualified name is defined."""
    return torch._C._dispatch_has_kernel(name)


def operator_names() -> list[str]:
    """The qualified names of all operators that are defined."""
    return torch._C._dispatch_get_all_op_names()


def higher_order_names() -> set[str]:
    """The names of the higher-order operators that are loaded."""
    return set(torch._ops._higher_order_ops)


# Tensors and modules --------------------------------------------------------------------------------------------------


def storage_key(storage: Any) -> int:
    """What identifies a storage, a fake one included."""
    return storage._cdata  # type: ignore[no-any-return]


def is_view(tensor: torch.Tensor) -> bool:
    """Whether autograd keeps a tensor as a view of another."""
    return tensor._is_view()


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


def oblivious_sizes() -> Any:
    """A context in which example sizes of 0 and 1 are no constants."""
    return shape_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


def of_symbols(set_replacement: Callable[[Any], Any], location: Callable[[Any], Any]) -> list[Replacement]:
    """Replacements of what torch calls when a symbol turns out to be something else, and where a condition arises."""
    from torch.fx.experimental import symbolic_shapes

    changes = []
    if hasattr(symbolic_shapes.ShapeEnv, "_set_replacement"):
        changes.append(Replacement(symbolic_shapes.ShapeEnv, "_set_replacement", set_replacement))
    if hasattr(symbolic_shapes, "SLoc"):
        changes.append(Replacement(symbolic_shapes, "SLoc", location))
    return changes


def remember_functions() -> None:
    """Fill what keeps functions of torch by identity, for the whole process: it has to see them unreplaced.

    Strict captures, ``with torch.device(...)`` and ``torch.overrides`` do.
    """
    importlib.import_module("torch._dynamo")
    _device_constructors()
    torch.overrides.get_overridable_functions()


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Leaves no transform behind that an error has interrupted: torch 2.14 does, and then every later call is wrong.

    Nor a hook on the registration of buffers, which torch 2.11 leaves. Captures take turns.
    """
    depth, level = _functorch.get_dynamic_layer_stack_depth(), forward_ad._current_level
    autograd: Any = torch._C._autograd
    hooks_allowed = autograd._saved_tensors_hooks_is_enabled()  # gradients of torch.func forbid them meanwhile
    hooks = _global_buffer_registration_hooks
    before = hooks.copy()
    try:
        yield
    finally:
        if _functorch.get_dynamic_layer_stack_depth() > depth:
            _functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)
        while forward_ad._current_level > level:
            forward_ad.exit_dual_level()
        with contextlib.suppress(RuntimeError):  # none: a strict capture may leave one that Python's counter misses
            torch._C._exit_dual_level(level + 1)
        for left in hooks.keys() - before.keys():
            del hooks[left]
        if hooks_allowed:
            autograd._saved_tensors_hooks_enable()


__all__ = [
    "BatchNorm", "CeilDiv", "CleanDiv", "Dropout", "FakeTensor", "FakeTensorMode", "FloorDiv",
    "GuardOnDataDependentSymNode", "HigherOrderOperator", "Mod", "OpOverload", "OpOverloadPacket", "PythonMod",
    "PythonPrinter", "decomposition_table", "make_fx", "pytree", "unset_fake_temporarily",
]  # fmt: skip
