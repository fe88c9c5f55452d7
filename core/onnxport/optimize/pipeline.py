"""The passes over a translated model, in the order in which they run.

Each takes the model, changes it in place in linear time and returns how many changes it made. Each can be left out by
name: ``optimize(model, passes, without=("fuse_batch_norm",))``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from onnxport.host import order

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxport.records.stages import Pass


def optimize(model: ir.Model, passes: Sequence[Pass], *, without: Collection[str] = ()) -> dict[str, int]:
    """Make a model leaner, in place.

    Args:
        model: an ONNX model of onnxport's.
        passes: those of plugins, in their order.
        without: names of passes to leave out.

    Returns:
        The number of changes by pass.

    Raises:
        ValueError: ``without`` names a pass that doesn't exist.
        PluginError: a pass of a plugin fails.
    """
    unknown = set(without) - {each.name for each in passes}
    if unknown:
        names = ", ".join(each.name for each in passes)
        raise ValueError(f"No pass is called {', '.join(sorted(unknown))}; there are {names}.")
    return {each.name: order.run(each, model) for each in passes if each.name not in without}
