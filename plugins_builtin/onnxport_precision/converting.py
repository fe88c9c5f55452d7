"""A model of float32 becomes one of half precision, in place.

::

    x (half) ── MatMul (half) ── Cast ── Softmax (float32) ── Cast ── MatMul (half) ── y (half)

Each value has the type in which its node is computed, and is cast once for all that read it in the other one. Weights
and constants are stored in the type in which they are read; in both, where both read them.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxport.kit import FreeNames, constant_node, graphs_of, keys
from onnxport.optimize.rewriting import add_initializer, bodies

from onnxport_precision.operators import WIDE, signature_of
from onnxport_precision.ranges import Ranges
from onnxport_precision.rules import Mode, Rules, constant_of

FLOAT = ir.DataType.FLOAT
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")


class Converter:
    """One conversion.

    Args:
        model: it is changed.
        rules: the modes of its nodes.
        ranges: of the half precision.
        keep_io: inputs and outputs stay in float32.

    Attributes:
        casts: the casts that were added, by the value that they cast.
    """

    def __init__(self, model: ir.Model, rules: Rules, ranges: Ranges, keep_io: bool) -> None:
        self._model, self._rules, self._ranges, self._keep_io = model, rules, ranges, keep_io
        self._names = FreeNames(model, *bodies(model))
        self._half = ranges.dtype
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._versions: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._outputs: set[ir.Value] = set()

    def convert(self) -> None:
        """Convert the model."""
        graphs = [self._model.functions[key].graph for key in self._rules.functions]
        self._store([*graphs, self._model.graph])
        for graph in graphs:
            self._border(graph, False)
        self._border(self._model.graph, self._keep_io)

    def _border(self, graph: ir.Graph, keep_io: bool) -> None:
        """Convert the main graph, or that of a function, with its inputs and outputs."""
        for value in graph.inputs:
            if value in self._rules.floats and not keep_io:
                value.type = ir.TensorType(self._half)  # types are shared by copies of a model
                if graph is self._model.graph:
                    value.metadata_props[keys.DTYPE] = "float32"
        self._graph(graph)
        wanted = FLOAT if keep_io else self._half
        for i, value in enumerate(tuple(graph.outputs)):
            if value in self._rules.floats:
                graph.outputs[i] = self._as_output(value, wanted, graph)

    def _as_output(self, value: ir.Value, dtype: ir.DataType, graph: ir.Graph) -> ir.Value:
        given = self._as(value, dtype)
        if graph is self._model.graph and dtype is not FLOAT:
            given.metadata_props[keys.DTYPE] = "float32"
        if given is value or value.producer() is None or given in self._outputs:
            return given
        self._outputs.add(given)
        given.name, value.name = value.name, self._names.take(f"{value.name}_as_{value.dtype.name.lower()}")  # type: ignore[union-attr]
        given.metadata_props.update(value.metadata_props)
        return given

    def _graph(self, graph: ir.Graph) -> None:
        for node in tuple(graph):
            mode = self._rules.modes[node]
            for i, (value, wanted) in enumerate(zip(tuple(node.inputs), self._wanted(node))):
                if value is not None and wanted is not None:
                    node.replace_input_with(i, self._as(value, wanted))
            for body in graphs_of(node):
                self._graph(body)
                for i, value in enumerate(tuple(body.outputs)):
                    if value in self._rules.floats:
                        body.outputs[i] = self._as(value, FLOAT)
            if mode is Mode.HALF:
                self._results(node)

    def _wanted(self, node: ir.Node) -> list[ir.DataType | None]:
        """The type that a node takes each input in; None where it takes it as it is."""
        mode = self._rules.modes[node]
        if mode in (Mode.OTHER, Mode.EITHER, Mode.CONSTANT):
            return [None] * len(node.inputs)
        fixed = self._fixed(node)
        half = self._half if mode is Mode.HALF else FLOAT
        return [(FLOAT if value in fixed else half) if value in self._rules.floats else None for value in node.inputs]

    def _fixed(self, node: ir.Node) -> set[ir.Value]:
        """The inputs and outputs of a node that are float32 whatever the others are."""
        signature = signature_of(node, self._model.opset_imports)
        if signature is None or node.op_identifier() in self._rules.functions:
            return set()
        return {value for value, allowed in signature.of(node) if value is not None and allowed == {WIDE}}

    def _results(self, node: ir.Node) -> None:
        """Give a node of half precision the types of its results."""
        fixed = self._fixed(node)
        for value in node.outputs:
            if value in self._rules.floats and value not in fixed:
                value.type = ir.TensorType(self._half)
        if node.op_identifier() in self._rules.functions or node.domain:
            return
        for name in _TYPE_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value == FLOAT:
                node.attributes[name] = ir.AttrInt64(name, self._half)
        if node.op_type == "ConstantOfShape":
            given = node.attributes.get("value")
            zero = ir.tensor([0.0], FLOAT) if given is None else given.value
            node.attributes["value"] = ir.AttrTensor("value", self._ranges.converted(zero, None))
        if node.op_type == "Attention" and "softmax_precision" not in node.attributes:
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", FLOAT)

    # Weights and constants ---------------------------------------------------------------------------------------

    def _store(self, graphs: list[ir.Graph]) -> None:
        """Store the weights and constants in the types that are read."""
        wanted: dict[ir.Value, set[ir.DataType]] = {}
        for node in list(self._rules.modes):
            for value, dtype in zip(node.inputs, self._wanted(node)):
                if value is not None and dtype is not None and constant_of(value) is not None:
                    wanted.setdefault(value, set()).add(dtype)
            for body in graphs_of(node):
                for value in body.outputs:
                    if value in self._rules.floats and constant_of(value) is not None:
                        wanted.setdefault(value, set()).add(FLOAT)
        for graph in graphs:
            dtype = FLOAT if self._keep_io and graph is self._model.graph else self._half
            for value in graph.outputs:
                if value in self._rules.floats and constant_of(value) is not None:
                    wanted.setdefault(value, set()).add(dtype)
        for value, dtypes in wanted.items():
            if self._half in dtypes:
                self._store_half(value, FLOAT in dtypes)

    def _store_half(self, value: ir.Value, in_both: bool) -> None:
        tensor = constant_of(value)
        node = value.producer()
        name = self._names.take(f"{value.name}_{self._half.name.lower()}") if in_both else value.name
        made = self._ranges.converted(tensor, name)  # type: ignore[arg-type]
        if not in_both:
            value.type, value.const_value = ir.TensorType(self._half), made
            if node is not None:
                for attribute in tuple(node.attributes):
                    del node.attributes[attribute]
                node.attributes["value"] = ir.AttrTensor("value", made)
            return
        other = ir.Value(name=name, shape=value.shape, type=ir.TensorType(self._half), const_value=made)
        other.metadata_props.update(value.metadata_props)
        self._versions[value, self._half] = other
        if node is None:
            add_initializer(self._model, other)
        else:
            node.graph.insert_after(node, constant_node(other, made))  # type: ignore[union-attr]

    # Casts -------------------------------------------------------------------------------------------------------

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A value in a type: itself, its other version, or its cast."""
        if value.dtype is dtype:
            return value
        if constant_of(value) is not None:
            return self._versions[value, dtype]
        if (value, dtype) not in self.casts:
            self.casts[value, dtype] = self._cast(value, dtype)
        return self.casts[value, dtype]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        nodes = []
        source = value
        if dtype is self._half and value in self._rules.oversized:
            bounds = [self._bound(value, sign) for sign in (-1, 1)]
            nodes.append(ir.Node("", "Clip", [value, *bounds]))
            source = nodes[0].outputs[0]
            source.type, source.shape = ir.TensorType(FLOAT), value.shape
            source.name = self._names.take(f"{value.name}_clipped")
        nodes.append(ir.Node("", "Cast", [source], [ir.AttrInt64("to", dtype)]))
        (result,) = nodes[-1].outputs
        result.type, result.shape = ir.TensorType(dtype), value.shape
        result.name = self._names.take(f"{value.name}_as_{dtype.name.lower()}")
        producer = value.producer()
        for node in nodes:
            node.name = self._names.take(f"node_{node.outputs[0].name}")
        if producer is not None:
            producer.graph.insert_after(producer, nodes)  # type: ignore[union-attr]
        else:
            graph: Any = value.graph
            graph.insert_before(graph[0], nodes)
        return result

    def _bound(self, value: ir.Value, sign: int) -> ir.Value:
        """The largest number of the half precision, or the least, in float32."""
        tensor = ir.tensor(sign * self._ranges.largest, FLOAT)
        bound = ir.Value(name=self._names.take(f"{value.name}_bound"), shape=ir.Shape([]), type=ir.TensorType(FLOAT))
        producer = value.producer()
        body: Any = value.graph if producer is None else producer.graph
        if body is self._model.graph:
            bound.const_value = tensor
            return add_initializer(self._model, bound)
        body.insert_before(body[0] if producer is None else producer, constant_node(bound, tensor))
        return bound
