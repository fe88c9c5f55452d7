"""A captured program as a graph of pure operators: nothing in place, no assertions, no regions.

``aliasing.py`` does the work, from the alias annotations of the operators' schemas. A program that writes in a way
that is not understood there is decomposed by torch, at the price of a second trace, and the reason is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from onnxport import CaptureError, Unsupported
from onnxport.kit import FunctionalProgram, Mutation, results_of, source_line
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from onnxport_functional.aliasing import NotFunctionalizable, Rewriter
from onnxport_functional.regions import attribute_of, inline_regions
from onnxport_functional.transforms import records_transforms, without_transforms
from onnxport_functional.views import written_view_lost_by_torch
from onnxport_functional.writes import is_assertion, may_change, must_change

_REFUSED = "The model writes to a tensor, or transforms a function, in a way that can't be exported"


def functionalize(
    program: ExportedProgram, *, inline_subgraphs: bool = False, may_skip: bool = False
) -> FunctionalProgram:
    """`program` without in-place operators, assertions, dead nodes and regions; `program` itself is left as it is.

    Args:
        program: as torch.export gives it, or decomposed.
        inline_subgraphs: also inline the bodies of `invoke_subgraph`.
        may_skip: where there is nothing to do but to leave nodes out, name these in `skipped`: copying a graph costs
            more than all else that is done about it.

    Raises: CaptureError when torch's own functionalization leaves a write that is not understood.
    """
    try:
        return _functionalize(program, inline_subgraphs, may_skip, None)
    except Unsupported as error:
        reason = error.reason
        if isinstance(error, NotFunctionalizable) and error.final:
            raise CaptureError(f"{_REFUSED}: {reason}") from error
    lost = written_view_lost_by_torch(program.graph_module)
    if lost is not None:
        raise CaptureError(
            f"{_REFUSED}: {reason}\n{lost.format_node()} writes to a view, or resizes a tensor, in a way that torch "
            f"doesn't keep: write to the tensor itself by an index, and give out= a tensor of the result's shape. "
            f"{source_line(lost)}"
        )
    try:
        decomposed = program.run_decompositions({})
    except Exception as error:  # what torch can't do either has the first reason
        raise CaptureError(f"{_REFUSED}: {reason}\ntorch says: {str(error).splitlines()[0]}") from error
    try:
        return _functionalize(decomposed, inline_subgraphs, may_skip, reason)
    except Unsupported as error:
        raise CaptureError(f"{_REFUSED}: {error.reason}") from error


def functionalize_graph(graph_module: GraphModule, kept: Sequence[int] = ()) -> GraphModule:
    """A nested or freshly traced graph without in-place operators, assertions, dead nodes, regions and transforms.

    Args:
        graph_module: never changed.
        kept: positions of the inputs that it may write: their new values come behind its results.

    Returns: `graph_module` itself when nothing has to change.
    Raises: NotFunctionalizable (an `Unsupported`) when it writes to another of its inputs.
    """
    graph_module = _without_regions(graph_module)
    if not kept and not _must_change(graph_module):
        return graph_module
    rewriter = Rewriter(graph_module, functionalize_graph, written_inputs)
    results = rewriter.run()
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for placeholder, _ in rewriter.written_inputs():
        if inputs.index(placeholder) not in kept:
            raise NotFunctionalizable(
                f"the body of a higher order operator writes to {placeholder.name!r}, which lies outside: return the "
                "new value from the body instead"
            )
    new = tuple(rewriter.read(inputs[position]) for position in kept)
    rewriter.writer.graph.output((*results, *new) if new else results)
    rewriter.writer.prune()
    return rewriter.writer.finish()


def written_inputs(graph_module: GraphModule) -> list[int]:
    """Positions of the inputs that a nested graph writes to."""
    graph_module = _without_regions(graph_module)
    if not _must_change(graph_module):
        return []
    rewriter = Rewriter(graph_module, functionalize_graph, written_inputs)
    rewriter.run()
    inputs = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    return [inputs.index(placeholder) for placeholder, _ in rewriter.written_inputs()]


def _without_regions(graph_module: GraphModule) -> GraphModule:
    graph_module = inline_regions(graph_module)
    return without_transforms(graph_module, {}) if records_transforms(graph_module) else graph_module


def _functionalize(
    program: ExportedProgram, inline_subgraphs: bool, may_skip: bool, reason: str | None
) -> FunctionalProgram:
    graph_module = inline_regions(program.graph_module, subgraphs=inline_subgraphs)
    signature = program.graph_signature
    if records_transforms(graph_module, program.constants):
        constants = {spec.arg.name: program.constants.get(str(spec.target)) for spec in signature.input_specs}
        graph_module = without_transforms(graph_module, constants)
    skipped = _meaningless(graph_module) if may_skip else None
    must_copy = skipped is None and _must_change(graph_module)
    rewriter = Rewriter(graph_module, functionalize_graph, written_inputs) if must_copy else None
    returned = rewriter.run() if rewriter else graph_module.graph.output_node().args[0]
    mutations, outputs = results_of(program, returned)
    if rewriter:
        specs = {spec.arg.name: spec for spec in signature.input_specs}
        for placeholder, alias in rewriter.written_inputs():
            spec = specs[placeholder.name]
            if spec.kind is InputKind.CONSTANT_TENSOR and str(spec.target).startswith("lifted_tensor_"):
                continue  # a tensor literal in forward: made again at each call
            kind = {InputKind.USER_INPUT: "USER_INPUT", InputKind.PARAMETER: "PARAMETER"}.get(spec.kind, "BUFFER")
            target = spec.arg.name if kind == "USER_INPUT" else str(spec.target)
            mutations += (Mutation(f"{kind}_MUTATION", target, rewriter.current(alias)),)
        rewriter.writer.graph.output((*(m.node for m in mutations), *(output.arg for output in outputs)))
        rewriter.writer.prune()
        graph_module = rewriter.writer.finish()
    dropped = rewriter.dropped if rewriter else [n.name for n in reversed(skipped or ()) if is_assertion(n.target)]
    return FunctionalProgram(graph_module, mutations, outputs, reason, tuple(dropped), frozenset(skipped or ()))


def _meaningless(graph_module: GraphModule) -> dict[Node, None] | None:
    """The nodes that can be left out, from the last to the first; None where others have to change.

    Translations look at who uses the results of an operator that has several: the users of these must mean something.
    """
    found: dict[Node, None] = {}
    pure: dict[int, bool] = {}  # by the target's id: operators have slow hashes
    for node in reversed(graph_module.graph.nodes):
        if node.op == "get_attr" and _has_changing_body(graph_module, node):
            return None
        if node.op not in ("call_function", "get_attr"):
            continue
        known = pure.get(id(node.target))
        if known is None:
            known = pure[id(node.target)] = not may_change(node.target) and not is_assertion(node.target)
        if not known and must_change(node):
            return None
        is_unused = all(user in found for user in node.users)
        if is_unused and node.target is operator.getitem:
            return None
        if is_unused or (not known and is_assertion(node.target)):
            found[node] = None
    return found


def _has_changing_body(owner: GraphModule, node: Node) -> bool:
    body = attribute_of(owner, str(node.target))
    return isinstance(body, GraphModule) and (inline_regions(body) is not body or _must_change(body))


def _must_change(graph_module: GraphModule) -> bool:
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and _has_changing_body(graph_module, node):
            return True
        if node.op == "call_function" and (not node.users or is_assertion(node.target) or must_change(node)):
            return True
    return False
