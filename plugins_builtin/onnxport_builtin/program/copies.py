"""Copies of programs: deep ones, and those that travel by pickle."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from onnxport import ONNXProgram, SaveError
from onnxport.kit import TorchTensor, keys, weight_bytes

from onnxport_builtin.program import saving
from onnxport_builtin.program.serialization import PROTOBUF_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxport.kit import CallSpec

_ADVICE = "Save it by save(path), and open that by ONNXProgram.load(path)."


def copy_model(program: ONNXProgram) -> ir.Model:
    """A model of its own, with weights of its own. Those that stay on disk, or have no data, are shared."""
    model = program.model
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


def reduce(program: ONNXProgram, kind: Callable[[], type[ONNXProgram]]) -> tuple[Any, tuple[Any, ...]]:
    """The reduced form of a program for pickle: the model as bytes, its call, and a function for its class.

    Raises:
        TypeError: a class among the arguments can't be pickled.
        SaveError: the model is larger than 2 GiB.
        WeightError: a weight has no data.
    """
    model, spec = program.model, program.call_spec
    try:
        pickle.dumps(spec)
    except Exception as error:  # whatever a class of the caller's raises
        raise TypeError(
            f"An ONNXProgram whose arguments can't be pickled can't be either ({error}). {_ADVICE}"
        ) from error
    if weight_bytes(model) >= PROTOBUF_LIMIT:
        raise SaveError(f"An ONNXProgram of more than 2 GiB can't be pickled. {_ADVICE}")
    folded = frozenset(model.meta.get(keys.FOLDED, ()))
    return _restored, (saving.to_bytes(model), spec, folded, kind)


def _restored(
    content: bytes, spec: CallSpec | None, folded: frozenset[str], kind: Callable[[], type[ONNXProgram]]
) -> Any:
    model = ir.serde.deserialize_model(onnx.load_from_string(content))
    model.meta[keys.FOLDED] = folded
    program = kind()(model, None)
    program.call_spec = spec
    return program
