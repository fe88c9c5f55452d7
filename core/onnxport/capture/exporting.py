"""Whether a capture is going on, for onnxport and for torch.onnx."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

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
