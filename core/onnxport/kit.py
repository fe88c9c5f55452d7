"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` and :mod:`onnxport.authoring`. ``kit.pyi`` has the names and their homes;
they are loaded when they are first asked for.
"""

from __future__ import annotations

from typing import Any

from onnxport.lazy import homes, loaded

_HOMES = homes(__file__)
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    globals()[name] = value = loaded(__name__, name, _HOMES)
    return value
