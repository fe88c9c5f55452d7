"""The origin of a call of a function that stands for a module, as strings in the model file."""

from __future__ import annotations

from typing import Any

import torch.fx
from onnxport.kit import keys, provenance


def call_properties(
    node: torch.fx.Node | None, origin: Any, level: str, root: str | None = None, *, module: str
) -> dict[str, str]:
    """The metadata of the call of a function that stands for a module: that of the module's own call.

    Args:
        node: an FX node of the call.
        origin: not used: no translation emitted the call.
        level: how much is written.
        root: the module whose function holds the call.
        module: the module's path.
    """
    if node is None or level == "none":
        return {}
    inner = provenance.relative_path(module, root)
    below = provenance.stack_below(node, root)
    stack = [(path, name) for path, name in below if f"{inner}.".startswith(f"{path}." if path else "")]
    return {
        "namespace": "/".join(f"{path}: {name}" if path else name for path, name in stack),
        keys.CLASSES: repr([name for _, name in stack]),
        keys.SCOPES: repr([path for path, _ in stack]),
    }
