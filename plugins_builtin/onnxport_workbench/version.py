"""The version of onnxport that is installed."""

from __future__ import annotations

import importlib_metadata

try:
    __version__: str = importlib_metadata.version("onnxport")
except importlib_metadata.PackageNotFoundError:  # a checkout on the path that isn't installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
