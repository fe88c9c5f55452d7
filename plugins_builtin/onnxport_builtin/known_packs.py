"""Packs that serve the operators of other libraries."""

from __future__ import annotations

import importlib_metadata

PACKS_GROUP = "onnxport.packs"
"""Entry points by which any distribution tells which pack serves an operator namespace: the name is the namespace, the
value the pack's distribution."""

_KNOWN_PACKS = {"torchvision": "onnxport-torchvision"}


def advertised(namespace: str) -> str:
    """The distribution of the pack that serves an operator namespace; empty where none is known."""
    named = {entry.name: entry.value for entry in importlib_metadata.entry_points(group=PACKS_GROUP)}
    return {**_KNOWN_PACKS, **named}.get(namespace, "")
