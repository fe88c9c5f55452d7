"""Fold an inference batch normalization into the convolution before it.

``scale / sqrt(var + eps)`` multiplies the convolution's filters, the rest goes to its bias. The values are matched by
the graph's edges, never by names, and the new weights are made when the file is written, not before. They have the
names of the convolution's, and a mark that they aren't those.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnxport.kit import TorchTensor, keys
from onnxport.optimize.rewriting import (
    add_initializer,
    all_nodes,
    attribute,
    forward,
    is_standard,
    sole_use,
)


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    return sum(_fuse(model, node) for node in all_nodes(model) if is_standard(node, "BatchNormalization"))


def _fuse(model: ir.Model, norm: ir.Node) -> bool:
    source = norm.inputs[0]
    conv = source.producer() if source is not None else None
    if conv is None or source is None or not is_standard(conv, "Conv", "ConvTranspose") or sole_use(source) is not norm:
        return False
    if attribute(norm, "training_mode", 0) or len(norm.outputs) != 1 or norm.graph is not conv.graph:
        return False
    if conv.op_type == "ConvTranspose" and attribute(conv, "group", 1) != 1:
        return False
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    values = [conv.inputs[1], conv.inputs[2] if has_bias else None, *norm.inputs[1:5]]
    tensors = [_weight(model, value) if value is not None else None for value in values]
    if any(t is None and v is not None for t, v in zip(tensors, values)):
        return False
    if sole_use(conv.inputs[1]) is not conv or (has_bias and sole_use(conv.inputs[2]) is not conv):  # type: ignore[arg-type]
        return False
    weight, bias, scale, shift, mean, var = tensors
    if weight is None or scale is None or shift is None or mean is None or var is None:
        return False
    eps = float(attribute(norm, "epsilon", 1e-5))
    axis = 0 if conv.op_type == "Conv" else 1

    def fused_weight(weight: torch.Tensor, scale: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        shape = [1] * weight.dim()
        shape[axis] = -1
        return weight * _factor(scale, var, eps).reshape(shape).to(weight.dtype)

    def fused_bias(
        shift: torch.Tensor,
        scale: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        centred = (0.0 if bias is None else bias.double()) - mean.double()
        return (centred * _factor(scale, var, eps) + shift.double()).to(shift.dtype)

    biases = [scale, mean, var] if bias is None else [scale, mean, var, bias]
    new_weight = _initializer(model, conv.inputs[1], weight.combine(fused_weight, [scale, var]))  # type: ignore[arg-type]
    new_bias = _initializer(model, norm.inputs[2], shift.combine(fused_bias, biases))  # type: ignore[arg-type]
    weight_value, bias_value = conv.inputs[1], conv.inputs[2] if has_bias else norm.inputs[2]
    inputs = [conv.inputs[0], new_weight, new_bias]
    fused = ir.Node(
        "",
        conv.op_type,
        inputs,
        list(conv.attributes.values()),
        num_outputs=1,
        name=conv.name,
        metadata_props=dict(conv.metadata_props),
    )
    out = fused.outputs[0]
    old = norm.outputs[0]
    out.name, out.type, out.shape = old.name, source.type, source.shape
    out.metadata_props.update(old.metadata_props)
    norm.graph.insert_before(norm, fused)  # type: ignore[union-attr]
    if not forward(old, out):
        raise ValueError(f"the output {old.name} can't be replaced")  # out is fresh, so this can't be
    for node in (norm, conv):
        if node.graph is not None:
            node.graph.remove(node, safe=True)
    _keep_name(model, weight_value, new_weight)
    _keep_name(model, bias_value, new_bias)
    return True


def _factor(scale: torch.Tensor, var: torch.Tensor, eps: float) -> torch.Tensor:
    return scale.double() / torch.sqrt(var.double() + eps)


def _weight(model: ir.Model, value: ir.Value) -> TorchTensor | None:
    """The tensor of an initializer of the main graph."""
    data = value.const_value
    known = model.graph.initializers.get(value.name or "") is value and not value.is_graph_input()
    return data if known and isinstance(data, TorchTensor) else None


def _initializer(model: ir.Model, like: ir.Value, tensor: TorchTensor) -> ir.Value:
    """A new initializer named after the one that it takes the place of."""
    fused = ir.Value(name=f"{like.name}.fused", type=like.type, shape=like.shape, const_value=tensor)
    return add_initializer(model, fused)


def _keep_name(model: ir.Model, value: ir.Value, folded: ir.Value) -> None:
    """Give a constant that was computed from weights the name of one of them, which nothing reads any longer.

    The metadata says what it was computed from, so that nobody takes it for that weight. Where the weight is still
    read, the constant keeps the name that it has.
    """
    tensor = folded.const_value
    sources = [leaf.source for leaf in tensor.leaves() if leaf.source] if isinstance(tensor, TorchTensor) else []
    folded.metadata_props[keys.FOLDED_FROM] = ", ".join(dict.fromkeys(sources))
    initializers, name = model.graph.initializers, value.name or ""
    if value.uses() or value.is_graph_output() or initializers.get(name) is not value:
        return
    del initializers[name]
    initializers.pop(folded.name or "", None)
    folded.name = name
    initializers[name] = folded
