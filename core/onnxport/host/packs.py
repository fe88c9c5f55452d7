"""What installed distributions and the environment tell about packs, without any being imported."""

from __future__ import annotations

import functools
import os

import importlib_metadata

ENVIRONMENT_VARIABLE = "ONNXPORT_PLUGINS"


@functools.cache
def version_of(distribution: str) -> str:
    """The version of a distribution; empty for a checkout that isn't installed."""
    try:
        return importlib_metadata.version(distribution)
    except importlib_metadata.PackageNotFoundError:
        return ""


@functools.cache
def environment_choice() -> tuple[str, ...] | None:
    """Plugin names of the environment variable; ``None`` when it isn't set. Read once per process."""
    text = os.environ.get(ENVIRONMENT_VARIABLE)
    if text is None:
        return None
    return tuple(name for part in text.strip().strip("()").split(",") if (name := part.strip()))
