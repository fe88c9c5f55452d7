"""``functions=``: calls of modules as calls of ONNX functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import hookimpl

if TYPE_CHECKING:
    from onnxport.kit import MakeWalker, Walk, Walker


def _walker(walk: Walk) -> Walker | None:
    from onnxport_functions.selection import Selection

    selection = Selection(tuple(walk.classes), walk.program.graph_module)
    if selection.is_empty:
        return None
    from onnxport_functions.module_calls import ModuleFunctions

    return ModuleFunctions(walk, selection)


@hookimpl
def onnxport_walkers() -> list[MakeWalker]:
    return [_walker]
