"""Example inputs that leave dimensions free.

torch.export takes sizes of 0 and 1 for constants, and equal sizes may come out as one. Where a dimension was asked to
be free, the capture sees another size than the caller's example has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from onnxport.kit import Asked, dense, pytree

from onnxport_builtin.attempts.upstream import is_view
from onnxport_builtin.request.dimensions import places, solved

if TYPE_CHECKING:
    from onnxport.kit import Request

_PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


@dataclass
class Sizes:
    """The sizes of the requested dimensions in the example, by name; unnamed ones go together when of one size.

    Attributes:
        sizes: size by dimension.
        low: least size allowed.
        high: greatest size allowed.
        taken: all sizes of all inputs.
    """

    sizes: dict[Any, int]
    low: dict[Any, int]
    high: dict[Any, int | None]
    taken: set[int]

    @classmethod
    def of(cls, request: Request) -> Sizes:
        """Read them from a request."""
        found = cls({}, {}, {}, set())
        for leaf in request.leaves:
            if isinstance(leaf.value, torch.Tensor):
                found.taken |= {int(size) for size in leaf.value.shape}
        for _, _, asked, size in places(request.leaves):
            if asked.expression is None and asked.contract:
                found._add(_dimension(asked, size), size, asked.bounds)
        for _, _, asked, size in places(request.leaves):
            if asked.expression is not None:
                for name, value in (solved(asked.expression, size, found.sizes) or {}).items():
                    root = getattr(asked.dim, "root", None)
                    found._add(name, value, (0, None) if root is None else Asked(root).bounds)
        return found

    def _add(self, key: Any, size: int, bounds: tuple[int, int | None]) -> None:
        self.sizes[key] = size
        self.low[key] = max(self.low.get(key, 2), bounds[0])
        highs = [h for h in (self.high.get(key), bounds[1]) if h is not None]
        self.high[key] = min(highs) if highs else None

    def small(self) -> list[Any]:
        """Dimensions whose example would be frozen or is out of range: torch.export takes 0 and 1 for constants."""
        return [
            k
            for k, size in self.sizes.items()
            if size < self.low[k] and ((high := self.high[k]) is None or high >= self.low[k])
        ]

    def enlarged(self) -> dict[Any, int]:
        """A new size for each small dimension, different from all other sizes."""
        changed: dict[Any, int] = {}
        for key in self.small():
            changed[key] = self._fresh(key, self.taken | set(changed.values()))
        return changed

    def coupled(self) -> dict[Any, int]:
        """As :meth:`enlarged`, but equal sizes stay equal, and a size that was the sum of two stays their sum."""
        changed: dict[Any, int] = {}
        groups: dict[int, int] = {}
        for key in self.small():
            changed[key] = groups.setdefault(self.sizes[key], self._fresh(key, self.taken | set(groups.values())))
        for total, size in self.sizes.items():
            if total in changed:
                continue
            for a in self.small():
                other = next(
                    (b for b, s in self.sizes.items() if b not in (a, total) and s + self.sizes[a] == size), None
                )
                if other is not None:
                    changed[total] = changed[a] + changed.get(other, self.sizes[other])
                    break
        return changed

    def separated(self, keys: Sequence[Any]) -> list[dict[Any, int]]:
        """Examples in which dimensions differ that are of one size in the caller's: multiples, then neighbours."""
        plans = []
        for make in (lambda size, n: size * (n + 1), lambda size, n: size + n):
            plan = {key: make(self.sizes[key], n) for n, key in enumerate(keys[1:], 1)}
            if all((high := self.high[k]) is None or size <= high for k, size in plan.items()):
                plans.append(plan)
        return plans

    def _fresh(self, key: Any, taken: set[int]) -> int:
        low, high = self.low[key], self.high[key]
        candidates = [*_PRIMES, *range(low, low + 1000)]
        return next((n for n in candidates if n not in taken and n >= low and (high is None or n <= high)), low)


def _dimension(asked: Asked, size: int) -> Any:
    return ("unnamed", size) if asked.name is None or asked.automatic else asked.name


def example_of(
    request: Request, changed: Mapping[Any, int], taken: Iterable[torch.Tensor] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs with changed sizes; floats that become inputs are 0-d tensors, sparse tensors dense ones.

    Each is a tensor of its own, and none of ``taken``: torch.export reads a tensor that is given twice as the last of
    its places, and the others would be inputs that nothing uses. The caller's stay as they are.
    """
    sizes = {**Sizes.of(request).sizes, **changed}
    seen = {id(tensor) for tensor in taken}
    values = []
    for leaf in request.leaves:
        value = leaf.value
        if None in leaf.asked and isinstance(value, float):
            value = torch.tensor(value)
        elif isinstance(value, torch.Tensor):
            value = dense(value)
        if isinstance(value, torch.Tensor) and changed:
            shape = list(value.shape)
            for axis, asked in leaf.asked.items():
                if axis is not None:
                    shape[axis] = _new_size(asked, shape[axis], sizes)
            if shape != list(value.shape):
                value = _empty(value, shape)
        if isinstance(value, torch.Tensor) and id(value) in seen:
            value = value.clone()
        elif isinstance(value, torch.Tensor) and is_view(value):
            # torch.export writes a view's base into the program's guards, and then refuses tensors that have none
            value = value.detach().requires_grad_(value.requires_grad)
        seen.add(id(value))
        values.append(value)
    _, spec = pytree.tree_flatten((request.args, request.kwargs))
    args, kwargs = pytree.tree_unflatten(values, spec)
    return args, kwargs


def _new_size(asked: Asked, size: int, sizes: Mapping[Any, int]) -> int:
    if asked.expression is None or not asked.contract:
        return sizes.get(_dimension(asked, size), size)
    values = {s: sizes[s.name] for s in asked.expression.free_symbols if s.name in sizes}
    found = asked.expression.subs(values)
    return int(found) if found.is_Integer else size


def _empty(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A tensor of another shape with the order of strides kept. Its values don't matter: captures see none."""
    order = sorted(range(value.dim()), key=lambda axis: -value.stride(axis))  # type: ignore[operator]
    with torch.no_grad():
        fresh = value.detach().new_empty([shape[axis] for axis in order])
        return fresh.permute([order.index(axis) for axis in range(value.dim())]).requires_grad_(value.requires_grad)
