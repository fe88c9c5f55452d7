"""Let a convolution pad one end less where its last places are cut off: ``conv(x)[..., :length]``, a causal one.

::

    Conv(pads=[3, 3]) -> Slice(0 : length of x)      Conv(pads=[3, 0])

The places that aren't computed needn't be cut off. On onnxruntime 1.32, 1024 channels of 4 taps at 128 places take 0.31
ms so, and 0.40 with the Slice; the lengths that it compares are gone as well.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxport.optimize.rewriting import (
    all_nodes,
    attribute,
    constant,
    forward,
    is_standard,
    remove_if_unused,
    sole_use,
)


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    for node in tuple(all_nodes(model)):
        if is_standard(node, "Conv") and (cut := _cut(node)) is not None:
            changes += _trim(node, *cut)
    return changes


def _cut(conv: ir.Node) -> tuple[ir.Node, int] | None:
    """The Slice that alone reads a convolution, and takes as many places as its input has; and along which axis."""
    result, source = conv.outputs[0], conv.inputs[0]
    cut = sole_use(result)
    if cut is None or not is_standard(cut, "Slice") or cut.inputs[0] is not result or cut.graph is not conv.graph:
        return None
    starts, axes, steps = (constant(cut.inputs[i]) if i < len(cut.inputs) else None for i in (1, 3, 4))
    if starts is None or starts.tolist() != [0] or axes is None:
        return None
    if len(cut.inputs) > 4 and (steps is None or steps.tolist() != [1]):
        return None
    before, after = (None if value is None else value.shape for value in (source, cut.outputs[0]))
    if before is None or after is None or len(before) != len(after):
        return None
    axis = int(axes[0]) % len(after)
    is_length = _is_known(before[axis]) and before[axis] == after[axis]
    return (cut, axis - 2) if is_length and axis >= 2 else None


def _is_known(dim: object) -> bool:
    """A dimension that can be compared: a number, or a symbol with a name."""
    return isinstance(dim, int) or getattr(dim, "value", None) is not None


def _trim(conv: ir.Node, cut: ir.Node, place: int) -> int:
    """Pad so much less at the end of an axis, if the padding there is enough; the number of changes."""
    weight, pads = conv.inputs[1], attribute(conv, "pads")
    rank = 0 if weight is None or weight.shape is None else len(weight.shape) - 2
    if rank < 1 or pads is None or attribute(conv, "auto_pad", "NOTSET") != "NOTSET":
        return 0
    kernel = (attribute(conv, "kernel_shape") or list(weight.shape)[2:])[place]  # type: ignore[union-attr]
    stride = (attribute(conv, "strides") or [1] * rank)[place]
    dilation = (attribute(conv, "dilations") or [1] * rank)[place]
    if stride != 1 or not isinstance(kernel, int):
        return 0
    end = dilation * (kernel - 1) - pads[place]
    if not 0 <= end < pads[rank + place]:
        return 0
    trimmed = [*pads[: rank + place], end, *pads[rank + place + 1 :]]
    attributes = {**conv.attributes, "pads": ir.AttrInt64s("pads", trimmed)}
    made = ir.Node("", "Conv", conv.inputs, list(attributes.values()), name=cut.name)
    made.metadata_props.update(cut.metadata_props)
    made.fx_node = getattr(cut, "fx_node", None)  # type: ignore[attr-defined]
    result, old = made.outputs[0], cut.outputs[0]
    result.type, result.shape, result.name = old.type, old.shape, conv.outputs[0].name
    result.metadata_props.update(old.metadata_props)
    cut.graph.insert_before(cut, made)  # type: ignore[union-attr]
    forward(old, result)
    remove_if_unused(conv)
    return 1
