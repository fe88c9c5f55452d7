"""Cumulative operations: CumSum where ONNX has it, a Scan along the axis for the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor, translation
from onnxport.authoring import may_be_zero

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16)
_NARROW = (DataType.FLOAT16, DataType.BFLOAT16)
_CUMSUM_KERNELS = (*_FLOATS, DataType.INT32, DataType.INT64)
_LOWEST = {
    DataType.INT64: (-(2**63), 2**63 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT8: (-128, 127),
    DataType.UINT8: (0, 255),
}


def is_trivial(x: Tensor) -> bool:
    """Nothing accumulates: a 0-d or an empty tensor."""
    return not len(x.shape) or any(dim == 0 for dim in x.shape)


def scan(op: Any, x: Tensor, axis: int, states: Sequence[Tensor], step: Callable[..., Any], outputs: int) -> Any:
    """Run ``step(*states, slice) -> (*states, *outputs)`` along ``axis``; the stacked outputs.

    Args:
        states: initial values; their shapes and types stay the same.
        outputs: how many results ``step`` gives behind the new states.
    """
    slice_shape = [dim for i, dim in enumerate(x.shape) if i != axis]
    padded = may_be_zero(x.shape[axis])  # onnxruntime 1.32 has no Scan over nothing
    if padded:
        x = op.Concat(x, op.Unsqueeze(initial(op, x, axis, 0, x.dtype), [axis]), axis=axis)
    inputs = [(state.dtype, state.shape) for state in states] + [(x.dtype, slice_shape)]
    body = op.subgraph(step, inputs)
    results = op.Scan(
        *states, x, body=body, num_scan_inputs=1, scan_input_axes=[axis], scan_output_axes=[axis] * outputs
    )
    found = results[len(states) :]
    return [op.Slice(result, [0], [-1], [axis]) for result in found] if padded else found


def initial(op: Any, x: Tensor, axis: int, value: float, dtype: DataType) -> Tensor:
    """A state of the shape of one slice along ``axis``."""
    shape = [dim for i, dim in enumerate(x.shape) if i != axis]
    state = op.Expand(op.const(value, dtype), shape) if shape else op.const(value, dtype)
    state.shape = type(x.shape)(shape)
    return state


@translation("aten::cumsum")
def cumsum(op: Any, self: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    out = op.result.dtype
    x = op.cast(self, out)
    if is_trivial(x):
        return x
    if out not in _CUMSUM_KERNELS:
        x = op.cast(x, DataType.INT64)
    return op.cast(op.CumSum(x, op.const(dim % len(self.shape), DataType.INT64)), out)


@translation("aten::cumprod")
def cumprod(op: Any, self: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    out = op.result.dtype
    x = op.cast(self, out)
    if is_trivial(x):
        return x
    if out in _NARROW:
        x = op.cast(x, DataType.FLOAT)
    elif out not in _CUMSUM_KERNELS:
        x = op.cast(x, DataType.INT64)
    axis = dim % len(self.shape)

    def step(product: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        product = op.Mul(product, item)
        return product, product

    return op.cast(scan(op, x, axis, [initial(op, x, axis, 1, x.dtype)], step, 1)[0], out)


def running_extremum(op: Any, self: Tensor, dim: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    """Values and indices of cummax and cummin: of equal values the latest counts, and NaN stays."""
    if is_trivial(self):
        zeros = op.Expand(op.const(0, DataType.INT64), list(self.shape)) if len(self.shape) else op.const(0)
        return self, zeros
    axis = dim % len(self.shape)
    x = self
    floating = x.dtype in _FLOATS
    if not floating and x.dtype not in _LOWEST:
        x = op.cast(x, DataType.INT32)
    if x.dtype is DataType.BFLOAT16:
        x = op.cast(x, DataType.FLOAT)
    worst: float = (-math.inf if largest else math.inf) if floating else _LOWEST[x.dtype][0 if largest else 1]

    def step(best: Tensor, where: Tensor, position: Tensor, item: Tensor) -> tuple[Tensor, ...]:
        better = (op.GreaterOrEqual if largest else op.LessOrEqual)(item, best)
        if floating:
            better = op.Or(better, op.IsNaN(item))  # a NaN held so far compares false with all that follow
        best = op.Where(better, item, best)
        where = op.Where(better, position, where)
        return best, where, op.Add(position, 1), best, where

    states = [
        initial(op, x, axis, worst, x.dtype),
        initial(op, x, axis, 0, DataType.INT64),
        op.const(0, DataType.INT64),
    ]
    values, indices = scan(op, x, axis, states, step, 2)
    return op.cast(values, self.dtype), indices


@translation("aten::cummax")
def cummax(op: Any, self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return running_extremum(op, self, dim, largest=True)


@translation("aten::cummin")
def cummin(op: Any, self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return running_extremum(op, self, dim, largest=False)


@translation("aten::logcumsumexp", "aten::_logcumsumexp")
def logcumsumexp(op: Any, self: Tensor, dim: int) -> Tensor:
    out = op.result.dtype
    x = op.cast(self, DataType.FLOAT if out in _NARROW else out)
    if is_trivial(x):
        return op.cast(x, out)
    axis = dim % len(self.shape)

    def step(total: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        high = op.Max(total, item)
        gap = op.Sub(op.Min(total, item), high)
        grown = op.Add(high, op.Log(op.Add(op.Exp(gap), 1.0)))
        total = op.Where(op.IsNaN(gap), high, grown)  # two equal infinities, or a NaN, which Max keeps
        return total, total

    return op.cast(scan(op, x, axis, [initial(op, x, axis, -math.inf, x.dtype)], step, 1)[0], out)
