"""Whether a capture is going on, for onnxport and for torch.onnx."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.nn.modules.module import _global_buffer_registration_hooks

#: Held while torch traces: it patches its globals meanwhile, and two threads would see each other's.
TRACING = threading.RLock()

_exporting: contextvars.ContextVar[bool] = contextvars.ContextVar("onnxport_exporting", default=False)


def is_in_onnx_export() -> bool:
    """Whether this thread is capturing a model for onnxport."""
    return _exporting.get()


_patching = threading.RLock()
_active = 0
_original: Callable[[], bool] = torch.onnx.is_in_onnx_export
_patched: Any = None


def _answer() -> bool:
    return _exporting.get() or _original()


def _answer_of_torch() -> bool:
    from onnxport.capture.exporting import _answer

    return _answer()


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Let ``torch.onnx.is_in_onnx_export()`` be true in this thread, since models ask it.

    There is no public way to set it. The function is replaced in ``torch.onnx`` (which strict captures see) and, for
    those who imported it from there before, given other code; both as long as any thread captures.
    """
    global _active, _original, _patched
    with _patching:
        _active += 1
        if _active == 1:
            _patched = torch.onnx.is_in_onnx_export
            if isinstance(_patched, types.FunctionType):
                _original = types.FunctionType(_patched.__code__, _patched.__globals__)
                _patched.__code__ = _answer_of_torch.__code__
            else:
                _original = _patched
            torch.onnx.is_in_onnx_export = _answer
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)
        with _patching:
            _active -= 1
            if _active == 0:
                if isinstance(_patched, types.FunctionType):
                    _patched.__code__ = _original.__code__
                torch.onnx.is_in_onnx_export = _patched


@contextmanager
def contained() -> Iterator[None]:
    """Leaves no transform behind that an error has interrupted: torch 2.14 does, and then every later call is wrong.

    Nor a hook on the registration of buffers, which torch 2.11 leaves. Captures take turns.
    """
    depth, level = _functorch.get_dynamic_layer_stack_depth(), forward_ad._current_level
    autograd: Any = torch._C._autograd
    hooks_allowed = autograd._saved_tensors_hooks_is_enabled()  # gradients of torch.func forbid them meanwhile
    hooks = _global_buffer_registration_hooks
    kept = hooks.copy()
    try:
        yield
    finally:
        if _functorch.get_dynamic_layer_stack_depth() > depth:
            _functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)
        while forward_ad._current_level > level:
            forward_ad.exit_dual_level()
        with suppress(RuntimeError):  # there is none: a strict capture may leave one that Python's counter misses
            torch._C._exit_dual_level(level + 1)
        for left in hooks.keys() - kept.keys():
            del hooks[left]
        if hooks_allowed:
            autograd._saved_tensors_hooks_enable()
