"""What translations may import: small steps that they are made of, such as ``expand``, ``iota`` and ``choose``.

``authoring.pyi`` has the names and their homes, which belong to the built-in operators; they are loaded when they are
first asked for.
"""

from __future__ import annotations

from typing import Any

from onnxport.lazy import homes, loaded

_HOMES = homes(__file__)
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    globals()[name] = value = loaded(__name__, name, _HOMES)
    return value
