"""Names that a module loads when they are first asked for.

A stub beside the module, which type checkers read, is the one list of its names: ``from home import name as name``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

_IMPORT = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def homes(file: str) -> dict[str, str]:
    """The module that has each name, as the stub beside a module's file lists them."""
    stub = pkgutil.get_data("onnxport", f"{os.path.splitext(os.path.basename(file))[0]}.pyi") or b""
    return {name: home for home, name in _IMPORT.findall(stub.decode())}


def loaded(module: str, name: str, known: Mapping[str, str]) -> Any:
    """The value of a name, which may be a module.

    Raises:
        AttributeError: the module has no such name.
    """
    home = known.get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name, None)
    return importlib.import_module(f"{home}.{name}") if value is None else value
