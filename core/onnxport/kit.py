"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` and :mod:`onnxport.authoring`. ``kit.pyi`` has the names and their homes;
they are loaded when they are first asked for.
"""

from __future__ import annotations

from onnxport.lazy import attached as _attached

__all__, __getattr__ = _attached(__file__)
