"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` itself.
"""

from __future__ import annotations

from onnxport.capture.exporting import contained
from onnxport.functional.program import FunctionalProgram, Mutation, UserOutput
from onnxport.vocabulary.provenance import source_line
from onnxport.vocabulary.storage import Written, is_same_size, may_overlap, mutated, storage_of

__all__ = [
    "FunctionalProgram",
    "Mutation",
    "UserOutput",
    "Written",
    "contained",
    "is_same_size",
    "may_overlap",
    "mutated",
    "source_line",
    "storage_of",
]
