"""The first value of an ONNX graph that departs from the value of the FX node that it was translated from."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from onnxport import InputError, MissingRuntimeError, ONNXProgram, VerificationError
from onnxport.kit import (
    chosen_functionalizer,
    counted,
    keys,
    load,
    optional,
    path_argument,
    placeholder_values,
    plain,
    provenance,
    recognize,
    translations,
    wrong,
)
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from onnxport_workbench import reproduction
from onnxport_workbench.arguments import call_arguments
from onnxport_workbench.comparing import tolerance
from onnxport_workbench.half_precision import half_of, in_type_of
from onnxport_workbench.inlining import inlined
from onnxport_workbench.json_results import JsonResult
from onnxport_workbench.reference import Reference, may_tie, precisions, same_choice
from onnxport_workbench.rounded_weights import roundings_of
from onnxport_workbench.sessions import exact_options
from onnxport_workbench.tolerances import tolerance_argument
from onnxport_workbench.verify import OutputCheck, VerificationResult, compare, opened_program, verify
from onnxport_workbench.weight_check import WeightCheck, check_weights

_LAST_PLACES = 4  # how far the inputs of an operator may be from those of another that rounds otherwise


class _Link(NamedTuple):
    """A value of the ONNX graph, and the FX node (and which of its results) that it stands for."""

    value: ir.Value
    node: Node
    result: int | None


@dataclass
class Mismatch:
    """A value that departs.

    Attributes:
        value: its name in the ONNX graph.
        onnx_operator: operator of the ONNX node that computes it.
        node: name of the FX node.
        operator: the torch operator, such as ``aten::softmax.int``.
        module: path of the module that calls it, such as ``encoder.layers.0``.
        source: ``file:line: code`` of the call.
        translation: qualified name of the function that emitted the ONNX node; empty if the model doesn't tell.
        plugin: the plugin that it belongs to.
        difference: the ONNX value against the FX value.
        inputs: the same for the FX node's inputs, those that the ONNX graph has.
        starts_here: torch gives another result for the inputs that the ONNX node had. If not, the inputs bring the
            difference along, below the tolerance each, and the operator amplifies it.
        onnx_nodes: operators of the ONNX nodes between the inputs and the value.
        repro: the folder that holds the minimal reproduction, if one was asked for.
    """

    value: str
    onnx_operator: str
    node: str
    operator: str
    module: str
    source: str
    translation: str
    plugin: str
    difference: OutputCheck
    inputs: list[OutputCheck] = field(default_factory=list)
    starts_here: bool = True
    onnx_nodes: list[str] = field(default_factory=list)
    repro: str = ""

    def __str__(self) -> str:
        found = self.difference
        inputs = max((check.max_abs for check in self.inputs), default=0.0)
        origin = "here: torch gives another result for the same inputs"
        if not self.starts_here:
            origin = f"before: the inputs differ by up to {inputs:.2e}, within the tolerance, and this amplifies it"
        rows = {
            "torch operator": f"{self.operator} (FX node {self.node})",
            "module": self.module or "(the root)",
            "source": self.source or "unknown",
            "translation": f"{self.translation or 'unknown'} (plugin {self.plugin or 'unknown'})",
            "ONNX nodes": ", ".join(self.onnx_nodes),
            "difference": f"{found.problem} (max abs {found.max_abs:.2e}, max rel {found.max_rel:.2e}, "
            f"{found.dtype}{found.shape})",
            "it starts": origin,
            "reproduction": self.repro,
        }
        lines = [f"The value {self.value!r} of {self.onnx_operator} is the first that departs from torch."]
        return plain("\n".join([*lines, *(f"    {name + ':':16}{text}" for name, text in rows.items() if text)]))


@dataclass
class MismatchResult(JsonResult):
    """What :func:`find_mismatch` found.

    Attributes:
        mismatch: the first value that departs; None if none does.
        compared: how many values of the ONNX graph were compared.
        comparable: how many could be: values that stand for an FX node.
        nodes: how many FX nodes compute tensors; those that were folded, fused or shared have no value of their own.
        runs: how many instrumented runs it took.
        random: FX nodes that draw random numbers; torch went on with the numbers that the ONNX model drew.
        ties: FX nodes that choose among equal values, such as an unstable sort, and chose others; likewise. With
            ``each``, those too that round, and had values between two steps, as far as their inputs' last places tell.
        outputs: the outputs compared without instruments, where no value inside departs and nothing is random.
        weights: which weights differ from the exported program's, where a value departs.
    """

    mismatch: Mismatch | None = None
    compared: int = 0
    comparable: int = 0
    nodes: int = 0
    runs: int = 0
    random: list[str] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)
    outputs: VerificationResult | None = None
    weights: WeightCheck = field(default_factory=WeightCheck)

    @property
    def passed(self) -> bool:
        """Nothing departs."""
        return self.mismatch is None and (self.outputs is None or self.outputs.passed)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        outputs = None if self.outputs is None else self.outputs.as_dict()
        return {**asdict(self), "passed": self.passed, "outputs": outputs, "weights": self.weights.as_dict()}

    def _repr_html_(self) -> str | None:
        from onnxport_workbench.view.summary import summary  # what only notebooks need

        return summary(self)

    def __str__(self) -> str:
        lines = [str(self.mismatch) if self.mismatch is not None else "No mismatch inside the graph."]
        if self.mismatch is None and self.outputs is not None and not self.outputs.passed:
            lines = ["All values inside the graph agree, but the outputs of the uninstrumented model do not:"]
            lines += [f"    {failure}" for failure in self.outputs.failures()]
            lines.append("A graph optimization of onnxruntime, or the rewriting of in-place operators, is to blame.")
        lines.append(
            f"Compared {self.compared} of {self.comparable} values, of a program of {self.nodes} FX nodes, in "
            f"{counted(self.runs, 'run')}."
        )
        if self.weights.problem:
            lines.append(f"Weights: {self.weights.problem}.")
        if self.random:
            lines.append(f"Random, not compared: {', '.join(self.random)}.")
        if self.ties:
            lines.append(f"Another choice among equal values or steps: {', '.join(self.ties)}.")
        return plain("\n".join(lines))


def find_mismatch(
    program: ONNXProgram | str | os.PathLike[str],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    exported_program: ExportedProgram | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    each: bool = False,
    memory_budget: int = 2 * 2**30,
    repro: str | os.PathLike[str] | None = None,
) -> MismatchResult:
    """Find the first ONNX node whose value departs from the FX node that it came from.

    The exported program is interpreted node by node with its own weights, and the ONNX model runs on onnxruntime with
    the values that stand for FX nodes as outputs. Control flow is compared by its results, as one operator; so are
    functions, where the model comes from a file.

    Args:
        program: an exported program, or the path of an .onnx file.
        args: positional inputs of the model; by default the example inputs of the export.
        kwargs: keyword inputs.
        exported_program: what the ONNX model was exported from; by default what `program` keeps.
        rtol: relative tolerance of floating-point values; by default that of the dtype in `verify.TOLERANCES`.
        atol: absolute tolerance, likewise.
        each: compare each operator on the values that the ONNX model has, so that no difference is carried along: what
            departs then is an operator that computes something else, and nothing departs where roundings or choices
            among equal values grow on their way.
        memory_budget: bytes of values inside the graph to hold at once, both sides together. Where they don't fit, the
            graph is searched by bisection, in several runs.
        repro: a folder for a minimal reproduction of the mismatch: ``node.pt2`` with the one operator, ``node.onnx``
            with its ONNX nodes, and ``inputs.pt`` with ``args`` of the one and ``feeds`` of the other, and the value
            ``expected`` and ``found``.

    Returns:
        The result; print it.

    Raises:
        InputError: an argument is of a wrong type; no exported program or no inputs are known, or the program's
            weights have no data.
        VerificationError: the ONNX model doesn't run at all.
        SaveError: the reproduction can't be written.
    """
    tolerances = tolerance_argument("rtol", rtol), tolerance_argument("atol", atol)
    optional("exported_program", exported_program, ExportedProgram, "what torch.export.export returns")
    if not isinstance(memory_budget, int) or isinstance(memory_budget, bool) or memory_budget < 1:
        raise wrong("memory_budget", memory_budget, "a number of bytes, such as 2 * 2**30")
    folder = None if repro is None else Path(path_argument("repro", repro, "the path of a folder"))
    known = args is not None or kwargs is not None
    positional, keywords = call_arguments(args, kwargs)
    opened, _ = opened_program(program)
    exported = exported_program or opened.exported_program
    if exported is None:
        raise InputError(
            "The file doesn't tell what it was exported from: pass `exported_program`.", parameter="exported_program"
        )
    if not known:
        if exported.example_inputs is None:
            raise InputError("The example inputs are not known: pass them as `args` and `kwargs`.", parameter="args")
        positional, keywords = exported.example_inputs
    recognize((positional, keywords))
    opened = ONNXProgram(opened.model, exported)
    search = _Search(opened, exported, positional, keywords, tolerances, memory_budget)
    result = search.result
    if each:
        found = search.first_of_each()
    else:
        found = search.first(search.links)
        while found is not None and search.is_tie(found[0]):
            found = search.first(search.links)
    if found is not None:
        result.mismatch = search.describe(*found, folder)
        result.weights = check_weights(opened.model, opened.exported_program, exported)
    elif not each and not result.random and not result.ties:
        outputs = verify(opened, exported, positional, keywords, generate=False, rtol=rtol, atol=atol)
        result.outputs = None if outputs.comparisons[0].skipped else outputs
        opened.release()
    result.compared = len(search.compared)
    return result


class _Search:
    """One search: both sides, and what was compared so far."""

    def __init__(
        self,
        program: ONNXProgram,
        exported: ExportedProgram,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tolerances: tuple[float | None, float | None],
        budget: int,
    ) -> None:
        self.program = ONNXProgram(inlined(program.model), exported)
        rounding = roundings_of(program.model, exported, None)
        self.args, self.kwargs, self.tolerances = args, kwargs, tolerances
        functionalizer = chosen_functionalizer(load().items("onnxport_functionalizers"))
        self.module: GraphModule = (
            program.model.meta.get(keys.TRANSLATED) or functionalizer.program(exported).graph_module
        )
        self.inputs = placeholder_values(exported, args, kwargs)
        if rounding is not None:
            self.program.session_options = exact_options()
            names = {spec.target: spec.arg.name for spec in exported.graph_signature.input_specs if spec.target}
            self.inputs |= {names[name]: tensor for name, tensor in rounding.items() if name in names}
        self.links = _links(self.program.model.graph, self.module.graph)
        self.budget = budget
        self.precisions, self.half = precisions(self.module), half_of(program.model)
        measured = Reference(self.module, probe=True)
        try:
            measured.of(self.inputs)
        except Exception as error:  # an operator may raise anything about inputs of other shapes or dtypes
            raise InputError(
                f"The exported program doesn't run on these inputs: {type(error).__name__}: {error}\nGive what its "
                "forward takes.",
                parameter="args",
            ) from error
        self.bytes, self.random = measured.bytes, measured.random
        nodes = [n for n in self.module.graph.nodes if n.op == "call_function" and n.name in self.bytes]
        drawn = [link for link in self.links if link.node.name in self.random]
        self.links = [link for link in self.links if link.node.name not in self.random]
        self.result = MismatchResult(comparable=len(self.links), nodes=len(nodes), random=sorted(self.random))
        self.compared: set[str] = set()
        self.forced: dict[str, dict[int | None, torch.Tensor]] = {link.node.name: {} for link in drawn}
        self._drawn = drawn

    def first(self, links: list[_Link]) -> tuple[_Link, OutputCheck] | None:
        """The first of the links that departs, in as few runs as fit the memory."""
        total = sum(map(self._cost, links))
        if total <= self.budget or len(links) <= 1:
            return self._first_of(links)
        step = min(-(-total // self.budget), len(links))
        sample = self._fitting(links[step - 1 :: step])[0]
        found = self._first_of(sample)
        if found is not None:
            place = sample.index(found[0])
            start = links.index(sample[place - 1]) + 1 if place else 0
            return self.first(links[start : links.index(found[0])]) or found
        chosen = {id(link.value) for link in sample}
        rest = [link for link in links if id(link.value) not in chosen]
        while rest:
            chunk, rest = self._fitting(rest)
            found = self._first_of(chunk)
            if found is not None:
                return found
        return None

    def first_of_each(self) -> tuple[_Link, OutputCheck] | None:
        """The first of the links that departs though its operator has the ONNX model's values; in chunks that fit."""
        by_node: dict[Node, list[_Link]] = {}
        for link in self.links:
            by_node.setdefault(link.node, []).append(link)
        rest = self.links
        while rest:
            chunk, rest = self._fitting(rest)
            nodes = {link.node for link in chunk}
            given = [link for node in _sources(nodes, by_node.keys()) for link in by_node[node]]
            self.result.runs += 1
            stepwise = _Stepwise(self, chunk, given, self.onnx_values(link.value for link in (*given, *chunk)))
            stepwise.of(self.inputs)
            self.compared |= {str(link.value.name) for link in chunk}
            self.result.ties += stepwise.ties
            if stepwise.departing is not None:
                return stepwise.departing
        return None

    def _cost(self, link: _Link) -> int:
        return 2 * self.bytes.get(link.node.name, 0)

    def _fitting(self, links: list[_Link]) -> tuple[list[_Link], list[_Link]]:
        """As many of the links as fit the budget, one at least, and the rest."""
        held = 0
        for i, link in enumerate(links):
            held += self._cost(link)
            if i and held > self.budget:
                return links[:i], links[i:]
        return links, []

    def _first_of(self, links: list[_Link]) -> tuple[_Link, OutputCheck] | None:
        if not links:
            return None
        self.result.runs += 1
        found, expected = self.values([link.value for link in links], [link.node for link in links])
        for link in links:
            self.compared.add(str(link.value.name))
            check = self.check(link, expected[link.node.name], found[str(link.value.name)])
            if check.problem:
                return link, check
        return None

    def values(self, values: Iterable[ir.Value], nodes: Iterable[Node]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of the ONNX graph, and of FX nodes, by name; torch takes the random numbers that the model drew."""
        found = self.onnx_values(values)
        reference = Reference(self.module, {node.name for node in nodes}, self.forced)
        return found, reference.of(self.inputs)

    def onnx_values(self, values: Iterable[ir.Value]) -> dict[str, Any]:
        """Values of the ONNX graph, by name, and the random numbers that it drew."""
        names = dict.fromkeys(str(value.name) for value in (*values, *(link.value for link in self._drawn)))
        try:
            found = self.program.compute_values(list(names), self.args, self.kwargs)
        except (InputError, MissingRuntimeError):
            raise
        except Exception as error:  # onnxruntime has a class for each of its status codes
            raise VerificationError(f"The ONNX model does not run on onnxruntime: {error}") from error
        for link in self._drawn:
            self.forced[link.node.name][link.result] = found[str(link.value.name)]
        return found

    def check(self, link: _Link, expected: Any, found: torch.Tensor) -> OutputCheck:
        """Compare one value of both sides."""
        want = expected if link.result is None else expected[link.result]
        precision = self.half or self.precisions.get(link.node)
        want = in_type_of(found, want) if self.half is not None else want
        return compare(str(link.value.name), want, _as_complex(want, found), *self.tolerances, precision)

    def is_tie(self, link: _Link) -> bool:
        """Whether a departing index stands for an equal value; the model's choice is then torch's, too."""
        sources = link.node.all_input_nodes
        if not sources or not may_tie(link.node):
            return False
        found, fx = self.values([link.value], [link.node, sources[0]])
        index = found[str(link.value.name)]
        expected = fx[link.node.name] if link.result is None else fx[link.node.name][link.result]
        if not same_choice(link.node, fx[sources[0].name], expected, index):
            return False
        self._drawn.append(link)
        self.forced.setdefault(link.node.name, {})[link.result] = index
        self.links.remove(link)
        self.result.ties.append(link.node.name)
        return True

    def describe(self, link: _Link, difference: OutputCheck, folder: Path | None) -> Mismatch:
        """All about a mismatch, and its reproduction."""
        graph, node = self.program.model.graph, link.node
        by_node = {(other.node, other.result): other.value for other in reversed(self.links)}
        sources = {source: by_node.get((source, None)) for source in node.all_input_nodes}
        edges = reproduction.edges_of(graph, link.value, node, {id(o.value): o.node for o in self.links})
        extracted = ir.convenience.extract(graph, edges, [link.value])
        known = [value for value in sources.values() if value is not None]
        found, fx = self.values([link.value, *known, *edges], [node, *node.all_input_nodes])
        checks, given = [], {}
        for source, value in sources.items():
            given[source] = fx[source.name]
            if value is not None:
                actual = found[str(value.name)]
                checks.append(self.check(_Link(value, source, None), given[source], actual))
                given[source] = _as_complex(given[source], actual)
        single, arguments = reproduction.one_node(self.module, node, given)
        with torch.no_grad():
            again = self.check(link, single(*arguments), found[str(link.value.name)])
        producer = link.value.producer()
        properties: Mapping[str, str] = {} if producer is None else producer.metadata_props
        origin = getattr(producer, "origin", None)
        mismatch = Mismatch(
            str(link.value.name),
            "" if producer is None else producer.op_type,
            node.name,
            translations.name_of(node.target),
            provenance.module_path(node),
            provenance.source_line(node),
            origin.function_name if origin is not None else properties.get(keys.TRANSLATION, ""),
            origin.plugin if origin is not None else properties.get(keys.PLUGIN, ""),
            difference,
            checks,
            bool(again.problem),
            [each.op_type for each in extracted],
        )
        if folder is not None:
            feeds = {str(value.name): found[str(value.name)] for value in edges}
            inputs = {"args": arguments, "feeds": feeds}
            inputs |= {"expected": fx[node.name], "found": found[str(link.value.name)]}
            reproduction.write(folder, single, extracted, self.program.model, inputs)
            mismatch.repro = str(folder)
        return mismatch


class _Stepwise(Reference):
    """Runs the FX graph on the values of the ONNX model, and compares what each node makes of them.

    Args:
        search: compares.
        chunk: what is compared.
        given: values that the chunk's nodes take.
        found: the values of the ONNX graph, by name.
    """

    def __init__(
        self, search: _Search, chunk: list[_Link], given: list[_Link], found: Mapping[str, torch.Tensor]
    ) -> None:
        super().__init__(search.module, (), search.forced)
        self._search, self._found = search, found
        self._forced = dict(search.forced)
        self._links: dict[Node, dict[int | None, _Link]] = {}
        for link in (*given, *chunk):
            self._links.setdefault(link.node, {})[link.result] = link
        self._compared = {id(link) for link in chunk}
        self.departing: tuple[_Link, OutputCheck] | None = None
        self.ties: list[str] = []

    def computed(self, node: Node, value: Any) -> None:
        """Compare a node's results, and go on with those of the ONNX model."""
        links = self._links.get(node)
        if links is None:
            return
        forced = {}
        for index, link in links.items():
            found = self._found[str(link.value.name)]
            want = value if index is None else value[index]
            forced[index] = given = _as_complex(want, found)
            if self._search.half is not None:
                forced[index] = given = in_type_of(want, given)
            if id(link) in self._compared and self.departing is None:
                check = self._search.check(link, value, found)
                if check.problem and not self._is_tie(node, index, want, given):
                    self.departing = link, check
        self._forced = {**self._forced, node.name: forced}

    def _is_tie(self, node: Node, index: int | None, want: torch.Tensor, found: torch.Tensor) -> bool:
        """Whether a result is another choice among equal values, or another rounding of what is between two steps."""
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        chosen = source is not None and may_tie(node) and same_choice(node, self.env[source], want, found)
        if not chosen and not self._is_another_rounding(node, index, want, found):
            return False
        self.ties.append(node.name)
        return True

    def _is_another_rounding(self, node: Node, index: int | None, want: torch.Tensor, found: torch.Tensor) -> bool:
        """Whether each element is what torch gives when the last places of the inputs are a little lower or higher."""
        if not isinstance(want, torch.Tensor) or (want.dtype, want.shape) != (found.dtype, found.shape):
            return False
        exact = not (want.is_floating_point() or want.is_complex())
        relative, absolute = (0.0, 0.0) if exact else tolerance(want.dtype)
        agrees = torch.zeros(want.shape, dtype=torch.bool)
        given = self.fetch_args_kwargs_from_env(node)
        for steps in (-_LAST_PLACES, 0, _LAST_PLACES):
            args, kwargs = pytree.tree_map(lambda leaf, by=steps: _moved(leaf, by), given)
            value = getattr(self, node.op)(node.target, args, kwargs)
            value = value if index is None else value[index]
            if value.shape != found.shape:
                return False
            agrees |= torch.isclose(found, value.to(found.dtype), rtol=relative, atol=absolute, equal_nan=True)
        return bool(agrees.all())


def _moved(leaf: Any, steps: int) -> Any:
    if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return leaf
    return leaf * (1 + steps * torch.finfo(leaf.dtype).eps)


def _sources(nodes: Iterable[Node], known: Collection[Node]) -> list[Node]:
    """The nearest nodes with known values before some nodes; on the way are those that have none of their own."""
    found: dict[Node, None] = {}
    waiting, seen = list(nodes), set(nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source in known and source not in seen:
                found[source] = None
            elif source not in seen:
                waiting.append(source)
            seen.add(source)
    return list(found)


def _links(graph: ir.Graph, fx: Graph) -> list[_Link]:
    """The values of the main graph that stand for FX nodes, in the order of those."""
    nodes = {node.name: (place, node) for place, node in enumerate(fx.nodes) if node.op == "call_function"}
    found: list[tuple[int, _Link]] = []
    for node in graph:
        for value in node.outputs:
            place, source = nodes.get(value.metadata_props.get(keys.ORIGIN, ""), (0, None))
            if source is None or not (value.uses() or value.is_graph_output()):
                continue
            index = value.metadata_props.get(keys.RESULT_INDEX)
            if isinstance(source.meta.get("val"), torch.Tensor) is (index is None):
                found.append((place, _Link(value, source, None if index is None else int(index))))
    return [link for _, link in sorted(found, key=lambda item: item[0])]


def _as_complex(expected: Any, found: torch.Tensor) -> torch.Tensor:
    """Pairs of real numbers as the complex numbers that torch has."""
    if isinstance(expected, torch.Tensor) and expected.is_complex() and not found.is_complex():
        return torch.view_as_complex(found.contiguous())
    return found
