"""What installed distributions and the environment tell about packs, without any being imported."""

from __future__ import annotations

import functools
import os

import importlib_metadata

ENVIRONMENT_VARIABLE = "ONNXPORT_PLUGINS"
PACKS_GROUP = "onnxport.packs"
"""Entry points by which any distribution tells which pack serves an operator namespace: the name is the namespace, the
value the pack's distribution."""

_KNOWN_PACKS = {"torchvision": "onnxport-torchvision"}


def advertised(namespace: str) -> str:
    """The distribution of the pack that serves an operator namespace; empty where none is known."""
    named = {entry.name: entry.value for entry in importlib_metadata.entry_points(group=PACKS_GROUP)}
    return {**_KNOWN_PACKS, **named}.get(namespace, "")


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
