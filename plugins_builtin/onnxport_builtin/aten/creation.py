"""Tensors from nothing but sizes and numbers.

What is static and small is computed by torch itself and written as a constant, so that every rounding is torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import Dim, filled, iota

if TYPE_CHECKING:
    from onnxport import Builder

_CONSTANT_ELEMENTS = 1024


@translation("aten::full")
def full(op: Builder, size: list[Dim], fill_value: Any, **_: Any) -> Tensor:
    return filled(op, list(op.result.shape), fill_value, op.result.dtype)


@translation("aten::full_like")
def full_like(op: Builder, self: Tensor, fill_value: Any, **_: Any) -> Tensor:
    return filled(op, list(op.result.shape), fill_value, op.result.dtype)


@translation("aten::new_full")
def new_full(op: Builder, self: Tensor, size: list[Dim], fill_value: Any, **_: Any) -> Tensor:
    return filled(op, list(op.result.shape), fill_value, op.result.dtype)


@translation(
    "aten::zeros",
    "aten::empty.memory_format",
    "aten::empty_strided",
    "aten::empty_permuted",
    "aten::zeros_like",
    "aten::empty_like",
    "aten::new_zeros",
    "aten::new_empty",
    "aten::new_empty_strided",
)
def zeros(op: Builder, **_: Any) -> Tensor:
    """Zeros; memory that torch leaves uninitialized is zero too."""
    return filled(op, list(op.result.shape), 0, op.result.dtype)


@translation("aten::ones", "aten::ones_like", "aten::new_ones")
def ones(op: Builder, **_: Any) -> Tensor:
    return filled(op, list(op.result.shape), 1, op.result.dtype)


@translation("aten::scalar_tensor")
def scalar_tensor(op: Builder, s: Any, **_: Any) -> Tensor:
    return op.cast(s, op.result.dtype)


@translation("aten::tensor.bool", "aten::tensor.int", "aten::tensor.float")
def tensor(op: Builder, t: Any, **_: Any) -> Tensor:
    return op.cast(t, op.result.dtype)


# ---- sequences


def _computed(op: Builder, function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """What torch gives for a creation function of numbers, as a constant of the expected dtype."""
    fake = op.node.meta["val"]
    return op.const(function(*args, dtype=fake.dtype, **kwargs))


def _sequence(op: Builder, start: Any, end: Any, step: Any) -> Tensor:
    """`arange`: `start + i * step`, in float64 for float results, as torch computes it."""
    dtype = op.result.dtype
    count = op.result.shape[0]
    numbers = not any(isinstance(v, (Size, Tensor)) for v in (start, end, step))
    is_integer = dtype.is_integer() and all(_is_integral(v) for v in (start, end, step))
    if numbers and isinstance(count, int) and (count <= _CONSTANT_ELEMENTS or not is_integer):
        return _computed(op, torch.arange, start, end, step)
    if is_integer:
        # onnxruntime has Range for int16, int32, int64
        work = dtype if dtype in (DataType.INT32, DataType.INT64) else DataType.INT64
        return op.cast(op.Range(*(op.cast(v, work) for v in (start, end, step))), dtype)
    index = op.cast(iota(op, count), DataType.DOUBLE)
    if step != 1:
        index = op.Mul(index, op.cast(step, DataType.DOUBLE))
    if start != 0:
        index = op.Add(index, op.cast(start, DataType.DOUBLE))
    return op.cast(index, dtype)


def _is_integral(value: Any) -> bool:
    if isinstance(value, Size):
        return value.expr.is_integer is True
    return isinstance(value, int)


@translation("aten::arange")
def arange(op: Builder, end: Any, **_: Any) -> Tensor:
    return _sequence(op, 0, end, 1)


@translation("aten::arange.start")
def arange_start(op: Builder, start: Any, end: Any, **_: Any) -> Tensor:
    return _sequence(op, start, end, 1)


@translation("aten::arange.start_step")
def arange_step(op: Builder, start: Any, end: Any, step: Any = 1, **_: Any) -> Tensor:
    return _sequence(op, start, end, step)


@translation("aten::range", "aten::range.step")
def range_(op: Builder, start: Any, end: Any, step: Any = 1, **_: Any) -> Tensor:
    if any(isinstance(v, Size) for v in (start, end, step)):
        raise Unsupported("range with symbolic bounds")
    count = op.result.shape[0]
    index = torch.arange(count, dtype=torch.float64) * step + start
    return op.const(index.to(op.node.meta["val"].dtype))


def _weights(op: Builder, start: Any, end: Any, steps: int, work: DataType) -> Tensor:
    """`linspace` of 0-d tensors: from both ends towards the middle, as torch does."""
    low, high = op.cast(start, work), op.cast(end, work)
    if steps == 1:
        return op.Reshape(low, [1])
    index = np.arange(steps)
    half = index < steps // 2
    step = op.Div(op.Sub(high, low), op.const(steps - 1, work))
    from_low = op.Add(low, op.Mul(step, op.const(index, work)))
    from_high = op.Sub(high, op.Mul(step, op.const(steps - 1 - index, work)))
    return op.Where(op.const(half), from_low, from_high)


@translation(
    "aten::linspace", "aten::linspace.Tensor_Tensor", "aten::linspace.Tensor_Scalar", "aten::linspace.Scalar_Tensor"
)
def linspace(op: Builder, start: Any, end: Any, steps: int, **_: Any) -> Tensor:
    if not any(isinstance(v, (Size, Tensor)) for v in (start, end)):
        return _computed(op, torch.linspace, start, end, steps)
    dtype = op.result.dtype
    if steps == 0:
        return filled(op, [0], 0, dtype)
    if dtype.is_integer():  # torch truncates both ends, then counts in float64 there and back
        start, end = op.cast(start, dtype), op.cast(end, dtype)
        return op.cast(_weights(op, start, end, steps, DataType.DOUBLE), dtype)
    return op.cast(_weights(op, start, end, steps, _precise(dtype)), dtype)


def _precise(dtype: DataType) -> DataType:
    """The type to compute in: the dtype itself, float32 for the half types."""
    return dtype if dtype == DataType.DOUBLE else DataType.FLOAT


@translation(
    "aten::logspace", "aten::logspace.Tensor_Tensor", "aten::logspace.Tensor_Scalar", "aten::logspace.Scalar_Tensor"
)
def logspace(op: Builder, start: Any, end: Any, steps: int, base: float = 10.0, **_: Any) -> Tensor:
    if not any(isinstance(v, (Size, Tensor)) for v in (start, end)):
        return _computed(op, torch.logspace, start, end, steps, base)
    dtype = op.result.dtype
    if steps == 0:
        return filled(op, [0], 0, dtype)
    work = DataType.DOUBLE if dtype.is_integer() else _precise(dtype)
    if dtype.is_integer():
        start, end = op.cast(start, dtype), op.cast(end, dtype)
    return op.cast(op.Pow(op.const(base, work), _weights(op, start, end, steps, work)), dtype)


@translation("aten::eye")
def eye(op: Builder, n: Dim, **_: Any) -> Tensor:
    return _eye(op, n, n)


@translation("aten::eye.m")
def eye_m(op: Builder, n: Dim, m: Dim, **_: Any) -> Tensor:
    return _eye(op, n, m)


def _eye(op: Builder, rows: Dim, columns: Dim) -> Tensor:
    dtype = op.result.dtype
    if isinstance(rows, int) and isinstance(columns, int) and rows * columns <= _CONSTANT_ELEMENTS:
        return op.const(np.eye(rows, columns), dtype)
    # onnxruntime 1.32 has EyeLike for these
    kernel = dtype in (DataType.FLOAT, DataType.DOUBLE, DataType.INT64, DataType.INT32)
    work = dtype if kernel else DataType.INT32
    like = op.ConstantOfShape(op.sizes([rows, columns]), value=ir.tensor(np.zeros(1, np.int32)))
    return op.cast(op.EyeLike(like, dtype=work), dtype)


@translation("aten::tril_indices")
def tril_indices(op: Builder, row: int, col: int, offset: int = 0, **_: Any) -> Tensor:
    return _computed(op, torch.tril_indices, row, col, offset)


@translation("aten::triu_indices")
def triu_indices(op: Builder, row: int, col: int, offset: int = 0, **_: Any) -> Tensor:
    return _computed(op, torch.triu_indices, row, col, offset)


@translation("onnxport::triangle_indices")
def triangle_indices(op: Builder, row: Dim, col: Dim, offset: Dim, lower: bool, dtype: Any) -> Tensor:
    """Rows and columns of the elements of a triangle whose size is dynamic, row by row."""
    rows = op.Unsqueeze(op.Range(0, row, 1), [1])
    columns = op.Unsqueeze(op.Range(0, col, 1), [0])
    edge = op.Add(rows, op.tensor(offset, DataType.INT64))
    mask = op.LessOrEqual(columns, edge) if lower else op.GreaterOrEqual(columns, edge)
    return op.cast(op.NonZero(mask), op.result.dtype)


# ---- windows


@translation("aten::hann_window", "aten::hann_window.periodic")
def hann_window(op: Builder, window_length: int, periodic: bool = True, **_: Any) -> Tensor:
    return _computed(op, torch.hann_window, window_length, periodic)


@translation(
    "aten::hamming_window",
    "aten::hamming_window.periodic",
    "aten::hamming_window.periodic_alpha",
    "aten::hamming_window.periodic_alpha_beta",
)
def hamming_window(
    op: Builder, window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, **_: Any
) -> Tensor:
    return _computed(op, torch.hamming_window, window_length, periodic, alpha, beta)


@translation("aten::bartlett_window", "aten::bartlett_window.periodic")
def bartlett_window(op: Builder, window_length: int, periodic: bool = True, **_: Any) -> Tensor:
    return _computed(op, torch.bartlett_window, window_length, periodic)


@translation("aten::blackman_window", "aten::blackman_window.periodic")
def blackman_window(op: Builder, window_length: int, periodic: bool = True, **_: Any) -> Tensor:
    return _computed(op, torch.blackman_window, window_length, periodic)


@translation("aten::kaiser_window", "aten::kaiser_window.periodic", "aten::kaiser_window.beta")
def kaiser_window(op: Builder, window_length: int, periodic: bool = True, beta: float = 12.0, **_: Any) -> Tensor:
    return _computed(op, torch.kaiser_window, window_length, periodic, beta)


@translation("aten::one_hot")
def one_hot(op: Builder, self: Tensor, num_classes: int = -1) -> Tensor:
    if not self.shape:  # ONNX's indices have an axis
        return op.Reshape(one_hot(op, op.Reshape(self, [1]), num_classes), [-1])
    depth: Dim = num_classes if num_classes >= 0 else op.result.shape[-1]
    if any(d == 0 for d in op.result.shape):
        return filled(op, list(op.result.shape), 0, op.result.dtype)
    if isinstance(depth, Size):
        depth_tensor = op.Add(op.ReduceMax(self, keepdims=0), 1)
        return op.OneHot(self, depth_tensor, op.const([0, 1], DataType.INT64), axis=-1)
    return op.OneHot(self, op.const(depth, DataType.INT64), op.const([0, 1], DataType.INT64), axis=-1)
