"""What translations may import: small steps that they are made of, such as ``expand``, ``iota`` and ``choose``.

``authoring.pyi`` has the names and their homes, which belong to the built-in operators; they are loaded when they are
first asked for.
"""

from __future__ import annotations

from onnxport.lazy import attached as _attached

__all__, __getattr__ = _attached(__file__)
