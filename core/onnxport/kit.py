"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` itself.
"""

from __future__ import annotations

from onnxport.capture.exporting import contained
from onnxport.emit.components import components
from onnxport.emit.fingerprints import Structure, Template, content, small_constant
from onnxport.emit.local_functions import Call, define
from onnxport.emit.scopes import graphs_of, nodes_of
from onnxport.emit.tensor import Node
from onnxport.emit.weights import TorchTensor
from onnxport.functional.program import FunctionalProgram, Mutation, UserOutput
from onnxport.translate.model import FunctionUse, MakeWalker, Walk, Walker
from onnxport.vocabulary import provenance
from onnxport.vocabulary.dtypes import SYMBOLIC
from onnxport.vocabulary.provenance import source_line
from onnxport.vocabulary.storage import Written, is_same_size, may_overlap, mutated, storage_of

__all__ = [
    "SYMBOLIC",
    "Call",
    "FunctionUse",
    "FunctionalProgram",
    "MakeWalker",
    "Mutation",
    "Node",
    "Structure",
    "Template",
    "TorchTensor",
    "UserOutput",
    "Walk",
    "Walker",
    "Written",
    "components",
    "contained",
    "content",
    "define",
    "graphs_of",
    "is_same_size",
    "may_overlap",
    "mutated",
    "nodes_of",
    "provenance",
    "small_constant",
    "source_line",
    "storage_of",
]
