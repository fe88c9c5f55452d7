"""Fake quantization: values rounded to a grid of integers and back, as QuantizeLinear and DequantizeLinear.

A weight that is rounded so is stored as its integers, followed by DequantizeLinear alone.
"""

from __future__ import annotations

from typing import Any

import torch
from onnxport import Builder, DataType, Tensor, Unsupported, translation

from onnxport_builtin.affine import QUANTIZED, RANGES, as_integers, dequantize, quantize, reshaped, row_scale

_OBSERVED = "the observer is on: call model.apply(torch.ao.quantization.disable_observer) before the export"


@translation("aten::fake_quantize_per_tensor_affine")
def per_tensor(op: Builder, self: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Tensor:
    """``(clamp(round(self / scale) + zero_point, quant_min, quant_max) - zero_point) * scale``; NaN to the least."""
    return fake_quantize(op, self, scale, zero_point, quant_min, quant_max)


@translation("aten::fake_quantize_per_tensor_affine.tensor_qparams")
def per_tensor_tensor(
    op: Builder, self: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int
) -> Tensor:
    return fake_quantize(op, self, reshaped(op, scale, []), reshaped(op, zero_point, []), quant_min, quant_max)


@translation("aten::fake_quantize_per_tensor_affine_cachemask")
def per_tensor_mask(
    op: Builder, self: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int
) -> tuple[Tensor, Tensor]:
    """The result, and where the values are within the range."""
    result = fake_quantize(op, self, scale, zero_point, quant_min, quant_max)
    return result, _within(op, self, scale, zero_point, quant_min, quant_max)


@translation("aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def per_tensor_tensor_mask(
    op: Builder,
    self: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    fake_quant_enabled: Tensor,
    quant_min: int,
    quant_max: int,
) -> tuple[Tensor, Tensor]:
    if not _flag(fake_quant_enabled, "fake_quant_enabled"):
        return self, op.Equal(self, self)
    scale, zero_point = reshaped(op, scale, []), reshaped(op, zero_point, [])
    result = fake_quantize(op, self, scale, zero_point, quant_min, quant_max)
    return result, _within(op, self, scale, zero_point, quant_min, quant_max)


@translation("aten::fake_quantize_per_channel_affine")
def per_channel(
    op: Builder, self: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """The same, with a scale and a zero point for each index along an axis."""
    return fake_quantize(op, self, scale, zero_point, quant_min, quant_max, axis % op.rank(self))


@translation("aten::fake_quantize_per_channel_affine_cachemask")
def per_channel_mask(
    op: Builder, self: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> tuple[Tensor, Tensor]:
    axis %= op.rank(self)
    result = fake_quantize(op, self, scale, zero_point, quant_min, quant_max, axis)
    return result, _within(op, self, scale, zero_point, quant_min, quant_max, axis)


@translation("aten::_fake_quantize_learnable_per_tensor_affine")
def learnable_per_tensor(
    op: Builder,
    self: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    grad_factor: float = 1.0,
) -> Tensor:
    """With a zero point that is learnt, and so rounded and clamped first."""
    zero = reshaped(op, _learnt(op, zero_point, quant_min, quant_max), [])
    return fake_quantize(op, self, reshaped(op, scale, []), zero, quant_min, quant_max)


@translation("aten::_fake_quantize_learnable_per_channel_affine")
def learnable_per_channel(
    op: Builder,
    self: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    grad_factor: float = 1.0,
) -> Tensor:
    zero = _learnt(op, zero_point, quant_min, quant_max)
    return fake_quantize(op, self, scale, zero, quant_min, quant_max, axis % op.rank(self))


@translation("aten::_fused_moving_avg_obs_fq_helper_functional")
def moving_average(
    op: Builder,
    self: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    running_min: Tensor,
    running_max: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> tuple[Tensor, ...]:
    """A module's fake quantization with its observer off: the statistics and the scale stay as they are."""
    if _flag(observer_on, "observer_on"):
        raise Unsupported(_OBSERVED)
    if not _flag(fake_quant_on, "fake_quant_on"):
        return self, op.Equal(self, self), running_min, running_max, scale, zero_point
    axis = ch_axis % op.rank(self) if per_row_fake_quant else None
    step, zero = (scale, zero_point) if per_row_fake_quant else (reshaped(op, scale, []), reshaped(op, zero_point, []))
    result = fake_quantize(op, self, step, zero, quant_min, quant_max, axis)
    mask = _within(op, self, step, zero, quant_min, quant_max, axis)
    return result, mask, running_min, running_max, scale, zero_point


def fake_quantize(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, low: int, high: int, axis: int | None = None
) -> Tensor:
    """Round to the integers from ``low`` to ``high`` and back; the element type stays.

    Args:
        scale: a number, or a tensor of rank 0, or of rank 1 with ``axis``.
        zero_point: as the scale.
    """
    dtype = _type_of(op, low, high)
    whole = not isinstance(zero_point, Tensor) or not zero_point.dtype.is_floating_point()
    if dtype is None or not whole:
        return _by_arithmetic(op, real, scale, zero_point, low, high, axis, whole)
    stored = _stored(op, real, scale, zero_point, dtype, low, high, axis)
    if stored is None:
        stored = quantize(op, real, scale, zero_point, dtype, low, high, axis)
    return dequantize(op, stored, scale, zero_point, real.dtype, axis=axis)


def _type_of(op: Builder, low: int, high: int) -> DataType | None:
    """The type whose range this is, else the narrowest that holds it; None where the opset has none."""
    usable = [dtype for dtype in RANGES if QUANTIZED.get(dtype, 99) <= op.opset]
    exact = [dtype for dtype in usable if RANGES[dtype] == (low, high)]
    holding = [d for d in usable if d.bitwidth >= 8 and RANGES[d][0] <= low and high <= RANGES[d][1]]
    return next(iter(exact or sorted(holding, key=lambda d: (d.bitwidth, RANGES[d][0] != low))), None)


def _stored(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, dtype: DataType, low: int, high: int, axis: int | None
) -> Tensor | None:
    """The integers of a weight; None where it isn't one."""
    if real.const_value is None:
        return None
    step = scale if isinstance(scale, Tensor) else op.const(torch.tensor(scale))
    zero = zero_point if isinstance(zero_point, Tensor) else op.const(torch.tensor(zero_point))
    convert = as_integers(dtype)

    def integers(weight: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        weight, step, zero = weight.float(), step.float(), zero.to(torch.int32)
        if axis is None:
            rounded = torch.fake_quantize_per_tensor_affine(weight, step, zero, low, high)
        else:
            rounded = torch.fake_quantize_per_channel_affine(weight, step, zero, axis, low, high)
            shape = [-1 if i == axis else 1 for i in range(weight.dim())]
            step, zero = step.reshape(shape), zero.reshape(shape)
        return convert(torch.round(rounded / step) + zero)

    return op.derived(dtype.name.lower(), integers, real, step, zero)


def _by_arithmetic(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, low: int, high: int, axis: int | None, whole: bool
) -> Tensor:
    step, zero = _operand(op, scale, real, axis), _operand(op, zero_point, real, axis)
    grid = op.Clip(_on_grid(op, real, step, zero, whole), float(low), float(high))
    grid = op.Where(op.IsNaN(grid), float(low), grid)
    return op.cast(op.Mul(op.Sub(grid, zero), step), real.dtype)


def _within(
    op: Builder, real: Tensor, scale: Any, zero_point: Any, low: int, high: int, axis: int | None = None
) -> Tensor:
    whole = not isinstance(zero_point, Tensor) or not zero_point.dtype.is_floating_point()
    grid = _on_grid(op, real, _operand(op, scale, real, axis), _operand(op, zero_point, real, axis), whole)
    return op.And(op.GreaterOrEqual(grid, float(low)), op.LessOrEqual(grid, float(high)))


def _on_grid(op: Builder, real: Tensor, step: Tensor, zero: Tensor, whole: bool) -> Tensor:
    """The rounded values before they are clamped; a zero point that isn't whole is added before rounding."""
    scaled = op.Mul(op.cast(real, DataType.FLOAT), op.Reciprocal(step))
    return op.Add(op.Round(scaled), zero) if whole else op.Round(op.Add(scaled, zero))


def _operand(op: Builder, value: Any, real: Tensor, axis: int | None) -> Tensor:
    tensor = op.cast(value, DataType.FLOAT)
    return tensor if axis is None else row_scale(op, tensor, op.rank(real), axis)


def _learnt(op: Builder, zero_point: Tensor, low: int, high: int) -> Tensor:
    stored = op.derived("int32", lambda zero: zero.round().clamp(low, high).to(torch.int32), zero_point)
    if stored is not None:
        return stored
    return op.cast(op.Clip(op.Round(op.cast(zero_point, DataType.FLOAT)), float(low), float(high)), DataType.INT32)


def _flag(value: Tensor, name: str) -> bool:
    """A switch of a fake-quantization module.

    Raises:
        Unsupported: it isn't known at export time.
    """
    data: Any = value.const_value
    if data is None or not getattr(data, "has_data", True):
        raise Unsupported(f"{name} isn't known at export time")
    return bool(data.numpy().reshape(-1)[0])
