"""The passes of plugins over the captured program, and over its functional graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch.fx
from torch.export import ExportedProgram

from onnxport.errors import OnnxExporterError
from onnxport.functional.program import FunctionalProgram
from onnxport.host import order
from onnxport.records.stages import Pass, ProgramPass
from onnxport.vocabulary.provenance import told


def with_program_passes(
    program: ExportedProgram, passes: Iterable[ProgramPass], counts: dict[str, int] | None = None
) -> ExportedProgram:
    """The captured program behind the passes; ``program`` itself, which is never changed, where none has to do.

    Args:
        program: as it was captured.
        passes: in their order.
        counts: gets 1 for each pass that gave another program.

    Raises:
        OnnxExporterError: a pass refuses the program.
        PluginError: the pass of a plugin failed, or gave no program.
    """
    for each in passes:
        try:
            found: Any = each.function(program)
        except OnnxExporterError:
            raise
        except Exception as error:
            if not each.plugin:
                raise
            raise order.fault(each, f"failed: {told(error)}") from error
        if not isinstance(found, ExportedProgram):
            raise order.fault(each, f"returned {found!r}, and not an ExportedProgram")
        if found is not program and counts is not None:
            counts[each.name] = 1
        program = found
    return program


def with_passes(functional: FunctionalProgram, passes: Sequence[Pass], counts: dict[str, int]) -> FunctionalProgram:
    """The program after the passes, which get a graph of their own: this one may be the caller's.

    Args:
        functional: never changed.
        passes: in their order.
        counts: gets the number of changes by pass.

    Raises:
        PluginError: a pass failed.
    """
    if not passes:
        return functional
    graph = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(functional.graph_module.graph, copies)
    values: Any = (*(mutation.node for mutation in functional.mutations), *(out.arg for out in functional.user_outputs))
    output = graph.output(torch.fx.map_arg(values, copies.__getitem__))
    for node in reversed(copies):
        if node in functional.skipped:
            graph.erase_node(copies[node])
    module = torch.fx.GraphModule(functional.graph_module, graph)
    for each in passes:
        before = _interface(graph)
        counts[each.name] = order.run(each, module)
        _check(each, module, before)
    module.recompile()
    values = output.args[0]
    mutations = tuple(mutation._replace(node=node) for mutation, node in zip(functional.mutations, values))
    results = zip(functional.user_outputs, values[len(mutations) :])
    user_outputs = tuple(out._replace(arg=arg) for out, arg in results)
    return replace(functional, graph_module=module, mutations=mutations, user_outputs=user_outputs, skipped=frozenset())


def _interface(graph: torch.fx.Graph) -> tuple[list[str], int]:
    """The names of the inputs, and the number of outputs."""
    returned: Any = graph.output_node().args[0]
    return [node.name for node in graph.nodes if node.op == "placeholder"], len(returned)


def _check(each: Pass, module: torch.fx.GraphModule, before: tuple[list[str], int]) -> None:
    """Hold a pass to what translations count on.

    Raises:
        PluginError: the graph isn't one any more, has other inputs or outputs, or nodes without a fake result.
    """
    try:
        module.graph.lint()
        after = _interface(module.graph)
    except (RuntimeError, TypeError) as error:
        raise order.fault(each, f"left a graph that isn't valid: {error}") from error
    if after != before:
        raise order.fault(each, f"changed the inputs or the number of outputs: {after}, it was {before}")
    for node in module.graph.nodes:
        if node.op == "call_function" and "val" not in node.meta:
            raise order.fault(each, f"""made the node {node} without a fake result: set its meta["val"]""")
