"""FX nodes that depend on constants alone are evaluated by torch itself, before translation.

Masks, position tables, index tensors, ranges of static sizes: evaluating them costs microseconds, and leaves a
constant where there would be a chain of ONNX nodes. Random operators, mutated buffers and weights without data are
never evaluated, and neither is anything that would make the file larger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch.export.graph_signature import InputKind

from onnxport.weights import has_data

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from onnxport.functionalize import FunctionalProgram

logger = logging.getLogger(__name__)

_ALWAYS = 16 * 1024  # bytes: results up to this size are kept whatever they are made of
_LARGEST = 1024 * 1024  # bytes: results above this are kept only when they are no larger than what they replace


def fold_constants(functional: FunctionalProgram, program: ExportedProgram) -> dict[torch.fx.Node, torch.Tensor]:
    """The values of the nodes that need not be computed by the exported model.

    Returns:
        A tensor for each such node that other nodes or the outputs use.
    """
    known = _weights(functional, program)
    values: dict[torch.fx.Node, Any] = dict(known)
    own_bytes = {node: tensor.nbytes for node, tensor in known.items()}
    with torch.no_grad():
        for node in functional.graph_module.graph.nodes:
            if node.op == "get_attr":
                attribute = getattr(functional.graph_module, str(node.target), None)
                if isinstance(attribute, torch.Tensor) and has_data(attribute):
                    values[node], own_bytes[node] = attribute, attribute.nbytes
            elif _may_fold(node) and all(source in values for source in node.all_input_nodes):
                sources = sum(own_bytes.get(source, 0) for source in node.all_input_nodes)
                value = _evaluate(node, values, max(_ALWAYS, min(sources, _LARGEST)))
                if value is not None:
                    values[node] = value
                    own_bytes[node] = _bytes(value)
    return {
        node: value
        for node, value in values.items()
        if isinstance(value, torch.Tensor) and node.op == "call_function" and any(u not in values for u in node.users)
    }


def _weights(functional: FunctionalProgram, program: ExportedProgram) -> dict[torch.fx.Node, torch.Tensor]:
    """Parameters, buffers and lifted constants that have data and that the model doesn't change."""
    mutated = {mutation.target for mutation in functional.mutations}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    found: dict[torch.fx.Node, torch.Tensor] = {}
    for node in functional.graph_module.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is None or spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            continue
        if spec.target in mutated:
            continue
        tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if isinstance(tensor, torch.Tensor) and has_data(tensor):
            found[node] = tensor
    return found


def _may_fold(node: torch.fx.Node) -> bool:
    if node.op != "call_function":
        return False
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__module__", "") == "_operator"
    if target.namespace not in ("aten", "prims") or torch.Tag.nondeterministic_seeded in target.tags:
        return False
    return not target._schema.is_mutable and not _is_symbolic(node.meta.get("val"))


def _is_symbolic(fake: Any) -> bool:
    """The node's value has a symbolic size, or is a symbolic number."""
    if isinstance(fake, (list, tuple)):
        return any(_is_symbolic(item) for item in fake)
    if isinstance(fake, torch.Tensor):
        return any(not isinstance(dim, int) for dim in fake.shape)
    return isinstance(fake, (torch.SymInt, torch.SymFloat, torch.SymBool))


def _bytes(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return value.nbytes if isinstance(value, torch.Tensor) else 0


def _evaluate(node: torch.fx.Node, values: Mapping[torch.fx.Node, Any], limit: int) -> Any:
    """The node's value, or None where it would be larger than ``limit`` or torch can't compute it."""
    fake = node.meta.get("val")
    if _bytes(fake) > limit:
        return None
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda source: values[source])
    try:
        value = node.target(*args, **kwargs)  # type: ignore[operator]
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        logger.debug("%s is left to the model: %s", node, error)
        return None
    expected, actual = torch.utils._pytree.tree_leaves(fake), torch.utils._pytree.tree_leaves(value)
    same = len(expected) == len(actual) and all(
        not isinstance(e, torch.Tensor) or (e.dtype == a.dtype and tuple(e.shape) == tuple(a.shape))
        for e, a in zip(expected, actual)
    )
    return value if same else None
