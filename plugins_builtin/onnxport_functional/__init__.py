"""Writes and views as pure operators: the built-in functionalizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxport import hookimpl

if TYPE_CHECKING:
    from onnxport.kit import FunctionalProgram
    from torch.export import ExportedProgram
    from torch.fx import GraphModule


def _none(_target: Any) -> bool:
    return False


class _Functionalizer:
    """By the alias annotations of the operators' schemas."""

    def program(
        self, program: ExportedProgram, *, is_kept: Callable[[Any], bool] = _none, may_skip: bool = False
    ) -> FunctionalProgram:
        from onnxport_functional.functionalize import functionalize
        from onnxport_functional.regions import keeping

        with keeping(is_kept):
            return functionalize(program, may_skip=may_skip)

    def graph(self, graph_module: GraphModule) -> GraphModule:
        from onnxport_functional.functionalize import functionalize_graph

        return functionalize_graph(graph_module)


@hookimpl
def onnxport_functionalizers() -> list[_Functionalizer]:
    return [_Functionalizer()]


@hookimpl
def onnxport_semantics() -> list[Any]:
    """Views, writes, regions, assertions and ties of torch's operators."""
    from onnxport_functional.records import records

    return records()
