"""Whether a capture is going on: models ask torch.onnx.is_in_onnx_export()."""

from __future__ import annotations

import contextlib
import contextvars
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement, all_applied

_exporting: contextvars.ContextVar[bool] = contextvars.ContextVar("onnxport_exporting", default=False)


def is_in_onnx_export() -> bool:
    """Whether this thread is capturing a model for onnxport."""
    return _exporting.get()


_original: Callable[[], bool] = torch.onnx.is_in_onnx_export


def _answer() -> bool:
    return _exporting.get() or _original()


def _answer_of_torch() -> bool:
    from onnxport_builtin.capture.exporting import _answer

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
