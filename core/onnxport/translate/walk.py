"""The FX walk: every node of the functional graph to ONNX nodes, through the registry.

For each operator the candidates are tried in rank order; one that raises :class:`Unsupported` is rolled back. Then
the node is expanded by its decomposition. When nothing serves, the refusal is kept and the walk goes on, so that one
run names every refusal.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
import torch.fx
from torch.export.graph_signature import InputKind

from onnxport.emit.builder import Builder
from onnxport.emit.complex_values import any_complex, fake_complex
from onnxport.emit.tensor import Tensor
from onnxport.emit.weights import Initializer
from onnxport.errors import InputError, Refusal, TranslationError, Unsupported, UnsupportedOperatorsError
from onnxport.functional.folding import Folded
from onnxport.host import records, registry
from onnxport.host.binding import mistake
from onnxport.host.profiles import DEFAULT, Profile
from onnxport.translate import model
from onnxport.translate.decompose import Decomposer
from onnxport.translate.faults import MistakeError, fault, told
from onnxport.translate.model import MakeWalker, Names, Translated, Walker
from onnxport.translate.results import Results
from onnxport.translate.table_use import TableUse
from onnxport.translate.validity import Validity
from onnxport.vocabulary import keys, provenance
from onnxport.vocabulary.dtypes import COMPONENT, SYMBOLIC, component_dtype
from onnxport.vocabulary.upstream import OpOverload

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

    from onnxport.functional.program import Functionalizer, FunctionalProgram
    from onnxport.host.records import Translation
    from onnxport.host.registry import Registry
    from onnxport.translate.validity import Inferred


class Translator:
    """Translates one exported program.

    Args:
        program: for its signature and shape environment.
        functional: its graph without in-place operators.
        table: the compiled registry; its opset is the target.
        names: see :class:`Names`.
        weights: the program's parameters, buffers and constants.
        folded: FX nodes that were evaluated at export time, with their values.
        level: how much provenance is written (``metadata.LEVELS``).
        advice: what to suggest for an operator that nothing serves.
        seed: seed of random nodes; ``op.seed`` for translations.
        profile: the runtime that is written for; ``op.profile`` for translations.
        functions: the module classes whose calls become functions.
        walkers: what makes other orders of the nodes.
        functionalizer: makes what decompositions give pure.
    """

    def __init__(
        self,
        program: ExportedProgram,
        functional: FunctionalProgram,
        table: Registry,
        *,
        names: Names,
        weights: Sequence[Initializer],
        folded: Mapping[torch.fx.Node, torch.Tensor] | None = None,
        level: str = "full",
        advice: Callable[[str], str] = lambda _target: "",
        seed: int | None = None,
        profile: Profile = DEFAULT,
        functions: Sequence[type | str] = (),
        walkers: Iterable[MakeWalker] = (),
        functionalizer: Functionalizer,
    ) -> None:
        self._program = program
        self._functional = functional
        self._table = table
        self._names = names
        self._weights = weights
        self._folded = folded or {}
        self.skipped = functional.skipped
        self._interior = folded.interior if isinstance(folded, Folded) else self.skipped
        self._advice = advice
        self._decomposer = Decomposer(table.decompositions, functionalizer.graph)
        self._refused: dict[str, Refusal] = {}
        self.table_use = TableUse()
        self._served: Counter[tuple[str, str, str]] = Counter()
        self._decomposed: Counter[str] = Counter()
        self._modules: list[torch.nn.Module] = []
        self.env: dict[torch.fx.Node, Any] = {}
        self.op = Builder(table.opset, metadata=level, names=dict(names.dims))
        self.op.seed = seed
        self.op.profile = profile
        self._results = Results(self.op, functional.graph_module.graph)
        self._validity = Validity(self.op)
        self.op.inline = self.inline
        self.op.translate = self._translate_by_name
        of_weights = [n for w in weights if w.kind is not InputKind.CONSTANT_TENSOR for n in w.placeholders]
        made = (make(self, program, functional.graph_module, functions, of_weights) for make in walkers)
        self.functions: Walker | None = next((walker for walker in made if walker is not None), None)
        if functions and self.functions is None:
            raise InputError("functions= needs a plugin that makes functions of module calls.", parameter="functions")

    def run(self) -> Translated:
        """Walk the graph and assemble the model."""
        graph_module = self._functional.graph_module
        for name in [*self._names.inputs.values(), *self._names.outputs]:
            self.op.unique(name)  # what users see comes first: nothing else may take these names
        self._weight_names = {weight.name: self.op.unique(weight.name) for weight in self._weights}
        self._modules.append(graph_module)
        inputs = self._placeholders(graph_module)
        self._walk(graph_module)
        assembled = model.assemble(self.op, inputs, self._outputs(), self._program)
        translated = Translated(assembled, list(self._refused.values()), self._served, self._decomposed)
        if self.functions is not None:
            translated.functions, translated.inlined = list(self.functions.uses.values()), self.functions.inlined
        return translated

    def _walk(self, graph_module: torch.fx.GraphModule) -> None:
        nodes = [n for n in graph_module.graph.nodes if n.op not in _ENDS and n not in self._interior]
        if self.functions is not None:
            self.functions.walk(nodes)
            return
        for node in nodes:
            self.visit(node)

    def is_constant(self, node: torch.fx.Node) -> bool:
        """The node was evaluated at export time."""
        return node in self._folded or node in self._interior

    def is_overridden(self, target: Any) -> bool:
        """A translation other than a built-in one is tried first for the operator."""
        candidates = self._table.candidates(target)
        return bool(candidates and candidates[0].tier)

    @contextlib.contextmanager
    def tentatively(self) -> Iterator[list[str]]:
        """Take back refusals and counts where something is refused; the list then has the reasons."""
        before = copy.deepcopy(self._refused), self._served.copy(), self._decomposed.copy()
        reasons: list[str] = []
        try:
            yield reasons
        except Unsupported as refusal:
            reasons.append(refusal.reason)
            self._refused, self._served, self._decomposed = before

    def refusals(self) -> int:
        """How many nodes were refused so far."""
        return sum(refusal.count for refusal in self._refused.values())

    def _placeholders(self, graph_module: torch.fx.GraphModule) -> list[Tensor]:
        """Give every placeholder its value; the graph's inputs."""
        specs = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
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
                    if not self._refused:
                        self._refused["output"] = Refusal(f"output {arg}", 1, "", "", [refusal.reason], "")
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
                f"The captured graph has a {node.op} node ({node.format_node()}): not an exported graph.",
                target=str(node.target),
            )
        folded = self._folded.get(node)
        outer = self.op.node, self.op.origin
        self.op.node = node
        try:
            if folded is not None:
                self.env[node] = self.op.const(folded) if node.users else None
            else:
                self.env[node] = self._call(node)
        finally:
            self.op.node, self.op.origin = outer

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
            result = self._attempt(candidate, node, args, kwargs, reasons)
            if result is not _FAILED:
                self.table_use.note(candidates, candidate, reasons)
                return result
        self.table_use.note(candidates, None, reasons)
        if target is operator.getitem:
            return args[0][args[1]]
        reasons += self._table.why_not(target)
        if candidates and candidates[0].tier == records.TABLE_TIER:
            reasons.append("its translation is in custom_translation_table, so it isn't decomposed")
        else:
            expanded = self._decompose(node, args, kwargs, reasons)
            if expanded is not _FAILED:
                return expanded
        self._refuse(node, reasons)
        return self._stand_in(fake)

    def _symbolic(self, fake: Any, node: torch.fx.Node) -> Any:
        """A symbolic number as its expression; None where a symbol in it is yet to be computed by this node."""
        expr = fake.node.expr
        if all(self.op.symbols.bound(symbol) is not None for symbol in expr.free_symbols):
            return self.op.symbols.of_torch(fake)
        return None

    def _attempt(
        self,
        candidate: Translation,
        node: torch.fx.Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reasons: list[str],
    ) -> Any:
        op = self.op
        if not candidate.complex and (any_complex((args, kwargs)) or fake_complex(node.meta.get("val"))):
            reasons.append(f"{candidate.function_name}: not written for complex tensors")
            return _FAILED
        mark = op.mark()
        try:
            candidate = op.origin = candidate.loaded()
            value, inferred = self._run(candidate, node.target, args, kwargs)
            result = self._results.accept(node, value, candidate, inferred)
        except Unsupported as refusal:
            op.rollback(mark)
            reasons.append(f"{candidate.function_name}: {refusal.reason}")
            return _FAILED
        except TranslationError:
            raise
        except Exception as error:
            raise fault(candidate, node, told(error, op.scope.nodes[mark[0] :]), error) from error
        self._served[records.name_of(node.target), candidate.function_name, candidate.plugin] += 1
        return result

    def _run(
        self, candidate: Translation, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Mapping[int, Inferred] | None]:
        """What a translation returns, and what onnx infers of it where no test holds the translation to onnx."""
        op = self.op
        if not candidate.tier:
            positional, keyword = registry.bind(candidate, target, args, kwargs)
            return candidate.function(op, *positional, **keyword), None
        if isinstance(target, OpOverload) and (wrong := mistake(candidate.function, target)):
            raise MistakeError(wrong)
        emitted = len(op.scope.nodes)
        positional, keyword = registry.bind(candidate, target, args, kwargs)
        value = candidate.function(op, *positional, **keyword)
        results = value if isinstance(value, (list, tuple)) else [value]
        return value, self._validity.check(op.scope.nodes[emitted:], results)

    def _decompose(self, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], reasons: list[str]) -> Any:
        try:
            expansion = self._decomposer.expand(node)
        except Unsupported as error:
            reasons.append(f"decomposition: {error.reason}")
            return _FAILED
        mark = self.op.mark()
        before = set(self._refused)
        outer = self.op.source
        self.op.source = outer or node  # what the user wrote is this node, not the steps of its decomposition
        try:
            values = self.inline(expansion.graph_module, *expansion.select(args, kwargs))
        finally:
            self.op.source = outer
        inner = [target for target in self._refused if target not in before]
        if inner:
            self.op.rollback(mark)
            for target in inner:
                refusal = self._refused.pop(target)
                reasons.append(f"decomposition: needs {target}: {'; '.join(refusal.reasons)}")
            return _FAILED
        name = records.name_of(node.target)
        self._decomposed[name] += 1
        return self._results.accept(node, expansion.pack(values), self._table.decompositions.get(node.target))

    def inline(self, graph_module: torch.fx.GraphModule, *args: Any) -> list[Any]:
        """Translate a GraphModule's nodes where the builder stands; its flat outputs."""
        outer = self.op.node
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
            self.op.node = outer

    def _translate_by_name(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run the translation of another operator on values that are already ONNX."""
        reasons: list[str] = []
        for candidate in self._table.candidates(target):
            if not candidate.complex and any_complex((args, kwargs)):
                continue
            candidate = candidate.loaded()
            if candidate.tier and candidate == self.op.origin:
                continue  # it wraps the built-in one
            mark = self.op.mark()
            try:
                return self._run(candidate, records.operator_named(target), args, kwargs)[0]
            except Unsupported as refusal:
                self.op.rollback(mark)
                reasons.append(f"{candidate.function_name}: {refusal.reason}")
            except TranslationError:
                raise
            except Exception as error:
                if self.op.node is None:
                    raise
                emitted = self.op.scope.nodes[mark[0] :]
                raise fault(candidate, self.op.node, told(error, emitted), error, target) from error
        raise Unsupported(f"{target}: {'; '.join(reasons) or 'no translation'}")

    # Results -------------------------------------------------------------------------------------------------------

    def accept(self, node: torch.fx.Node, value: Any, candidate: Translation | None = None) -> Any:
        """Check a translation's results against the FX node, name them and give them their shapes."""
        return self._results.accept(node, value, candidate)

    def _refuse(self, node: torch.fx.Node, reasons: list[str]) -> None:
        name = records.name_of(node.target)
        known, source = self._refused.get(name), provenance.source_line(node)
        if known is not None:
            known.count += 1
            known.sources += [] if source in known.sources else [source]
            known.reasons.extend(reason for reason in reasons if reason not in known.reasons)
            return
        self._refused[name] = Refusal(
            name,
            1,
            provenance.module_path(node),
            source,
            reasons or ["no translation"],
            self._advice(name),
            [source],
        )

    def _stand_in(self, fake: Any) -> Any:
        """A value for a refused node, so that the walk can go on."""
        if isinstance(fake, torch.Tensor):
            flag = fake.dtype in COMPONENT
            tensor = Tensor(
                self.op.unique("refused"), component_dtype(fake.dtype), self.op.symbols.shape(fake), is_complex=flag
            )
            self.op.symbols.bind_shape(tensor, tensor.shape)  # type: ignore[arg-type]
            return tensor
        if isinstance(fake, (list, tuple)):
            return [self._stand_in(f) for f in fake]
        if isinstance(fake, SYMBOLIC):
            for symbol in fake.node.expr.free_symbols:
                if self.op.symbols.bound(symbol) is None:
                    self.op.symbols.bind(symbol, Tensor("refused", ir.DataType.INT64, ir.Shape([])), None)
            return self.op.symbols.of_torch(fake)
        return fake


def raise_refusals(translated: Translated) -> None:
    """Raise one error that lists everything that was refused, if anything was.

    Raises:
        UnsupportedOperatorsError: some operator has no translation.
    """
    if translated.refusals:
        raise UnsupportedOperatorsError(translated.refusals)


_FAILED = object()
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
