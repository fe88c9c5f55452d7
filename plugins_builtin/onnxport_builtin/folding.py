"""FX nodes that depend on constants alone are evaluated by torch itself, before translation.

Masks, position tables, index tensors, ranges of static sizes: evaluating them costs microseconds, and leaves a constant
where there would be a chain of ONNX nodes. Random operators, mutated buffers and weights without data are never
evaluated, and neither is anything that would make the file much larger, nor what a table or a third party translates.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from onnxport.kit import Fill, Folded, Folding, has_data
from torch._ops import OpOverload
from torch.export.graph_signature import InputKind
from torch.fx import Node, map_arg

if TYPE_CHECKING:
    from onnxport.kit import FunctionalProgram, Semantics
    from torch.export import ExportedProgram

logger = logging.getLogger("onnxport.folding")

_OF_WEIGHTS = 16 * 1024
"""Bytes: results made of parameters and buffers are kept up to here, if no larger than what they are made of."""
_OF_CONSTANTS = 1024 * 1024
"""Bytes: other results are kept up to here, or while they are no larger than what they are made of."""
_EVALUATED = 4 * 1024 * 1024
"""Bytes: nothing larger is computed on the way, which bounds what the search costs."""


class _Known(NamedTuple):
    """A node's value, and what it is made of."""

    value: Any
    source: int
    """Bytes of the weights and constants that it is made of."""
    is_weight: bool
    """Parameters or buffers are among them."""
    is_view: bool
    """It is a weight, or a view of one: the file holds it already."""


def fold_constants(
    functional: FunctionalProgram,
    program: ExportedProgram,
    semantics: Semantics,
    is_kept: Callable[[Node], bool] = lambda _node: False,
) -> Folded:
    """The values of the nodes that need not be computed by the exported model.

    Args:
        functional: the graph.
        program: for its weights and constants.
        semantics: what operators fill with, and which calls may not be computed now.
        is_kept: tells the nodes that are to be translated, though torch could compute them now.
    """
    known = _weights(functional, program)
    with torch.no_grad():
        for node in functional.graph_module.graph.nodes:
            if node in functional.skipped:
                continue
            if node.op == "get_attr":
                attribute = getattr(functional.graph_module, str(node.target), None)
                if isinstance(attribute, torch.Tensor) and has_data(attribute):
                    known[node] = _Known(attribute, attribute.nbytes, False, False)
            elif node.op == "call_function":
                result = _result(node, known, semantics, is_kept)
                if result is not None:
                    known[node] = result
    values: dict[Node, torch.Tensor] = {}
    interior = set(functional.skipped)
    for node in reversed(functional.graph_module.graph.nodes):
        if node.op == "call_function" and node in known:
            if all(user in values or user in interior for user in node.users):
                interior.add(node)
            elif _is_worth_keeping(known[node]):
                values[node] = known[node].value
    return Folded(values, frozenset(interior))


def _result(
    node: Node, known: Mapping[Node, _Known], semantics: Semantics, is_kept: Callable[[Node], bool]
) -> _Known | None:
    """The value of an operator's call, where it can be computed now."""
    fill = semantics.of(Fill, node.target)
    if fill is None and not all(source in known for source in node.all_input_nodes):
        return None
    if not _may_fold(node, semantics) or is_kept(node):
        return None
    if fill is None:
        return _evaluate(node, known)
    fake, number = node.meta["val"], fill.value(node)
    if not isinstance(number, (bool, int, float, complex)):
        return None
    return _Known(torch.empty(tuple(fake.shape), dtype=fake.dtype).fill_(number), 0, False, False)


def _weights(functional: FunctionalProgram, program: ExportedProgram) -> dict[Node, _Known]:
    """Parameters, buffers and lifted constants that have data and that the model doesn't change."""
    mutated = {mutation.target for mutation in functional.mutations}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    found: dict[Node, _Known] = {}
    for node in functional.graph_module.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is None or spec.target is None or spec.target in mutated:
            continue
        tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if isinstance(tensor, torch.Tensor) and has_data(tensor) and tensor.layout is torch.strided:
            is_weight = spec.kind is not InputKind.CONSTANT_TENSOR
            found[node] = _Known(tensor.detach(), tensor.nbytes, is_weight, is_weight)
    return found


def _may_fold(node: Node, semantics: Semantics) -> bool:
    """Whether the operator gives the same static tensors each time."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    if not leaves or not all(_is_static(leaf) for leaf in leaves) or sum(map(_size, leaves)) > _EVALUATED:
        return False
    target: Any = node.target
    if not isinstance(target, OpOverload):
        return target is operator.getitem
    if (record := semantics.of(Folding, target)) is not None:
        return record.when is not None and record.when(node)
    is_random = torch.Tag.nondeterministic_seeded in target.tags
    return target.namespace in ("aten", "prims") and not is_random and not target._schema.is_mutable


def _is_static(fake: Any) -> bool:
    return isinstance(fake, torch.Tensor) and all(isinstance(size, int) for size in fake.shape)


def _evaluate(node: Node, known: Mapping[Node, _Known]) -> _Known | None:
    """The node's value, or None where torch can't compute it or it isn't what was recorded."""
    args, kwargs = map_arg((node.args, node.kwargs), lambda source: known[source].value)
    try:
        value = node.target(*args, **kwargs)  # type: ignore[operator]
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, AssertionError) as error:
        logger.debug("%s is left to the model: %s", node, error)
        return None
    fakes, values = pytree.tree_leaves(node.meta["val"]), pytree.tree_leaves(value)
    if [(fake.dtype, tuple(fake.shape)) for fake in fakes] != [(item.dtype, tuple(item.shape)) for item in values]:
        logger.debug("%s is left to the model: its value isn't as recorded", node)
        return None
    sources = [known[source] for source in node.all_input_nodes]
    target = node.target
    is_view = target is operator.getitem or any(result.alias_info for result in target._schema.returns)  # type: ignore[union-attr]
    return _Known(
        value,
        sum(source.source for source in sources),
        any(source.is_weight for source in sources),
        is_view and len(sources) == 1 and sources[0].is_view and _bytes(values) >= sources[0].source,
    )


def _size(fake: torch.Tensor) -> int:
    """Bytes of a tensor of static sizes; its strides may be symbolic."""
    return math.prod(fake.shape) * fake.dtype.itemsize


def _bytes(values: list[torch.Tensor]) -> int:
    return sum(value.nbytes for value in values)


def _is_worth_keeping(result: _Known) -> bool:
    if not isinstance(result.value, torch.Tensor) or result.is_view:
        return False
    if result.is_weight:
        return result.value.nbytes <= min(_OF_WEIGHTS, result.source)
    return result.value.nbytes <= max(_OF_CONSTANTS, result.source)
