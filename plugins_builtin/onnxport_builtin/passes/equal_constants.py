"""Store equal constants once: the DFT matrix of two spectrograms, tables that several layers compute at the export.

Constants are equal where type, shape and every byte are. Weights stay apart however equal they are:
``ONNXProgram.apply_weights`` may give each other values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import onnx_ir as ir


def run(model: ir.Model) -> int:
    """See the module's docstring."""
    initializers = model.graph.initializers
    values = (v for v in initializers.values() if not v.is_graph_input() and not v.is_graph_output())
    changes = 0
    for value, first in _doubles(values):
        ir.convenience.replace_all_uses_with(value, first)
        del initializers[value.name]  # type: ignore[arg-type]
        changes += 1
    for function in model.functions.values():  # these can't read initializers, and have nodes for their constants
        nodes = (n for n in function if not n.domain and n.op_type == "Constant" and "value" in n.attributes)
        for value, first in _doubles(n.outputs[0] for n in nodes if not n.outputs[0].is_graph_output()):
            ir.convenience.replace_all_uses_with(value, first)
            function.remove(value.producer(), safe=True)  # type: ignore[arg-type]
            changes += 1
    return changes


def _doubles(values: Iterable[ir.Value]) -> list[tuple[ir.Value, ir.Value]]:
    """Each value whose constant an earlier one has, and that one. Bytes are read where type and shape are equal."""
    alike: dict[Any, list[tuple[ir.Value, Any]]] = {}
    for value in values:
        tensor = _constant(value)
        if tensor is not None:
            alike.setdefault((tensor.dtype, tuple(tensor.shape)), []).append((value, tensor))
    found = []
    for group in alike.values():
        first: dict[bytes, ir.Value] = {}
        for value, tensor in group if len(group) > 1 else []:
            earlier = first.setdefault(hashlib.blake2b(tensor.tobytes()).digest(), value)
            if earlier is not value:
                found.append((value, earlier))
    return found


def _constant(value: ir.Value) -> Any:
    """The tensor of a constant that the export made; None for a weight, and for what was read from a file."""
    node = value.producer()
    if node is not None:
        attribute = node.attributes["value"]
        return None if attribute.is_ref() else attribute.value
    tensor: Any = value.const_value
    if type(tensor) is ir.Tensor:
        return tensor
    return tensor if getattr(tensor, "is_weight", True) is False and tensor.has_data else None
