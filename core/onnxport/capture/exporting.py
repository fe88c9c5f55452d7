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
import torch._dynamo  # keeps the answer of is_in_onnx_export by function: it has to see torch's own first
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.nn.modules.module import _global_buffer_registration_hooks

from onnxport.vocabulary.patching import Replacement, all_applied

#: Held while torch traces: it patches its globals meanwhile, and two threads would see each other's.
TRACING = threading.RLock()

_exporting: contextvars.ContextVar[bool] = contextvars.ContextVar("onnxport_exporting", default=False)


def is_in_onnx_export() -> bool:
    """Whether this thread is capturing a model for onnxport."""
    return _exporting.get()


_original: Callable[[], bool] = torch.onnx.is_in_onnx_export


def _answer() -> bool:
    return _exporting.get() or _original()


def _answer_of_torch() -> bool:
    from onnxport.capture.exporting import _answer

    return _answer()


def _answering(original: Callable[[], bool]) -> Callable[[], bool]:
    global _original
    is_written = isinstance(original, types.FunctionType)
    _original = types.FunctionType(original.__code__, original.__globals__) if is_written else original  # type: ignore[attr-defined]
    return _answer


def _coded_anew(_code: Any) -> types.CodeType:
    return _answer_of_torch.__code__


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Let ``torch.onnx.is_in_onnx_export()`` be true in this thread, since models ask it.

    There is no public way to set it. The function is replaced in ``torch.onnx`` (which strict captures see) and, for
    those who imported it from there before, given other code; both as long as any thread captures.
    """
    function = torch.onnx.is_in_onnx_export
    changes = [Replacement(torch.onnx, "is_in_onnx_export", _answering)]
    if isinstance(function, types.FunctionType) and function is not _answer:
        changes.append(Replacement(function, "__code__", _coded_anew))
    token = _exporting.set(True)
    try:
        with all_applied(changes):
            yield
    finally:
        _exporting.reset(token)


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
