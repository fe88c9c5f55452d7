"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` itself.
"""

from __future__ import annotations

from onnxport.capture.arguments import prepare
from onnxport.capture.below_autograd import needs_gradients
from onnxport.capture.call import call_of, flatten_arguments, placeholder_values
from onnxport.capture.dynamic_shapes import asked_for, torch_shapes
from onnxport.capture.exporting import contained
from onnxport.capture.pytrees import recognize
from onnxport.capture.request import Asked, Leaf, Request, leaves_of
from onnxport.capture.subclasses import plain_tensors, with_plain_weights
from onnxport.emit.components import components
from onnxport.emit.fingerprints import Structure, Template, content, small_constant
from onnxport.emit.local_functions import Call, define
from onnxport.emit.scopes import graphs_of, nodes_of
from onnxport.emit.tensor import Node
from onnxport.emit.weights import TorchTensor
from onnxport.errors import plain
from onnxport.functional.program import Functionalizer, FunctionalProgram, Mutation, TorchFunctionalizer, UserOutput
from onnxport.host import records
from onnxport.host.discovery import Plugins, load
from onnxport.host.explaining import Explanation
from onnxport.host.registry import Registry
from onnxport.program import runtime, saving
from onnxport.program.onnx_program import TRANSLATED
from onnxport.program.reweight import names_of
from onnxport.program.runtime import ORIGIN
from onnxport.program.saving import require_flags
from onnxport.run import Run
from onnxport.translate.model import RESULT_INDEX, FunctionUse, MakeWalker, Walk, Walker
from onnxport.vocabulary import provenance
from onnxport.vocabulary.checks import (
    call_arguments,
    callable_argument,
    listed,
    optional,
    path_argument,
    takes,
    tolerance_argument,
    wrong,
)
from onnxport.vocabulary.display import fenced, markdown
from onnxport.vocabulary.dtypes import ONNX_TO_TORCH, SYMBOLIC, dense
from onnxport.vocabulary.opsets import DEFAULT_OPSET, MIN_OPSET
from onnxport.vocabulary.provenance import source_line
from onnxport.vocabulary.storage import Written, is_same_size, may_overlap, mutated, storage_of

__all__ = [
    "DEFAULT_OPSET",
    "MIN_OPSET",
    "ONNX_TO_TORCH",
    "ORIGIN",
    "RESULT_INDEX",
    "SYMBOLIC",
    "TRANSLATED",
    "Asked",
    "Call",
    "Explanation",
    "FunctionUse",
    "FunctionalProgram",
    "Functionalizer",
    "Leaf",
    "MakeWalker",
    "Mutation",
    "Node",
    "Plugins",
    "Registry",
    "Request",
    "Run",
    "Structure",
    "Template",
    "TorchFunctionalizer",
    "TorchTensor",
    "UserOutput",
    "Walk",
    "Walker",
    "Written",
    "asked_for",
    "call_arguments",
    "call_of",
    "callable_argument",
    "components",
    "contained",
    "content",
    "define",
    "dense",
    "fenced",
    "flatten_arguments",
    "graphs_of",
    "is_same_size",
    "leaves_of",
    "listed",
    "load",
    "markdown",
    "may_overlap",
    "mutated",
    "names_of",
    "needs_gradients",
    "nodes_of",
    "optional",
    "path_argument",
    "placeholder_values",
    "plain",
    "plain_tensors",
    "prepare",
    "provenance",
    "recognize",
    "records",
    "require_flags",
    "runtime",
    "saving",
    "small_constant",
    "source_line",
    "storage_of",
    "takes",
    "tolerance_argument",
    "torch_shapes",
    "with_plain_weights",
    "wrong",
]
