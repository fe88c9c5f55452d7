"""The built-in passes in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxport_builtin.passes import (
    casts,
    common_subexpressions,
    constants,
    dead_code,
    dequantized_transposes,
    dequantized_weights,
    equal_constants,
    fuse_batch_norm,
    gathered_weights,
    gelus,
    identities,
    merge_layout,
    norms,
    rotations,
    transposed_weights,
    trimmed_convolutions,
    unfused_weights,
)

if TYPE_CHECKING:
    import onnx_ir as ir


PASSES: dict[str, Callable[[ir.Model], int]] = {
    "dead_code": dead_code.run,
    "constants": constants.run,
    "identities": identities.run,
    "casts": casts.run,
    "merge_layout": merge_layout.run,
    "merged_identities": identities.run,
    "transposed_weights": transposed_weights.run,
    "gathered_weights": gathered_weights.run,
    "dequantized_weights": dequantized_weights.run,
    "dequantized_transposes": dequantized_transposes.run,
    "unfused_weights": unfused_weights.run,
    "fuse_batch_norm": fuse_batch_norm.run,
    "trimmed_convolutions": trimmed_convolutions.run,
    "equal_constants": equal_constants.run,
    "common_subexpressions": common_subexpressions.run,
    "norms": norms.run,
    "gelus": gelus.run,
    "rotations": rotations.run,
    "last_dead_code": dead_code.run,
}

#: Those that a model needs even where it isn't optimized: the same results in onnxruntime as in eager torch.
REQUIRED = frozenset({"unfused_weights"})
