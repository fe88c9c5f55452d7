"""What forward calls in a non-strict capture, where sizes are ``torch.SymInt`` and torch's functions see them.

torch.export hands each call of a torch function to a handler while it traces so. The handler sees a call however the
model imported the function, and strict captures don't pass it. Names that no handler sees (classes, functions of
Python) are replaced for as long as such a trace lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch.export._trace as tracing
from onnxport.kit import Replacement, all_applied
from torch._export import non_strict_utils

#: A torch function -> what is called in its place, or None where the function takes these arguments itself.
Calls = Mapping[Any, Callable[..., Callable[[], Any] | None]]


def calls(table: Calls) -> Iterator[Replacement]:
    """The replacement that hands a trace's calls of these functions to others."""
    handler = getattr(non_strict_utils, "_NonStrictTorchFunctionHandler", None)
    if not hasattr(handler, "_override"):
        return

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def override(self: Any, func: Any, args: Any, kwargs: Any) -> Any:
            choose = table.get(func)
            chosen = None if choose is None else choose(*args, **kwargs)
            return original(self, func, args, kwargs) if chosen is None else (chosen, (), {})

        return override

    yield Replacement(handler, "_override", wrap)


def while_traced(replaced: Callable[[], Iterable[Replacement]]) -> Iterator[Replacement]:
    """The replacement that makes others for as long as a trace lasts."""
    if not hasattr(tracing, "_override_builtin_ops"):
        return

    def wrap(original: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
        @contextlib.contextmanager
        def overriding() -> Iterator[None]:
            with original(), all_applied(replaced()):
                yield

        return overriding

    yield Replacement(tracing, "_override_builtin_ops", wrap)
