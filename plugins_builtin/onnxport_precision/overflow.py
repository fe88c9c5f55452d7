"""Results that are too large for float16, found by running the example inputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from onnxport import DataType, ONNXProgram
from onnxport.kit import TorchTensor

from onnxport_precision.places import Place, place_of
from onnxport_precision.ranges import Ranges

_BYTES_AT_ONCE = 1 << 30
_LISTED = 5


@dataclass(frozen=True)
class Overflow:
    """What is too large.

    Attributes:
        limit: the largest number of the half precision.
        places: the operators where it starts, the first ones.
        largest: the largest magnitude of each one's result in float32.
    """

    limit: float
    places: tuple[Place, ...]
    largest: tuple[float, ...]


def overflow_of(program: ONNXProgram, original: ir.Model, ranges: Ranges) -> Overflow | str:
    """Run the example inputs.

    Args:
        program: in half precision.
        original: its model in float32.
        ranges: of the half precision.

    Returns:
        What is too large; or a sentence on what was looked at, where nothing is or nothing could be run.
    """
    if ranges.dtype is DataType.BFLOAT16:
        return "bfloat16 has the range of float32: nothing was run."
    exported = program.exported_program
    if exported is None or exported.example_inputs is None:
        return "There are no example inputs: nothing was run, and results may be too large."
    tensors = [value.const_value for value in program.model.graph.initializers.values()]
    if any(isinstance(tensor, TorchTensor) and not tensor.has_data for tensor in tensors):
        return "Weights have no data: nothing was run, and results may be too large."
    half = copy.copy(program)
    wide = copy.copy(program)
    wide.model = original
    try:
        with half, wide:
            return _found(half, wide, exported.example_inputs, ranges)
    except Exception as error:  # onnxruntime has a class for each of its status codes, and a model may need its own
        return f"The example inputs couldn't be run ({type(error).__name__}: {error}): results may be too large."


def _found(half: ONNXProgram, wide: ONNXProgram, example: Any, ranges: Ranges) -> Overflow | str:
    args, kwargs = example
    names = {str(value.name): value for node in half.model.graph for value in _halves(node, ranges)}
    infinite: list[str] = []
    for part in _parts(names.values()):
        computed = half.compute_values(part, *copy.deepcopy((args, kwargs)))
        infinite += [name for name, tensor in computed.items() if not torch.isfinite(tensor).all()]
    if not infinite:
        return f"The example inputs were run: none of {len(names)} results is too large."
    sources = {name: _source(names[name]) for name in infinite}
    known = {str(value.name) for node in wide.model.graph for value in node.outputs}
    wanted = [str(source.name) for source in sources.values() if source.name in known]
    values = wide.compute_values(list(dict.fromkeys(wanted)), *copy.deepcopy((args, kwargs)))
    starts = []
    bad = set(infinite)
    for name, source in sources.items():
        expected = values.get(str(source.name))
        if expected is None or not torch.isfinite(expected).all():
            continue  # the model's own infinities
        producer = names[name].producer()
        fed = producer is not None and any(value is not None and value.name in bad for value in producer.inputs)
        if not fed:
            starts.append((_place(names[name], source), float(expected.abs().max())))
    if not starts:
        return f"The example inputs were run: {len(infinite)} results are infinite, as in float32."
    unique = dict(reversed(starts[:_LISTED]))
    places = tuple(reversed(unique))
    return Overflow(ranges.largest, places, tuple(unique[place] for place in places))


def _halves(node: ir.Node, ranges: Ranges) -> Iterator[ir.Value]:
    for value in node.outputs:
        if value.name and isinstance(value.type, ir.TensorType) and value.dtype is ranges.dtype:
            yield value


def _parts(values: Any) -> Iterator[list[str]]:
    """Names, as many at once as fit into memory."""
    part: list[str] = []
    size = 0
    for value in values:
        dims = [dim if isinstance(dim, int) else 64 for dim in value.shape or ()]
        size += 2 * math.prod(dims)
        part.append(str(value.name))
        if size > _BYTES_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _source(value: ir.Value) -> ir.Value:
    """The value of the float32 model that a value in half precision stands for."""
    node = value.producer()
    while node is not None and node.op_type in ("Cast", "Clip") and node.inputs[0].dtype is DataType.FLOAT:  # type: ignore[union-attr]
        if getattr(node, "fx_node", None) is not None:
            break
        value = node.inputs[0]  # type: ignore[assignment]
        node = value.producer()
    return value


def _place(value: ir.Value, source: ir.Value) -> Place:
    """Where to keep float32: at the node; or, where a kept result is cast for others, at those that read it."""
    node = value.producer()
    if node is not None and source is not value:
        readers: Sequence[Place] = [place_of(use.node) for use in value.uses()]
        named = next((place for place in readers if place.path or place.operator), None)
        if named is not None:
            return named
    return Place() if node is None else place_of(source.producer() or node)
