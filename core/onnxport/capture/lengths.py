"""``len(tensor)`` in a non-strict capture, where Python's own makes a dynamic size a number."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

_PYTHON = {*sys.builtin_module_names, *sys.stdlib_module_names} - {"__main__"}


def _length(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and type(value).__len__ is torch.Tensor.__len__ and value.dim():
        return value.shape[0]
    return len(value)


@contextlib.contextmanager
def symbolic_lengths(model: torch.nn.Module) -> Iterator[None]:
    """``len(tensor)`` is the tensor's first size in the packages that the model's classes come from.

    ``len`` returns a Python int whatever ``Tensor.__len__`` gives, so those packages get a ``len`` of their own.
    """
    classes = {cls.__module__.partition(".")[0] for module in model.modules() for cls in type(module).__mro__}
    packages = classes - _PYTHON - {"torch"}
    spaces = [vars(module) for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    changed = [space for space in spaces if "len" not in space and "__builtins__" in space]
    for space in changed:
        space["len"] = _length
    try:
        yield
    finally:
        for space in changed:
            space.pop("len", None)
