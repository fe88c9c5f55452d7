"""For tests of translations and packs: comparison with eager torch, which translation served, refusals, goldens.

``testing.pyi`` has the names and their homes; they are loaded when they are first asked for.
"""

from __future__ import annotations

from onnxport.lazy import attached as _attached

__all__, __getattr__ = _attached(__file__)
