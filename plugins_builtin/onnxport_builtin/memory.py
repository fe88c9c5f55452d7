"""The memory of tensors: which share it, and what operators write of it. Stage plugins reach it by ``onnxport.kit``."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import sympy
import torch
from torch._ops import OpOverload
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils._sympy.functions import FloorDiv


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
        if not _is_beyond(stride, reach):
            return True
        reach = reach + stride * (size - 1)
    return False


def _is_beyond(stride: Any, reach: Any) -> bool:
    """Whether a step is longer than what the axes with shorter steps reach, at every size."""
    if statically_known_true(stride > reach):
        return True
    if not isinstance(reach, torch.SymInt):
        return False
    most = sympy.expand(reach.node.expr)
    for quotient in most.atoms(FloorDiv):  # 3 * ((n - 2) // 3) of windows with gaps is at most n - 2
        number, divisor = quotient.args
        if divisor.is_Integer and divisor > 0 and most.coeff(quotient).is_nonnegative:
            most = most.xreplace({quotient: number / divisor})
    step = stride.node.expr if isinstance(stride, torch.SymInt) else stride
    return bool(sympy.expand(step - most).is_positive)


def _hint(size: Any) -> int:
    """The size in the example; for sorting."""
    return size if isinstance(size, int) else (size.node.hint if size.node.has_hint() else 0)
