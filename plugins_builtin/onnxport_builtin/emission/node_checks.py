"""The nodes that a table or a pack emits, as onnx sees them: what a checker or a runtime would refuse is told at once.

Built-in translations are held to this by tests. Those of others are looked at here, one call at a time: its nodes as a
small model, whose types and shapes onnx infers. Calls that look alike are looked at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from onnx_ir import AttributeType
from onnxport import Tensor
from onnxport.kit import Inferred, MistakeError, graphs_of, reachable

if TYPE_CHECKING:
    from onnxport import Builder

_SMALL = 1024
"""Bytes: constants up to this size are part of the small model, since shapes may depend on them."""
_PLACE = re.compile(r"\s*\(op_type:\s*(\w+)(?:,\s*node name:\s*([^)]*))?\):?\s*")
_LABEL = re.compile(r"\s*\[(?:Type|Shape)InferenceError\]\s*(?:Inference error\(s\):)?\s*")


class NodeChecks:
    """Checks the nodes that were emitted for one FX node.

    Args:
        op: the builder.
    """

    def __init__(self, op: Builder) -> None:
        self._op = op
        self._known: dict[Any, list[Inferred]] = {}

    def __call__(self, nodes: Sequence[ir.Node], results: Iterable[Any]) -> dict[int, Inferred]:
        """The types that onnx infers of the nodes' results, by ``id``.

        Args:
            nodes: in the order in which they were emitted.
            results: what the translation returned.

        Raises:
            MistakeError: onnx refuses one of the nodes.
        """
        if not nodes:
            return {}
        own = {id(value) for node in nodes for value in node.outputs}
        outputs = [value for value in results if id(value) in own]
        outer = list(dict.fromkeys(_outer(nodes, own)))
        if any(value.dtype is None or not isinstance(value.type, ir.TensorType) for value in outer):
            return {}
        key = self._key(nodes, outer, outputs)
        found = None if key is None else self._known.get(key)
        if found is None:
            found = self._inferred(nodes, outer, outputs)
            if key is not None:
                self._known[key] = found
        return {id(value): each for value, each in zip(outputs, found)}

    def _key(self, nodes: Sequence[ir.Node], outer: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> Any:
        """The key of a call, equal for calls that look alike; None where it has graphs in it."""
        places = {id(value): i for i, value in enumerate(outer)}
        parts: list[Any] = [tuple((*_type(value), _content(value)) for value in outer)]
        for node in nodes:
            attributes = []
            for name, attribute in node.attributes.items():
                if attribute.type in (AttributeType.GRAPH, AttributeType.GRAPHS):
                    return None
                value = attribute.ref_attr_name or attribute.value
                if isinstance(value, ir.TensorProtocol):
                    value = (value.dtype, value.tobytes()) if value.nbytes <= _SMALL else id(value)
                attributes.append((name, attribute.type, value if not isinstance(value, list) else tuple(value)))
            identity = node.op_identifier()
            inputs = tuple(None if value is None else places[id(value)] for value in node.inputs)
            function = id(self._op.functions[identity]) if identity in self._op.functions else None
            parts.append((identity, function, inputs, tuple(attributes), len(node.outputs)))
            for value in node.outputs:
                places[id(value)] = len(places)
        parts.append(tuple(places[id(value)] for value in outputs))
        key = tuple(parts)
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def _inferred(
        self, nodes: Sequence[ir.Node], outer: Sequence[ir.Value], outputs: Sequence[ir.Value]
    ) -> list[Inferred]:
        for node in nodes:
            _check_reshape(node)
        model = self._model(nodes, outer, outputs)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
            found = [_of(value) for value in inferred.graph.output]
            if all(each.dims is not None for each in found):  # the checker takes no output of unknown shape
                onnx.checker.check_model(inferred)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            raise MistakeError(f"emitted a node that can't be: {_explained(str(error), nodes)}") from error
        return found

    def _model(
        self, nodes: Sequence[ir.Node], outer: Sequence[ir.Value], outputs: Sequence[ir.Value]
    ) -> onnx.ModelProto:
        op = self._op
        graph = onnx.GraphProto(name="call")
        for i, node in enumerate(nodes):
            graph.node.append(_node(node, str(i)))
        for value in outer:
            dtype, dims = _type(value)
            graph.input.append(onnx.helper.make_tensor_value_info(str(value.name), dtype, dims))
            if value.const_value is not None and _content(value) is not None:
                graph.initializer.append(ir.serde.serialize_tensor(value.const_value))
                graph.initializer[-1].name = value.name
        for value in outputs:
            graph.output.append(onnx.helper.make_tensor_value_info(str(value.name), int(value.dtype or 0), None))
        model = onnx.ModelProto(ir_version=10, graph=graph)
        for domain, version in op.domains.items():
            model.opset_import.append(onnx.helper.make_opsetid(domain, version))
        model.functions.extend(map(ir.serde.serialize_function, reachable(op.functions, nodes)))
        return model


def _outer(nodes: Iterable[ir.Node], own: set[int]) -> Iterator[ir.Value]:
    """The values that the nodes read, in their subgraphs too, and that none of them computes."""
    for node in nodes:
        for value in node.inputs:
            if value is not None and id(value) not in own:
                yield value
        for graph in graphs_of(node):
            inner = list(graph)
            known = own | {id(value) for value in graph.inputs} | {id(v) for n in inner for v in n.outputs}
            yield from _outer(inner, known)
            yield from (value for value in graph.outputs if id(value) not in known)


def _node(node: ir.Node, name: str) -> onnx.NodeProto:
    """A node without its provenance."""
    proto = onnx.NodeProto(name=name, op_type=node.op_type, domain=node.domain, overload=node.overload)
    proto.input.extend("" if value is None else value.name or "" for value in node.inputs)
    proto.output.extend(value.name or "" for value in node.outputs)
    proto.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values())
    return proto


def _type(value: ir.Value) -> tuple[int, tuple[int | str | None, ...] | None]:
    """Element type and dimensions, those of a complex value with their last axis of 2."""
    dims: tuple[Any, ...] | None = None
    if value.shape is not None:
        dims = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
        dims = (*dims, 2) if isinstance(value, Tensor) and value.is_complex else dims
    return int(value.dtype or 0), dims


def _content(value: ir.Value) -> bytes | None:
    """The bytes of a small constant; None for any other value."""
    data = value.const_value
    if data is None or data.nbytes > _SMALL or getattr(data, "is_weight", False):
        return None
    return data.tobytes()


def _of(value: onnx.ValueInfoProto) -> Inferred:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Inferred(None, None)
    dims = None
    if kind.HasField("shape"):
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in kind.shape.dim)
    return Inferred(kind.elem_type or None, dims)


def _check_reshape(node: ir.Node) -> None:
    """onnx doesn't count the elements of what is reshaped.

    Raises:
        MistakeError: there are more or fewer than the new shape has.
    """
    if node.domain or node.op_type != "Reshape" or len(node.inputs) < 2:
        return
    source, target = node.inputs[0], node.inputs[1]
    content = _content(target) if target is not None else None
    if source is None or source.shape is None or content is None or target is None or "allowzero" in node.attributes:
        return
    dims, wanted = _type(source)[1] or (), [int(dim) for dim in target.const_value.numpy().reshape(-1)]  # type: ignore[union-attr]
    if not all(isinstance(dim, int) for dim in dims) or any(dim < -1 for dim in wanted):
        return
    known = [dims[i] if dim == 0 and i < len(dims) else dim for i, dim in enumerate(wanted) if dim != -1]
    total, rest = math.prod(dims), math.prod(known)  # type: ignore[arg-type]
    fits = total == rest if -1 not in wanted else (rest != 0 and total % rest == 0)
    if not fits:
        raise MistakeError(f"emitted a node that can't be: Reshape of {list(dims)} to {wanted}")


def _explained(text: str, nodes: Sequence[ir.Node]) -> str:
    """The message of onnx, with the node that it is about written like a call."""
    place = _PLACE.search(text)
    reason = _LABEL.sub(" ", _PLACE.sub(" ", text)).split("\n")[0].strip()
    if place is None:
        return reason
    name = (place[2] or "").strip()
    if not name.isdigit() or int(name) >= len(nodes) or nodes[int(name)].op_type != place[1]:
        return f"{place[1]}: {reason}"
    node = nodes[int(name)]
    inputs = ", ".join("" if value is None else _described(value) for value in node.inputs)
    return f"{node.op_type}({inputs}): {reason}"


def _described(value: Any) -> str:
    """A value as ``FLOAT[2, n]``."""
    if not isinstance(value, Tensor):
        return repr(value)
    dims = "..." if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{'?' if value.dtype is None else value.dtype.name}[{dims}]"
