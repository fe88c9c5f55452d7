"""``as_torch_onnx()``: code that calls torch's exporter gets this one, unchanged."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from onnxport.export import export
from onnxport.program import ONNXProgram

_NAME = "export"
_patching = threading.RLock()
_active = 0
_undo: Callable[[], None] = lambda: None  # noqa: E731


@contextlib.contextmanager
def as_torch_onnx() -> Iterator[None]:
    """Let ``torch.onnx.export(..., dynamo=True)`` mean :func:`onnxport.export`, for tools that call it.

    It doesn't matter whether a tool imported the function before or after. What it returns is an
    :class:`onnxport.ONNXProgram` that is an instance of ``torch.onnx.ONNXProgram`` too; errors are instances of
    ``torch.onnx.OnnxExporterError`` in any case. ``dynamo=False`` is an :class:`onnxport.InputError`.

    Can be nested, and used as a decorator. Everything is as before at the end, after exceptions too.

    Note:
        torch has one ``export`` for the whole process: while any thread is inside, all threads get onnxport's.
    """
    global _active, _undo
    with _patching:
        _active += 1
        if _active == 1:
            _undo = _replace()
    try:
        yield
    finally:
        with _patching:
            _active -= 1
            if _active == 0:
                _undo()


def _replace() -> Callable[[], None]:
    """Replace torch's function; returns what takes that back.

    A plain function gets other code, so that those who imported it have the replacement too. One that somebody
    wrapped already is replaced in its module.
    """
    original: Any = getattr(torch.onnx, _NAME)
    if not isinstance(original, types.FunctionType) or original.__closure__:
        setattr(torch.onnx, _NAME, _export)
        return lambda: setattr(torch.onnx, _NAME, original)
    code, attributes = original.__code__, dict(vars(original))
    vars(original)["__signature__"] = inspect.signature(original)
    original.__code__ = _forward.__code__

    def undo() -> None:
        original.__code__ = code
        vars(original).clear()
        vars(original).update(attributes)

    return undo


def _forward(*args: Any, **kwargs: Any) -> Any:
    """The code that torch's function gets: it runs among torch's globals."""
    from onnxport.torch_onnx import _export

    return _export(*args, **kwargs)


def _export(*args: Any, **kwargs: Any) -> ONNXProgram:
    program = export(*args, **kwargs)
    program.__class__ = _program_of_both()
    return program


@functools.cache
def _program_of_both() -> type[ONNXProgram]:
    """onnxport's program, for tools that test for torch's class."""
    bases = (ONNXProgram, torch.onnx.ONNXProgram)
    return type("ONNXProgram", bases, {"__module__": ONNXProgram.__module__, "__doc__": ONNXProgram.__doc__})


__all__ = ["as_torch_onnx"]
