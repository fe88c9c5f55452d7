"""Fold the transpose of a weight that nothing else reads into the weight, as a view of the same storage.

No bytes are copied: the file's writer streams the view. The initializer is renamed ``<name>.T``, since its layout is no
longer that of the state dict; the tensor remembers its source.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxport.passes.rewriting import all_nodes, attribute, is_standard, sole_use
from onnxport.weights import TorchTensor


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    changes = 0
    initializers = model.graph.initializers
    for node in all_nodes(model):
        if not is_standard(node, "Transpose") or node.inputs[0] is None:
            continue
        weight, result = node.inputs[0], node.outputs[0]
        data = weight.const_value
        if weight.name not in initializers or not isinstance(data, TorchTensor) or result.is_graph_output():
            continue
        if sole_use(weight) is not node or weight.is_graph_input() or data.aliases:
            continue
        perm = tuple(attribute(node, "perm") or range(len(data.shape) - 1, -1, -1))
        name = f"{weight.name}.T"
        if name in initializers or node.graph is None:
            continue
        view = data.derive(lambda tensor, perm=perm: tensor.permute(perm), name)  # type: ignore[misc]
        folded = ir.Value(
            name=name,
            type=weight.type,
            shape=ir.Shape(view.shape),
            const_value=view,
            metadata_props=dict(weight.metadata_props),
        )
        ir.convenience.replace_all_uses_with(result, folded)
        node.graph.remove(node, safe=True)
        del initializers[weight.name]  # type: ignore[arg-type]
        initializers[name] = folded
        changes += 1
    return changes
