"""Small models that each show one structure where exporters fail or lie; one file a subject.

Importing this package fills ``STRUCTURES``. A model that torch.export can't capture, or that is refused, is here too:
with the message that the user reads.
"""

from __future__ import annotations

import importlib
import pkgutil

from models.structures.structure import STRUCTURES, Structure

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("test_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["STRUCTURES", "Structure"]
