"""Reading a model: its sizes and names are checked, and nothing outside of its folder is read.

The file may come from anywhere. Sizes, offsets and locations are checked when it is loaded; the data files are opened
then, and stay open, so that a save of another model to the same place doesn't change what was loaded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir import AttributeType, DataType
from onnxport import FileError, MissingFileError, ONNXProgram
from onnxport.kit import path_argument

from onnxport_builtin.program.data_file import absolute, cannot_read, folder_of, inside, open_all, open_regular
from onnxport_builtin.program.file_tensor import FileTensor
from onnxport_builtin.program.serialization import without_weights

_ATTEMPTS = 100
"""How often a model is read again that was replaced while its data were opened."""

_TYPED = {
    DataType.FLOAT: ("float_data", 1), DataType.COMPLEX64: ("float_data", 2), DataType.DOUBLE: ("double_data", 1),
    DataType.COMPLEX128: ("double_data", 2), DataType.INT64: ("int64_data", 1), DataType.UINT64: ("uint64_data", 1),
    DataType.UINT32: ("uint64_data", 1),
}  # fmt: skip
"""The field of a TensorProto that holds elements of a type, and how many entries an element has. Others: int32_data."""


def load(kind: type[ONNXProgram], path: str | os.PathLike[str]) -> ONNXProgram:
    """See `ONNXProgram.load`."""
    path = absolute(path_argument("path", path, "the path of an .onnx file"))
    program = kind(load_model(path), None)
    program.path = path
    return program


def load_model(path: str) -> ir.Model:
    """Read a model from a file, whose external data are opened and not yet read.

    Args:
        path: of the model; its format is told by the extension, as `onnx.load` does. What is relative, is so to the
            working directory of now.

    Raises:
        FileError: it can't be read, or is no ONNX model; it names data outside of its folder, or such as don't have the
            size that they should have. A MissingFileError where a file isn't there.
    """
    path = absolute(path)
    for attempt in range(_ATTEMPTS):
        data, identity = _content(path)
        try:
            return _model(path, data)
        except MissingFileError:  # a save may have replaced the model meanwhile, and removed the data of the old one
            if attempt + 1 == _ATTEMPTS or _content(path)[1] == identity:
                raise
    raise FileError(f"{path!r} is replaced again and again. Try again later.", path=path)


def _content(path: str) -> tuple[bytes, tuple[int, int, int]]:
    descriptor = open_regular(path, "The model")
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        try:
            return file.read(), (found.st_dev, found.st_ino, found.st_mtime_ns)
        except OSError as error:
            raise cannot_read(path, error, "The model") from error


def _model(path: str, data: bytes) -> ir.Model:
    extension = os.path.splitext(path)[1]
    form = onnx.serialization.registry.get_format_from_file_extension(extension) or "protobuf"
    try:
        proto = onnx.load_model_from_string(data, format=form)
    except Exception as error:  # each format has errors of its own
        raise _damaged(path, str(error) or type(error).__name__) from error
    if not proto.HasField("graph"):
        raise _damaged(path, "it holds no graph")
    for tensor in _tensors(proto):
        problem = _problem(tensor)
        if problem:
            raise _damaged(path, f"the tensor {tensor.name!r} {problem}")
    try:
        model = ir.serde.deserialize_model(proto)
        without_weights(model)  # what can be read and not written again, texts that aren't UTF-8, is told now
    except Exception as error:  # of onnx_ir, which raises whatever its code does on a model that isn't one
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise _damaged(path, f"{type(cause).__name__}: {cause}") from error
    _open_data(path, model)
    return model


def _damaged(path: str, reason: str) -> FileError:
    text = " ".join(reason.split())
    short = text if len(text) <= 300 else f"{text[:297]}..."
    what = f"{path!r} is no ONNX model, or a damaged one: {short.rstrip('.')}"
    return FileError(f"{what}. Get it again, or export it again.", path=path)


# Tensors in the file ----------------------------------------------------------------------------------------------


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of graphs, functions and attributes."""
    yield from _tensors_of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _tensors_of_node(node)
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    if attribute.HasField("g"):
        yield from _tensors_of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _tensors_of_graph(graph)


def _problem(tensor: onnx.TensorProto) -> str:
    """The fault in a tensor's type, shape or size; empty for a valid one."""
    try:
        dtype = DataType(tensor.data_type)
        bits = 0 if dtype is DataType.STRING else dtype.bitwidth
    except (ValueError, TypeError):
        return f"is of type {tensor.data_type}, which ONNX doesn't have"
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims):
        return f"has the shape {dims}"
    count = math.prod(dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        for key in ("offset", "length"):
            if not re.fullmatch(r"[0-9]{0,18}", entries.get(key, "")):
                return f"has the {key} {entries[key]!r} in its data file"
        return "has strings in a data file" if dtype is DataType.STRING else ""
    if dtype is DataType.STRING:
        have, wanted, unit = len(tensor.string_data), count, "strings"
    elif tensor.HasField("raw_data"):
        have, wanted, unit = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        field, each = _TYPED.get(dtype, ("int32_data", 1))
        have, wanted, unit = len(getattr(tensor, field)), -(-count * each * min(bits, 8) // 8), "numbers"
    shown = f"{dtype.name.lower()} of shape {dims}"
    return "" if have == wanted else f"should have {wanted} {unit}, as {shown}, and has {have}"


# Tensors in other files -------------------------------------------------------------------------------------------


def _open_data(path: str, model: ir.Model) -> None:
    """Put tensors of opened files in the place of those that name a data file."""
    places: list[tuple[Any, ir.ExternalTensor]] = []
    for value, tensor in _external(model):
        places.append((value, tensor))
    if not places:
        return
    folder, roots = os.path.dirname(path), folder_of(path)
    located = {
        str(tensor.location): inside(folder, roots, str(tensor.location), f"The tensor {tensor.name!r} of {path!r}")
        for _, tensor in places
    }
    files = open_all(located.values())
    for file in files.values():
        if file.links > 1:
            raise FileError(
                f"The data file {file.path!r} has {file.links} names (hard links), so that it may be a file of another "
                "folder. Copy it, and put the copy in its place.",
                path=file.path,
            )
    for replace, tensor in places:
        file = files[located[str(tensor.location)]]
        made = FileTensor(
            file,
            tensor.offset or 0,
            tensor.dtype,
            tensor.shape,  # type: ignore[arg-type]
            tensor.name,
            tensor.doc_string,
            dict(tensor.metadata_props),
        )
        length = made.nbytes if tensor.length is None else tensor.length
        start, what = tensor.offset or 0, f"{tensor.dtype.name.lower()} of shape {list(tensor.shape.numpy())}"
        if length != made.nbytes:
            raise _damaged(
                path, f"the tensor {tensor.name!r}, {what}, takes {made.nbytes} bytes, and {length} are given"
            )
        if start < 0 or start + length > file.size:
            where = f"at {start} to {start + length} of the {file.size} bytes of {os.path.basename(file.path)!r}"
            raise _damaged(path, f"the tensor {tensor.name!r} should be {where}")
        replace(made)


def _external(model: ir.Model) -> Iterator[tuple[Any, ir.ExternalTensor]]:
    """Yield each tensor that names a data file, with a function that puts another in its place."""
    graphs: list[Any] = [model.graph, *model.functions.values()]
    while graphs:
        graph = graphs.pop()
        for value in getattr(graph, "initializers", {}).values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield (lambda new, value=value: setattr(value, "const_value", new)), value.const_value
        holders = [node.attributes for node in graph]
        if isinstance(graph, ir.Function):
            holders.append(graph.attributes)
        for attributes in holders:
            for name, attribute in list(attributes.items()):
                if attribute.is_ref():
                    continue
                if attribute.type is AttributeType.GRAPH:
                    graphs.append(attribute.as_graph())
                elif attribute.type is AttributeType.GRAPHS:
                    graphs += attribute.as_graphs()
                elif attribute.type is AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    yield _setter(attributes, name), attribute.value
                elif attribute.type is AttributeType.TENSORS:
                    for i, tensor in enumerate(attribute.value):
                        if isinstance(tensor, ir.ExternalTensor):
                            yield _setter(attributes, name, i), tensor


def _setter(attributes: Any, name: str, index: int | None = None) -> Any:
    def replace(new: ir.TensorProtocol) -> None:
        if index is None:
            attributes[name] = ir.AttrTensor(name, new)
        else:
            listed = list(attributes[name].value)
            listed[index] = new
            attributes[name] = ir.AttrTensors(name, listed)

    return replace
