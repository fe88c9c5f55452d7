"""Names that a module loads when they are first asked for.

A stub beside the module, which type checkers read, is the one list of its names: ``from home import name as name``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

_IMPORT = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def attached(file: str) -> tuple[list[str], Callable[[str], Any]]:
    """The ``__all__`` and ``__getattr__`` of a module with a stub. ``dir`` of the module lists these names alone.

    Args:
        file: the module's ``__file__``.
    """
    path = os.path.relpath(os.path.splitext(file)[0], os.path.dirname(__file__))
    module = path.replace(os.sep, ".")
    homes = homes_in(module)
    full = "onnxport" if module == "__init__" else f"onnxport.{module}"
    own = vars(sys.modules[full])
    own["__dir__"] = lambda: sorted({*homes, *(name for name in own if name.startswith("__"))})

    def get(name: str) -> Any:
        return loaded(full, name, homes)

    return sorted(homes), get


def homes_in(module: str) -> dict[str, str]:
    """The module that has each name, as a module's stub lists them."""
    stub = pkgutil.get_data("onnxport", f"{module.replace('.', '/')}.pyi") or b""
    return {name: home for home, name in _IMPORT.findall(stub.decode())}


def loaded(module: str, name: str, known: Mapping[str, str]) -> Any:
    """The value of a name, which may be a module; the module keeps it.

    Raises:
        AttributeError: the module has no such name.
    """
    home = known.get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name, None)
    value = importlib.import_module(f"{home}.{name}") if value is None else value
    setattr(sys.modules[module], name, value)
    return value
