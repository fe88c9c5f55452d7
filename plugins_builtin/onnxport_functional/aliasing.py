"""Copies a graph with in-place operators and writes through views into a graph of pure operators.

Eager tensors are windows onto storages. Here every storage is an alias without a parent, whose node holds its present
value; a view is an alias with a parent and the operator that makes it from the parent. Writing through a view replays
inverse operators up to the storage (`views.py`); reading an alias after its storage has changed replays the view.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from onnxport import Unsupported
from onnxport.kit import Ties, Write, Written, is_same_size, mutated, source_line, storage_of
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from onnxport_functional import meaning
from onnxport_functional.regions import GraphWriter, attribute_of
from onnxport_functional.views import (
    PARENT,
    CannotInvert,
    ViewStep,
    fakes_of,
    invert,
    is_same_shape,
    same_geometry,
    scatter,
)
from onnxport_functional.writes import (
    ACCUMULATES,
    PYTHON_INPLACE,
    RANGES,
    SAME_TENSOR,
    TURNS_INTO_VIEW,
    as_out_decides,
    frozen,
    is_assertion,
    is_inplace,
    is_kernel,
    is_meant,
    is_write,
    must_change,
    pure_twin,
    result_kinds,
)

aten = torch.ops.aten

_RECORDED = (
    "torch's capture records a shape for its out= tensor that eager doesn't give it: use the operator's result instead "
    "of out=, or export the module itself"
)


class NotFunctionalizable(Unsupported):
    """The graph writes in a way that is not understood here; the reason says where and what.

    Attributes:
        final: torch's own retracing would be wrong. It undoes `expand` by a sum and `unfold` by zeros around the
            windows (torch 2.14).
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Alias:
    """A tensor of the eager program: a storage (no parent), or a view."""

    __slots__ = ("node", "parent", "root", "step", "strange", "val", "version", "views")

    def __init__(self, node: Node | None, val: torch.Tensor, parent: Alias | None = None, step: ViewStep | None = None):
        self.node = node
        self.val = val
        self.parent = parent
        self.step = step
        self.root: Alias = parent.root if parent else self
        self.version: int = parent.root.version if parent else 0
        self.views: dict[Any, Alias] = {}
        self.strange: str | None = None  # for a storage: why a write to it can't be followed


class Results(NamedTuple):
    """The results of an operator of which some are aliases: an alias each, or a node."""

    entries: list[Any]


class Rewriter:
    """Copies one graph, in order, into a graph of pure operators.

    Args:
        owner: the graph.
        nested: gives a nested graph without writes, which then also returns its inputs at some positions.
        writes: the positions of the inputs that a nested graph writes.
    """

    def __init__(
        self,
        owner: GraphModule,
        nested: Callable[[GraphModule, Sequence[int]], GraphModule],
        writes: Callable[[GraphModule], Sequence[int]],
    ) -> None:
        self.owner = owner
        self.nested = nested
        self.kept = {
            node: sorted({i for body in node.args[1:3] for i in writes(attribute_of(owner, str(body.target)))})  # type: ignore[union-attr]
            for node in owner.graph.nodes
            if node.target is torch.ops.higher_order.cond
        }
        """The operands that the branches of each `cond` write."""
        self.writer = GraphWriter()
        self.dropped: list[str] = []
        self.tracks = any(n.op == "call_function" and (must_change(n) or self.kept.get(n)) for n in owner.graph.nodes)
        self.fakes: Mapping[Node, Any] = fakes_of(owner) if self.tracks else {}
        self.env: dict[Node, Any] = {}
        self.first: dict[int, Node] = {}
        """The first node on each storage."""
        self.wholes: dict[Any, tuple[int, Node]] = {}
        """The latest replay of each view operator with several results, with its storage's version."""
        self.renamed: dict[Node, Alias] = {}
        """Nodes whose tensor has become another, with the storage that it had before."""
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
                    value = self.nested(value, next((self.kept[user] for user in node.users if user in self.kept), ()))
                new = self.writer.graph.get_attr(self.writer.attribute(str(node.target), value))
                new.meta = dict(node.meta)
                self.bind(node, new)
            elif node.op == "call_function" and is_assertion(node.target):
                self.dropped.append(node.name)
            elif node.op == "call_function" and self.tracks:
                self.call(node)
            else:
                self.bind(node, self.writer.copy(node, self.read))
        raise ValueError("the graph has no output node")

    def written_inputs(self) -> Iterable[tuple[Node, Alias]]:
        """The placeholders whose content or shape changed, in their order; of tied ones, those that the graph uses."""
        for node in self.owner.graph.find_nodes(op="placeholder"):
            alias = self.env.get(node)
            if not node.users or not isinstance(alias, Alias):
                continue
            is_another = self.renamed.get(node, alias.root) is not alias.root
            if alias.root.version or is_another or not same_geometry(alias.val, alias.root.val):
                yield node, alias

    # Reading

    def read(self, node: Node) -> Any:
        """The new node with the present value of an old one; a list where it has several results."""
        return self._read(self.env[node])

    def _read(self, entry: Any) -> Any:
        if isinstance(entry, Alias):
            return self.current(entry)
        return [self._read(item) for item in entry.entries] if isinstance(entry, Results) else entry

    def current(self, alias: Alias) -> Node:
        """The node of an alias, made again from its parent when the storage was written since."""
        stale = takewhile(lambda a: a.parent and (a.node is None or a.version != a.root.version), _up(alias))
        for view in reversed(list(stale)):
            view.node, view.version = self._replay(view), view.root.version
        if alias.node is None:
            raise RuntimeError("a storage without a value")
        return alias.node

    def _replay(self, view: Alias) -> Node:
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
        node = self.emit(operator.getitem, (whole, step.result), view.val) if several else whole
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
            entries = [self._bind(node, None, item, i, val) if storage_of(item) else None for i, item in enumerate(val)]
            known = any(isinstance(entry, Alias) for entry in entries)
            self.env[node] = Results([e or self._item(new, i, val[i]) for i, e in enumerate(entries)]) if known else new
            if known and self.tracks:
                for entry in entries:
                    if isinstance(entry, Alias) and entry.step:
                        place = (id(entry.parent), *_key(entry.step))
                        self.wholes[place] = (entry.root.version, new)
        else:
            self.env[node] = new

    def _item(self, new: Node, index: int, val: Any) -> Node:
        return self.emit(operator.getitem, (new, index), val)

    def _bind(self, node: Node, new: Node | None, val: torch.Tensor, index: int, whole: Any) -> Any:
        storage = storage_of(val)
        if storage is None:
            return new
        if new is not None and self.first.setdefault(storage, node) is node:
            return new
        first = self.first.get(storage, node)
        sources: Any = node.all_input_nodes
        if new is None and node.args and isinstance(node.args[0], (tuple, list)) and len(node.args[0]) == len(whole):
            sources = [node.args[0][index], *sources]  # broadcast_tensors(a, a[:1]): a result for each argument
        source = next((arg for arg in sources if self._shares(arg, storage)), None)
        if source is None:
            if first is not node:
                return self._unexplained(node, first, new, val)
            return new
        parent = self.alias(source, storage)
        if same_geometry(parent.val, val):
            return parent
        args = map_aggregate(node.args, lambda a: self._step_argument(a, parent))
        if node.target is aten.as_strided.default and parent.parent and _fills_storage(parent.root.val):
            offset = args[3] if len(args) > 3 else node.kwargs.get("storage_offset")  # type: ignore[arg-type, index]
            offset = parent.val.storage_offset() if offset is None else offset
            if isinstance(offset, (int, Node)):  # from the start of the storage, whatever view it is called on
                step = ViewStep(aten.as_strided.default, (PARENT, *args[1:3], offset), {}, 0, whole, node)  # type: ignore[index]
                return Alias(None, val, parent.root, step)
        kwargs = map_aggregate(node.kwargs, lambda a: self._step_argument(a, parent))
        step = ViewStep(node.target, args, kwargs, index, whole, node)  # type: ignore[arg-type]
        # a view is shared within one call of a module, so that the calls of a module class stay alike
        key = (*_key(step), index, *(node.meta.get("nn_module_stack") or ()))
        if key not in parent.views:
            parent.views[key] = Alias(new, val, parent, step)
        return parent.views[key]

    def _step_argument(self, arg: Any, parent: Alias) -> Any:
        if not isinstance(arg, Node):
            return arg
        entry = self.env[arg]
        return PARENT if entry is parent else self._read(entry)

    def _shares(self, node: Node, storage: int) -> bool:
        return any(storage_of(item) == storage for item in pytree.tree_leaves(self.fakes.get(node)))

    def _unexplained(self, node: Node, first: Node, new: Node | None, val: torch.Tensor) -> Any:
        """A tensor that lies on a known storage though no argument of its operator does: a tied buffer, say."""
        base = self.alias(first, None)
        if new is None or not same_geometry(base.val, val):
            base.root.strange = f"{node.name} shares the memory of {first.name}"
            return new
        return base

    def alias(self, node: Node, storage: int | None = None) -> Alias:
        """The alias of an old node's value; where it has several results, of the one on `storage`."""
        entry = self.env[node]
        if isinstance(entry, Results):
            entry = next(e for e in entry.entries if isinstance(e, Alias) and storage_of(e.val) == storage)
        if isinstance(entry, Alias):
            return entry
        if not isinstance(entry, Node) or not isinstance(self.fakes.get(node), torch.Tensor):
            raise self.refusal("it is no single tensor", node)
        self.env[node] = alias = Alias(entry, self.fakes[node])
        return alias

    def refusal(self, reason: str, node: Node | None = None, final: bool = False) -> NotFunctionalizable:
        node = node or self.origin
        place = f"{node.format_node()}, {source_line(node)}" if node else ""
        return NotFunctionalizable(f"{place.removesuffix(', ')}: {reason}", final)

    # Operators

    def call(self, node: Node) -> None:
        target: Any = node.target
        if target is operator.getitem and isinstance(self.env[node.args[0]], Results):  # type: ignore[index]
            self.env[node] = self.env[node.args[0]].entries[node.args[1]]  # type: ignore[index]
        elif target is operator.getitem:
            self._take(node)
        elif target in PYTHON_INPLACE and not isinstance(self.fakes.get(node), torch.Tensor):
            self.env[node] = self.emit(PYTHON_INPLACE[target], map_arg(node.args, self.read), node.meta.get("val"))
        elif self.kept.get(node):
            self._cond(node)
        elif not is_write(node):
            self.bind(node, self.writer.copy(node, self.read))
        elif not isinstance(target, torch._ops.OpOverload):
            if is_kernel(target):
                advice = "make it an operator by torch.library.triton_op, and give that a translation"
                raise self.refusal(f"a Triton kernel is launched: {advice}", final=True)
            raise self.refusal("a Python operator writes to a tensor")
        elif (record := meaning.of(Write, target)) is not None and not isinstance(record.value, str) and is_meant(node):
            results = list(record.value(self, node))
            self.env[node] = Results(results) if results[1:] else results[0]
        elif not mutated(target):
            raise self.refusal("its schema doesn't say what it writes: give its Write record a function", final=True)
        elif target._schema.name in SAME_TENSOR:
            self.env[node] = self.alias(node.args[0])  # type: ignore[arg-type]
        elif target is aten.set_.source_Tensor:
            self._rename(node, self.alias(node.args[1]))  # type: ignore[arg-type]
        elif target._schema.name == "aten::set_":
            raise self.refusal("it gives a tensor the memory of another")
        elif target._schema.name in TURNS_INTO_VIEW:
            self._turn_into_view(node)
        else:
            self._mutate(node)

    def _take(self, node: Node) -> None:
        """One of several results that are no aliases of anything before them."""
        storage = storage_of(self.fakes.get(node))
        first = None if storage is None else self.first.get(storage)
        if first is not None and first.target is operator.getitem and first.args == node.args:
            self.env[node] = self.alias(first)
            return
        if storage is not None:
            self.first[storage] = node
        self.env[node] = self.writer.copy(node, self.read)

    def _cond(self, node: Node) -> None:
        """Branches that write their operands return the new values too."""
        new = self.writer.copy(node, self.read)
        operands: Any = node.args[3]
        aliases = [self.alias(operands[i]) for i in self.kept[node]]
        tensors = [self.alias(operand) for operand in operands if isinstance(self.fakes.get(operand), torch.Tensor)]
        if any(sum(other.root is alias.root for other in tensors) > 1 for alias in aliases):
            raise self.refusal("a branch writes to a tensor that another operand shares", final=True)
        new.meta["val"] = (*node.meta["val"], *(alias.val for alias in aliases))
        self.bind(node, new)
        for i, alias in enumerate(aliases, len(node.meta["val"])):
            self.store(alias, self._item(new, i, alias.val))

    def _turn_into_view(self, node: Node) -> None:
        """`x.t_()`: from here on, x is a view of what it was."""
        target: Any = pure_twin(node.target)  # type: ignore[arg-type]
        parent, rest = self.alias(node.args[0]), tuple(node.args[1:])  # type: ignore[arg-type]
        step = ViewStep(target, (PARENT, *rest), {}, 0, self.fakes[node], node)
        self._rename(node, Alias(None, step.val, parent, step))

    def _rename(self, node: Node, alias: Alias) -> None:
        """From here on, the tensor that is `node`'s first argument is another: `alias`."""
        before, self.env[node] = self.alias(node.args[0]), alias  # type: ignore[arg-type]
        same: Any = node.args[0]  # this node and the next are the one tensor, as are `x` and `x.contiguous()`
        while self.env[same] is before and before is not alias:
            self.env[same] = alias
            self.renamed.setdefault(same, before.root)
            ties = meaning.of(Ties, same.target)
            if is_inplace(same.target) or (ties is not None and ties.is_itself):
                same = same.args[0]

    def _mutate(self, node: Node, given: dict[str, Any] | None = None) -> None:
        """Any other operator that writes: its pure twin, whose results are stored in the arguments that it writes."""
        target: Any = node.target
        written = mutated(target)
        if given is None:
            given = {argument.name: value for argument, value in zip(target._schema.arguments, node.args)}
            given.update(node.kwargs)
        aliases = [self._targets(given.get(item.name)) for item in written]
        roots = [alias.root for alias in aliases[0]] if "_foreach_" in target._schema.name else []
        if len(set(roots)) < len(roots):  # what lies on one storage may overlap: in order, as eager does
            for i in range(len(roots)):
                self._mutate(node, {n: [v[i]] if isinstance(v, (tuple, list)) else v for n, v in given.items()})
            return
        for i, item in enumerate(written):
            resizes = item.is_out or target._schema.name in ("aten::resize_", "aten::resize_as_")
            if resizes and not is_same_shape(aliases[i].val, self._recorded(node, item)):
                if target._schema.name in RANGES and is_same_size(aliases[i].val.numel(), node.meta["val"].numel()):
                    raise self.refusal(_RECORDED, final=True)
                aliases[i] = self._resized(given[item.name], aliases[i], self._recorded(node, item))
        plain = [i for i, result in enumerate(target._schema.returns) if result.alias_info is None]
        recorded = node.meta.get("val")
        vals = [recorded[i] if isinstance(recorded, (tuple, list)) else recorded for i in plain]
        new_vals = [[a.val for a in item] if isinstance(item, list) else item and item.val for item in aliases]
        twin = pure_twin(target)
        self._check_overlap(target, given, written, aliases)
        if twin is not None:
            arguments = [argument for argument in target._schema.arguments if not argument.is_out]
            args = [self._argument(given[a.name]) for a in arguments if a.name in given and not a.kwarg_only]
            kwargs = {
                t.name: self._argument(given[a.name])
                for a, t in zip(arguments, twin._schema.arguments)
                if a.kwarg_only and a.name in given
            }
            if isinstance(aliases[0], Alias):
                kwargs |= as_out_decides(twin, given, aliases[0].val)
            is_tuple = len(twin._schema.returns) > 1
            new = self.emit(twin, args, [*vals, *new_vals] if is_tuple else [*vals, *new_vals][0], **kwargs)
        elif target.namespace not in ("aten", "prims") and all(item is not None for item in aliases):
            vals = vals or [None]  # the operator's own result, before the new values
            given = {a.name: given.get(a.name, a.default_value) for a in target._schema.arguments}
            kwargs = {name: self._argument(value) for name, value in given.items()}
            is_tuple = True
            new = self.emit(torch.ops.higher_order.auto_functionalized, (target,), (*vals, *new_vals), **kwargs)
        else:
            raise self.refusal("no pure operator does the same")
        results = [self._item(new, i, v) for i, v in enumerate([*vals, *new_vals])] if is_tuple else [new]
        kinds = result_kinds(twin, new.args, new.kwargs) if twin and not isinstance(aliases[0], list) else []
        for i, alias in enumerate(aliases):
            value, position = results[len(vals) + i], len(vals) + i
            if isinstance(alias, list):
                for j, item in enumerate(alias):
                    self.store(item, self._item(value, j, item.val))
            elif alias is not None:
                dtype, rank = kinds[position] if position < len(kinds) else (alias.val.dtype, alias.val.dim())
                if written[i].is_out and rank != alias.val.dim():  # comparisons of 0-d constants, in torch 2.14
                    raise self.refusal(_RECORDED, final=True)
                self.store(alias, value, dtype)
        self._bind_written(node, written, aliases, dict(zip(plain, results)))

    def _check_overlap(
        self, target: Any, given: Mapping[str, Any], written: tuple[Written, ...], aliases: list[Any]
    ) -> None:
        """Refuse `sum(x, 0, out=x[0])`: eager reads what it has written by then."""
        base = target._schema.name.partition("::")[2].removesuffix("_")
        if base not in ACCUMULATES or target.namespace != "aten":
            return
        roots = {alias.root for alias in aliases if isinstance(alias, Alias)}
        names = {ACCUMULATES[base], *(item.name for item in written if item.is_out)}
        read = pytree.tree_leaves([value for name, value in given.items() if name not in names])
        entries = [self.env[value] for value in read if isinstance(value, Node)]
        if any(isinstance(entry, Alias) and entry.root in roots for entry in entries):
            raise self.refusal(
                f"{base} reads memory that it writes: write its result to a tensor of its own", final=True
            )

    def _bind_written(
        self, node: Node, written: tuple[Written, ...], aliases: list[Any], plain: Mapping[int, Node]
    ) -> None:
        returns = node.target._schema.returns  # type: ignore[union-attr]
        entries: list[Any] = []
        for i, result in enumerate(returns):
            sets = result.alias_info.before_set if result.alias_info else ()
            found = [alias for item, alias in zip(written, aliases) if item.alias_set & set(sets)]
            entries.append(plain[i] if i in plain else found[0])
        if entries:
            self.env[node] = Results(entries) if entries[1:] else entries[0]

    def _recorded(self, node: Node, written: Written) -> Any:
        """The fake value of an `out=` tensor behind the operator, which may have resized it."""
        val = node.meta.get("val")
        for result, item in zip(node.target._schema.returns, val if isinstance(val, (tuple, list)) else [val]):  # type: ignore[union-attr]
            if result.alias_info and written.alias_set & set(result.alias_info.before_set):
                return item
        raise self.refusal("its out= tensor is not returned")

    def _resized(self, old: Node, alias: Alias, val: torch.Tensor) -> Alias:
        """A tensor that an operator gives another shape, on a storage of its own.

        Eager keeps the storage: what shares it may not be used from here on. torch's own retracing keeps the old shape.
        """
        sharing = [n for n, entry in self.env.items() if isinstance(entry, Alias) and entry.root is alias.root]
        ahead = {user for n in sharing if n is not old for user in n.users if not is_assertion(user.target)}
        args, kwargs = (pytree.tree_leaves(part) for part in (self.origin.args, self.origin.kwargs))  # type: ignore[union-attr]
        reads = old in kwargs and any(n in args for n in sharing)  # eager resizes before it reads
        if reads or not ahead <= {self.origin, *self.env} or any(n.op == "placeholder" for n in sharing):
            advice = "give out= a tensor of the result's shape, or an empty one that shares no memory"
            raise self.refusal(f"it resizes a tensor that shares memory with another: {advice}", final=True)
        self.env[old] = Alias(alias.node, val)
        return self.env[old]  # type: ignore[no-any-return]

    def _targets(self, value: Any) -> Any:
        if value is None or (isinstance(value, Node) and isinstance(self.fakes.get(value), torch.Tensor)):
            return value and self.alias(value)
        if isinstance(value, Node):
            entry = self.env[value]
            if not isinstance(entry, Results):
                entry = self.env[value] = Results([self._item(entry, i, v) for i, v in enumerate(self.fakes[value])])
            for i, item in enumerate(entry.entries):
                entry.entries[i] = item if isinstance(item, Alias) else Alias(item, self.fakes[value][i])
            return entry.entries
        return [self.alias(item) for item in value]

    def _argument(self, value: Any) -> Any:
        return map_arg(value, self.read)

    def store(self, alias: Alias, value: Node, dtype: torch.dtype | None = None) -> None:
        """Makes `value` the content of `alias`, and so of every alias on its storage; `dtype` is that of `value`."""
        if alias.root.strange:
            raise self.refusal(alias.root.strange)
        given = dtype or value.meta["val"].dtype
        if given != alias.val.dtype:
            value.meta["val"] = value.meta["val"].to(given)
            value = self.emit(aten._to_copy.default, (value,), alias.val, dtype=alias.val.dtype)
        if alias.node is value and alias.version == alias.root.version:
            return
        version, chain, values = alias.root.version + 1, [alias], [value]
        try:
            while chain[-1].parent is not None and chain[-1].step is not None:
                step, parent = chain[-1].step, chain[-1].parent
                values.append(invert(self.emit, step, self.current(parent), parent.val, values[-1]))
                chain.append(parent)
        except CannotInvert:
            steps = [(above.step, above.val) for above in _up(alias) if above.step]
            try:
                whole = scatter(self.emit, steps, self.current(alias.root), alias.root.val, value)
            except CannotInvert as error:
                raise self.refusal(str(error), final=True) from None
            chain, values = [alias, alias.root], [value, whole]
        for above, new in zip(chain, values):
            above.node, above.version = new, version


def _fills_storage(val: torch.Tensor) -> bool:
    """Whether a fake tensor has all elements of its storage, in their order. Never adds a guard."""
    expected: Any = 1
    for size, stride in zip(reversed(val.shape), reversed(val.stride())):
        if not (is_same_size(stride, expected) or is_same_size(size, 1)):
            return False
        expected = expected * size
    return is_same_size(val.storage_offset(), 0)


def _up(alias: Alias) -> Iterable[Alias]:
    """The alias and those that it is a view of, up to its storage."""
    above: Alias | None = alias
    while above is not None:
        yield above
        above = above.parent


def _key(step: ViewStep) -> tuple[Any, ...]:
    """Equal for two applications of one view operator with equal arguments."""
    return step.target, frozen(step.args), frozen(tuple(sorted(step.kwargs.items())))
