"""How each view operator is undone: given a parent and the new content of its view, the parent's new content.

Every inverse is a pure ATen operator on the parent's node, so a write costs one node for each view on the way to the
storage. What shares storage is read from the recorded fake tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from onnxport.kit import Ties, View, Written, is_same_size, may_overlap, mutated, storage_of
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from onnxport_functional import meaning
from onnxport_functional.regions import FOREIGN_STORAGES
from onnxport_functional.writes import TURNS_INTO_VIEW, is_inplace, pure_twin

aten = torch.ops.aten

PARENT = object()
"""Stands in a step's arguments where the parent goes."""

Emit = Callable[..., Node]
"""emit(target, args, val, **kwargs) -> the new node."""


_FILLS = (aten.full.default, aten.full_like.default)
_OVERLAPS = "several elements of the view are one element of the tensor: write to a clone, or to the tensor by an index"


class CannotInvert(Exception):  # noqa: N818 - a signal to the caller, which names the node
    """This view can't be written through."""


class ViewStep(NamedTuple):
    """One view operator, from a parent to its (index-th) result."""

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: int
    """Which of several results; 0 where there is one."""
    val: Any
    """The recorded fake value of the operator: a list where it has several results."""
    origin: Node

    @property
    def name(self) -> str:
        """`aten::select` for `aten.select.int`; the target's own name where it is no ATen operator."""
        return self.target._schema.name if isinstance(self.target, torch._ops.OpOverload) else str(self.target)

    def argument(self, name: str) -> Any:
        """The argument that the schema calls `name`, or its default."""
        for position, argument in enumerate(self.target._schema.arguments):
            if argument.name == name:
                if position < len(self.args):
                    return self.args[position]
                return self.kwargs.get(name, argument.default_value)
        raise KeyError(name)


def is_same_shape(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two fake tensors have the same sizes, symbol by symbol."""
    return a.dim() == b.dim() and all(is_same_size(x, y) for x, y in zip(a.shape, b.shape))


def sizes_of(emit: Emit, node: Node, val: torch.Tensor) -> list[Any]:
    """The sizes of `node`: ints, and nodes for the symbolic ones."""
    return [
        size if isinstance(size, int) else emit(aten.sym_size.int, (node, axis), size)
        for axis, size in enumerate(val.shape)
    ]


def _reshape(emit: Emit, step: ViewStep | None, parent: Node, val: torch.Tensor, value: Node) -> Node:
    symbolic = [axis for axis, size in enumerate(val.shape) if not isinstance(size, int)]
    if len(symbolic) == 1 and not any(is_same_size(size, 0) for size in val.shape):
        sizes: list[Any] = list(val.shape)
        sizes[symbolic[0]] = -1
    else:
        sizes = sizes_of(emit, parent, val)
    return emit(aten.reshape.default, (value, sizes), val)


def _expand(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    shape = value.meta["val"].shape
    extra = len(shape) - val.dim()
    if value.target is aten.expand.default and value.args[0].meta["val"].dim() == 0:  # type: ignore[union-attr]
        return emit(aten.expand.default, (value.args[0], sizes_of(emit, parent, val)), val)
    if value.target not in _FILLS:
        if any(not is_same_size(a, b) for a, b in zip(val.shape, shape[extra:])) or not all(
            is_same_size(s, 1) for s in shape[:extra]
        ):
            raise CannotInvert(_OVERLAPS)
        return _reshape(emit, step, parent, val, value)
    return emit(aten.full_like.default, (parent, value.args[1]), val)


def _permute(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    rank = val.dim()
    order = [dim % rank for dim in step.argument("dims")]
    return emit(aten.permute.default, (value, [order.index(axis) for axis in range(rank)]), val)


def _movedim(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(step.target, (value, step.argument("destination"), step.argument("source")), val)


def _again(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    """For operators that undo themselves: transpose, conj, ..."""
    return emit(step.target, (value, *step.args[1:]), val)


def _identity(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return value


def _select(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(aten.select_scatter.default, (parent, value, step.argument("dim"), step.argument("index")), val)


def _slice(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    rest = [step.argument(name) for name in ("dim", "start", "end", "step")]
    return emit(aten.slice_scatter.default, (parent, value, *rest), val)


def _narrow(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    dim, start, length = (step.argument(name) for name in ("dim", "start", "length"))
    first = _value(start)
    if isinstance(start, int) and isinstance(length, int):
        end: Any = None if start < 0 <= start + length else start + length  # an end of 0 is the front
        return emit(aten.slice_scatter.default, (parent, value, dim, start, end), val)
    if not isinstance(first, torch.Tensor) and not statically_known_true(first >= 0):
        first = val.new_empty([], dtype=torch.int64)
        start = emit(aten.scalar_tensor.default, (start,), first, dtype=torch.int64)
    if isinstance(first, torch.Tensor):
        from_end = emit(aten.add.Tensor, (start, sizes_of(emit, parent, val)[dim]), first)
        is_from_end = emit(aten.lt.Scalar, (start, 0), first.new_empty([], dtype=torch.bool))
        start = emit(aten.where.self, (is_from_end, from_end, start), first)
        end = emit(aten.add.Tensor, (start, length), first)
    elif start == 0:
        end = length
    else:
        end = emit(operator.add, (start, length), first + _value(length))
    return emit(aten.slice_scatter.default, (parent, value, dim, start, end), val)


def _value(size: Any) -> Any:
    return size.meta["val"] if isinstance(size, Node) else size


def _diagonal(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    rest = [step.argument(name) for name in ("offset", "dim1", "dim2")]
    return emit(aten.diagonal_scatter.default, (parent, value, *rest), val)


def _as_strided(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    if value.target not in _FILLS and may_overlap(step.val):
        raise CannotInvert(_OVERLAPS)
    rest = [step.argument(name) for name in ("size", "stride", "storage_offset")]
    return emit(aten.as_strided_scatter.default, (parent, value, *rest), val)


def _unbind(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(aten.select_scatter.default, (parent, value, step.argument("dim"), step.result), val)


def _split(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    name = step.name.removeprefix("aten::")
    fixed = {"hsplit": 0 if val.dim() == 1 else 1, "vsplit": 0, "dsplit": 2}
    dim = fixed[name] if name in fixed else step.argument("dim")
    cuts = _cuts(emit, step)
    if cuts is not None:
        bounds = cuts[step.result], cuts[step.result + 1]
        return emit(aten.slice_scatter.default, (parent, value, dim, *bounds), val)
    sizes = [part.shape[dim] for part in step.val]
    if all(isinstance(size, int) for size in sizes[: step.result + 1]):
        start = sum(sizes[: step.result])
        return emit(aten.slice_scatter.default, (parent, value, dim, start, start + sizes[step.result]), val)
    whole = emit(step.target, (parent, *step.args[1:]), step.val)
    parts = [emit(operator.getitem, (whole, i), part) for i, part in enumerate(step.val)]
    parts[step.result] = value
    return emit(aten.cat.default, (parts, dim), val)


def _cuts(emit: Emit, step: ViewStep) -> list[Any] | None:
    """Where a split by places cuts, its ends included: places that go back cut out nothing, and take twice."""
    kind = step.target._overloadname
    if kind in ("indices", "array"):
        return [0, *step.argument("indices"), None]
    places = step.argument("tensor_indices_or_sections") if kind == "tensor_indices_or_sections" else None
    if places is None or places.meta["val"].dim() == 0:
        return None
    chosen = [emit(aten.select.int, (places, 0, i), places.meta["val"][i]) for i in range(len(step.val) - 1)]
    return [0, *chosen, None]


def _dtype(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(aten.view.dtype, (value, val.dtype), val)


def _complex_part(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    if not val.dtype.is_complex:
        return value
    is_real = step.name == "aten::real"
    other = emit((aten.imag if is_real else aten.real).default, (parent,), value.meta["val"])
    return emit(aten.complex.default, (value, other) if is_real else (other, value), val)


def _as_complex(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(aten.view_as_complex.default, (value,), val)


def _as_real(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    return emit(aten.view_as_real.default, (value,), val)


Inverse = Callable[[Emit, ViewStep, Node, torch.Tensor, Node], Node]

BY_INVERSE: tuple[tuple[Inverse, str], ...] = (
    (_reshape, "view reshape _reshape_alias view_as reshape_as flatten unflatten ravel squeeze unsqueeze"),
    (_reshape, "atleast_1d atleast_2d atleast_3d"),
    (_expand, "expand expand_as broadcast_to broadcast_tensors"),
    (_permute, "permute"),
    (_movedim, "movedim moveaxis"),
    (_again, "transpose t numpy_T mT swapaxes swapdims conj _conj _neg_view adjoint mH matrix_H"),
    (_identity, "alias detach lift_fresh contiguous to type_as positive resolve_conj resolve_neg dropout"),
    (_select, "select"),
    (_slice, "slice"),
    (_narrow, "narrow"),
    (_diagonal, "diagonal linalg_diagonal"),
    (_as_strided, "as_strided"),
    (_unbind, "unbind"),
    (_split, "split split_with_sizes chunk tensor_split hsplit vsplit dsplit"),
    (_complex_part, "real imag"),
    (_as_complex, "view_as_real"),
    (_as_real, "view_as_complex"),
    (_dtype, "view.dtype"),
)


def invert(emit: Emit, step: ViewStep, parent: Node, val: torch.Tensor, value: Node) -> Node:
    """The parent's node after `value` was written to its view; `val` is the parent's fake value.

    Raises: CannotInvert.
    """
    record = meaning.of(View, step.target)
    if record is None:
        raise CannotInvert(f"nothing undoes the view {step.target}")
    if not isinstance(record.inverse, str):
        return record.inverse(emit, step, parent, val, value)  # type: ignore[no-any-return]
    return emit(meaning.named(record.inverse, record), (parent, value, *step.args[1:]), val, **step.kwargs)


def scatter(
    emit: Emit, steps: Sequence[tuple[ViewStep, torch.Tensor]], root: Node, val: torch.Tensor, value: Node
) -> Node:
    """The content of a storage after `value` was written to a view of it, whatever views lead there.

    Args:
        steps: the views with their fake values, the written one first.
        root: the storage's content before, of fake value `val`.

    Raises: CannotInvert, where the view overlaps itself or doesn't only choose among the storage's elements.
    """
    chosen = steps[0][1]
    if any(fake.dtype != val.dtype or fake.is_conj() != val.is_conj() for _, fake in steps):
        raise CannotInvert("the view doesn't show the elements as they are")
    if value.target not in _FILLS and may_overlap(chosen):
        raise CannotInvert(_OVERLAPS)
    count = val.numel()
    number = count if isinstance(count, int) else emit(aten.sym_numel.default, (root,), count)
    fake = val.new_empty([count], dtype=torch.int64)
    places = _reshape(emit, None, root, val.to(torch.int64), emit(aten.arange.default, (number,), fake))
    for step, shown in reversed(steps):
        args = map_aggregate(step.args, lambda a: places if a is PARENT else a)  # noqa: B023 - used at once
        several = isinstance(step.val, (tuple, list))
        places = emit(step.target, args, _placed(step), **step.kwargs)
        if several:
            places = emit(operator.getitem, (places, step.result), shown.to(torch.int64))
    flat = emit(aten.reshape.default, (root, [-1]), val.new_empty([count]))
    ones = [chosen.new_empty([chosen.numel()], dtype=item.meta["val"].dtype) for item in (places, value)]
    index, written = (emit(aten.reshape.default, (x, [-1]), fake) for x, fake in zip((places, value), ones))
    return _reshape(
        emit, None, root, val, emit(aten.index_put.default, (flat, [index], written), val.new_empty([count]))
    )


def _placed(step: ViewStep) -> Any:
    """The step's fake values where its parent holds places; of a list of tensors, only the parent's own results do."""
    members = next((a for a in step.args if isinstance(a, (tuple, list)) and any(i is PARENT for i in a)), None)
    if members is None or not isinstance(step.val, (tuple, list)):
        return pytree.tree_map(lambda item: item.to(torch.int64), step.val)
    return [item.to(torch.int64) if member is PARENT else item for member, item in zip(members, step.val)]


_LOST_BY_TORCH = frozenset(f"aten::{name}" for name in ("unfold", "as_strided", *dict(BY_INVERSE)[_expand].split()))


def written_view_lost_by_torch(owner: GraphModule) -> Node | None:
    """A write that torch's own functionalization (2.14) would get wrong, if the graph has one.

    Around the windows of an `unfold` it puts zeros, and what an `expand` repeats it adds up. A tensor that `out=`
    resizes keeps its shape.
    """
    fakes = fakes_of(owner)
    for node in owner.graph.nodes:
        written = mutated(node.target) if isinstance(node.target, torch._ops.OpOverload) else ()
        names = [argument.name for argument in node.target._schema.arguments] if written else []
        given = {**dict(zip(names, node.args)), **node.kwargs}
        if any(item.is_out and _is_resized(given.get(item.name), node, item) for item in written):
            return node  # type: ignore[no-any-return]
        for view in pytree.tree_leaves([given.get(item.name) for item in written]):
            while isinstance(view, Node) and isinstance(view.target, torch._ops.OpOverload):
                if view.target._schema.name in _LOST_BY_TORCH:
                    return node  # type: ignore[no-any-return]
                above: Any = view.args[0] if view.args else None
                is_view = isinstance(above, Node) and storage_of(fakes.get(above)) == storage_of(fakes.get(view))
                view = above if is_view else None
    return None


def _is_resized(old: Any, node: Node, written: Written) -> bool:
    """Whether an operator gives the tensor of `out=` another shape."""
    if not isinstance(old, Node) or not isinstance(old.meta.get("val"), torch.Tensor):
        return False
    val = node.meta.get("val")
    results = val if isinstance(val, (tuple, list)) else [val]
    for result, new in zip(node.target._schema.returns, results):  # type: ignore[union-attr]
        if result.alias_info and written.alias_set & set(result.alias_info.before_set):
            return isinstance(new, torch.Tensor) and not is_same_shape(old.meta["val"], new)
    return False


_CERTAIN_VIEWS = (
    aten.view.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
)
_DROPOUTS = (
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)


def _is_certain_view(node: Node) -> bool:
    """Whether an operator gives its first argument or a view of it, whatever was recorded.

    torch 2.13 records the result of a dropout in evaluation, which is its input, on a storage of its own.
    """
    if node.op != "call_function":
        return False
    evaluates = node.target in _DROPOUTS and node.args[2] is False
    return evaluates or node.target in _CERTAIN_VIEWS or is_inplace(node.target)


def same_geometry(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two fakes on one storage are the same tensor. Never adds a guard."""
    return (
        a.dtype == b.dtype
        and is_same_shape(a, b)
        and all(map(is_same_size, a.stride(), b.stride()))
        and is_same_size(a.storage_offset(), b.storage_offset())
        and a.is_conj() == b.is_conj()
        and a.is_neg() == b.is_neg()
    )


def fakes_of(owner: GraphModule) -> Mapping[Node, Any]:
    """The fake value of every node, such that aliases share storage.

    As recorded, where the capture is of this process. A loaded program has lost what shares storage, and bodies that
    were recorded apart never knew: there, the operators that may alias are run again on the fakes. Where single views
    have lost it, as those of constants do, only what comes of them is.
    """
    recorded = {node: node.meta.get("val") for node in owner.graph.nodes}
    views = [node for node in recorded if _is_certain_view(node)]
    lost = {n for n in views if storage_of(recorded[n]) != storage_of(recorded[n.args[0]])}  # type: ignore[index]
    if not lost and FOREIGN_STORAGES not in owner.meta:
        return recorded
    everything = FOREIGN_STORAGES in owner.meta or len(lost) == len(views)
    mode = next((val.fake_mode for val in recorded.values() if hasattr(val, "fake_mode")), None)
    values: dict[Node, Any] = {}
    seen: set[int] = set()
    environment = mode.shape_env if mode else None
    with mode or nullcontext(), environment.ignore_fresh_unbacked_symbols() if environment else nullcontext():
        for node, val in recorded.items():
            again = everything or node in lost or any(values[n] is not recorded[n] for n in node.all_input_nodes)
            values[node] = _rerun(node, val, values, seen) if again and node.op == "call_function" else val
            if everything:
                seen.update(filter(None, map(storage_of, pytree.tree_leaves(values[node]))))
    return values


def _rerun(node: Node, val: Any, values: Mapping[Node, Any], seen: set[int]) -> Any:
    """The fake value of an operator given those of its arguments: on a new storage, unless the operator aliases."""
    target: Any = node.target
    if target is operator.getitem:
        return values[node.args[0]][node.args[1]]  # type: ignore[index]
    if isinstance(target, torch._ops.OpOverload):
        if target._schema.name in TURNS_INTO_VIEW:
            return pure_twin(target)(values[node.args[0]], *node.args[1:])  # type: ignore[index, misc]
        if mutated(target):
            return values[node.args[0]] if is_inplace(target) else val  # type: ignore[index]
        views = any(r.alias_info for r in target._schema.returns) or meaning.of(Ties, target) is not None
        if views or torch.Tag.maybe_aliasing_or_mutating in target.tags:
            return target(*map_arg(node.args, values.__getitem__), **map_arg(node.kwargs, values.__getitem__))
    return pytree.tree_map(lambda item: torch.empty_like(item) if storage_of(item) in seen else item, val)
