"""Warnings that point at the line of the caller, however deep inside they arise."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import runpy
import sys
import warnings
from types import FrameType

import pluggy
import torch

from onnxport.text import plain
from onnxport.vocabulary.checks import wrong
from onnxport.vocabulary.packages import BUILTIN_PACKAGE, STAGE_PACKAGES

_PACKAGE = os.path.dirname(__file__)
_STAGES = [spec.origin for name in STAGE_PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin]
_FOLDERS = tuple(
    os.path.join(os.path.dirname(file), "") for file in (_PACKAGE, torch.__file__, pluggy.__file__, *_STAGES)
)
_FILES = frozenset(str(module.__file__) for module in (contextlib, functools, runpy))
_PACKAGES = frozenset({BUILTIN_PACKAGE, *STAGE_PACKAGES, "click", "typer"})


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, with the file and line of whoever called onnxport.

    What lies between is passed over: this package, its built-in plugins, torch, which calls hooks and contexts, and the
    decorators of the standard library. A stack level counted by hand would change with each function in between.

    Args:
        message: what to tell, and what to do about it.
        category: its class; a ``DeprecationWarning`` is shown by default where the caller is ``__main__``.
    """
    message = plain(message)
    if not (isinstance(category, type) and issubclass(category, Warning)):
        raise wrong("category", category, "a class of warnings")
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _passed_over(frame):
        frame = frame.f_back
    if frame is None:  # the command line: nobody's line
        warnings.warn_explicit(message, category, "onnxport", 1, module="onnxport")
        return
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        message, category, frame.f_code.co_filename, frame.f_lineno, names.get("__name__") or "<string>", registry
    )


def _passed_over(frame: FrameType) -> bool:
    """Whether a frame belongs to onnxport, its plugins or torch. Code that replaces torch's has torch's globals."""
    file = frame.f_code.co_filename
    if file.startswith(("<frozen ", *_FOLDERS)) or file in _FILES:
        return True
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _PACKAGES
