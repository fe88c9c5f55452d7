"""Which nodes of a model are computed in half precision.

Half precision is the rule; these are computed in float32, between casts:

- what a caller keeps, and what has no form in half precision at the model's opset,
- softmax, exponentials, logarithms, powers, sums and means, and the elementwise steps around them: the squares and the
  root of a norm that is written as single nodes, for one,
- arithmetic over integers, such as positions: half precision has not all of them,
- arithmetic with a constant that half precision can't hold, such as 1e-12.

Values at the borders of the bodies of If, Loop and Scan are float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum

import onnx_ir as ir
from onnxport.kit import graphs_of, keys
from onnxport.optimize.rewriting import has_references, values_of

from onnxport_precision.operators import (
    BOUNDS,
    ELEMENTWISE,
    FLOAT32,
    MOVING,
    NORMS,
    STEEP,
    WIDE,
    half_of,
    signature_of,
)
from onnxport_precision.ranges import Ranges, Span

FLOAT = ir.DataType.FLOAT
_CONTROL_FLOW = frozenset(["If", "Loop", "Scan", "SequenceMap"])
#: Integers of these types are too many for half precision.
_INTEGERS = frozenset(getattr(ir.DataType, name) for name in ("INT16", "INT32", "INT64", "UINT16", "UINT32", "UINT64"))


class Mode(Enum):
    """How a node is computed."""

    OTHER = "no float32 in it"
    EITHER = "takes both"
    CONSTANT = "constant"
    HALF = "half precision"
    FLOAT = "float32"


class Rules:
    """The modes of a model's nodes.

    Args:
        model: whose float32 values are looked at.
        ranges: of the half precision.
        is_kept: tells nodes that stay in float32.

    Attributes:
        floats: the float32 tensors of the model.
        modes: by node.
        reasons: how many nodes are computed in float32, by the reason.
        oversized: results in float32 that stand for infinity, perhaps: they have numbers from constants beyond the
            range of half precision.
        functions: functions of the model that become half precision, by identifier.
    """

    def __init__(self, model: ir.Model, ranges: Ranges, is_kept: Callable[[ir.Node], bool]) -> None:
        self._model, self._ranges, self._is_kept = model, ranges, is_kept
        self._half = half_of(ranges.dtype)
        self.floats: set[ir.Value] = set()
        self.modes: dict[ir.Node, Mode] = {}
        self.oversized: set[ir.Value] = set()
        self.functions: tuple[ir.OperatorIdentifier, ...] = ()
        self.reasons: Counter[str] = Counter()
        self._steep: set[ir.Value] = set()
        self._whole: set[ir.Value] = set()
        self._why: dict[ir.Node, str] = {}

    def decide(self, functions: Iterable[ir.OperatorIdentifier]) -> None:
        """Find the modes of all nodes.

        Args:
            functions: those of the model whose bodies become half precision.
        """
        self.functions = tuple(functions)
        bodies = [self._model.functions[key].graph for key in self.functions]
        for graph in (*bodies, self._model.graph):
            self.floats.update(value for value in values_of(graph) if _is_float(value))
        for graph in (*bodies, self._model.graph):
            nodes = list(self._forward(graph))
            for node in reversed(nodes):
                if self.modes[node] is Mode.HALF and self._feeds_float32(node):
                    self._set(node, "elementwise steps around these")
            for node in nodes:
                if self.modes[node] is Mode.HALF and self._shares(node):
                    self._set(node, "rows of a weight that is kept")
                self._mark_oversized(node)
        self.reasons = Counter(self._why[node] for node, mode in self.modes.items() if mode is Mode.FLOAT)

    def _set(self, node: ir.Node, reason: str) -> Mode:
        self.modes[node], self._why[node] = Mode.FLOAT, reason
        return Mode.FLOAT

    def _forward(self, graph: ir.Graph) -> Iterable[ir.Node]:
        for node in graph:
            for body in graphs_of(node):
                yield from self._forward(body)
            reason = self._reason(node)
            if isinstance(reason, Mode):
                self.modes[node] = reason
            elif reason:
                self._set(node, reason)
            else:
                self.modes[node] = Mode.HALF
            self._follow(node)
            yield node

    def _reason(self, node: ir.Node) -> Mode | str:
        """The mode of a node where it isn't computed; else why it is float32, or nothing for half precision."""
        held = any(_holds_floats(value) for value in (*node.inputs, *node.outputs))
        if node.op_type in _CONTROL_FLOW and not node.domain:
            return "bodies of If, Loop and Scan" if held or graphs_of(node) else Mode.OTHER
        if held:
            return "sequences of tensors"
        if not any(value in self.floats for value in (*node.inputs, *node.outputs)):
            return Mode.OTHER
        if node.op_type == "Constant" and not node.domain:
            return Mode.CONSTANT
        if node.op_identifier() in self._model.functions:
            return "" if node.op_identifier() in self.functions else "functions that are kept"
        if node.domain == "" and (node.op_type in ("Shape", "Size") or self._leaves_float32(node)):
            return Mode.EITHER
        if self._is_kept(node):
            return "named by keep="
        if not self._has_half(node):
            return "operators without a form in half precision"
        return self._numeric_reason(node)

    def _numeric_reason(self, node: ir.Node) -> str:
        floats = [value for value in node.inputs if value in self.floats]
        if node.domain == "" and node.op_type == "Cast":
            return "arithmetic over integers" if _dtype(node.inputs[0]) in _INTEGERS else ""
        whole = [value for value in floats if value in self._whole]
        if whole and all(value in self._whole or _is_number(value) for value in floats):
            return "arithmetic over integers"
        if node.domain == "" and node.op_type in FLOAT32:
            return "sums, exponentials and other steep operators"
        if node.domain == "" and node.op_type in NORMS and not self._has_float32_statistics(node):
            return "norms"
        if node.op_type == "DequantizeLinear" and not _is_stored(node.inputs[0]):
            return "quantized activations"
        reduction = node.attributes.get("reduction")
        if node.op_type.startswith("Scatter") and reduction is not None and reduction.value not in ("none", b"none"):
            return "sums, exponentials and other steep operators"
        for value in floats:
            span = self._span(value)
            if span.is_large and node.op_type not in BOUNDS:
                return "constants beyond the range"
            if span.is_small and node.op_type in ELEMENTWISE:
                return "constants beyond the range"
        moves = node.op_type in ELEMENTWISE or node.op_type in MOVING
        return "elementwise steps around these" if moves and any(value in self._steep for value in floats) else ""

    def _leaves_float32(self, node: ir.Node) -> bool:
        """A Cast of float32 to another type takes the value as it is."""
        return node.op_type == "Cast" and node.inputs[0] in self.floats and node.outputs[0] not in self.floats

    def _has_half(self, node: ir.Node) -> bool:
        """The operator takes half precision wherever the node has float32, or float32 alone there."""
        if has_references(node):
            return False
        signature = signature_of(node, self._model.opset_imports)
        if signature is None:
            return False
        kinds = [allowed for value, allowed in signature.of(node) if value in self.floats]
        return any(self._half in allowed for allowed in kinds) and all(
            self._half in allowed or allowed == {WIDE} for allowed in kinds
        )

    def _has_float32_statistics(self, node: ir.Node) -> bool:
        stash = node.attributes.get("stash_type")
        has_it = node.op_type != "GroupNormalization" or self._model.opset_imports.get("", 1) >= 21
        return has_it and (stash is None or stash.value == FLOAT)

    def _follow(self, node: ir.Node) -> None:
        """Note what is known of a node's results."""
        results = [value for value in node.outputs if value in self.floats]
        if self.modes[node] is not Mode.FLOAT or not results:
            return
        floats = [value for value in node.inputs if value in self.floats]
        if self._why[node] == "arithmetic over integers" or (not floats and node.op_type == "Range"):
            self._whole.update(results)
        others = [value for value in floats if not _is_constant(value)]
        is_one = len(others) <= 1 and (node.op_type in ELEMENTWISE or node.op_type in MOVING)
        follows = any(value in self._steep for value in others) or any(self._span(v).is_small for v in floats)
        if not node.domain and (node.op_type in STEEP or (is_one and follows)):
            self._steep.update(results)

    def _feeds_float32(self, node: ir.Node) -> bool:
        """An elementwise node whose results are read in float32 alone."""
        if node.domain or node.op_type not in ELEMENTWISE:
            return False
        uses = [use.node for value in node.outputs for use in value.uses()]
        reads = all(self.modes.get(reader) is Mode.FLOAT for reader in uses)
        return bool(uses) and reads and not any(value.is_graph_output() for value in node.outputs)

    def _shares(self, node: ir.Node) -> bool:
        """A node that takes rows of a weight which others read in float32: the weight is stored once."""
        table = node.inputs[0] if node.op_type == "Gather" and not node.domain else None
        if table is None or not _is_constant(table) or _is_number(table):
            return False
        return any(self.modes.get(use.node) is Mode.FLOAT or self._is_turned(use.node) for use in table.uses())

    def _is_turned(self, node: ir.Node) -> bool:
        """A Transpose for nodes of float32 alone."""
        readers = [use.node for use in node.outputs[0].uses()] if node.op_type == "Transpose" else []
        return bool(readers) and all(self.modes.get(reader) is Mode.FLOAT for reader in readers)

    def _mark_oversized(self, node: ir.Node) -> None:
        if self.modes[node] is not Mode.FLOAT:
            return
        own = any(value is not None and value in self.floats and self._span(value).is_large for value in node.inputs)
        passes = node.op_type in ELEMENTWISE or node.op_type in MOVING or node.op_type in BOUNDS
        if own or (passes and any(value in self.oversized for value in node.inputs)):
            self.oversized.update(value for value in node.outputs if value in self.floats)

    def _span(self, value: ir.Value) -> Span:
        tensor = constant_of(value)
        return Span() if tensor is None else self._ranges.span(tensor)


def constant_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of a node Constant; None for other values."""
    node = value.producer()
    if node is None:
        return None if value.is_graph_input() else value.const_value
    if node.op_type != "Constant" or node.domain:
        return None
    attribute = node.attributes.get("value")
    return value.const_value if attribute is None else attribute.value


def _is_float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype is FLOAT


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def _holds_floats(value: ir.Value | None) -> bool:
    """A sequence or an optional of float32 tensors."""
    kind = None if value is None else value.type
    depth = 0
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        kind, depth = kind.elem_type, depth + 1
    return depth > 0 and isinstance(kind, ir.TensorType) and kind.dtype is FLOAT


def _is_constant(value: ir.Value) -> bool:
    return constant_of(value) is not None


def _is_number(value: ir.Value) -> bool:
    """A constant that isn't a parameter of the model."""
    return _is_constant(value) and value.metadata_props.get(keys.INPUT_KIND) != "PARAMETER"


def _is_stored(value: ir.Value | None) -> bool:
    """A weight, or what is made of weights by moving."""
    while value is not None and constant_of(value) is None:
        node = value.producer()
        if node is None or node.domain or node.op_type not in MOVING:
            return False
        value = node.inputs[0]
    return value is not None


__all__ = ["Mode", "Rules", "constant_of"]
