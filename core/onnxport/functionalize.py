"""In-place operators and writes through views become a graph of pure operators.

Eager tensors are windows onto storages. Here every storage is an alias without a parent, whose node holds its present
value; a view is an alias with a parent and the operator that makes it from the parent. Writing through a view replays the
inverse operator (`select_scatter` for `select`, and so on: `views.py`) up to the storage; reading an alias after its
storage has changed replays the view. What shares storage is read from the recorded fake tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from onnxport.errors import Unsupported
from onnxport.regions import GraphWriter, attribute_of, inline_regions
from onnxport.views import PARENT, CannotInvert, ViewStep, invert, is_same_shape, is_same_size, sizes_of

aten = torch.ops.aten

_ASSERTIONS = frozenset(
    f"aten::{name}"
    for name in ["_assert_async", "_assert_scalar", "_assert_tensor_metadata", "_functional_assert_async", "_functional_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size", "_functional_sym_constrain_range", "_functional_sym_constrain_range_for_size", "_print", "record_stream", "retain_grad"]
)
_ASSERTING_FUNCTIONS = frozenset({torch._check, torch._check_is_size, torch._check_value, torch._assert})
# Mutating operators whose result is the tensor itself, with nothing written.
_SAME_TENSOR = frozenset({"aten::requires_grad_", "aten::detach_"})
_TURNS_INTO_VIEW = frozenset(f"aten::{n}_" for n in ["transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims"])
_RENAMED = {
    "__iand__": "bitwise_and",
    "__ior__": "bitwise_or",
    "__ixor__": "bitwise_xor",
    "__ilshift__": "bitwise_left_shift",
    "__irshift__": "bitwise_right_shift",
}
_CERTAIN_VIEWS = (
    aten.view.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
)
# Operators that write their running statistics without saying so in their schema, and where their `training` flag is.
_SILENT = {aten.batch_norm.default: 5, aten.native_batch_norm.default: 5, aten.instance_norm.default: 5}
_PYTHON_INPLACE: Mapping[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, name if name not in ("and", "or") else f"{name}_")
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
}


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

    `graph_module` has the placeholders of the exported program, in their order, and returns one flat tuple: the new values
    of `mutations`, then `user_outputs`. It is the program's own module when nothing had to change.
    """

    graph_module: GraphModule
    mutations: tuple[Mutation, ...]
    user_outputs: tuple[UserOutput, ...]
    fallback: str | None
    """Why the program had to be decomposed by torch, which traces it a second time; None almost always."""
    dropped_assertions: tuple[str, ...]


class NotFunctionalizable(Unsupported):
    """The graph writes in a way that is not understood here; the reason says where and what."""


def functionalize(program: ExportedProgram, *, inline_subgraphs: bool = False) -> FunctionalProgram:
    """`program` without in-place operators, assertions, dead nodes and regions; `program` itself is left as it is.

    Args:
        program: as torch.export gives it, or decomposed.
        inline_subgraphs: also inline the bodies of `invoke_subgraph`.
    """
    try:
        return _functionalize(program, inline_subgraphs, None)
    except NotFunctionalizable as error:
        return _functionalize(program.run_decompositions({}), inline_subgraphs, error.reason)


def functionalize_graph(graph_module: GraphModule) -> GraphModule:
    """A nested or freshly traced graph without in-place operators, assertions, dead nodes and regions.

    Returns: `graph_module` itself when nothing has to change.
    Raises: NotFunctionalizable (an `Unsupported`) when it writes to one of its inputs.
    """
    graph_module = inline_regions(graph_module)
    if not _must_change(graph_module):
        return graph_module
    rewriter = _Rewriter(graph_module)
    result = rewriter.run()
    for placeholder, alias in rewriter.written_inputs():
        raise NotFunctionalizable(f"a nested graph writes to its input {placeholder.name!r} ({alias.val})")
    rewriter.writer.graph.output(result)
    rewriter.writer.prune()
    return rewriter.writer.finish()


def _functionalize(program: ExportedProgram, inline_subgraphs: bool, reason: str | None) -> FunctionalProgram:
    graph_module = inline_regions(program.graph_module, subgraphs=inline_subgraphs)
    signature = program.graph_signature
    rewriter = _Rewriter(graph_module) if _must_change(graph_module) else None
    returned = rewriter.run() if rewriter else graph_module.graph.output_node().args[0]
    mutations: list[Mutation] = []
    outputs: list[UserOutput] = []
    for spec, arg in zip(signature.output_specs, returned):  # type: ignore[arg-type]
        if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT):
            outputs.append(UserOutput("node" if isinstance(arg, Node) else "constant", arg))
        elif spec.kind is not OutputKind.TOKEN and isinstance(arg, Node):
            mutations.append(Mutation(spec.kind.name, str(spec.target), arg))
    if rewriter:
        specs = {spec.arg.name: spec for spec in signature.input_specs}
        for placeholder, alias in rewriter.written_inputs():
            spec = specs[placeholder.name]
            if spec.kind is InputKind.CONSTANT_TENSOR and str(spec.target).startswith("lifted_tensor_"):
                continue  # a tensor literal in forward: made anew at each call
            kind = {InputKind.USER_INPUT: "USER_INPUT", InputKind.PARAMETER: "PARAMETER"}.get(spec.kind, "BUFFER")
            target = spec.arg.name if kind == "USER_INPUT" else str(spec.target)
            mutations.append(Mutation(f"{kind}_MUTATION", target, rewriter.current(alias)))
        rewriter.writer.graph.output((*(m.node for m in mutations), *(output.arg for output in outputs)))
        rewriter.writer.prune()
        graph_module = rewriter.writer.finish()
    dropped = tuple(rewriter.dropped) if rewriter else ()
    return FunctionalProgram(graph_module, tuple(mutations), tuple(outputs), reason, dropped)


def _must_change(graph_module: GraphModule) -> bool:
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            body = attribute_of(graph_module, str(node.target))
            if isinstance(body, GraphModule) and (inline_regions(body) is not body or _must_change(body)):
                return True
        if node.op == "call_function" and (not node.users or _is_assertion(node.target) or _writes(node)):
            return True
    return False


def _is_assertion(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name in _ASSERTIONS or target.namespace == "profiler"
    return target in _ASSERTING_FUNCTIONS


def _writes(node: Node) -> bool:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return bool(_mutated(target)) or _is_silent(node)
    return target in _PYTHON_INPLACE


def _is_silent(node: Node) -> bool:
    flag = _SILENT.get(node.target)  # type: ignore[arg-type]
    return flag is not None and node.args[flag] is True and isinstance(node.args[3], Node)


def _is_inplace(target: Any) -> bool:
    """Whether a call of `target` returns its first argument, written."""
    if not isinstance(target, torch._ops.OpOverload) or not _mutated(target) or len(target._schema.returns) != 1:
        return False
    returned, first = target._schema.returns[0].alias_info, target._schema.arguments[0].alias_info
    return returned is not None and first is not None and first.is_write and target._schema.name.endswith("_")


class _Written(NamedTuple):
    """An argument that an operator writes."""

    name: str
    is_out: bool
    alias_set: frozenset[str]


@cache
def _mutated(target: torch._ops.OpOverload) -> tuple[_Written, ...]:
    return tuple(
        _Written(argument.name, argument.is_out, frozenset(argument.alias_info.before_set))
        for argument in target._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    )


@cache
def _twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The pure operator with the same arguments, without those for `out=`.

    It returns what `target` returns beside the tensors it writes, and then the new values of those.
    """
    namespace, name = target._schema.name.split("::")
    base = name.removesuffix("_")
    names = [name] if any(written.is_out for written in _mutated(target)) else [base, f"{base}_functional"]
    wanted = [str(argument.type) for argument in target._schema.arguments if not argument.is_out]
    for candidate in (*names, _RENAMED.get(name)):
        packet = getattr(getattr(torch.ops, namespace), candidate, None) if candidate else None
        found = []
        for overload_name in packet.overloads() if packet else ():
            overload = getattr(packet, overload_name)
            if not _mutated(overload) and [str(argument.type) for argument in overload._schema.arguments] == wanted:
                found.append(overload)
        if found:
            return next((o for o in found if o._overloadname == target._overloadname), found[0])
    return None


class _Alias:
    """A tensor of the eager program: a storage (no parent), or a view."""

    __slots__ = ("node", "parent", "root", "step", "strange", "val", "version", "views")

    def __init__(
        self, node: Node | None, val: torch.Tensor, parent: _Alias | None = None, step: ViewStep | None = None
    ):
        self.node = node
        self.val = val
        self.parent = parent
        self.step = step
        self.root: _Alias = parent.root if parent else self
        self.version = parent.root.version if parent else 0
        self.views: dict[Any, _Alias] = {}
        self.strange: str | None = None
        """For a storage: why a write to it can't be followed."""


class _Results(NamedTuple):
    """The results of an operator of which some are aliases: an alias each, or a node."""

    entries: list[Any]


class _Rewriter:
    """Copies one graph, in order, into a graph of pure operators."""

    def __init__(self, owner: GraphModule) -> None:
        self.owner = owner
        self.writer = GraphWriter()
        self.dropped: list[str] = []
        self.tracks = any(node.op == "call_function" and _writes(node) for node in owner.graph.nodes)
        self.fakes: Mapping[Node, Any] = _fakes(owner) if self.tracks else {}
        self.env: dict[Node, Any] = {}
        self.first: dict[int, Node] = {}
        """The first node on each storage."""
        self.wholes: dict[Any, tuple[int, Node]] = {}
        """The latest replay of each view operator with several results, with its storage's version."""
        self.origin: Node | None = None

    def run(self) -> Any:
        """Copies every node but the output; what the output returns, in new nodes."""
        for node in self.owner.graph.nodes:
            self.origin = node
            if node.op == "output":
                return map_arg(node.args[0], self.read)
            if node.op == "get_attr":
                value = attribute_of(self.owner, str(node.target))
                if isinstance(value, GraphModule):
                    value = functionalize_graph(value)
                new = self.writer.graph.get_attr(self.writer.attribute(str(node.target), value))
                new.meta = dict(node.meta)
                self.bind(node, new)
            elif node.op == "call_function" and _is_assertion(node.target):
                self.dropped.append(node.name)
            elif node.op == "call_function" and self.tracks:
                self.call(node)
            else:
                self.bind(node, self.writer.graph.node_copy(node, self.read))
        raise ValueError("the graph has no output node")

    def written_inputs(self) -> Iterable[tuple[Node, _Alias]]:
        """The placeholders whose content changed, and those on the same storage, in their order."""
        for node in self.owner.graph.nodes:
            alias = self.env.get(node)
            if node.op == "placeholder" and isinstance(alias, _Alias) and alias.root.version:
                yield node, alias

    # Reading

    def read(self, node: Node) -> Any:
        """The new node with the present value of an old one; a list where it has several results."""
        return self._read(self.env[node])

    def _read(self, entry: Any) -> Any:
        if isinstance(entry, _Alias):
            return self.current(entry)
        return [self._read(item) for item in entry.entries] if isinstance(entry, _Results) else entry

    def current(self, alias: _Alias) -> Node:
        """The node of an alias, made anew from its parent when the storage was written since."""
        stale = []
        root, above = alias.root, alias
        while above.parent is not None and (above.node is None or above.version != root.version):
            stale.append(above)
            above = above.parent
        for view in reversed(stale):
            view.node, view.version = self._replay(view), root.version
        if alias.node is None:
            raise RuntimeError("a storage without a value")
        return alias.node

    def _replay(self, view: _Alias) -> Node:
        step, parent = view.step, view.parent
        if step is None or parent is None or parent.node is None:
            raise RuntimeError("a view without a parent")
        several = isinstance(step.val, (tuple, list))
        key = (id(parent), *_key(step))
        version, whole = self.wholes.get(key, (-1, parent.node)) if several else (-1, parent.node)
        outer, self.origin = self.origin, step.origin
        if version != view.root.version:
            args = map_aggregate(step.args, lambda a: parent.node if a is PARENT else a)
            whole = self.emit(step.target, args, step.val, **step.kwargs)
            self.wholes[key] = (view.root.version, whole)
        node = self.emit(operator.getitem, (whole, step.index), view.val) if several else whole
        self.origin = outer
        return node

    def emit(self, target: Any, args: Any, val: Any, **kwargs: Any) -> Node:
        """A new node with fake value `val`, and the provenance of the old node being copied."""
        node = self.writer.graph.call_function(target, tuple(args), kwargs)
        meta = self.origin.meta if self.origin else {}
        node.meta = {key: value for key, value in meta.items() if key != "tensor_meta"}
        node.meta["val"] = val
        return node

    # Binding results

    def bind(self, node: Node, new: Any) -> None:
        """Records `new` as what `node` became, as an alias where its recorded storage is that of an argument."""
        val = self.fakes.get(node)
        if isinstance(val, torch.Tensor):
            self.env[node] = self._bind(node, new, val, 0, val)
        elif isinstance(val, (tuple, list)) and isinstance(new, Node):
            entries = [self._bind(node, None, item, i, val) if _storage(item) else None for i, item in enumerate(val)]
            known = any(isinstance(entry, _Alias) for entry in entries)
            self.env[node] = (
                _Results([e or self._item(new, i, val[i]) for i, e in enumerate(entries)]) if known else new
            )
            if known and self.tracks:
                for entry in entries:
                    if isinstance(entry, _Alias) and entry.step:
                        self.wholes[(id(entry.parent), *_key(entry.step))] = (entry.root.version, new)
        else:
            self.env[node] = new

    def _item(self, new: Node, index: int, val: Any) -> Node:
        return self.emit(operator.getitem, (new, index), val)

    def _bind(self, node: Node, new: Node | None, val: torch.Tensor, index: int, whole: Any) -> Any:
        storage = _storage(val)
        if storage is None:
            return new
        if new is not None and self.first.setdefault(storage, node) is node:
            return new
        first = self.first.get(storage, node)
        source = next((arg for arg in node.all_input_nodes if self._shares(arg, storage)), None)
        if source is None:
            if first is not node:
                return self._unexplained(node, first, new, val)
            return new
        parent = self.alias(source, storage)
        if _same_geometry(parent.val, val):
            return parent
        args = map_aggregate(node.args, lambda a: self._step_argument(a, parent))
        kwargs = map_aggregate(node.kwargs, lambda a: self._step_argument(a, parent))
        step = ViewStep(node.target, args, kwargs, index, whole, node)  # type: ignore[arg-type]
        key = (*_key(step), index)
        if key not in parent.views:
            parent.views[key] = _Alias(new, val, parent, step)
        return parent.views[key]

    def _step_argument(self, arg: Any, parent: _Alias) -> Any:
        if not isinstance(arg, Node):
            return arg
        entry = self.env[arg]
        return PARENT if entry is parent else self._read(entry)

    def _shares(self, node: Node, storage: int) -> bool:
        return any(_storage(item) == storage for item in pytree.tree_leaves(self.fakes.get(node)))

    def _unexplained(self, node: Node, first: Node, new: Node | None, val: torch.Tensor) -> Any:
        """A tensor that lies on a known storage though no argument of its operator does: a tied buffer, say."""
        base = self.alias(first, None)
        if new is None or not _same_geometry(base.val, val):
            base.root.strange = f"{node.name} shares the memory of {first.name}"
            return new
        return base

    def alias(self, node: Node, storage: int | None = None) -> _Alias:
        """The alias of an old node's value, made when it was not one yet; of its result on `storage` where it has several."""
        entry = self.env[node]
        if isinstance(entry, _Results):
            entry = next(e for e in entry.entries if isinstance(e, _Alias) and _storage(e.val) == storage)
        if isinstance(entry, _Alias):
            return entry
        if not isinstance(entry, Node) or not isinstance(self.fakes.get(node), torch.Tensor):
            raise self.refusal("it is no single tensor", node)
        alias = self.env[node] = _Alias(entry, self.fakes[node])
        return alias

    def refusal(self, reason: str, node: Node | None = None) -> NotFunctionalizable:
        origin = node or self.origin
        return NotFunctionalizable(f"{origin.format_node() if origin else ''}: {reason}")

    # Operators

    def call(self, node: Node) -> None:
        target: Any = node.target
        if target is operator.getitem and isinstance(self.env[node.args[0]], _Results):  # type: ignore[index]
            self.env[node] = self.env[node.args[0]].entries[node.args[1]]  # type: ignore[index]
        elif target is operator.getitem:
            self._take(node)
        elif target in _PYTHON_INPLACE and not isinstance(self.fakes.get(node), torch.Tensor):
            self.env[node] = self.emit(_PYTHON_INPLACE[target], map_arg(node.args, self.read), node.meta.get("val"))
        elif not _writes(node):
            self.bind(node, self.writer.graph.node_copy(node, self.read))
        elif not isinstance(target, torch._ops.OpOverload):
            raise self.refusal("a Python operator writes to a tensor")
        elif _is_silent(node):
            self._batch_norm(node)
        elif target._schema.name in _SAME_TENSOR:
            self.env[node] = self.alias(node.args[0])  # type: ignore[arg-type]
        elif target._schema.name in _TURNS_INTO_VIEW:
            self._turn_into_view(node)
        elif target._schema.name in _VALUES:
            alias = self.alias(node.args[0])  # type: ignore[arg-type]
            self.store(alias, _VALUES[target._schema.name](self, node, alias))
            self.env[node] = alias
        else:
            self._mutate(node)

    def _take(self, node: Node) -> None:
        """One of several results that are no aliases of anything before them."""
        storage = _storage(self.fakes.get(node))
        first = self.first.get(storage) if storage is not None else None
        if first is not None and first.target is operator.getitem and first.args == node.args:
            self.env[node] = self.alias(first)
            return
        if storage is not None:
            self.first[storage] = node
        self.env[node] = self.writer.graph.node_copy(node, self.read)

    def _turn_into_view(self, node: Node) -> None:
        """`x.t_()`: from here on, x is a view of what it was."""
        target: Any = _twin(node.target)  # type: ignore[arg-type]
        parent, rest = self.alias(node.args[0]), tuple(node.args[1:])  # type: ignore[arg-type]
        val = self.fakes[node]
        step = ViewStep(target, (PARENT, *rest), {}, 0, val, node)
        self.env[node] = self.env[node.args[0]] = _Alias(None, val, parent, step)  # type: ignore[index]

    def _mutate(self, node: Node) -> None:
        """Any other operator that writes: its pure twin, whose results are stored in the arguments that it writes."""
        target: Any = node.target
        written = _mutated(target)
        given = {argument.name: value for argument, value in zip(target._schema.arguments, node.args)} | dict(
            node.kwargs
        )
        aliases = [self._targets(given.get(item.name)) for item in written]
        plain = [i for i, result in enumerate(target._schema.returns) if result.alias_info is None]
        recorded = node.meta.get("val")
        vals = [recorded[i] if isinstance(recorded, (tuple, list)) else recorded for i in plain]
        new_vals = [[a.val for a in item] if isinstance(item, list) else item and item.val for item in aliases]
        twin = _twin(target)
        if twin is not None:
            arguments = [argument for argument in target._schema.arguments if not argument.is_out]
            args = [self._argument(given[a.name]) for a in arguments if a.name in given and not a.kwarg_only]
            kwargs = {
                t.name: self._argument(given[a.name])
                for a, t in zip(arguments, twin._schema.arguments)
                if a.kwarg_only and a.name in given
            }
            several = len(twin._schema.returns) > 1
            new = self.emit(twin, args, [*vals, *new_vals] if several else [*vals, *new_vals][0], **kwargs)
        elif target.namespace not in ("aten", "prims") and all(item is not None for item in aliases):
            vals = vals or [None]  # the operator's own result, before the new values
            given = {a.name: given.get(a.name, a.default_value) for a in target._schema.arguments}
            kwargs = {name: self._argument(value) for name, value in given.items()}
            several = True
            new = self.emit(torch.ops.higher_order.auto_functionalized, (target,), (*vals, *new_vals), **kwargs)
        else:
            raise self.refusal("no pure operator does the same")
        results = [self._item(new, i, v) for i, v in enumerate([*vals, *new_vals])] if several else [new]
        dtypes = _result_dtypes(twin, new.args, new.kwargs) if twin and not isinstance(aliases[0], list) else []
        for i, alias in enumerate(aliases):
            value, position = results[len(vals) + i], len(vals) + i
            if isinstance(alias, list):
                for j, item in enumerate(alias):
                    self.store(item, self._item(value, j, item.val))
            elif alias is not None:
                dtype = dtypes[position] if position < len(dtypes) else alias.val.dtype
                if written[i].is_out and not is_same_shape(alias.val, self._recorded(node, written[i])):
                    alias = self._resized(node, given[written[i].name], alias, self._recorded(node, written[i]))
                    aliases[i] = alias
                self.store(alias, value, dtype)
        self._bind_written(node, written, aliases, dict(zip(plain, results)))

    def _bind_written(
        self, node: Node, written: tuple[_Written, ...], aliases: list[Any], plain: Mapping[int, Node]
    ) -> None:
        returns = node.target._schema.returns  # type: ignore[union-attr]
        entries: list[Any] = []
        for i, result in enumerate(returns):
            sets = result.alias_info.before_set if result.alias_info else ()
            found = [alias for item, alias in zip(written, aliases) if item.alias_set & set(sets)]
            entries.append(plain[i] if i in plain else found[0])
        if entries:
            self.env[node] = entries[0] if len(entries) == 1 else _Results(entries)

    def _recorded(self, node: Node, written: _Written) -> Any:
        """The fake value of an `out=` tensor behind the operator, which may have resized it."""
        val = node.meta.get("val")
        for result, item in zip(node.target._schema.returns, val if isinstance(val, (tuple, list)) else [val]):  # type: ignore[union-attr]
            if result.alias_info and written.alias_set & set(result.alias_info.before_set):
                return item
        raise self.refusal("its out= tensor is not returned")

    def _resized(self, node: Node, old: Node, alias: _Alias, val: torch.Tensor) -> _Alias:
        if alias.parent is not None or alias.views or old.op == "placeholder":
            raise self.refusal("it resizes a tensor that has views")
        new = self.env[old] = _Alias(alias.node, val)
        return new

    def _targets(self, value: Any) -> Any:
        if value is None or (isinstance(value, Node) and isinstance(self.fakes.get(value), torch.Tensor)):
            return value and self.alias(value)
        if isinstance(value, Node):
            entry = self.env[value]
            if not isinstance(entry, _Results):
                entry = self.env[value] = _Results([self._item(entry, i, v) for i, v in enumerate(self.fakes[value])])
            for i, item in enumerate(entry.entries):
                entry.entries[i] = item if isinstance(item, _Alias) else _Alias(item, self.fakes[value][i])
            return entry.entries
        return [self.alias(item) for item in value]

    def _argument(self, value: Any) -> Any:
        return map_arg(value, self.read)

    def store(self, alias: _Alias, value: Node, dtype: torch.dtype | None = None) -> None:
        """Makes `value` the content of `alias`, and so of every alias on its storage; `dtype` is that of `value`."""
        if alias.root.strange:
            raise self.refusal(alias.root.strange)
        if (dtype or value.meta["val"].dtype) != alias.val.dtype:
            value.meta["val"] = value.meta["val"].to(dtype or value.meta["val"].dtype)
            value = self.emit(aten._to_copy.default, (value,), alias.val, dtype=alias.val.dtype)
        if alias.node is value and alias.version == alias.root.version:
            return
        version = alias.root.version + 1
        try:
            while alias.parent is not None and alias.step is not None:
                whole = self.current(alias.parent)
                alias.node, alias.version = value, version
                value = invert(self.emit, alias.step, whole, alias.parent.val, value)
                alias = alias.parent
        except CannotInvert as error:
            raise self.refusal(str(error)) from None
        alias.node, alias.version = value, version

    def _batch_norm(self, node: Node) -> None:
        if node.target is aten.instance_norm.default:
            raise self.refusal("instance norm updates its running statistics")
        mean, var = (self.alias(arg) for arg in node.args[3:5])  # type: ignore[arg-type]
        val = node.meta["val"]
        vals = [val] if isinstance(val, torch.Tensor) else list(val)
        vals = [vals[0], *(vals[1:] or [mean.val, var.val]), mean.val, var.val]
        new = self.emit(aten._native_batch_norm_legit_functional.default, map_arg(node.args[:8], self.read), vals)
        results = [self._item(new, i, v) for i, v in enumerate(vals)]
        self.store(mean, results[3])
        self.store(var, results[4])
        self.env[node] = results[0] if isinstance(val, torch.Tensor) else _Results(results[:3])


def _fill(rewriter: _Rewriter, alias: _Alias, value: Any) -> Node:
    """A tensor like `alias` full of a number, which doesn't depend on the present content where sizes are static."""
    val = alias.val
    if isinstance(value, (int, float)) and not val.dtype.is_complex:
        kind = bool if val.dtype is torch.bool else float if val.dtype.is_floating_point else int
        value = kind(value)
    if all(isinstance(size, int) for size in val.shape):
        return rewriter.emit(aten.full.default, (list(val.shape), value), val, dtype=val.dtype, device=val.device)
    return rewriter.emit(aten.full_like.default, (rewriter.current(alias), value), val)


def _fill_(rewriter: _Rewriter, node: Node, alias: _Alias) -> Node:
    value = node.args[1] if len(node.args) > 1 else node.kwargs.get("value", 0)
    if isinstance(value, Node) and isinstance(rewriter.fakes.get(value), torch.Tensor):
        return _copied(rewriter, value, alias)
    return _fill(rewriter, alias, map_arg(value, rewriter.read))


def _copy_(rewriter: _Rewriter, node: Node, alias: _Alias) -> Node:
    if rewriter.env[node.args[1]] is alias:  # type: ignore[index]
        return rewriter.current(alias)
    return _copied(rewriter, node.args[1], alias)


def _copied(rewriter: _Rewriter, source: Any, alias: _Alias) -> Node:
    """The value of the old node `source` in the dtype and shape of `alias`."""
    value, val = rewriter.read(source), rewriter.fakes[source]
    if val.dtype != alias.val.dtype:
        val = val.to(alias.val.dtype)
        value = rewriter.emit(aten._to_copy.default, (value,), val, dtype=val.dtype)
    if not is_same_shape(val, alias.val):
        sizes = sizes_of(rewriter.emit, rewriter.current(alias), alias.val)
        value = rewriter.emit(aten.expand.default, (value, sizes), alias.val)
    return value


def _fill_diagonal_(rewriter: _Rewriter, node: Node, alias: _Alias) -> Node:
    value, wrap = (*node.args[1:], *node.kwargs.values(), False)[:2]
    if alias.val.dim() != 2 or wrap:
        raise rewriter.refusal("only the diagonal of a matrix can be filled")
    whole = rewriter.current(alias)
    diagonal = alias.val.diagonal()
    filled = rewriter.emit(
        aten.full_like.default, (rewriter.emit(aten.diagonal.default, (whole,), diagonal), value), diagonal
    )
    return rewriter.emit(aten.diagonal_scatter.default, (whole, filled), alias.val)


def _index_put_impl_(rewriter: _Rewriter, node: Node, alias: _Alias) -> Node:
    return rewriter.emit(aten.index_put.default, map_arg(node.args[:4], rewriter.read), alias.val)


# In-place operators whose new value is best written in other terms than their twin's.
_VALUES: Mapping[str, Callable[[_Rewriter, Node, _Alias], Node]] = {
    "aten::zero_": _fill_,
    "aten::fill_": _fill_,
    "aten::copy_": _copy_,
    "aten::fill_diagonal_": _fill_diagonal_,
    "aten::_index_put_impl_": _index_put_impl_,
}


def _key(step: ViewStep) -> tuple[Any, ...]:
    """Equal for two applications of one view operator with equal arguments."""
    return step.target, _frozen(step.args), _frozen(tuple(sorted(step.kwargs.items())))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else (type(value), value)


def _storage(val: Any) -> int | None:
    """What identifies the memory that a fake tensor stands for; None for what has none."""
    if not isinstance(val, torch.Tensor) or val.layout is not torch.strided:
        return None
    return val.untyped_storage()._cdata


def _same_geometry(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two fakes on one storage are the same tensor. Never adds a guard."""
    return (
        a.dtype == b.dtype
        and is_same_shape(a, b)
        and all(map(is_same_size, a.stride(), b.stride()))
        and is_same_size(a.storage_offset(), b.storage_offset())
        and a.is_conj() == b.is_conj()
        and a.is_neg() == b.is_neg()
    )


def _fakes(owner: GraphModule) -> Mapping[Node, Any]:
    """The fake value of every node, such that aliases share storage.

    As recorded, where the capture is of this process. A loaded program has lost what shares storage: there, the operators
    that may alias are run again on the fakes.
    """
    recorded = {node: node.meta.get("val") for node in owner.graph.nodes}
    lost = any(
        node.op == "call_function"
        and (node.target in _CERTAIN_VIEWS or _is_inplace(node.target))
        and _storage(recorded[node]) != _storage(recorded[node.args[0]])  # type: ignore[index]
        for node in owner.graph.nodes
    )
    if not lost:
        return recorded
    mode = next((val.fake_mode for val in recorded.values() if hasattr(val, "fake_mode")), None)
    values: dict[Node, Any] = {}
    environment = mode.shape_env if mode else None
    with mode or nullcontext(), environment.ignore_fresh_unbacked_symbols() if environment else nullcontext():
        for node, val in recorded.items():
            values[node] = _rerun(node, val, values) if node.op == "call_function" else val
    return values


def _rerun(node: Node, val: Any, values: Mapping[Node, Any]) -> Any:
    target: Any = node.target
    if target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    if not isinstance(target, torch._ops.OpOverload):
        return val
    infos = [result.alias_info for result in target._schema.returns]
    if _mutated(target):
        return values[node.args[0]] if _is_inplace(target) else val  # type: ignore[index]
    if any(infos) or torch.Tag.maybe_aliasing_or_mutating in target.tags:
        return target(*map_arg(node.args, values.__getitem__), **map_arg(node.kwargs, values.__getitem__))
    return val


_DTYPES: dict[Any, list[torch.dtype]] = {}


def _result_dtypes(twin: torch._ops.OpOverload, args: Any, kwargs: Any) -> list[torch.dtype]:
    """The dtypes that a pure operator gives, found by running it on tensors of one element; empty where it can't be."""
    key = (twin, _frozen(map_arg(args, _kind)), _frozen(tuple(map_arg(kwargs, _kind).items())))
    if key not in _DTYPES:
        try:
            results = pytree.tree_leaves(twin(*map_arg(args, _one_element), **map_arg(kwargs, _one_element)))
            _DTYPES[key] = [result.dtype for result in results]
        except (RuntimeError, TypeError, ValueError, IndexError):  # it needs real sizes: then it doesn't promote
            _DTYPES[key] = []
    return _DTYPES[key]


def _kind(node: Node) -> Any:
    val = node.meta.get("val")
    return (val.dtype, val.dim()) if isinstance(val, torch.Tensor) else type(val)


def _one_element(node: Node) -> Any:
    val = node.meta.get("val")
    if isinstance(val, torch.Tensor):
        return torch.empty((1,) * val.dim(), dtype=val.dtype, device="meta")
    return {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}.get(type(val), val)
