"""Names of torch that are private or may change, and that captures stand on: each with what stands on it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.fx.experimental._config as shape_config
from onnxport.kit import Replacement
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.modules.dropout import _DropoutNd as Dropout
from torch.nn.modules.module import _global_buffer_registration_hooks
from torch.utils._device import _device_constructors
from torch.utils._sympy.printers import PythonPrinter


def is_view(tensor: torch.Tensor) -> bool:
    """Whether autograd keeps a tensor as a view of another."""
    return tensor._is_view()


def oblivious_sizes() -> Any:
    """A context in which example sizes of 0 and 1 are no constants."""
    return shape_config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


def of_symbols(set_replacement: Callable[[Any], Any], location: Callable[[Any], Any]) -> list[Replacement]:
    """Replacements of what torch calls when a symbol turns out to be something else, and where a condition arises."""
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


__all__ = ["BatchNorm", "Dropout", "GuardOnDataDependentSymNode", "PythonPrinter", "contained", "is_view",
           "oblivious_sizes", "of_symbols", "remember_functions"]  # fmt: skip
