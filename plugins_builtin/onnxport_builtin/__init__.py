"""The built-in operators: a plugin like any other.

Every module of this package, and of ``aten``, is a family of operators; they are imported when
the plugin's translations are first asked for.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType

from onnxport import Translation, collect, hookimpl

logger = logging.getLogger(__name__)


def families() -> Iterator[str]:
    """Names of the modules that hold translations."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        if not module.ispkg:
            yield module.name


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of all families.

    A family that fails to import, as one may with a torch that is newer than it, is logged as an error and left out:
    exports that don't need it go on, as they do when a third party's plugin fails.
    """
    modules: list[ModuleType] = []
    for name in families():
        try:
            modules.append(import_module(name))
        except Exception:
            logger.exception("the built-in operators of %s are missing", name)
    return collect(*modules)


@hookimpl
def onnxport_patches() -> list[AbstractContextManager[None]]:
    """Recurrent networks keep a dynamic time axis."""
    return [import_module(f"{__name__}.recurrent_capture").recurrent_shapes()]
