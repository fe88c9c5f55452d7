"""onnxport exports PyTorch models to ONNX; every operator is served by a plugin.

Users call :func:`export`, :func:`check` and :func:`verify`; authors of op packs use :func:`translation`,
:class:`Unsupported` and the hooks of :data:`hookimpl`. ``__init__.pyi`` has the names and their homes; they are loaded
when they are first asked for, so that importing the package costs little more than importing torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from onnxport.lazy import attached as _attached

__all__, __getattr__ = _attached(__file__)


class _Package(ModuleType):
    """Keeps ``onnxport.export`` and ``onnxport.verify`` the functions, though modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
