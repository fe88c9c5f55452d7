"""What is known of an attention mask from the graph that computes it.

Masks of libraries are comparisons of positions, and positions are ranges plus sizes. Each tensor on the way is read as
a linear function of its own indices, so that a mask becomes a conjunction of half planes::

    key <= query + past       query - key + past >= 0        a causal mask, if past is (keys - queries)
    key > query + past - 4    key - query - past + 3 >= 0    a window of 4 keys
    query >= 0                holds everywhere: no mask

and of tensors that say nothing of themselves, such as a mask of padding that the caller gives.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.fx import Node

aten = torch.ops.aten


@dataclass(frozen=True)
class Linear:
    """A tensor of whole numbers: ``constant`` plus, for each axis, ``steps[axis]`` times the index there."""

    steps: tuple[sympy.Expr, ...]
    constant: sympy.Expr


@dataclass(frozen=True)
class Conjunction:
    """A tensor of bools that is True where each of ``bounds`` is at least 0.

    Attributes:
        rank: the number of axes.
        bounds: their steps have `rank` entries.
        is_whole: nothing else decides; if not, it may be False in other places too.
    """

    rank: int
    bounds: tuple[Linear, ...] = ()
    is_whole: bool = True


@dataclass(frozen=True)
class Reach:
    """Which keys each query reads.

    Attributes:
        is_causal: none behind its own position, where the last query is at the position of the last key.
        window: only that many keys up to its own position; None for all of them.
        is_whole: nothing else decides: the mask need not be read.
    """

    is_causal: bool = False
    window: int | None = None
    is_whole: bool = False


NOTHING_KNOWN = Reach()


def reach(mask: Node | None, queries: Any, keys: Any) -> Reach:
    """What is known of a mask whose last two axes are ``queries`` and ``keys`` long."""
    is_single = _expr(queries) == 1  # a single query is at the position of the last key: none is behind it
    if mask is None:
        return Reach(is_causal=is_single, is_whole=True)
    found = Reader().allowed(mask)
    if found is None or found.rank < 2:
        return NOTHING_KNOWN
    shape = [_expr(size) for size in mask.meta["val"].shape]
    offset = _expr(keys) - _expr(queries)
    is_causal, window, is_whole = is_single, None, found.is_whole
    for bound in found.bounds:
        if _holds(bound, shape):
            continue
        *others, query, key = bound.steps
        is_of_positions = not any(others) and shape[-2:] == [_expr(queries), _expr(keys)]
        behind, before = (sympy.expand(bound.constant + sign * offset) for sign in (-1, 1))
        if is_of_positions and (query, key) == (1, -1) and behind == 0:
            is_causal = True
        elif is_of_positions and key == 1 and (query == -1 or is_single) and before.is_Integer and before >= 0:
            window = int(before) + 1 if window is None else min(window, int(before) + 1)
        else:
            is_whole = False
    if not is_whole or (window is not None and not is_causal):
        return Reach(is_causal)
    return Reach(is_causal, window, True)


def _holds(bound: Linear, shape: Sequence[sympy.Expr]) -> bool:
    """The bound is at least 0 at every index."""
    least = bound.constant
    for step, size in zip(bound.steps, shape, strict=True):
        if _is_at_least_0(step):
            continue
        if not _is_at_least_0(-step):
            return False
        least += step * (size - 1)
    return _is_at_least_0(least)


def _is_at_least_0(number: sympy.Expr) -> bool:
    """It is for all sizes, 0 included, which torch's own symbols may rule out."""
    number = sympy.expand(number)
    sizes = {symbol: sympy.Symbol(symbol.name, integer=True, nonnegative=True) for symbol in number.free_symbols}
    return number.xreplace(sizes).is_nonnegative is True


def _expr(value: Any) -> sympy.Expr:
    return value.node.expr if isinstance(value, torch.SymInt) else sympy.Integer(int(value))


class Reader:
    """Reads the nodes of one graph; each is read once."""

    def __init__(self) -> None:
        self._numbers: dict[Node, Linear | None] = {}
        self._bools: dict[Node, Conjunction] = {}

    def allowed(self, mask: Node) -> Conjunction | None:
        """Where a mask lets keys through: it is True, or 0 where it is added to scores. None if it isn't a mask."""
        value = mask.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return None
        if value.dtype is torch.bool:
            return self.bools(mask)
        return self._added(mask) if value.dtype.is_floating_point else None

    def _added(self, node: Node) -> Conjunction | None:
        """A float mask: 0 where a condition holds, and elsewhere so little that no weight is left."""
        if node.target in _SAME and isinstance(node.args[0], Node):
            return self._added(node.args[0])
        moved = self._moved(node, self._added)
        if moved is not None:
            return moved
        if node.target in (aten.where.Scalar, aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf):
            condition, chosen, other = node.args[:3]
            lowest = torch.finfo(node.meta["val"].dtype).min
            low = _number_of(other)
            if _is_bool(condition) and _number_of(chosen) == 0 and low is not None and low <= lowest:
                found = self.bools(condition)  # type: ignore[arg-type]
                # A row without any key gives the mean of all values where the number is finite: nothing to prove then.
                return found if found is not None and (found.is_whole or math.isinf(low)) else None
        return None

    def bools(self, node: Node) -> Conjunction:
        """A tensor of bools; of one that can't be read, only the rank is known."""
        if node not in self._bools:
            found = self._bools_of(node)
            if found is None:
                found = Conjunction(node.meta["val"].dim(), (), False)
            bounds = tuple(_without_single_axes(bound, node) for bound in found.bounds)
            self._bools[node] = Conjunction(found.rank, bounds, found.is_whole)
        return self._bools[node]

    def _bools_of(self, node: Node) -> Conjunction | None:
        target, rank = node.target, node.meta["val"].dim()
        if target in _COMPARISONS:
            left, right = (self._operand(arg, rank) for arg in node.args[:2])
            if left is None or right is None:
                return None
            return Conjunction(rank, (_COMPARISONS[target](left, right),))
        if target in _CONJUNCTIONS:
            both = [self.bools(arg) for arg in node.args[:2] if isinstance(arg, Node) and _is_bool(arg)]
            bounds = tuple(_spread(bound, rank) for each in both for bound in each.bounds)
            return Conjunction(rank, bounds, len(both) == 2 and all(each.is_whole for each in both))
        if _filled_with(node) == 1:
            return Conjunction(rank)
        source = node.args[0] if node.args else None
        if target in _SAME and _is_bool(source):
            return self.bools(source)  # type: ignore[arg-type]
        return self._moved(node, self.bools) if _is_bool(source) else None

    def _moved(self, node: Node, read: Callable[[Node], Conjunction | None]) -> Conjunction | None:
        """The same elements at other indices."""
        if node.target not in _MOVES or not isinstance(node.args[0], Node):
            return None
        source = read(node.args[0])
        if source is None:
            return None
        bounds = []
        for bound in source.bounds:
            moved = _MOVES[node.target](node, bound)
            if moved is None:
                return Conjunction(node.meta["val"].dim(), (), False)
            bounds.append(moved)
        return Conjunction(node.meta["val"].dim(), tuple(bounds), source.is_whole)

    def _operand(self, value: Any, rank: int) -> Linear | None:
        """One side of a comparison."""
        number = _symbolic(value)
        if number is not None:
            return Linear((sympy.S.Zero,) * rank, number)
        found = self.numbers(value) if isinstance(value, Node) else None
        return None if found is None else _spread(found, rank)

    def numbers(self, node: Node) -> Linear | None:
        """A tensor of whole numbers, if it is linear in its indices."""
        if node not in self._numbers:
            found = self._numbers_of(node)
            self._numbers[node] = None if found is None else _without_single_axes(found, node)
        return self._numbers[node]

    def _numbers_of(self, node: Node) -> Linear | None:
        value, target = node.meta.get("val"), node.target
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.int64, torch.int32):
            return None
        rank = value.dim()
        if target in _RANGES:
            numbers = [_symbolic(arg) for arg in node.args]
            start, step = _RANGES[target](numbers)
            return None if start is None or step is None else Linear((step,), start)
        filled = _filled_with(node)
        if filled is not None:
            return Linear((sympy.S.Zero,) * rank, filled)
        if target in (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar):
            left, right = (self._operand(arg, rank) for arg in node.args[:2])
            factor = _symbolic(node.kwargs.get("alpha", 1))
            if left is None or right is None or factor is None:
                return None
            sign = 1 if target in (aten.add.Tensor, aten.add.Scalar) else -1
            return _sum(left, right, sign * factor)
        if target in _SAME and isinstance(node.args[0], Node):
            return self.numbers(node.args[0])
        if target in _MOVES and isinstance(node.args[0], Node):
            source = self.numbers(node.args[0])
            return None if source is None else _MOVES[target](node, source)
        return None


def _sum(left: Linear, right: Linear, factor: sympy.Expr) -> Linear:
    steps = tuple(sympy.expand(a + factor * b) for a, b in zip(left.steps, right.steps, strict=True))
    return Linear(steps, sympy.expand(left.constant + factor * right.constant))


def _without_single_axes(value: Linear, node: Node) -> Linear:
    """An axis of one element has no index but 0: it may be broadcast."""
    sizes = node.meta["val"].shape
    steps = (sympy.S.Zero if _is_one(size) else step for size, step in zip(sizes, value.steps, strict=True))
    return Linear(tuple(steps), value.constant)


def _spread(value: Linear, rank: int) -> Linear:
    """Broadcast against a tensor of more axes."""
    return Linear((sympy.S.Zero,) * (rank - len(value.steps)) + value.steps, value.constant)


def _at_least(left: Linear, right: Linear) -> Linear:
    return _sum(left, right, sympy.S.NegativeOne)


def _greater(left: Linear, right: Linear) -> Linear:
    found = _at_least(left, right)
    return Linear(found.steps, sympy.expand(found.constant - 1))


_COMPARISONS: dict[Any, Callable[[Linear, Linear], Linear]] = {
    **dict.fromkeys((aten.ge.Tensor, aten.ge.Scalar), _at_least),
    **dict.fromkeys((aten.gt.Tensor, aten.gt.Scalar), _greater),
    **dict.fromkeys((aten.le.Tensor, aten.le.Scalar), lambda left, right: _at_least(right, left)),
    **dict.fromkeys((aten.lt.Tensor, aten.lt.Scalar), lambda left, right: _greater(right, left)),
}
_CONJUNCTIONS = frozenset({aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default, aten.mul.Tensor})
_SAME = frozenset(
    {
        aten.alias.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.detach.default,
        aten.lift_fresh_copy.default,
        aten.to.device,
        aten.to.dtype,
        aten.to.dtype_layout,
    }
)
"""Operators that give their input, in a type that holds it where both are whole numbers or both are bools."""


_RANGES: dict[Any, Callable[[list[Any]], tuple[Any, Any]]] = {
    aten.arange.default: lambda numbers: (sympy.S.Zero, sympy.S.One),
    aten.arange.start: lambda numbers: (numbers[0], sympy.S.One),
    aten.arange.start_step: lambda numbers: (numbers[0], numbers[2] if len(numbers) > 2 else sympy.S.One),
}


def _symbolic(value: Any) -> sympy.Expr | None:
    """A whole number of the graph: a Python int, or a node that stands for a size."""
    if isinstance(value, Node):
        value = value.meta.get("val")
    if isinstance(value, torch.SymInt):
        return value.node.expr
    return sympy.Integer(value) if type(value) is int else None


def _number_of(value: Any) -> float | None:
    """A number, or a tensor that holds one number everywhere."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Node) and value.target in _SAME:
        return _number_of(value.args[0])
    filled = _filled_with(value) if isinstance(value, Node) else None
    return None if filled is None or not filled.is_number else float(filled)


def _filled_with(node: Node) -> sympy.Expr | None:
    """The number that a constant tensor is filled with."""
    target = node.target
    if target in (aten.ones.default, aten.new_ones.default, aten.ones_like.default):
        return sympy.S.One
    if target in (aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default):
        return sympy.S.Zero
    place = {aten.full.default: 1, aten.full_like.default: 1, aten.new_full.default: 2, aten.scalar_tensor.default: 0}
    if target not in place or len(node.args) <= place[target]:  # type: ignore[index]
        return None
    number = node.args[place[target]]  # type: ignore[index]
    if isinstance(number, float):
        return None if math.isnan(number) else sympy.Float(number)
    return sympy.Integer(int(number)) if isinstance(number, (bool, int)) else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, Node) and getattr(value.meta.get("val"), "dtype", None) is torch.bool


# ---- elements at other indices: each gives the function of the new indices, or None where it isn't linear


def _argument(node: Node, place: int, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else default


def _unsqueezed(node: Node, value: Linear) -> Linear:
    axis = operator.index(node.args[1]) % (len(value.steps) + 1)  # type: ignore[arg-type]
    return Linear((*value.steps[:axis], sympy.S.Zero, *value.steps[axis:]), value.constant)


def _expanded(node: Node, value: Linear) -> Linear:
    return _spread(value, node.meta["val"].dim())  # axes of one element have no step by now


def _sliced(node: Node, value: Linear) -> Linear | None:
    axis = operator.index(_argument(node, 1, 0)) % len(value.steps)
    size = _expr(node.args[0].meta["val"].shape[axis])  # type: ignore[union-attr]
    start = _symbolic(0 if _argument(node, 2, None) is None else node.args[2])
    step = _symbolic(_argument(node, 4, 1))
    if start is None or step is None:
        return None
    if start.is_negative is True:
        start += size
    if not _is_at_least_0(start) or not _is_at_least_0(size - start):
        return None
    steps = list(value.steps)
    constant = sympy.expand(value.constant + steps[axis] * start)
    steps[axis] = sympy.expand(steps[axis] * step)
    return Linear(tuple(steps), constant)


def _swapped(node: Node, value: Linear) -> Linear:
    first, second = (operator.index(axis) % len(value.steps) for axis in node.args[1:3])  # type: ignore[arg-type]
    steps = list(value.steps)
    steps[first], steps[second] = steps[second], steps[first]
    return Linear(tuple(steps), value.constant)


def _permuted(node: Node, value: Linear) -> Linear:
    axes: Any = node.args[1]
    return Linear(tuple(value.steps[axis] for axis in axes), value.constant)


def _selected(node: Node, value: Linear) -> Linear | None:
    axis, index = operator.index(node.args[1]) % len(value.steps), _symbolic(node.args[2])  # type: ignore[arg-type]
    if index is None or not _is_at_least_0(index):
        return None
    constant = sympy.expand(value.constant + value.steps[axis] * index)
    return Linear((*value.steps[:axis], *value.steps[axis + 1 :]), constant)


def _reshaped(node: Node, value: Linear) -> Linear | None:
    """Axes of one element may come and go; others stay."""
    source, target = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    longer = [(_expr(size), step) for size, step in zip(source, value.steps, strict=True) if not _is_one(size)]
    steps = []
    for size in target:
        if _is_one(size):
            steps.append(sympy.S.Zero)
        elif longer and longer[0][0] == _expr(size):
            steps.append(longer.pop(0)[1])
        else:
            return None
    return None if longer else Linear(tuple(steps), value.constant)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


_MOVES: dict[Any, Callable[[Node, Linear], Linear | None]] = {
    aten.unsqueeze.default: _unsqueezed,
    aten.expand.default: _expanded,
    aten.slice.Tensor: _sliced,
    aten.transpose.int: _swapped,
    aten.permute.default: _permuted,
    aten.numpy_T.default: lambda node, value: Linear(value.steps[::-1], value.constant),
    aten.t.default: lambda node, value: Linear(value.steps[::-1], value.constant),
    aten.select.int: _selected,
    aten.view.default: _reshaped,
    aten.reshape.default: _reshaped,
    aten.squeeze.dim: _reshaped,
    aten.squeeze.dims: _reshaped,
}
