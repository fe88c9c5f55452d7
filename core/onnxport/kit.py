"""What stage plugins may import: the parts of the core that their work is made of.

Translations need no more than :mod:`onnxport` itself. Names are loaded when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxport.capture.arguments import prepare as prepare
    from onnxport.capture.below_autograd import DerivativesError as DerivativesError
    from onnxport.capture.below_autograd import needs_gradients as needs_gradients
    from onnxport.capture.call import call_of as call_of
    from onnxport.capture.call import flatten_arguments as flatten_arguments
    from onnxport.capture.call import placeholder_values as placeholder_values
    from onnxport.capture.dynamic_shapes import asked_for as asked_for
    from onnxport.capture.dynamic_shapes import torch_shapes as torch_shapes
    from onnxport.capture.exporting import contained as contained
    from onnxport.capture.pytrees import recognize as recognize
    from onnxport.capture.request import Asked as Asked
    from onnxport.capture.request import Leaf as Leaf
    from onnxport.capture.request import Request as Request
    from onnxport.capture.request import leaves_of as leaves_of
    from onnxport.capture.subclasses import plain_tensors as plain_tensors
    from onnxport.capture.subclasses import with_plain_weights as with_plain_weights
    from onnxport.emit import domains as domains
    from onnxport.emit.complex_values import any_complex as any_complex
    from onnxport.emit.components import components as components
    from onnxport.emit.fingerprints import Structure as Structure
    from onnxport.emit.fingerprints import Template as Template
    from onnxport.emit.fingerprints import content as content
    from onnxport.emit.fingerprints import small_constant as small_constant
    from onnxport.emit.local_functions import Call as Call
    from onnxport.emit.local_functions import define as define
    from onnxport.emit.schemas import OpSpec as OpSpec
    from onnxport.emit.schemas import spec_of as spec_of
    from onnxport.emit.scopes import graphs_of as graphs_of
    from onnxport.emit.scopes import nodes_of as nodes_of
    from onnxport.emit.tensor import Node as Node
    from onnxport.emit.weights import TorchTensor as TorchTensor
    from onnxport.functional.program import Functionalizer as Functionalizer
    from onnxport.functional.program import FunctionalProgram as FunctionalProgram
    from onnxport.functional.program import Mutation as Mutation
    from onnxport.functional.program import TorchFunctionalizer as TorchFunctionalizer
    from onnxport.functional.program import UserOutput as UserOutput
    from onnxport.functional.program import chosen_functionalizer as chosen_functionalizer
    from onnxport.functional.program import results_of as results_of
    from onnxport.host import records as records
    from onnxport.host.discovery import Plugins as Plugins
    from onnxport.host.discovery import load as load
    from onnxport.host.explaining import Explanation as Explanation
    from onnxport.host.profiles import chosen_profile as chosen_profile
    from onnxport.host.registry import Registry as Registry
    from onnxport.program import runtime as runtime
    from onnxport.program import saving as saving
    from onnxport.program.onnx_program import TRANSLATED as TRANSLATED
    from onnxport.program.reweight import names_of as names_of
    from onnxport.program.runtime import ORIGIN as ORIGIN
    from onnxport.program.saving import require_flags as require_flags
    from onnxport.run import Run as Run
    from onnxport.text import fenced as fenced
    from onnxport.text import markdown as markdown
    from onnxport.text import plain as plain
    from onnxport.translate.model import RESULT_INDEX as RESULT_INDEX
    from onnxport.translate.model import FunctionUse as FunctionUse
    from onnxport.translate.model import MakeWalker as MakeWalker
    from onnxport.translate.model import Walk as Walk
    from onnxport.translate.model import Walker as Walker
    from onnxport.vocabulary import provenance as provenance
    from onnxport.vocabulary.checks import call_arguments as call_arguments
    from onnxport.vocabulary.checks import callable_argument as callable_argument
    from onnxport.vocabulary.checks import listed as listed
    from onnxport.vocabulary.checks import optional as optional
    from onnxport.vocabulary.checks import path_argument as path_argument
    from onnxport.vocabulary.checks import takes as takes
    from onnxport.vocabulary.checks import tolerance_argument as tolerance_argument
    from onnxport.vocabulary.checks import wrong as wrong
    from onnxport.vocabulary.dtypes import ONNX_TO_TORCH as ONNX_TO_TORCH
    from onnxport.vocabulary.dtypes import SYMBOLIC as SYMBOLIC
    from onnxport.vocabulary.dtypes import dense as dense
    from onnxport.vocabulary.opsets import DEFAULT_OPSET as DEFAULT_OPSET
    from onnxport.vocabulary.opsets import MIN_OPSET as MIN_OPSET
    from onnxport.vocabulary.provenance import source_line as source_line
    from onnxport.vocabulary.storage import Written as Written
    from onnxport.vocabulary.storage import is_same_size as is_same_size
    from onnxport.vocabulary.storage import may_overlap as may_overlap
    from onnxport.vocabulary.storage import mutated as mutated
    from onnxport.vocabulary.storage import storage_of as storage_of

_HOME = {
    "Asked": "onnxport.capture.request",
    "Call": "onnxport.emit.local_functions",
    "DEFAULT_OPSET": "onnxport.vocabulary.opsets",
    "DerivativesError": "onnxport.capture.below_autograd",
    "Explanation": "onnxport.host.explaining",
    "FunctionUse": "onnxport.translate.model",
    "FunctionalProgram": "onnxport.functional.program",
    "Functionalizer": "onnxport.functional.program",
    "Leaf": "onnxport.capture.request",
    "MIN_OPSET": "onnxport.vocabulary.opsets",
    "MakeWalker": "onnxport.translate.model",
    "Mutation": "onnxport.functional.program",
    "Node": "onnxport.emit.tensor",
    "ONNX_TO_TORCH": "onnxport.vocabulary.dtypes",
    "ORIGIN": "onnxport.program.runtime",
    "Plugins": "onnxport.host.discovery",
    "RESULT_INDEX": "onnxport.translate.model",
    "Registry": "onnxport.host.registry",
    "Request": "onnxport.capture.request",
    "Run": "onnxport.run",
    "SYMBOLIC": "onnxport.vocabulary.dtypes",
    "Structure": "onnxport.emit.fingerprints",
    "TRANSLATED": "onnxport.program.onnx_program",
    "Template": "onnxport.emit.fingerprints",
    "TorchFunctionalizer": "onnxport.functional.program",
    "TorchTensor": "onnxport.emit.weights",
    "UserOutput": "onnxport.functional.program",
    "Walk": "onnxport.translate.model",
    "Walker": "onnxport.translate.model",
    "Written": "onnxport.vocabulary.storage",
    "OpSpec": "onnxport.emit.schemas",
    "any_complex": "onnxport.emit.complex_values",
    "asked_for": "onnxport.capture.dynamic_shapes",
    "call_arguments": "onnxport.vocabulary.checks",
    "call_of": "onnxport.capture.call",
    "callable_argument": "onnxport.vocabulary.checks",
    "chosen_profile": "onnxport.host.profiles",
    "chosen_functionalizer": "onnxport.functional.program",
    "components": "onnxport.emit.components",
    "contained": "onnxport.capture.exporting",
    "content": "onnxport.emit.fingerprints",
    "define": "onnxport.emit.local_functions",
    "dense": "onnxport.vocabulary.dtypes",
    "domains": "onnxport.emit",
    "fenced": "onnxport.text",
    "flatten_arguments": "onnxport.capture.call",
    "graphs_of": "onnxport.emit.scopes",
    "is_same_size": "onnxport.vocabulary.storage",
    "leaves_of": "onnxport.capture.request",
    "listed": "onnxport.vocabulary.checks",
    "load": "onnxport.host.discovery",
    "markdown": "onnxport.text",
    "may_overlap": "onnxport.vocabulary.storage",
    "mutated": "onnxport.vocabulary.storage",
    "names_of": "onnxport.program.reweight",
    "needs_gradients": "onnxport.capture.below_autograd",
    "nodes_of": "onnxport.emit.scopes",
    "optional": "onnxport.vocabulary.checks",
    "path_argument": "onnxport.vocabulary.checks",
    "placeholder_values": "onnxport.capture.call",
    "plain": "onnxport.text",
    "plain_tensors": "onnxport.capture.subclasses",
    "prepare": "onnxport.capture.arguments",
    "provenance": "onnxport.vocabulary",
    "recognize": "onnxport.capture.pytrees",
    "records": "onnxport.host",
    "require_flags": "onnxport.program.saving",
    "results_of": "onnxport.functional.program",
    "runtime": "onnxport.program",
    "saving": "onnxport.program",
    "small_constant": "onnxport.emit.fingerprints",
    "source_line": "onnxport.vocabulary.provenance",
    "spec_of": "onnxport.emit.schemas",
    "storage_of": "onnxport.vocabulary.storage",
    "takes": "onnxport.vocabulary.checks",
    "tolerance_argument": "onnxport.vocabulary.checks",
    "torch_shapes": "onnxport.capture.dynamic_shapes",
    "with_plain_weights": "onnxport.capture.subclasses",
    "wrong": "onnxport.vocabulary.checks",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxport.kit' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = getattr(module, name, None)
    value = importlib.import_module(f"{home}.{name}") if value is None else value
    globals()[name] = value
    return value
