"""Products with matrices that stand several times in a row: keys and values that groups of queries share.

Matrices that are repeated, or broadcast, are multiplied once, by the rows of all their partners:
``(B, H, S, D) @ repeated((B, H / G, D, T))`` is ``(B, H / G, G * S, D) @ (B, H / G, D, T)``. Measured on onnxruntime
1.32 (``tests/benchmarks/attention.py``): a step of 16 heads on 4 at 1024 keys takes 0.20 ms so, 0.35 by Attention-23,
0.40 by a MatMul that broadcasts, and 1.07 with copies; long sequences take the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnxport import Size, Tensor
from onnxport.authoring import Dim, reshape
from onnxport.optimize.rewriting import attribute, constant

if TYPE_CHECKING:
    from onnxport import Builder

_INDEX_LIMIT = 16 * 1024  # bytes of an index that is looked at


class Groups:
    """Matrices, each of which stands for ``times`` neighbours along the axis before the matrix axes.

    Args:
        matrices: (..., N, K, M), for a right operand of (..., N * times, K, M).
        times: how often each is repeated.
    """

    def __init__(self, matrices: Tensor, times: int) -> None:
        self.matrices = matrices
        self._times = times

    def rows(self, op: Builder, x: Tensor) -> Tensor:
        """(..., N * times, S, K) as (..., N, times * S, K): the left operand."""
        *lead, heads, rows, width = x.shape
        return _regrouped(op, x, lead, heads // self._times, rows * self._times, width)

    def heads(self, op: Builder, product: Tensor, x: Tensor, width: Dim) -> Tensor:
        """(..., N, times * S, M) as (..., N * times, S, M): the product for ``x``, where M is ``width``."""
        *lead, heads, rows, _ = x.shape
        return _regrouped(op, product, lead, heads, rows, width)

    def product(self, op: Builder, x: Tensor) -> Tensor:
        """``x @ repeated(matrices)``."""
        return self.heads(op, op.MatMul(self.rows(op, x), self.matrices), x, self.matrices.shape[-1])


def _regrouped(op: Builder, x: Tensor, lead: list[Dim], count: Dim, rows: Dim, width: Dim) -> Tensor:
    """`x` as (*lead, count, rows, width); its leading and its last axes stay as they are."""
    target = [*lead, count, rows, width]
    if 0 in target or (isinstance(width, int) and not isinstance(rows, int)):
        y = reshape(op, x, target)
        y.shape = ir.Shape(target)
        return y
    # The width may be 0 at run time, which leaves a -1 undetermined. Rows and width are computed both: where one place
    # of a computed shape isn't known, onnxruntime 1.32 itself writes -1 there.
    copied = [0 if isinstance(dim, Size) else dim for dim in lead]
    y = op.Reshape(x, [*copied, count, rows, width if isinstance(rows, Size) or isinstance(width, int) else 0])
    y.shape = ir.Shape(target)
    return y


def groups_of(op: Builder, a: Tensor, b: Tensor) -> Groups | None:
    """The matrices of ``b``, without repetitions, for a product ``a @ b``; None where none are to be seen."""
    if a.is_complex or b.is_complex or not (_is_known(a) and _is_known(b)):
        return None
    if len(a.shape) != len(b.shape) or len(b.shape) < 3:
        return None
    axis = len(b.shape) - 3
    heads = a.shape[axis]
    if not isinstance(heads, int) or heads < 2 or list(a.shape[:axis]) != list(b.shape[:axis]):
        return None
    if b.shape[axis] == 1:
        return Groups(b, heads) if axis else None
    found = _repetition(b) if b.shape[axis] == heads else None
    if found is None or found.axis != axis or heads % found.times:
        return None
    return Groups(found.once(op), found.times)


def _is_known(value: Any) -> bool:
    """All of a value's sizes are."""
    return value.shape is not None and all(isinstance(dim, int) or type(dim) is Size for dim in value.shape)


class _Repetition(NamedTuple):
    """How a value repeats another one along an axis, each index ``times`` times in a row."""

    source: Tensor
    extra: int | None
    """An axis of 1 that the source has and the value doesn't."""
    axis: int
    times: int
    steps: tuple[Any, ...] = ()
    """The nodes that move or cast the repeated value."""

    def once(self, op: Builder) -> Tensor:
        """The value without repetitions."""
        value = self.source if self.extra is None else op.Squeeze(self.source, [self.extra])
        for node in self.steps:
            value = _again(op, node, value)
        return value


def _again(op: Builder, node: Any, value: Tensor) -> Tensor:
    if node.op_type == "Cast":
        return op.cast(value, node.outputs[0].dtype)
    order = list(attribute(node, "perm"))
    result = op.Transpose(value, perm=order)
    if value.shape is not None:
        result.shape = ir.Shape([value.shape[i] for i in order])
    return result


def _repetition(value: Tensor) -> _Repetition | None:
    steps: list[Any] = []
    node = value.producer()
    while node is not None and not node.domain and node.op_type in ("Transpose", "Cast"):
        steps.insert(0, node)
        value = node.inputs[0]  # type: ignore[assignment]
        node = value.producer()
    found = _BASES[node.op_type](node) if node is not None and not node.domain and node.op_type in _BASES else None
    if found is None or found.source.is_complex:
        return None
    axis = found.axis
    for step in steps:
        if step.op_type == "Transpose":
            axis = list(attribute(step, "perm")).index(axis)
    return found._replace(axis=axis, steps=tuple(steps))


def _of_expand(node: Any) -> _Repetition | None:
    """One matrix for all."""
    axis = _expanded_axis(node)
    if axis is None:
        return None
    times = node.outputs[0].shape[axis]
    return _Repetition(node.inputs[0], None, axis, times) if isinstance(times, int) else None


def _of_reshape(node: Any) -> _Repetition | None:
    """An axis of repetitions that was put behind another one, and merged with it."""
    expand = node.inputs[0].producer()
    if expand is None or expand.domain or expand.op_type != "Expand":
        return None
    behind = _expanded_axis(expand)
    if not behind or not _is_known(node.outputs[0]):
        return None
    spread, merged = list(node.inputs[0].shape), list(node.outputs[0].shape)
    times = spread[behind]
    together = [*spread[: behind - 1], spread[behind - 1] * times, *spread[behind + 1 :]]
    if not isinstance(times, int) or merged != together:
        return None
    source, before = expand.inputs[0], expand.inputs[0].producer()
    if before is not None and not before.domain and before.op_type == "Unsqueeze":
        axes = constant(before.inputs[1])
        if axes is not None and axes.tolist() == [behind]:
            return _Repetition(before.inputs[0], None, behind - 1, times)
    return _Repetition(source, behind, behind - 1, times)


def _expanded_axis(expand: Any) -> int | None:
    """The one axis along which an Expand repeats; None where there are several, or new ones."""
    source, result = expand.inputs[0].shape, expand.outputs[0].shape
    if not (_is_known(expand.inputs[0]) and _is_known(expand.outputs[0])) or len(source) != len(result):
        return None
    changed = [i for i, (old, new) in enumerate(zip(source, result, strict=True)) if old != new]
    return changed[0] if len(changed) == 1 and source[changed[0]] == 1 else None


def _of_gather(node: Any) -> _Repetition | None:
    """An index of 0, 0, 1, 1, ... along an axis."""
    source, places = node.inputs[0], constant(node.inputs[1], _INDEX_LIMIT)
    if places is None or not _is_known(source):
        return None
    axis = attribute(node, "axis", 0) % len(source.shape)
    count = source.shape[axis]
    if places.ndim != 1 or not isinstance(count, int) or not count or places.size % count or places.size == count:
        return None
    times = places.size // count
    in_order = np.array_equal(places, np.repeat(np.arange(count), times))
    return _Repetition(source, None, axis, times) if in_order else None


_BASES = {"Expand": _of_expand, "Reshape": _of_reshape, "Gather": _of_gather}
