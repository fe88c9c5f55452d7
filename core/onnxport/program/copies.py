"""Copies of programs: deep ones, and those that travel by pickle."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from onnxport.emit.weights import TorchTensor
from onnxport.errors import SaveError
from onnxport.program import saving
from onnxport.program.serialization import PROTOBUF_LIMIT
from onnxport.vocabulary import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport.vocabulary.call_spec import CallSpec

_ADVICE = "Save it by save(path), and open that by ONNXProgram.load(path)."


def model_copy(model: ir.Model) -> ir.Model:
    """A model of its own, with weights of its own. Those that stay on disk, or have no data, are shared."""
    copied = model.clone()
    copied.meta.update(model.meta)
    tensors = [value.const_value for value in copied.graph.initializers.values()]
    leaves = [leaf for tensor in tensors if isinstance(tensor, TorchTensor) for leaf in tensor.leaves()]
    weights = {
        leaf.source: leaf.raw.detach().clone()
        for leaf in leaves
        if leaf.source is not None and type(leaf) is TorchTensor and leaf.has_data
    }
    for value in copied.graph.initializers.values():
        if isinstance(value.const_value, TorchTensor):
            value.const_value = value.const_value.rebuilt(weights)
    return copied


def pickled(model: ir.Model, spec: CallSpec | None, kind: Callable[[], type[Any]]) -> tuple[Any, tuple[Any, ...]]:
    """The reduced form of a program for pickle: the model as bytes, its call, and a function for its class.

    Raises:
        TypeError: a class among the arguments can't be pickled.
        SaveError: the model is larger than 2 GiB.
        WeightError: a weight has no data.
    """
    try:
        pickle.dumps(spec)
    except Exception as error:  # whatever a class of the caller's raises
        raise TypeError(
            f"An ONNXProgram whose arguments can't be pickled can't be either ({error}). {_ADVICE}"
        ) from error
    if saving.weight_bytes(model) >= PROTOBUF_LIMIT:
        raise SaveError(f"An ONNXProgram of more than 2 GiB can't be pickled. {_ADVICE}")
    folded = frozenset(model.meta.get(keys.FOLDED, ()))
    return _restored, (saving.to_bytes(model), spec, folded, kind)


def _restored(content: bytes, spec: CallSpec | None, folded: frozenset[str], kind: Callable[[], type[Any]]) -> Any:
    model = ir.serde.deserialize_model(onnx.load_from_string(content))
    model.meta[keys.FOLDED] = folded
    program = kind()(model, None)
    program.call_spec = spec
    return program
