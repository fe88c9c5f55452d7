"""onnx_ir model -> protobuf bytes, with the weights written one by one after the rest.

A protobuf message may be written as the concatenation of its parts, in any order. So the weights can follow the rest
of the model, and no message that holds them all has to exist in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import onnx
import onnx_ir as ir
from onnxport.kit import TorchTensor, write_all

from onnxport_builtin.program.file_tensor import FileTensor

PROTOBUF_LIMIT = 2**31 - 1
"""The most bytes that a protobuf message, and so an .onnx file without external data, can have."""

_LENGTH_DELIMITED = 2
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


@dataclass
class Weight:
    """An initializer of the main graph, and where its data goes.

    Attributes:
        name: the value's name; the tensor's own may differ, and stays as it is.
        tensor: the data.
        location: the external data file's name, or None for data inside the .onnx file.
        offset: the first byte's place in the external data file.
    """

    name: str
    tensor: ir.TensorProtocol
    location: str | None = None
    offset: int = 0

    @property
    def raw(self) -> bool:
        """Whether raw bytes follow the header."""
        return self.location is None and self.tensor.dtype is not ir.DataType.STRING

    def header(self) -> bytes:
        """Serialize the TensorProto without its raw data."""
        tensor = self.tensor
        proto = onnx.TensorProto(name=self.name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
        if tensor.doc_string:
            proto.doc_string = tensor.doc_string
        for key, text in tensor.metadata_props.items():
            proto.metadata_props.add(key=key, value=text)
        if self.location is not None:
            proto.data_location = onnx.TensorProto.EXTERNAL
            for key, entry in (("location", self.location), ("offset", self.offset), ("length", tensor.nbytes)):
                proto.external_data.add(key=key, value=str(entry))
        elif not self.raw:
            proto.string_data.extend(tensor.string_data())  # type: ignore[attr-defined]
        return proto.SerializeToString(deterministic=True)

    def write_data(self, file: IO[bytes]) -> None:
        """Write the raw bytes, also to an unbuffered file."""
        if isinstance(self.tensor, (TorchTensor, FileTensor)):
            self.tensor.tofile(file)
        else:
            write_all(file, self.tensor.tobytes())


def weights_of(model: ir.Model) -> list[Weight]:
    """List the initializers of the main graph that have a tensor."""
    initializers = model.graph.initializers
    return [Weight(name, value.const_value) for name, value in initializers.items() if value.const_value is not None]


def without_weights(
    model: ir.Model, *, as_inputs: bool = False, outputs: Sequence[ir.Value] | None = None
) -> onnx.ModelProto:
    """Serialize all of a model but the initializers of its main graph; their types stay, as value info or inputs.

    Args:
        as_inputs: list the initializers among the inputs.
        outputs: values to be the outputs instead of the graph's own.
    """
    graph = model.graph
    known = {value.name for value in graph.inputs}
    weights = [value for value in graph.initializers.values() if value.name not in known]
    view = ir.GraphView(
        [*graph.inputs, *weights] if as_inputs else graph.inputs,
        graph.outputs if outputs is None else outputs,
        nodes=graph,
        name=graph.name,
        doc_string=graph.doc_string,
        opset_imports=graph.opset_imports,
        metadata_props=graph.metadata_props,
    )
    shell = ir.Model(
        view,  # type: ignore[arg-type]  # a use that GraphView documents
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=tuple(model.functions.values()),
        metadata_props=model.metadata_props,
        device_configurations=model.device_configurations,
    )
    proto = ir.serde.serialize_model(shell)
    if not as_inputs:
        typed = [value for value in weights if value.shape is not None and value.type is not None]
        proto.graph.value_info.extend(ir.serde.serialize_value(value) for value in typed)
    return proto


def write_model(file: IO[bytes], shell: onnx.ModelProto, weights: Sequence[Weight]) -> None:
    """Write a model: what `without_weights` gave, and then the weights."""
    graph = shell.graph.SerializeToString(deterministic=True)
    rest = onnx.ModelProto()
    for field, value in shell.ListFields():
        if field.number == _GRAPH:
            continue
        if isinstance(value, (str, int)):
            setattr(rest, field.name, value)
        else:
            getattr(rest, field.name).MergeFrom(value)
    entries = [(weight, *_entry(weight)) for weight in weights]
    write_all(file, rest.SerializeToString(deterministic=True))
    write_all(file, _prefix(_GRAPH, len(graph) + sum(size for *_, size in entries)))
    write_all(file, graph)
    for weight, head, _ in entries:
        write_all(file, head)
        if weight.raw:
            weight.write_data(file)


def model_size(shell: onnx.ModelProto, weights: Sequence[Weight]) -> int:
    """Bound from above, by a few bytes, what `write_model` will write."""
    return shell.ByteSize() + sum(_entry(weight)[1] for weight in weights) + 16


def _entry(weight: Weight) -> tuple[bytes, int]:
    """Give what precedes a weight's raw data in the graph message, and the size of the whole entry."""
    header = weight.header()
    length = weight.tensor.nbytes if weight.raw else 0
    if weight.raw:
        header += _prefix(_RAW_DATA, length)
    prefix = _prefix(_INITIALIZER, len(header) + length)
    return prefix + header, len(prefix) + len(header) + length


def _prefix(field_number: int, length: int) -> bytes:
    """Encode the tag and the length of a length-delimited field."""
    encoded = bytearray()
    for number in (field_number << 3 | _LENGTH_DELIMITED, length):
        while number > 0x7F:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        encoded.append(number)
    return bytes(encoded)
