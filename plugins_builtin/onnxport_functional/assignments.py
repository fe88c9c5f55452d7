"""Operators that write, whose new values are best given in other terms than those of a pure twin."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from onnxport.kit import is_same_size
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.fx.node import map_arg

from onnxport_functional.views import is_same_shape, sizes_of

aten = torch.ops.aten


class Alias(Protocol):
    """What is asked of a tensor that is written."""

    val: torch.Tensor

    @property
    def parent(self) -> Any: ...


class Rewriter(Protocol):
    """What is asked of what copies the graph: its values, and its ways to emit nodes and to write."""

    env: dict[Node, Any]
    fakes: Any

    def emit(self, *args: Any, **kwargs: Any) -> Any: ...

    def read(self, *args: Any, **kwargs: Any) -> Any: ...

    def current(self, *args: Any, **kwargs: Any) -> Any: ...

    def store(self, *args: Any, **kwargs: Any) -> Any: ...

    def alias(self, *args: Any, **kwargs: Any) -> Any: ...

    def refusal(self, *args: Any, **kwargs: Any) -> Any: ...


def _fill(rewriter: Rewriter, alias: Alias, value: Any) -> Node:
    """A tensor like `alias` full of a number, which doesn't depend on the present content where sizes are static."""
    val = alias.val
    if isinstance(value, (int, float)) and not val.dtype.is_complex:
        kind = bool if val.dtype is torch.bool else float if val.dtype.is_floating_point else int
        value = kind(value)
    if all(isinstance(size, int) for size in val.shape):
        return rewriter.emit(aten.full.default, (list(val.shape), value), val, dtype=val.dtype, device=val.device)
    return rewriter.emit(aten.full_like.default, (rewriter.current(alias), value), val)


def _fill_(rewriter: Rewriter, node: Node, alias: Alias) -> Node:
    value = node.args[1] if len(node.args) > 1 else node.kwargs.get("value", 0)
    if isinstance(value, Node) and isinstance(rewriter.fakes.get(value), torch.Tensor):
        return _copied(rewriter, value, alias)
    return _fill(rewriter, alias, map_arg(value, rewriter.read))


def _copy_(rewriter: Rewriter, node: Node, alias: Alias) -> Node:
    source: Any = node.args[1]
    if not isinstance(source, Node) or not isinstance(rewriter.fakes.get(source), torch.Tensor):
        return _fill(rewriter, alias, map_arg(source, rewriter.read))  # x.copy_(0.5)
    if rewriter.env[source] is alias:
        return rewriter.current(alias)
    val = rewriter.fakes[source]
    sizes = zip(reversed(val.shape), reversed(alias.val.shape))
    if val.dim() > alias.val.dim() or any(statically_known_true(a != b) and not is_same_size(a, 1) for a, b in sizes):
        if alias.parent is not None or val.dtype != alias.val.dtype:
            raise rewriter.refusal("it gives a tensor another shape")
        alias.val = val  # a buffer that forward has put another tensor in the place of
        return rewriter.read(source)  # type: ignore[no-any-return]
    return _copied(rewriter, source, alias)


def _copied(rewriter: Rewriter, source: Any, alias: Alias) -> Node:
    """The value of the old node `source` in the dtype and shape of `alias`."""
    value, val = rewriter.read(source), rewriter.fakes[source]
    if val.dtype != alias.val.dtype:
        val = val.to(alias.val.dtype)
        value = rewriter.emit(aten._to_copy.default, (value,), val, dtype=val.dtype)
    if not is_same_shape(val, alias.val):
        sizes = sizes_of(rewriter.emit, rewriter.current(alias), alias.val)
        value = rewriter.emit(aten.expand.default, (value, sizes), alias.val)
    return value


def _fill_diagonal_(rewriter: Rewriter, node: Node, alias: Alias) -> Node:
    """Of a matrix, or of a tensor whose axes are equally long; `wrap` goes on below the square of a tall matrix."""
    value, wrap = map_arg((*node.args[1:], *node.kwargs.values(), False)[:2], rewriter.read)
    whole, val, sizes = rewriter.current(alias), alias.val, alias.val.shape
    if len(sizes) > 2 or (wrap and statically_known_true(sizes[0] > sizes[1] + 1)):
        if not all(isinstance(size, int) for size in sizes):
            raise rewriter.refusal("only the diagonal of a matrix can be filled where sizes are dynamic")
        flat = val.new_empty([val.numel()])
        step = sum(sizes[0] ** axis for axis in range(len(sizes))) if len(sizes) > 2 else sizes[1] + 1
        line = rewriter.emit(aten.reshape.default, (whole, [-1]), flat)
        part = flat[::step]
        filled = rewriter.emit(aten.full.default, (list(part.shape), value), part, dtype=val.dtype)
        line = rewriter.emit(aten.slice_scatter.default, (line, filled, 0, 0, None, step), flat)
        return rewriter.emit(aten.reshape.default, (line, list(sizes)), val)
    if wrap and not statically_known_true(sizes[0] <= sizes[1] + 1):
        raise rewriter.refusal("where the diagonal is wrapped depends on dynamic sizes")
    diagonal = val.diagonal()
    filled = rewriter.emit(
        aten.full_like.default, (rewriter.emit(aten.diagonal.default, (whole,), diagonal), value), diagonal
    )
    return rewriter.emit(aten.diagonal_scatter.default, (whole, filled), val)


def _index_put_impl_(rewriter: Rewriter, node: Node, alias: Alias) -> Node:
    return rewriter.emit(aten.index_put.default, map_arg(node.args[:4], rewriter.read), alias.val)


VALUES: Mapping[str, Callable[[Rewriter, Node, Alias], Node]] = {
    "aten::zero_": _fill_,
    "aten::fill_": _fill_,
    "aten::copy_": _copy_,
    "aten::fill_diagonal_": _fill_diagonal_,
    "aten::_index_put_impl_": _index_put_impl_,
}
"""By operator, what gives the new value of the tensor that it writes."""


def batch_norm(rewriter: Rewriter, node: Node) -> list[Node]:
    """A batch norm in training, as the operator that returns its new running statistics."""
    mean, var = (rewriter.alias(arg) for arg in node.args[3:5])  # type: ignore[arg-type]
    val = node.meta["val"]
    vals = [val] if isinstance(val, torch.Tensor) else list(val)
    vals = [vals[0], *(vals[1:] or [mean.val, var.val]), mean.val, var.val]
    args = map_arg(node.args[:8], rewriter.read)
    new = rewriter.emit(aten._native_batch_norm_legit_functional.default, args, vals)
    results = [rewriter.emit(operator.getitem, (new, i), v) for i, v in enumerate(vals)]
    rewriter.store(mean, results[3])
    rewriter.store(var, results[4])
    return results[:1] if isinstance(val, torch.Tensor) else results[:3]


def instance_norm(rewriter: Rewriter, node: Node) -> list[Node]:
    """An instance norm in training: running statistics move towards the mean of the instances' own."""
    args: Any = map_arg(node.args, rewriter.read)
    dims, momentum = list(range(2, node.meta["val"].dim())), args[6]
    val = node.meta["val"].mean(dims)
    for alias, target, options in (
        (rewriter.alias(node.args[3]), aten.mean.dim, {}),  # type: ignore[arg-type]
        (rewriter.alias(node.args[4]), aten.var.correction, {"correction": 1}),  # type: ignore[arg-type]
    ):
        found = rewriter.emit(target, (args[0], dims), val, **options)
        found = rewriter.emit(aten.mean.dim, (found, [0]), val.mean(0))
        kept = rewriter.emit(aten.mul.Tensor, (rewriter.current(alias), 1 - momentum), alias.val)
        rewriter.store(alias, rewriter.emit(aten.add.Tensor, (kept, found), alias.val, alpha=momentum))
    return [rewriter.emit(aten.instance_norm.default, (*args[:3], None, None, *args[5:]), node.meta["val"])]
