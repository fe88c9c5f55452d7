"""The passes over a translated model, in the order in which they run.

Each takes the model, changes it in place in linear time and returns how many changes it made. Each can be left out by
name: ``optimize(model, without=("fuse_batch_norm",))``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from onnxport.host import order
from onnxport.passes import (
    casts,
    common_subexpressions,
    constants,
    dead_code,
    dequantized_transposes,
    dequantized_weights,
    fuse_batch_norm,
    gathered_weights,
    identities,
    merge_layout,
    transposed_weights,
    unfused_weights,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxport.host.hookspecs import Pass

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
    "common_subexpressions": common_subexpressions.run,
    "last_dead_code": dead_code.run,
}


def optimize(model: ir.Model, *, without: Collection[str] = (), extra: Iterable[Pass] = ()) -> dict[str, int]:
    """Make a model leaner, in place.

    Args:
        model: an ONNX model of onnxport's.
        without: names of passes to leave out.
        extra: passes of plugins, each placed as it says.

    Returns:
        The number of changes by pass.

    Raises:
        ValueError: ``without`` names a pass that doesn't exist.
        PluginError: a pass of a plugin can't be placed, or fails.
    """
    steps = pipeline(extra)
    unknown = set(without) - {each.name for each in steps}
    if unknown:
        names = ", ".join(each.name for each in steps)
        raise ValueError(f"No pass is called {', '.join(sorted(unknown))}; there are {names}.")
    return {each.name: order.run(each, model) for each in steps if each.name not in without}


def pipeline(extra: Iterable[Pass] = ()) -> list[Pass]:
    """All passes in their order.

    Raises:
        PluginError: a pass of a plugin can't be placed.
    """
    return order.ordered(PASSES, extra)


def without_optimization(model: ir.Model) -> dict[str, int]:
    """Run what a model needs, in place, that isn't optimized: the same results in onnxruntime as in eager torch."""
    return {"unfused_weights": unfused_weights.run(model)}
