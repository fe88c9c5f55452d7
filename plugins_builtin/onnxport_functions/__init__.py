"""``functions=``: calls of modules as calls of ONNX functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxport import hookimpl

if TYPE_CHECKING:
    import torch.fx
    from onnxport.kit import MakeWalker, Walk, Walker
    from torch.export import ExportedProgram


def _walker(
    walk: Walk,
    program: ExportedProgram,
    graph_module: torch.fx.GraphModule,
    functions: Sequence[type | str],
    weights: Sequence[str],
) -> Walker | None:
    from onnxport_functions.selection import Selection

    selection = Selection(tuple(functions), program.graph_module)
    if selection.is_empty:
        return None
    from onnxport_functions.module_calls import ModuleFunctions

    return ModuleFunctions(walk, selection, weights, graph_module)


@hookimpl
def onnxport_walkers() -> list[MakeWalker]:
    return [_walker]
