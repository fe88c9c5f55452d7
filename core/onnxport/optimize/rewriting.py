"""What passes may import: small steps that they are made of, such as ``all_nodes``, ``forward`` and ``constant``.

``rewriting.pyi`` has the names and their homes, which belong to the built-in passes; they are loaded when they are
first asked for.
"""

from __future__ import annotations

from onnxport.lazy import attached as _attached

__all__, __getattr__ = _attached(__file__)
