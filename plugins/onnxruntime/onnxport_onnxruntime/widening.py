"""bfloat16 on the CPU: what onnxruntime has no kernel for in it is computed in float32, between two casts.

::

    a (bfloat16) ── Cast ──┐
                           ├─ MatMul (float32) ── Cast ── y (bfloat16)
    b (bfloat16) ── Cast ──┘

A value is rounded to bfloat16 where eager torch rounds it: behind each of its operators. Between the nodes that one
operator became it stays in float32, as it does inside the kernels of torch. onnxruntime does the same for float16 when
it loads a file, and computes the casts of weights once.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnxport.kit import FreeNames, Table, covers, installed_kernels, onnx_schema
from onnxport.optimize.rewriting import all_nodes, attribute, bodies, has_references, remove_if_unused

CPU_PROVIDER = "CPUExecutionProvider"
NARROW, WIDE = "tensor(bfloat16)", "tensor(float)"
_TYPE_ATTRIBUTES = ("dtype", "output_dtype", "output_datatype", "precision")
"""Attributes that name the type of a result."""


def _kernels() -> Table:
    """The kernels of the CPU in the installed onnxruntime; none where it isn't installed, or doesn't tell."""
    return installed_kernels().get(CPU_PROVIDER, {})


def kernels_of_files() -> Table:
    """The kernels that files of the profile have: each that takes float32 takes bfloat16 too, with casts around it."""
    return {operator: [_with_narrow(row) for row in rows] for operator, rows in _kernels().items()}


def _with_narrow(row: Any) -> Any:
    first, last, variables = row
    types = {name: list(kinds) for name, kinds in variables.items()}
    return first, last, {name: [*kinds, NARROW] if WIDE in kinds else kinds for name, kinds in types.items()}


def widen(model: ir.Model) -> int:
    """Put casts around the nodes that have no kernel for bfloat16; the number of these."""
    nodes = [node for node in all_nodes(model) if _is_wide(model, node)]
    if not nodes:
        return 0
    casts = _Casts(FreeNames(model, *bodies(model)))
    for node in nodes:
        casts.around(node)
    casts.finish()
    return len(nodes)


def _is_wide(model: ir.Model, node: ir.Node) -> bool:
    """It is to be computed in float32."""
    if node.domain or has_references(node) or node.op_identifier() in model.functions:
        return False
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return False  # control flow takes all types
    if not any(_is_narrow(value) for value in (*node.inputs, *node.outputs)):
        return False
    schema = onnx_schema(node.op_type, "", model.opset_imports.get("", 1))
    if schema is None or node.op_type in ("Cast", "Constant"):
        return False
    if node.op_type.startswith("Scatter") and attribute(node, "reduction", "none") != "none":
        return True  # onnxruntime 1.32 has kernels that refuse bfloat16 when they run
    types = _types(node, schema)
    rows = [row for row in _kernels().get(("", node.op_type), ()) if covers(row, schema.since_version)]
    return not any(all(kind in row[2][name] for name, kind in types.items() if name in row[2]) for row in rows)


def _is_narrow(value: ir.Value | None) -> bool:
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype is ir.DataType.BFLOAT16


def _types(node: ir.Node, schema: onnx.defs.OpSchema) -> dict[str, str]:
    """By type variable, bfloat16 where a value of the node has it; of other types all runtimes know what they need."""
    found: dict[str, str] = {}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for i, value in enumerate(values if formals else ()):
            if _is_narrow(value):
                found[formals[min(i, len(formals) - 1)].type_str] = NARROW
    return found


class _Casts:
    """The casts of one model: each value is cast once.

    Args:
        names: for what is added.
    """

    def __init__(self, names: FreeNames) -> None:
        self._names = names
        self._wide: dict[ir.Value, ir.Value] = {}
        self._unrounded: dict[ir.Value, tuple[ir.Value, Any]] = {}
        """By rounded value, the result of a node before that, and the FX node that both are of."""

    def around(self, node: ir.Node) -> None:
        """Let a node take and give float32."""
        operator = getattr(node, "fx_node", None)
        for i, value in enumerate(node.inputs):
            if _is_narrow(value):
                unrounded, source = self._unrounded.get(value, (None, None))  # type: ignore[arg-type]
                is_inside = source is not None and source is operator and unrounded is not None
                node.replace_input_with(i, unrounded if is_inside else self._cast(value))  # type: ignore[arg-type]
        for name in _TYPE_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value == ir.DataType.BFLOAT16:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        for value in node.outputs:
            if _is_narrow(value):
                rounded = self._rounded(node, value)
                self._unrounded[rounded] = value, operator

    def _cast(self, value: ir.Value) -> ir.Value:
        """A value in float32, computed where it is."""
        if value not in self._wide:
            cast = self._cast_node(value, ir.DataType.FLOAT)
            producer = value.producer()
            if producer is not None:
                producer.graph.insert_after(producer, cast)  # type: ignore[union-attr]
            else:
                graph = value.graph
                graph.insert_before(graph[0], cast)  # type: ignore[union-attr]
            self._wide[value] = cast.outputs[0]
        return self._wide[value]

    def _rounded(self, node: ir.Node, value: ir.Value) -> ir.Value:
        """The bfloat16 that takes the place of a node's result, which becomes float32."""
        cast = self._cast_node(value, ir.DataType.BFLOAT16)
        rounded = cast.outputs[0]
        ir.convenience.replace_all_uses_with(value, rounded, replace_graph_outputs=True)
        cast.replace_input_with(0, value)
        rounded.name = value.name
        value.name = self._names.take(f"{value.name}_float")
        rounded.metadata_props.update(value.metadata_props)
        value.metadata_props.clear()
        value.type = ir.TensorType(ir.DataType.FLOAT)  # copies of a model share the one that it had
        node.graph.insert_after(node, cast)  # type: ignore[union-attr]
        return rounded

    def finish(self) -> None:
        """Leave out what nothing reads."""
        for rounded in self._unrounded:
            remove_if_unused(rounded.producer())  # type: ignore[arg-type]

    def _cast_node(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype)])
        (result,) = node.outputs
        result.dtype, result.shape = dtype, value.shape
        result.name = self._names.take(f"{value.name}_as_{dtype.name.lower()}")
        return node
