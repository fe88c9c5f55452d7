"""``export(functions=)``: the calls of chosen module classes become calls of local functions.

The nodes of one call are found by `nn_module_stack`. Where they can be taken out of the graph as one, they are
described (:mod:`onnxport_functions.fingerprints`); the first call of a description is translated, the others only
called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
import torch.fx
from onnxport import Tensor
from onnxport.kit import (
    SYMBOLIC,
    FunctionUse,
    Node,
    Walk,
    components,
    nodes_of,
    provenance,
)

from onnxport_functions.call_metadata import call_properties
from onnxport_functions.fingerprints import Structure, content
from onnxport_functions.local_functions import Call, LocalFunctions
from onnxport_functions.selection import REGION, Selection, classes
from onnxport_functions.templates import Template, small_constant

if TYPE_CHECKING:
    import sympy


@dataclass(eq=False)
class _Region:
    """The nodes of one call of a module, in order."""

    key: str
    path: str
    module: str
    nodes: list[torch.fx.Node] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The module's path, or the root's class; of later calls of one module, also which it is."""
        path, count = self.path or self.module, self.key.rpartition("@")[2]
        if REGION in self.key:
            return f"{self.module} in {self.path}" if self.path else self.module
        return path if count == "0" else f"{path} (call {int(count) + 1})"


@dataclass
class _Interface:
    """What a region reads and gives.

    Attributes:
        reads: the nodes outside that the region reads.
        arguments: the tensors among their values that the function takes.
        gives: the nodes whose values are read outside.
        numbers: symbols that the region creates and that are read outside, but not from the shape of a result.
    """

    reads: list[torch.fx.Node]
    arguments: list[Tensor]
    gives: list[torch.fx.Node]
    numbers: list[sympy.Basic]


@dataclass
class _Made:
    """A function for a fingerprint: its call, and the Python values of results that are no tensors.

    ``nodes`` are those that its body was made of; none where it is the body of another fingerprint.
    """

    call: Call
    values: list[Any]
    nodes: list[torch.fx.Node]


@dataclass
class _Earlier:
    """A region that was described, what else its fingerprint has, and what became of it."""

    template: Template
    outside: tuple[Any, ...]
    made: _Made | str


class ModuleFunctions:
    """Walks the nodes of a graph for a translator, and puts calls of functions where it can.

    Args:
        translator: translates single nodes.
        selection: the classes.

    Attributes:
        uses: by name of the function.
        inlined: calls that were translated in place, by path, with the reason.
    """

    def __init__(self, translator: Walk, selection: Selection) -> None:
        self._translator = translator
        self._op = translator.op
        writer = translator.op.function_writer
        self._functions = writer if isinstance(writer, LocalFunctions) else LocalFunctions(translator.op)
        self._selection = selection
        self._inside: list[str] = []
        self._apart: set[str] = set()
        self._made: dict[Any, _Made | str] = {}
        self._earlier: dict[str, deque[_Earlier]] = {}
        self._bodies: dict[Any, list[torch.fx.Node]] = {}
        self._arithmetic: set[torch.fx.Node] = set(translator.skipped)
        self._readers: dict[sympy.Basic, list[torch.fx.Node]] = {}
        self._of_weights: set[torch.fx.Node] = set()
        names = frozenset(translator.weights)  # which functions take as inputs, however small
        for node in translator.graph_module.graph.nodes:
            of_weights = translator.is_constant(node) and not self._of_weights.isdisjoint(node.all_input_nodes)
            if of_weights or (node.op == "placeholder" and node.name in names):
                self._of_weights.add(node)
        self.uses: dict[str, FunctionUse] = {}
        self.inlined: dict[str, str] = {}

    def walk(self, nodes: Sequence[torch.fx.Node]) -> None:
        """Translate nodes, in an order in which the nodes of a call stand together."""
        for unit in self._units(nodes):
            if isinstance(unit, _Region):
                self._call(unit)
            else:
                self._translator.visit(unit)

    # Which nodes go together ---------------------------------------------------------------------------------------

    def _units(self, nodes: Sequence[torch.fx.Node]) -> list[torch.fx.Node | _Region]:
        """The nodes and the calls, each after what it depends on. Takes time linear in the number of edges."""
        regions: dict[str, _Region] = {}
        unit_of: dict[torch.fx.Node, torch.fx.Node | _Region] = {}
        through: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        for node in nodes:
            if self._is_arithmetic(node):
                through[node] = self._number(node, through)
                continue
            entry = self._open_call(node)
            if entry is None:
                unit_of[node] = node
            else:
                region = regions.setdefault(entry[0], _Region(*entry))
                region.nodes.append(node)
                unit_of[node] = region
        if not regions:
            return list(unit_of.values())
        place = {node: i for i, node in enumerate(unit_of)}
        self._adopt(unit_of, place)
        units = list(dict.fromkeys(unit_of.values()))

        def dependencies(unit: torch.fx.Node | _Region) -> Iterator[torch.fx.Node | _Region]:
            for node in unit.nodes if isinstance(unit, _Region) else [unit]:
                for source in () if self._translator.is_constant(node) else node.all_input_nodes:
                    for read in through.get(source, (source,)):
                        if read in unit_of and unit_of[read] is not unit:
                            yield unit_of[read]

        ordered: list[torch.fx.Node | _Region] = []
        for component in components(units, dependencies):
            if len(component) == 1:
                ordered += component
                continue
            self._take_apart(component)
            parts = [n for unit in component for n in (unit.nodes if isinstance(unit, _Region) else [unit])]
            ordered += self._units(sorted(parts, key=place.__getitem__))
        return ordered

    def _adopt(self, unit_of: dict[torch.fx.Node, torch.fx.Node | _Region], place: dict[torch.fx.Node, int]) -> None:
        """Nodes of no known module that read what a call computes, and that only this call reads, belong to it."""
        only: dict[torch.fx.Node, _Region] = {}
        for node in reversed(unit_of):
            if isinstance(unit_of[node], _Region) or node.op != "call_function" or classes(node):
                continue
            users = {only.get(u, unit_of.get(u)) for u in node.users if u not in self._arithmetic}
            region = users.pop() if len(users) == 1 else None
            if isinstance(region, _Region):
                only[node] = region
        for node, region in reversed(only.items()):
            if any(unit_of.get(source) is region for source in node.all_input_nodes):
                unit_of[node] = region
                region.nodes.append(node)
        for region in dict.fromkeys(only.values()):
            region.nodes.sort(key=place.__getitem__)

    def _is_arithmetic(self, node: torch.fx.Node) -> bool:
        """A size, or a number computed of sizes: its expression says all, unless a table translates the operator."""
        if not isinstance(node.meta.get("val"), SYMBOLIC) or node.op != "call_function":
            return False
        if self._translator.is_overridden(node.target):
            return False
        tensors = any(not isinstance(n.meta.get("val"), SYMBOLIC) for n in node.all_input_nodes)
        return not tensors or node.target in _SIZES

    def _number(self, node: torch.fx.Node, through: dict[torch.fx.Node, list[torch.fx.Node]]) -> list[torch.fx.Node]:
        """Give a number its value; the nodes that must be translated before it is read."""
        fake = node.meta["val"]
        self._translator.env[node] = self._op.symbols.of_torch(fake)
        self._arithmetic.add(node)
        unbacked = [symbol for symbol in fake.node.expr.free_symbols if str(symbol).startswith(("u", "zu"))]
        for symbol in unbacked:
            self._readers.setdefault(symbol, []).append(node)
        return [read for n in node.all_input_nodes for read in through.get(n, [n])] if unbacked else []

    def _open_call(self, node: torch.fx.Node) -> tuple[str, str, str] | None:
        """The outermost call that the node belongs to and that is no function yet where the walk stands."""
        if node.op != "call_function" or self._translator.is_constant(node):
            return None
        calls = self._selection.calls(node)
        return next((c for c in calls if c[0] not in self._inside and c[0] not in self._apart), None)

    def _take_apart(self, component: Sequence[torch.fx.Node | _Region]) -> None:
        """Give up calls that can't be run as one, since each waits for what the others compute."""
        for region in [unit for unit in component if isinstance(unit, _Region)]:
            between = next(unit for unit in component if unit is not region)
            if isinstance(between, _Region):
                other = f"the call of {between.label}"
            else:
                line = provenance.source_line(between)
                other = provenance.target_name(between.target) + (f" ({line})" if line else "")
            self._keep_inline(region, f"what it computes goes through {other} and comes back to it")

    def _keep_inline(self, region: _Region, reason: str) -> None:
        self._apart.add(region.key)
        self.inlined[region.label] = reason

    # Calls ---------------------------------------------------------------------------------------------------------

    def _call(self, region: _Region) -> None:
        interface, made = self._like_earlier(region) or self._described(region)
        if isinstance(made, str):
            self._keep_inline(region, made)
            self.walk(region.nodes)
            return
        op, env = self._op, self._translator.env
        node = interface.gives[-1] if interface.gives else region.nodes[-1]
        with op.at(node, source=None, origin=None):
            results = iter(made.call.emit(op, interface.arguments))
            for node, value in zip(interface.gives, made.values):
                env[node] = self._translator.accept(node, _filled(value, results))
            for symbol, number in zip(interface.numbers, results):
                if number is not None and op.symbols.bound(symbol) is None:
                    op.symbols.bind(symbol, number, None)
            env.update({n: op.symbols.of_torch(n.meta["val"]) for n in region.nodes if not _is_value(n)})
            if made.call.function is not None:
                self._record(region, made, made.call.function)

    def _record(self, region: _Region, made: _Made, function: ir.Function) -> None:
        name = f"{function.domain}::{function.name}"
        if name not in self.uses:
            self.uses[name] = FunctionUse(name, region.module, sum(1 for _ in nodes_of(function)))
        self.uses[name].calls.append(region.label)
        call = self._op.frame.nodes[-1]
        if isinstance(call, Node):
            call.describe = partial(call_properties, module=region.path)
            call.alike = made.nodes, region.nodes

    def _like_earlier(self, region: _Region) -> tuple[_Interface, _Made | str] | None:
        """What a region that was described stands for as well: the layers of a model are told to be alike by this."""
        for earlier in self._earlier.get(region.module, ()):
            reads = earlier.template.reads_of(region.nodes)
            if reads is not None:
                structure, arguments = Structure(self._op), list[Tensor]()
                values = tuple(self._value(structure, node, arguments) for node in reads)
                gives, outside = self._outside(region, values)
                if outside == earlier.outside:
                    return _Interface(reads, arguments, gives, []), earlier.made
        return None

    def _described(self, region: _Region) -> tuple[_Interface, _Made | str]:
        """A region's interface, and what its fingerprint, equal where one function can stand for several, gives."""
        structure, arguments = Structure(self._op), list[Tensor]()
        reads: dict[torch.fx.Node, int] = {}
        values: list[Any] = []

        def read(node: torch.fx.Node) -> int:
            if node not in reads:
                reads[node] = len(reads)
                values.append(self._value(structure, node, arguments))
            return reads[node]

        nodes = structure.nodes(region.nodes, read)
        gives, outside = self._outside(region, tuple(values))
        numbers = self._numbers(structure, set(region.nodes), gives)
        interface = _Interface(list(reads), arguments, gives, numbers)
        fingerprint = region.module, nodes, outside, tuple(structure.fresh[s] for s in numbers)
        made = self._made.get(fingerprint)
        if made is None:
            made = self._made[fingerprint] = self._translated(region, interface)
        if structure.is_repeatable:
            earlier = self._earlier.setdefault(region.module, deque(maxlen=_REMEMBERED))
            earlier.appendleft(_Earlier(Template(region.nodes, interface.reads), outside, made))
        return interface, made

    def _value(self, structure: Structure, node: torch.fx.Node, arguments: list[Tensor]) -> Any:
        """The description of what a region reads; the tensors that the function takes are added to ``arguments``."""

        def described(tensor: Tensor) -> Any:
            data = self._held(tensor, node)
            if data is None:
                arguments.append(tensor)
            return tensor if data is None else content(data)

        return structure.value(_mapped(self._translator.env[node], described))

    def _outside(self, region: _Region, values: tuple[Any, ...]) -> tuple[list[torch.fx.Node], tuple[Any, ...]]:
        """The nodes whose values are read outside; these, the calls in the region and ``values`` as a description."""
        members, arithmetic = set(region.nodes), self._arithmetic
        places = [
            i
            for i, node in enumerate(region.nodes)
            if any(user not in members and user not in arithmetic for user in node.users) and _is_value(node)
        ]
        keys: dict[str, int] = {}
        known: dict[int, Any] = {}  # many nodes have one and the same list
        levels = []
        for node in region.nodes:
            calls = self._selection.calls(node)
            if id(calls) not in known:
                known[id(calls)] = tuple([(keys.setdefault(key, len(keys)), module) for key, _, module in calls])
            levels.append(known[id(calls)])
        return [region.nodes[i] for i in places], (values, tuple(places), tuple(levels))

    def _numbers(
        self, structure: Structure, members: set[torch.fx.Node], gives: Sequence[torch.fx.Node]
    ) -> list[sympy.Basic]:
        """Fresh symbols that are read outside, but that no result has as a dimension."""
        if not structure.fresh:
            return []
        dims: list[Any] = [d for n in gives for t in torch.utils._pytree.tree_leaves(n.meta["val"]) for d in t.shape]
        exprs = [d.node.expr for d in dims if isinstance(d, torch.SymInt)]
        read = {symbol for expr in exprs for symbol in expr.free_symbols}
        for symbol in structure.fresh:
            sources = [*self._readers.get(symbol, ()), *(n for n in members if _has_symbol(n, symbol))]
            if any(user not in members and user not in self._arithmetic for n in sources for user in n.users):
                read.add(symbol)
        return [symbol for symbol in structure.fresh if symbol in read and symbol not in exprs]

    def _input_name(self, tensor: Tensor, path: str) -> str:
        """Weights are called as in the state dict of the module, everything else just `input`."""
        frame = self._op.frame
        known = tensor.producer() is None and (frame.base.caller is not None or tensor.name in frame.initializers)
        return str(tensor.name).removeprefix(f"{path}.") if known else "input"

    def _held(self, tensor: Tensor, node: torch.fx.Node) -> ir.TensorProtocol | None:
        """The content of a constant that functions hold themselves: a small one that isn't made of weights."""
        return None if node in self._of_weights else small_constant(tensor)

    def _translated(self, region: _Region, interface: _Interface) -> _Made | str:
        """The region as a function, or why it can't be one."""
        translator, op = self._translator, self._op
        env = translator.env
        values: list[Any] = []

        def emit(parameters: list[Tensor]) -> list[Tensor | None]:
            following = iter(parameters)

            def inner(tensor: Tensor, node: torch.fx.Node) -> Tensor:
                data = self._held(tensor, node)
                return next(following) if data is None else op.const(data.numpy(), data.dtype)

            outer = {node: env[node] for node in interface.reads}
            self._inside.append(region.key)
            try:
                env.update({n: _mapped(value, lambda t, n=n: inner(t, n)) for n, value in outer.items()})  # type: ignore[misc]
                self.walk(region.nodes)
                trial.expect_served()
                values.extend(env[node] for node in interface.gives)
                bound = [symbol if op.symbols.bound(symbol) else None for symbol in interface.numbers]
                return [*_tensors(values), *(None if s is None else op.symbols.vector(s) for s in bound)]
            finally:
                self._inside.pop()
                env.update(outer)
                for node in region.nodes:
                    env.pop(node, None)

        root = region.path
        names = [
            self._input_name(tensor, provenance.relative_path(root, op.frame.root)) for tensor in interface.arguments
        ]
        package, name = region.module.partition(".")[0], region.module.rpartition(".")[2]
        with translator.trial() as trial:
            call = self._functions.define(f"pkg.{package}", name, interface.arguments, emit, names=names, root=root)
            nodes = [] if call.function is None else self._bodies.setdefault(call.function.identifier(), region.nodes)
            nodes = nodes if nodes is region.nodes else []
            return _Made(call, [_mapped(value, lambda _tensor: _TENSOR) for value in values], nodes)
        return "; ".join(trial.reasons)


_SIZES = frozenset([torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default, torch.ops.aten.sym_stride.int])
_REMEMBERED = 4
"""So many of the latest regions of a class are held against a new one."""
_TENSOR = object()
"""Stands for a tensor among the values of a region."""


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """A value of an FX node with its tensors replaced."""
    if isinstance(value, (list, tuple)):
        return [_mapped(item, function) for item in value]
    return function(value) if isinstance(value, Tensor) else value


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, Tensor):
            yield value


def _filled(value: Any, results: Iterator[Any]) -> Any:
    """A recorded value with the results of a call for its tensors."""
    if isinstance(value, list):
        return [_filled(item, results) for item in value]
    return next(results) if value is _TENSOR else value


def _is_value(node: torch.fx.Node) -> bool:
    return not isinstance(node.meta.get("val"), SYMBOLIC)


def _has_symbol(node: torch.fx.Node, symbol: sympy.Basic) -> bool:
    fake = node.meta.get("val")
    return isinstance(fake, SYMBOLIC) and symbol in fake.node.expr.free_symbols
