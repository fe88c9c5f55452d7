"""Sums that onnxruntime doesn't fuse, where the fused kernel takes longer than the two that it replaces.

When it loads a file, onnxruntime puts SkipLayerNormalization for an Add and the LayerNormalization of its result, and
BiasGelu for an Add and a Gelu. It doesn't know Sum, whose kernel takes as long as that of Add.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from onnxport import DataType


def keep_apart(operators: Collection[str], model: Any) -> int:
    """Write Sum for each Add whose result goes to one of these operators alone; the number of these."""
    count = 0
    for node in model.graph.all_nodes():
        if node.domain or node.op_type != "Add" or len(node.outputs) != 1:
            continue
        (result,) = node.outputs
        uses = list(result.uses())
        is_fused = len(uses) == 1 and uses[0].node.op_type in operators and not uses[0].node.domain and uses[0].idx == 0
        if is_fused and result.dtype is DataType.FLOAT and not result.is_graph_output():
            node.op_type = "Sum"
            count += 1
    return count
