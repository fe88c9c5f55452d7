"""Rotary position embeddings that models write by hand as one RotaryEmbedding, from opset 23 on.

These are rotations, where ``a, b`` are the halves of the last axis of ``x``, or its even and odd places::

    x * cos + concat(-b, a) * sin                       with tables (..., S, D) of two equal halves, or pairs
    concat(a * cos - b * sin, b * cos + a * sin)        with tables (..., S, D / 2)

Measured on onnxruntime 1.32 (``tests/benchmarks/attention.py``): 16 heads of 64 at 256 places take 0.12 ms in place of
0.51, one place 0.011 in place of 0.014. That a table has two equal halves follows from how it is computed; where it
doesn't, the rotation stays as it is. A table is made once a graph, and repeated over the batch once, as the operator
wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir import DataType
from onnxport.kit import nodes_of
from onnxport.optimize.rewriting import add_constant, attribute, bodies, constant, is_standard

from onnxport_builtin.free_names import FreeNames

_TYPES = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
_CHAIN = ("Cos", "Sin", "Cast", "Unsqueeze", "Mul", "Div")


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    if model.graph.opset_imports[""] < 23:
        return 0
    changes = 0
    for graph in bodies(model):
        writer = _Writer(model, graph)
        for node in tuple(nodes_of(graph)):
            rotation = _rotation(node)
            changes += rotation is not None and writer.write(node, rotation)
    return changes


class _Rotation(NamedTuple):
    x: ir.Value
    cos: ir.Value
    sin: ir.Value
    interleaved: bool
    """Even and odd places are pairs; else the first half and the second."""
    is_whole: bool
    """The tables are as wide as ``x``; else half as wide."""


def _rotation(node: ir.Node) -> _Rotation | None:
    if is_standard(node, "Add"):
        return _of_sum(node)
    return _of_halves(node) if is_standard(node, "Concat") and len(node.inputs) == 2 else None


def _of_sum(node: ir.Node) -> _Rotation | None:
    for plain, turned in _orders(node.inputs):
        for x, cos in _factors(plain):
            for rotated, sin in _factors(turned):
                interleaved = _is_rotated(rotated, x)
                if interleaved is not None:
                    return _Rotation(x, cos, sin, interleaved, True)
    return None


def _of_halves(node: ir.Node) -> _Rotation | None:
    if not _is_last_axis(node.inputs[0], attribute(node, "axis")):
        return None
    first, second = _producer(node.inputs[0], "Sub"), _producer(node.inputs[1], "Add")
    if first is None or second is None:
        return None
    for a, cos in _factors(first.inputs[0]):
        for b, sin in _factors(first.inputs[1]):
            x = _halved(a, b)
            sums = ((p, q) for p, q in _orders(second.inputs))
            if x is not None and any(_has(p, b, cos) and _has(q, a, sin) for p, q in sums):
                return _Rotation(x, cos, sin, False, False)
    return None


def _orders(values: Sequence[ir.Value | None]) -> Iterator[tuple[Any, Any]]:
    yield values[0], values[1]
    yield values[1], values[0]


def _factors(value: ir.Value | None) -> Iterator[tuple[ir.Value, ir.Value]]:
    product = _producer(value, "Mul")
    if product is not None:
        yield from _orders(product.inputs)


def _has(value: ir.Value, first: ir.Value, second: ir.Value) -> bool:
    return any(p is first and q is second for p, q in _factors(value))


def _producer(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and is_standard(node, *kinds) else None


def _is_last_axis(value: ir.Value | None, axis: int) -> bool:
    return value is not None and value.shape is not None and axis % len(value.shape) == len(value.shape) - 1


# ---- what is turned


def _is_rotated(value: ir.Value, x: ir.Value) -> bool | None:
    """Whether a value is ``x`` turned by a quarter in pairs of neighbours (True), or of halves (False); else None."""
    reshape = _producer(value, "Reshape")
    concat = _producer(value if reshape is None else reshape.inputs[0], "Concat")
    if concat is None or len(concat.inputs) != 2 or not _is_last_axis(concat.inputs[0], attribute(concat, "axis")):
        return None
    first, second = concat.inputs
    if reshape is not None:
        columns = [_producer(part, "Unsqueeze") for part in (first, second)]
        if value.shape != x.shape or any(c is None or not _adds_last_axis(c) for c in columns):
            return None
        first, second = (column.inputs[0] for column in columns)  # type: ignore[union-attr]
    negative = _producer(first, "Neg")
    if negative is None:
        return None
    b, a = negative.inputs[0], second
    if reshape is None:
        return False if _halved(a, b) is x else None
    return True if _slice_of(a, x) == (0, 2) and _slice_of(b, x) == (1, 2) else None


def _adds_last_axis(node: ir.Node) -> bool:
    return node.outputs[0].shape is not None and _adds_axis(node, len(node.outputs[0].shape) - 1)


def _halved(a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
    """The value whose last axis has the halves a and b."""
    split = _producer(a, "Split")
    if split is not None:
        x = split.inputs[0]
        equal = len(split.outputs) == 2 and a is split.outputs[0] and b is split.outputs[1] and _equal_sizes(a, b)
        return x if equal and _is_last_axis(x, attribute(split, "axis", 0)) else None
    slices = _producer(a, "Slice"), _producer(b, "Slice")
    if None in slices:
        return None
    x = slices[0].inputs[0]  # type: ignore[union-attr]
    if x is None or x.shape is None or not isinstance(width := x.shape[-1], int) or width % 2:
        return None
    return x if _slice_of(a, x) == (0, 1) and _slice_of(b, x) == (width // 2, 1) and _equal_sizes(a, b) else None


def _equal_sizes(a: ir.Value | None, b: ir.Value | None) -> bool:
    if a is None or b is None or a.shape is None or b.shape is None:
        return False
    return isinstance(a.shape[-1], int) and a.shape[-1] == b.shape[-1]


def _slice_of(value: ir.Value | None, x: ir.Value) -> tuple[int, int] | None:
    """Start and step of a slice of ``x`` along its last axis, to its end or its half."""
    node = _producer(value, "Slice")
    if node is None or node.inputs[0] is not x or x.shape is None or not isinstance(x.shape[-1], int):
        return None
    bounds = [constant(bound) for bound in node.inputs[1:]]
    if len(bounds) < 3 or any(bound is None or len(bound) != 1 for bound in bounds):
        return None
    start, end, axis, *step = (int(bound[0]) for bound in bounds)  # type: ignore[index]
    width = x.shape[-1]
    stride = step[0] if step else 1
    if not _is_last_axis(x, axis) or start < 0 or stride < 1 or (end < width and end != width // 2):
        return None
    return None if start == 0 and stride == 1 and end >= width else (start, stride)


# ---- tables


def _half(table: ir.Value, interleaved: bool) -> tuple[ir.Value, list[ir.Node]] | None:
    """What the table holds twice along its last axis, and the nodes that make the table of it, from the first on."""
    steps: list[ir.Node] = []
    value = table
    while (node := _producer(value, *_CHAIN)) is not None:
        place = _operand(node)
        if place is None:
            return None
        steps.insert(0, node)
        value = node.inputs[place]  # type: ignore[assignment]
    twice = _of_pairs(value) if interleaved else _of_concat(value)
    return None if twice is None else (twice, steps)


def _operand(node: ir.Node) -> int | None:
    """The place of the input that has the table's last axis as its own; None where that isn't sure."""
    if node.op_type in ("Mul", "Div"):
        places = [i for i, value in enumerate(node.inputs) if not _is_number(value)]
        return places[0] if len(places) == 1 and (node.op_type == "Mul" or places == [0]) else None
    if node.op_type == "Unsqueeze":
        axes, result = constant(node.inputs[1]), node.outputs[0]
        if axes is None or result.shape is None or any(_is_last_axis(result, int(axis)) for axis in axes):
            return None
    return 0


def _is_number(value: ir.Value | None) -> bool:
    array = constant(value, 8)
    return array is not None and array.size == 1 and array.ndim <= 1


def _of_concat(value: ir.Value) -> ir.Value | None:
    node = _producer(value, "Concat")
    if node is None or len(node.inputs) != 2 or node.inputs[0] is not node.inputs[1]:
        return None
    return node.inputs[0] if _is_last_axis(value, attribute(node, "axis")) else None


def _of_pairs(value: ir.Value) -> ir.Value | None:
    """Each number twice in a row: an index of 0, 0, 1, 1, ..., or two equal columns that were laid side by side."""
    gather = _producer(value, "Gather")
    if gather is not None and _is_last_axis(gather.inputs[0], attribute(gather, "axis", 0)):
        source, places = gather.inputs[0], constant(gather.inputs[1], 16 * 1024)
        width = source.shape[-1]  # type: ignore[union-attr,index]
        if places is None or not isinstance(width, int) or places.shape != (2 * width,):
            return None
        return source if (places == np.repeat(np.arange(width), 2)).all() else None
    reshape = _producer(value, "Reshape")
    spread = None if reshape is None else _producer(reshape.inputs[0], "Expand", "Concat")
    if spread is None or value.shape is None or (result := spread.outputs[0].shape) is None:
        return None
    if spread.op_type == "Concat" and (spread.inputs[0] is not spread.inputs[-1] or len(spread.inputs) != 2):
        return None
    column = _producer(spread.inputs[0], "Unsqueeze")
    if column is None or not _adds_last_axis(column) or (source := column.inputs[0]) is None or source.shape is None:
        return None
    width = source.shape[-1]
    if not isinstance(width, int) or list(result) != [*source.shape, 2] or value.shape[-1] != 2 * width:
        return None
    return source if list(value.shape) == [*list(source.shape)[:-1], 2 * width] else None


class _Writer:
    """Writes RotaryEmbedding nodes into a graph, and each table once."""

    def __init__(self, model: ir.Model, graph: ir.Graph) -> None:
        self._model, self._graph = model, graph
        self._tables: dict[Any, ir.Value] = {}
        self._constants: dict[tuple[int, ...], ir.Value] = {}
        self._names = FreeNames(model, graph)

    def write(self, node: ir.Node, rotation: _Rotation) -> bool:
        """Turn the last node of a rotation into the whole of it, where shapes and tables allow it."""
        x = rotation.x
        if x.dtype not in _TYPES or x.shape is None or len(x.shape) != 4 or node.outputs[0].shape != x.shape:
            return False
        tables = [self._table(node, table, rotation) for table in (rotation.cos, rotation.sin)]
        if None in tables:
            return False
        node.op_type = "RotaryEmbedding"
        node.resize_inputs(3)
        for i, value in enumerate((x, *tables)):
            node.replace_input_with(i, value)
        node.attributes.clear()
        if rotation.interleaved:
            node.attributes["interleaved"] = ir.AttrInt64("interleaved", 1)
        return True

    def _table(self, user: ir.Node, table: ir.Value, rotation: _Rotation) -> ir.Value | None:
        """The table as (B, S, D / 2); None where it isn't one for all heads that has a row for each place."""
        batch, _, length, width = rotation.x.shape  # type: ignore[misc]
        dims = list(table.shape) if table.shape is not None else []
        if not isinstance(width, int) or not 2 <= len(dims) <= 4 or dims[-3:-2] not in ([], [1]):
            return None
        if dims[-2] != length or dims[-1] != (width if rotation.is_whole else width // 2):
            return None
        if len(dims) == 4 and dims[0] not in (1, batch):
            return None
        key = (user.graph, table, rotation.interleaved, rotation.is_whole)
        if key not in self._tables:
            made = _half(table, rotation.interleaved) if rotation.is_whole else (table, [])
            if made is None:
                return None
            self._tables[key] = self._laid_out(user, *made, len(dims))
            self._tables[key].shape = ir.Shape([dims[0] if len(dims) == 4 else 1, length, width // 2])
        if len(dims) == 4 and dims[0] == batch:
            return self._tables[key]
        for_batch = (*key, str(batch))
        if for_batch not in self._tables:
            self._tables[for_batch] = self._repeated(user, self._tables[key], rotation.x)
        return self._tables[for_batch]

    def _laid_out(self, user: ir.Node, value: ir.Value, steps: list[ir.Node], rank: int) -> ir.Value:
        """The steps again, of half the width, and without the axis of the heads."""
        is_head_axis_last = rank == 4 and bool(steps) and _adds_axis(steps[-1], 1)
        for node in steps[:-1] if is_head_axis_last else steps:
            width = value.shape[-1] if value.shape is not None else None
            value = self._again(user, node, value)
            value.shape = ir.Shape([*list(node.outputs[0].shape or ())[:-1], width])
        if rank == 4 and not is_head_axis_last:
            before = _producer(value, "Unsqueeze")
            if before is not None and _adds_axis(before, 1):
                return before.inputs[0]  # type: ignore[return-value]
            return self._emit(user, "Squeeze", value, self._constant([1]))
        return self._emit(user, "Unsqueeze", value, self._constant([0])) if rank == 2 else value

    def _repeated(self, user: ir.Node, value: ir.Value, x: ir.Value) -> ir.Value:
        """A table (1, S, D / 2) for all of the batch."""
        batch = x.shape[0]  # type: ignore[index]
        if batch == 1:
            return value
        if isinstance(batch, int):
            result = self._emit(user, "Expand", value, self._constant([batch, 1, 1]))
        else:
            key = (user.graph, str(batch))
            if key not in self._tables:
                size = self._emit(user, "Shape", x, dtype=DataType.INT64, start=0, end=1)
                size.shape = ir.Shape([1])
                self._tables[key] = self._emit(user, "Concat", size, self._constant([1, 1]), axis=0)
                self._tables[key].shape = ir.Shape([3])
            result = self._emit(user, "Expand", value, self._tables[key])
        result.shape = ir.Shape([batch, *list(value.shape or ())[1:]])
        return result

    def _again(self, user: ir.Node, node: ir.Node, value: ir.Value) -> ir.Value:
        """A node with another value in the place of its operand."""
        inputs = list(node.inputs)
        inputs[_operand(node) or 0] = value
        return self._insert(user, node.op_type, inputs, list(node.attributes.values()), node.outputs[0].dtype, node)

    def _emit(
        self, user: ir.Node, kind: str, *inputs: ir.Value, dtype: DataType | None = None, **attributes: int
    ) -> ir.Value:
        attrs = [ir.AttrInt64(name, number) for name, number in attributes.items()]
        return self._insert(user, kind, inputs, attrs, dtype or inputs[0].dtype, user)

    def _insert(
        self,
        user: ir.Node,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attrs: Sequence[ir.Attr],
        dtype: DataType | None,
        like: ir.Node,
    ) -> ir.Value:
        name = self._names.take(f"{user.outputs[0].name}_table")
        node = ir.Node("", kind, inputs, attrs, name=f"node_{name}")
        value = node.outputs[0]
        value.name, value.type = name, None if dtype is None else ir.TensorType(dtype)
        node.metadata_props.update(like.metadata_props)
        user.graph.insert_before(user, node)  # type: ignore[union-attr]
        return value

    def _constant(self, numbers: list[int]) -> ir.Value:
        key = tuple(numbers)
        if key not in self._constants:
            data = ir.Tensor(np.array(numbers, np.int64))
            name = self._names.take("axes_" + "_".join(map(str, numbers)))
            value = ir.Value(name=name, type=ir.TensorType(data.dtype), shape=data.shape, const_value=data)
            add_constant(self._graph, value, self._model)
            self._constants[key] = value
        return self._constants[key]


def _adds_axis(node: ir.Node, axis: int) -> bool:
    """The node puts one axis there, and no other."""
    axes = constant(node.inputs[1]) if node.op_type == "Unsqueeze" else None
    return axes is not None and [int(place) % len(node.outputs[0].shape or [0]) for place in axes] == [axis]
