"""ONNX functions: those of ``op.function``, and ``functions=``, calls of modules as calls of functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxport import hookimpl
from onnxport.kit import FunctionWriter

if TYPE_CHECKING:
    from onnxport import Builder
    from onnxport.kit import MakeWalker, Walk, Walker

    from onnxport_functions.local_functions import LocalFunctions


def _local_functions(op: Builder) -> LocalFunctions:
    from onnxport_functions.local_functions import LocalFunctions  # what few models have

    return LocalFunctions(op)


@hookimpl
def onnxport_emission() -> list[FunctionWriter]:
    return [FunctionWriter(_local_functions)]


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
