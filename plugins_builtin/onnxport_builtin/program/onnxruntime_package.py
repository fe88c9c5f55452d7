"""onnxruntime, imported when it is first needed: exports, files and pages do without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onnxport import OnnxExporterError

if TYPE_CHECKING:
    import onnxruntime as ort


class MissingRuntimeError(OnnxExporterError, ImportError):
    """onnxruntime, which runs and verifies models, can't be imported."""


class _Onnxruntime:
    """Has the names of the package."""

    def __getattr__(self, name: str) -> Any:
        try:
            package = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingRuntimeError(
                f"Models run on onnxruntime, which can't be imported: {error}. Install it: pip install onnxruntime, or "
                "pip install onnxruntime-gpu for CUDA."
            ) from error
        return getattr(package, name)


if not TYPE_CHECKING:
    ort = _Onnxruntime()

__all__ = ["MissingRuntimeError", "ort"]
