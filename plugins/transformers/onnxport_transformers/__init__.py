"""Models of transformers: from a folder to a package that generates."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from onnxport import hookimpl

_HOMES = {
    "Generation": "generation",
    "Package": "package",
    "export_folder": "package",
    "export_model": "package",
}
"""Public names, and the files that they are in: transformers is imported when one is first asked for."""

__all__ = ["Generation", "Package", "export_folder", "export_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@hookimpl
def onnxport_commands(app: Any) -> None:
    """``onnxport transformers FOLDER -o OUT``."""
    from onnxport_transformers import commands

    commands.add(app)


@hookimpl
def onnxport_patches(model: Any) -> Iterable[Any]:
    """Recurrences are one scan, whatever the length; towers take any number of images of any size."""
    if "transformers" not in sys.modules:
        return []
    from onnxport_transformers import recurrences, towers

    return [*recurrences.replacements(model), *towers.patches(model)]
