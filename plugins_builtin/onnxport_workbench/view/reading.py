"""A model's contents, read from its ONNX file alone.

A file of another exporter has what it has: the keys of torch's own exporter are those that onnxport writes, and where a
node has none, the slashes of its name tell its module.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxport.kit import keys, plain

from onnxport_workbench.view.contents import FUNCTION, GRAPH, MODULE, Contents, Entry, Frame, Group, Value
from onnxport_workbench.view.places import Places

_FRAME = re.compile(r'\s*File "([^"]+)", line (\d+), in (.*)')
_LONGEST = 160
_FEW = 8


def contents_of(model: ir.Model, name: str = "model") -> Contents:
    """Read a model. Weights are told by name, type and bytes; their data aren't read."""
    reader = _Reader(model, name)
    reader.read()
    return reader.contents


class _Reader:
    def __init__(self, model: ir.Model, name: str) -> None:
        self.model = model
        self.contents = Contents([Group(MODULE, plain(name))])
        self.functions: dict[Any, int] = {}
        self.places = Places(self.contents)
        self._values: dict[int, int] = {}

    def read(self) -> None:
        """Take in the main graph, then the functions."""
        groups = self.contents.groups
        for key, function in self.model.functions.items():
            self.functions[key] = len(groups)
            name = plain(f"{function.domain}::{function.name}" if function.domain else function.name)
            groups.append(Group(FUNCTION, name, name))
        graph = self.model.graph
        self._graph(graph, 0)
        self.contents.inputs = [self._value(value) for value in graph.inputs if value.const_value is None]
        self.contents.outputs = [self._value(value) for value in graph.outputs]
        for key, function in self.model.functions.items():
            self._graph(function, self.functions[key])
        self.places.settle()
        self._named_root()

    def _named_root(self) -> None:
        """The root has the class of the outermost module, where the file tells it."""
        for node in self.model.graph:
            classes = _literal(node.metadata_props.get(keys.CLASSES, ""))
            if len(classes) > 1 and _literal(node.metadata_props.get(keys.SCOPES, ""))[:1] == ("",):
                self.contents.groups[0].class_name = plain(classes[0])
                return

    def _graph(self, graph: ir.Graph | ir.Function, scope: int) -> None:
        for value in graph.inputs:
            self._value(value)
        for value in getattr(graph, "initializers", {}).values():
            self._value(value)
        for node in graph:
            self._node(node, scope)

    def _value(self, value: ir.Value) -> int:
        index = self._values.get(id(value))
        if index is None:
            index = self._values[id(value)] = len(self.contents.values)
            tensor = value.const_value if value.is_initializer() else None
            size = -1 if tensor is None else _bytes_of(tensor)
            self.contents.values.append(Value(plain(value.name or ""), _type_text(value, tensor), size))
        return index

    def _node(self, node: ir.Node, scope: int) -> None:
        outputs = [self._value(value) for value in node.outputs]
        name = node.name or (node.outputs[0].name if node.outputs else "") or node.op_type
        properties = node.metadata_props
        stack, operator, fx_node = self._place(node, name)
        entry = Entry(
            plain(name),
            plain(node.op_type),
            plain(node.domain),
            scope,
            [-1 if value is None else self._value(value) for value in node.inputs],
            outputs,
            plain(operator),
            plain(fx_node),
            plain(properties.get(keys.TRANSLATION, "")),
            plain(properties.get(keys.PLUGIN, "")),
            frames_of(properties.get(keys.STACK_TRACE, "")),
            function=self.functions.get(node.op_identifier(), -1),
        )
        self.contents.nodes.append(entry)
        index = len(self.contents.nodes) - 1
        self.places.add(index, scope, stack)
        attributes = []
        for key, attribute in node.attributes.items():
            graphs: Sequence[Any] = ()
            if not attribute.is_ref() and attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                graphs = [attribute.value] if attribute.type is ir.AttributeType.GRAPH else attribute.value
            for place, graph in enumerate(graphs):
                label = plain(f"{name}.{key}{place if len(graphs) > 1 else ''}")
                entry.bodies.append(len(self.contents.groups))
                self.contents.groups.append(Group(GRAPH, label))
                self.places.owners[entry.bodies[-1]] = index
                self._graph(graph, entry.bodies[-1])
            if not graphs:
                attributes.append((plain(key), _attribute_text(attribute)))
        entry.attributes = tuple(attributes)

    def _place(self, node: ir.Node, name: str) -> tuple[tuple[tuple[str, str], ...], str, str]:
        """The modules around a node as (path, class), its torch operator, and its FX node."""
        properties = node.metadata_props
        scopes, classes = _literal(properties.get(keys.SCOPES, "")), _literal(properties.get(keys.CLASSES, ""))
        if not scopes or len(scopes) != len(classes):
            parts = [part for part in name.split("/") if part][:-1]
            return tuple(("/".join(parts[: i + 1]), "") for i in range(len(parts))), "", ""
        stack = tuple(zip(scopes, classes))
        if node.op_identifier() in self.functions and keys.FX_NODE not in properties and keys.PLUGIN not in properties:
            return stack, "", ""  # the call of a module
        return stack[:-1], classes[-1], scopes[-1]


@functools.lru_cache(maxsize=4096)
def _literal(text: str) -> tuple[str, ...]:
    """A list of strings as the file has it; empty where it is something else."""
    try:
        found = ast.literal_eval(text) if text else ()
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    return tuple(found) if isinstance(found, (list, tuple)) and all(isinstance(x, str) for x in found) else ()


@functools.lru_cache(maxsize=4096)
def frames_of(trace: str) -> tuple[Frame, ...]:
    """The frames of a stack trace, the outermost first."""
    frames: list[Frame] = []
    lines = trace.splitlines()
    for i, line in enumerate(lines):
        match = _FRAME.match(line)
        if match is not None:
            code = lines[i + 1].strip() if i + 1 < len(lines) and not _FRAME.match(lines[i + 1]) else ""
            frames.append(Frame(plain(match[1]), int(match[2]), plain(match[3]), plain(code)[:_LONGEST]))
    return tuple(frames)


def _bytes_of(tensor: Any) -> int:
    """The bytes that a tensor's data take; those of strings aren't counted."""
    if tensor.dtype is ir.DataType.STRING:
        return 0
    count = math.prod(int(dim) for dim in tensor.shape)
    return -(-count * int(tensor.dtype.bitwidth) // 8)


def _type_text(value: ir.Value, tensor: Any) -> str:
    if value.type is None and tensor is not None:
        return tensor_text(tensor)
    kind = _kind_text(value.type)
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return kind
    return kind if value.shape is None else f"{kind}[{', '.join(plain(_dim_text(dim)) for dim in value.shape)}]"


def _kind_text(kind: Any) -> str:
    if kind is None:
        return ""
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        word = "sequence" if isinstance(kind, ir.SequenceType) else "optional"
        return f"{word}({_kind_text(kind.elem_type)})"
    return dtype_text(kind.dtype)


def _dim_text(dim: Any) -> str:
    return str(dim) if isinstance(dim, int) else str(dim.value if dim.value is not None else "?")


def tensor_text(tensor: Any) -> str:
    """The type of a tensor as text."""
    return f"{dtype_text(tensor.dtype)}[{', '.join(str(dim) for dim in tensor.shape)}]"


def dtype_text(dtype: ir.DataType) -> str:
    """An element type as torch and NumPy call it."""
    return {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}.get(dtype, dtype.name.lower())


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return plain(f"attribute {attribute.ref_attr_name} of the function")
    value = attribute.value
    if attribute.type is ir.AttributeType.TENSOR:
        text = tensor_text(value)
        if math.prod(int(dim) for dim in value.shape) <= _FEW and not isinstance(value, ir.ExternalTensor):
            text += f" {value.numpy().tolist()}"
    elif attribute.type is ir.AttributeType.TENSORS:
        text = ", ".join(map(tensor_text, value))
    else:
        text = repr(list(value) if isinstance(value, tuple) else value)
    text = plain(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
