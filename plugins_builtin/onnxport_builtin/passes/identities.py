"""Remove nodes that give back an input: Identity, casts to the same type, layout changes that change nothing, products
with one, sums with an integer zero, conjunctions with True.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport.optimize.rewriting import all_nodes, attribute, constant, forward, has_references, same_dims

if TYPE_CHECKING:
    import onnx_ir as ir


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    return sum(_remove(node) for node in all_nodes(model))


def _remove(node: ir.Node) -> bool:
    if node.domain or not node.inputs or node.inputs[0] is None or has_references(node):
        return False
    source = node.inputs[0] if _changes_nothing(node) else _beside_neutral(node)
    return source is not None and forward(node.outputs[0], source)


def _beside_neutral(node: ir.Node) -> ir.Value | None:
    """The operand of a product, sum or conjunction whose other operand leaves it as it is."""
    is_neutral = _NEUTRAL.get(node.op_type)
    if is_neutral is None or len(node.inputs) != 2:
        return None
    for source, other in (node.inputs, node.inputs[::-1]):
        if is_neutral(other) and source is not None and same_dims(source.shape, node.outputs[0].shape):
            return source
        if node.op_type in ("Div", "Sub"):
            break
    return None


def _changes_nothing(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    kind = node.op_type
    if kind == "Identity":
        return True
    if kind == "Cast":
        return source.dtype is not None and source.dtype == attribute(node, "to")
    if kind == "Transpose":
        perm = attribute(node, "perm")
        return perm is not None and list(perm) == list(range(len(perm)))
    if kind in ("Reshape", "Expand", "Tile", "Slice"):
        return same_dims(source.shape, result.shape) and (kind != "Slice" or _full(node))
    if kind == "Pad":
        pads = constant(node.inputs[1])
        return pads is not None and not pads.any()
    if kind == "Concat":
        return len(node.inputs) == 1
    return False


def _full(node: ir.Node) -> bool:
    """A slice of steps of one that takes everything; its equal shapes mean that, unless they come from the example.

    torch.export takes a bound beyond the example's size for the end: ``x[-20:]`` of 8 rows is all of them.
    """
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    if len(node.inputs) > 4 and (steps is None or not (steps == 1).all()):
        return False
    shape, bounds = node.inputs[0].shape, [constant(value) for value in node.inputs[1:4]]  # type: ignore[union-attr]
    starts, ends, axes = (*bounds, range(len(shape))) if len(bounds) < 3 else bounds  # type: ignore[arg-type]
    for i in range(len(starts if starts is not None else ends if ends is not None else ())):
        if axes is not None and isinstance(shape[int(axes[i])], int):  # type: ignore[index]
            continue
        if (starts is not None and starts[i] < 0) or (ends is not None and ends[i] < _END):
            return False
    return True


_END = 1 << 31


def _is_zero(value: ir.Value | None) -> bool:
    """An integer zero: a float one changes the sign of another."""
    array = constant(value, 16)
    return array is not None and array.size == 1 and array.dtype.kind in "iu" and array.reshape(-1)[0] == 0


def _is_one(value: ir.Value | None) -> bool:
    array = constant(value, 16)
    return array is not None and array.size == 1 and array.reshape(-1)[0] == 1


_NEUTRAL = {"Mul": _is_one, "Div": _is_one, "And": _is_one, "Add": _is_zero, "Sub": _is_zero}
