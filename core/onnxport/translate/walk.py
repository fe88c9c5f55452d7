"""The FX walk: every node of the functional graph to ONNX nodes, through the registry.

For each operator the candidates are tried in rank order; one that raises :class:`Unsupported` is rolled back. Then
the node is expanded by its decomposition. When nothing serves, the refusal is kept and the walk goes on, so that one
run names every refusal.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
from torch.export.graph_signature import InputKind

from onnxport.emit.builder import Builder
from onnxport.emit.tensor import Tensor
from onnxport.emit.weights import Initializer
from onnxport.errors import InputError, Refusal, TranslationError, Unsupported
from onnxport.records import translations
from onnxport.translate import model
from onnxport.translate.candidates import Candidates
from onnxport.translate.model import Names, Translated, Walker
from onnxport.translate.results import Results
from onnxport.translate.table_use import TableUse
from onnxport.translate.tally import Outcome, Tally
from onnxport.vocabulary import keys
from onnxport.vocabulary.dtypes import SYMBOLIC

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch.export import ExportedProgram

    from onnxport.functional.program import Folded, FunctionalProgram
    from onnxport.host.call import Call
    from onnxport.host.registry import Registry
    from onnxport.translate.expansion import Decomposer
    from onnxport.translate.tally import Trial


class Translator:
    """Translates one exported program.

    Args:
        program: for its signature and shape environment.
        functional: its graph without in-place operators.
        table: the compiled registry; its opset is the target.
        names: see :class:`Names`.
        weights: the program's parameters, buffers and constants.
        folded: FX nodes that were evaluated at export time, with their values.
        level: how much provenance is written (``provenance.Level``).
        call: the plugins that take part, and the runtime that is written for.
        seed: seed of random nodes; ``op.seed`` for translations.
        functions: the module classes whose calls become functions.
        decomposer: expands nodes that no translation takes.
    """

    def __init__(
        self,
        program: ExportedProgram,
        functional: FunctionalProgram,
        table: Registry,
        *,
        names: Names,
        weights: Sequence[Initializer],
        folded: Folded,
        level: str = "full",
        call: Call,
        seed: int | None = None,
        functions: Sequence[type | str] = (),
        decomposer: Decomposer,
    ) -> None:
        self.program = program
        self._functional = functional
        self._table = table
        self._names = names
        self._weights = weights
        self._folded = folded
        self.skipped = functional.skipped
        self._decomposer = decomposer
        self._tally = Tally(call.plugins.advice)
        self.table_use = TableUse()
        self._modules: list[torch.nn.Module] = []
        self.env: dict[torch.fx.Node, Any] = {}
        self.op = Builder(
            table.opset,
            metadata=level,
            names=dict(names.dims),
            seed=seed,
            profile=call.profile,
            emission=call.emission,
            walker=self,
        )
        self._results = Results(self.op, functional.graph_module.graph)
        self._candidates = Candidates(self.op, self._results, self._tally, self.table_use)
        self.graph_module = functional.graph_module
        self.classes = functions
        self.weights: Sequence[str] = [
            n for w in weights if w.kind is not InputKind.CONSTANT_TENSOR for n in w.placeholders
        ]
        walkers = (make(self) for make in call.plugins.items("onnxport_walkers"))
        self.functions: Walker | None = next((walker for walker in walkers if walker is not None), None)
        if functions and self.functions is None:
            raise InputError(
                "functions= needs a plugin that makes functions of module calls: install one, or leave it out.",
                parameter="functions",
            )

    def run(self) -> Translated:
        """Walk the graph and assemble the model."""
        graph_module = self._functional.graph_module
        for name in [*self._names.inputs.values(), *self._names.outputs]:
            self.op.unique(name)  # what users see comes first: nothing else may take these names
        self._weight_names = {weight.name: self.op.unique(weight.name) for weight in self._weights}
        self._modules.append(graph_module)
        inputs = self._placeholders(graph_module)
        self._walk(graph_module)
        assembled = model.assemble(self.op, inputs, self._outputs(), self.program)
        translated = Translated(
            assembled, list(self._tally.refusals.values()), self._tally.served, self._tally.decomposed
        )
        if self.functions is not None:
            translated.functions, translated.inlined = list(self.functions.uses.values()), self.functions.inlined
        return translated

    def _walk(self, graph_module: torch.fx.GraphModule) -> None:
        nodes = [n for n in graph_module.graph.nodes if n.op not in _ENDS and n not in self._folded.interior]
        if self.functions is not None:
            self.functions.walk(nodes)
            return
        for node in nodes:
            self.visit(node)

    def is_constant(self, node: torch.fx.Node) -> bool:
        """The node was evaluated at export time."""
        return node in self._folded or node in self._folded.interior

    def is_overridden(self, target: Any) -> bool:
        """A translation other than a built-in one is tried first for the operator."""
        return self._table.is_overridden(target)

    def trial(self) -> AbstractContextManager[Trial]:
        """Translate nodes on trial: see :meth:`Tally.trial`."""
        return self._tally.trial()

    def _placeholders(self, graph_module: torch.fx.GraphModule) -> list[Tensor]:
        """Give every placeholder its value; the graph's inputs."""
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        weights = {name: weight for weight in self._weights for name in weight.placeholders}
        tensors: dict[str, Tensor] = {}
        inputs: list[Tensor] = []
        for node in graph_module.graph.nodes:
            if node.op != "placeholder":
                continue
            spec = specs.get(node.name)
            weight = weights.get(node.name)
            if weight is not None:
                if weight.name not in tensors:
                    tensors[weight.name] = model.initializer(self.op, weight, node, self._weight_names[weight.name])
                self.env[node] = tensors[weight.name]
            elif spec is not None and spec.kind in (InputKind.TOKEN, InputKind.CUSTOM_OBJ):
                self.env[node] = None
            else:
                self.env[node] = model.graph_input(self.op, node, self._names.inputs.get(node.name), inputs)
        for tensor in inputs:
            self.op.symbols.solve(tensor, tensor.shape)  # type: ignore[arg-type]
        return inputs

    def _outputs(self) -> list[Tensor]:
        """The user's outputs, then the new values of what the model mutates."""
        outputs: list[Tensor] = []
        names = [*self._names.outputs, *[None] * len(self._functional.user_outputs)]
        for name, (_kind, arg) in zip(names, self._functional.user_outputs):
            value = _argument(arg, self.env)
            if value is not None:
                try:
                    outputs.append(model.graph_output(self.op, value, name, "USER_OUTPUT", outputs))
                except Unsupported as refusal:  # a copy of an element type that the opset doesn't have
                    if not self._tally.refusals:
                        self._tally.refusals["output"] = Refusal(f"output {arg}", 1, "", "", [refusal.reason], "")
        for mutation in self._functional.mutations:
            name = self.op.unique(f"{mutation.target}_out")
            tensor = model.graph_output(self.op, self.env[mutation.node], name, mutation.kind, outputs)
            tensor.metadata_props[keys.OUTPUT_TARGET] = mutation.target
            outputs.append(tensor)
        return outputs

    # Nodes ---------------------------------------------------------------------------------------------------------

    def visit(self, node: torch.fx.Node) -> None:
        if node.op == "get_attr":
            self.env[node] = self._attribute(node)
            return
        if node.op != "call_function":
            raise TranslationError(
                f"The captured graph has a {node.op} node ({node.format_node()}). Give what torch.export.export "
                "returns.",
                target=str(node.target),
            )
        folded = self._folded.get(node)
        with self.op.at(node):
            if folded is not None:
                self.env[node] = self.op.const(folded) if node.users else None
            else:
                self.env[node] = self._call(node)

    def _attribute(self, node: torch.fx.Node) -> Any:
        value: Any = self._modules[-1]
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return self.op.const(value.detach()) if isinstance(value, torch.Tensor) else value

    def _call(self, node: torch.fx.Node) -> Any:
        target = node.target
        fake = node.meta.get("val")
        candidates = self._table.candidates(target)
        if isinstance(fake, SYMBOLIC) and not (candidates and candidates[0].tier):
            known = self._symbolic(fake, node)
            if known is not None:
                return known
        elif fake is None and not candidates and not node.users:
            return None
        args = tuple(_argument(arg, self.env) for arg in node.args)
        kwargs = {key: _argument(value, self.env) for key, value in node.kwargs.items()}
        reasons: list[str] = []
        for candidate in candidates:
            outcome = self._candidates.run(candidate, target, args, kwargs, node)
            if not outcome.reasons:
                self.table_use.note(candidates, candidate, reasons)
                return outcome.value
            reasons += outcome.reasons
        if target is operator.getitem:
            return args[0][args[1]]
        reasons += self._table.why_not(target)
        if candidates and candidates[0].tier == translations.TABLE_TIER:
            reasons.append("its translation is in custom_translation_table, so it isn't decomposed")
        else:
            outcome = self._decompose(node, args, kwargs)
            if not outcome.reasons:
                self.table_use.note(candidates, "Its decomposition", reasons)
                return outcome.value
            reasons += outcome.reasons
        self.table_use.note(candidates, "", reasons)
        self._tally.refuse(node, reasons)
        return self._results.stand_in(fake)

    def _symbolic(self, fake: Any, node: torch.fx.Node) -> Any:
        """A symbolic number as its expression; None where a symbol in it is yet to be computed by this node."""
        expr = fake.node.expr
        if all(self.op.symbols.bound(symbol) is not None for symbol in expr.free_symbols):
            return self.op.symbols.of_torch(fake)
        return None

    def _decompose(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        """Translate a node by the steps of its decomposition."""
        try:
            expansion = self._decomposer.expand(node)
        except Unsupported as error:
            return Outcome(reasons=(f"decomposition: {error.reason}",))
        mark = self.op.mark()
        before = set(self._tally.refusals)
        # what the user wrote is this node, not the steps of its decomposition
        with self.op.at(node, source=self.op.source or node):
            values = self.inline(expansion.graph_module, *expansion.select(args, kwargs))
        if refused := self._tally.withdraw(before):
            self.op.rollback(mark)
            needs = [f"decomposition: needs {each.target}: {'; '.join(each.reasons)}" for each in refused]
            return Outcome(reasons=tuple(needs))
        self._tally.decomposed[translations.name_of(node.target)] += 1
        own = self._table.decompositions.get(node.target)
        return Outcome(self._results.accept(node, expansion.pack(values), candidate=own))

    def inline(self, graph_module: torch.fx.GraphModule, *args: Any) -> list[Any]:
        """Translate a GraphModule's nodes where the builder stands; its flat outputs."""
        self._modules.append(graph_module)
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        try:
            for node, value in zip(placeholders, args):
                self.env[node] = value
                fake = node.meta.get("val")
                if isinstance(value, Tensor) and isinstance(fake, torch.Tensor):
                    if value.shape is None:
                        value.shape = self.op.symbols.shape(fake)
                    self.op.symbols.bind_shape(value, self.op.symbols.shape(fake))
                elif isinstance(value, Tensor) and isinstance(fake, SYMBOLIC):
                    self._results.number(value, fake)
            self._walk(graph_module)
            returned = graph_module.graph.output_node().args[0]
            flat = returned if isinstance(returned, (list, tuple)) else [returned]
            return [_argument(value, self.env) for value in flat]
        finally:
            self._modules.pop()

    def translate(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run the translation of another operator, but none that is under way, on values that are already ONNX.

        Raises:
            Unsupported: none takes them.
        """
        reasons: list[str] = []
        run, named = self._candidates, translations.operator_named(target)
        candidates = [each for each in self._table.candidates(target) if not each.tier or not run.is_active(each)]
        for candidate in candidates:
            outcome = run.run(candidate, named, args, kwargs)
            if not outcome.reasons:
                self.table_use.note(candidates, candidate, reasons)
                return outcome.value
            reasons += outcome.reasons
        raise Unsupported(f"{target}: {'; '.join(reasons) or 'no translation'}")

    def accept(self, node: torch.fx.Node, value: Any) -> Any:
        """Check a value that a walker has for an FX node, name it and give it its shape."""
        return self._results.accept(node, value)


_ENDS = ("placeholder", "output")


def _argument(arg: Any, env: Mapping[torch.fx.Node, Any]) -> Any:
    """An FX argument with nodes replaced by their values."""
    if isinstance(arg, torch.fx.Node):
        return env[arg]
    if isinstance(arg, (list, tuple)):
        return [_argument(item, env) for item in arg]
    if isinstance(arg, dict):
        return {key: _argument(item, env) for key, item in arg.items()}
    return arg
