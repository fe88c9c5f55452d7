"""The memory of tensors: which share it, and what operators write of it. Stage plugins reach it by ``onnxport.kit``."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.fx.experimental.symbolic_shapes import statically_known_true


class Written(NamedTuple):
    """An argument that an operator writes."""

    name: str
    is_out: bool
    alias_set: frozenset[str]


@cache
def mutated(target: OpOverload) -> tuple[Written, ...]:
    return tuple(
        Written(argument.name, argument.is_out, frozenset(argument.alias_info.before_set))
        for argument in target._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def storage_of(val: Any) -> int | None:
    """The identity of the memory that a fake tensor stands for; None for what has none."""
    if not isinstance(val, torch.Tensor) or val.layout is not torch.strided:
        return None
    return val.untyped_storage()._cdata


def is_same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are the same number or the same expression; never adds a guard."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt):
        return bool(a.node.expr == b.node.expr)
    return False


def may_overlap(val: torch.Tensor) -> bool:
    """Whether two elements of a fake tensor may lie at one place. Never adds a guard."""
    if any(is_same_size(size, 0) for size in val.shape):
        return False
    reach: Any = 0
    axes = [(stride, size) for stride, size in zip(val.stride(), val.shape) if not statically_known_true(size <= 1)]
    for stride, size in sorted(axes, key=lambda axis: _hint(axis[0])):
        if not statically_known_true(stride > reach):
            return True
        reach = reach + stride * (size - 1)
    return False


def _hint(size: Any) -> int:
    """The size in the example; for sorting."""
    return size if isinstance(size, int) else (size.node.hint if size.node.has_hint() else 0)
