"""The contract of functionalization: a program as a graph of pure operators, and who makes it.

A plugin does the work (``onnxport_functionalizers``). Without one, torch's own decomposition serves, at the price of a
second trace. What nodes may be computed at export time, plugins say too (``onnxport_folders``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import GraphModule, Node


class Mutation(NamedTuple):
    """A buffer or an input that the model changes: its new value is `node`."""

    kind: str
    """BUFFER_MUTATION, USER_INPUT_MUTATION or PARAMETER_MUTATION, as torch.export's OutputKind."""
    target: str
    """The qualified name of the buffer or parameter, or the name of the input's placeholder."""
    node: Node


class UserOutput(NamedTuple):
    """One leaf of what the model returns: `kind` is "node" when `arg` is an FX node of the graph, else "constant"."""

    kind: str
    arg: Any


@dataclass(frozen=True)
class FunctionalProgram:
    """A program without in-place operators.

    `graph_module` has the placeholders of the exported program, in their order, and returns one flat tuple: the new
    values of `mutations`, then `user_outputs`. It is the program's own module when nothing had to change.
    """

    graph_module: GraphModule
    mutations: tuple[Mutation, ...]
    user_outputs: tuple[UserOutput, ...]
    fallback: str | None
    """Why the program had to be decomposed by torch, which traces it a second time; None almost always."""
    dropped_assertions: tuple[str, ...]
    skipped: frozenset[Node] = frozenset()
    """Nodes of the graph that mean nothing: assertions, and what is computed for these or for nobody."""


class Folded(dict[Node, torch.Tensor]):
    """The constants that stand for nodes: a tensor for each node that others, or the outputs, still use.

    Attributes:
        interior: nodes that only folded nodes use: they need no translation.
    """

    def __init__(self, values: Mapping[Node, torch.Tensor], interior: frozenset[Node]) -> None:
        super().__init__(values)
        self.interior = interior


def folded_weights(nodes: Iterable[Node], program: ExportedProgram) -> frozenset[str]:
    """The state-dict names of the weights that the nodes' values depend on."""
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    pending, seen = list(nodes), set()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += node.all_input_nodes
    targets = (names.get(node.name) for node in seen if node.op == "placeholder")
    return frozenset(target for target in targets if target is not None)


def results_of(program: ExportedProgram, returned: Any) -> tuple[tuple[Mutation, ...], tuple[UserOutput, ...]]:
    """What a graph returns by the program's signature: new values of what it changes, and the leaves for the user."""
    mutations: list[Mutation] = []
    outputs: list[UserOutput] = []
    for spec, arg in zip(program.graph_signature.output_specs, returned):
        if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT):
            outputs.append(UserOutput("node" if isinstance(arg, Node) else "constant", arg))
        elif spec.kind is not OutputKind.TOKEN and isinstance(arg, Node):
            mutations.append(Mutation(spec.kind.name, str(spec.target), arg))
    return tuple(mutations), tuple(outputs)


class Functionalizer(Protocol):
    """Makes pure graphs of captured ones."""

    def program(
        self, program: ExportedProgram, *, is_kept: Callable[[Any], bool] = ..., may_skip: bool = False
    ) -> FunctionalProgram:
        """A program without in-place operators, assertions, dead nodes and regions; `program` is left as it is.

        Args:
            program: as torch.export gives it, or decomposed.
            is_kept: tells the region operators that stay calls, since a translation takes them.
            may_skip: where there is nothing to do but to leave nodes out, name these in `skipped`.

        Raises:
            CaptureError: it has a write that can't be made pure.
        """

    def graph(self, graph_module: GraphModule) -> GraphModule:
        """A freshly traced graph without in-place operators; `graph_module` itself when nothing has to change.

        Raises:
            Unsupported: it writes to one of its inputs.
        """


class TorchFunctionalizer:
    """torch's own way: every operator is decomposed, which traces the program a second time."""

    def program(
        self, program: ExportedProgram, *, is_kept: Callable[[Any], bool] | None = None, may_skip: bool = False
    ) -> FunctionalProgram:
        decomposed = program.run_decompositions({})
        mutations, outputs = results_of(decomposed, decomposed.graph.output_node().args[0])
        skipped = frozenset(n for n in decomposed.graph.nodes if n.op == "call_function" and not n.users)
        reason = "no plugin makes graphs pure"
        return FunctionalProgram(
            decomposed.graph_module, mutations, outputs, reason, tuple(n.name for n in skipped), skipped
        )

    def graph(self, graph_module: GraphModule) -> GraphModule:
        return graph_module


def chosen_functionalizer(functionalizers: Sequence[Functionalizer]) -> Functionalizer:
    """The first of what plugins give, or torch's own way."""
    return functionalizers[0] if functionalizers else TorchFunctionalizer()
