"""The built-in operators: a plugin like any other.

Every module of this package, and of ``aten``, is a family of operators; a family is imported when a model first has
one of its operators.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module

from onnxport import Translation, hookimpl


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of all families."""
    records: list[Translation] = import_module(f"{__name__}.families").translations()
    return records


@hookimpl
def onnxport_patches() -> list[AbstractContextManager[None]]:
    """Recurrent networks keep a dynamic time axis."""
    return [import_module(f"{__name__}.recurrent_capture").recurrent_shapes()]
