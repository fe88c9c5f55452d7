"""The operators of ``torchao``: affine quantization in blocks of any shape, and float8."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from onnxport import Builder, DataType, Tensor, Unsupported, onnx_dtype, translation

from onnxport_builtin.affine import RANGES, dequantize, in_blocks, quantize


@translation("torchao::quantize_affine")
def quantize_affine(
    op: Builder,
    input: Tensor,
    block_size: Sequence[Any],
    scale: Tensor,
    zero_point: Tensor | None,
    output_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
) -> Tensor:
    """``clamp(round(input / scale) + zero_point, quant_min, quant_max)``; each block has its scale."""
    low, high = _range(output_dtype, quant_min, quant_max)
    target = op.result.dtype

    def function(real: Tensor, step: Any, zero: Any, *where: Any) -> Tensor:
        return quantize(op, real, step, zero, target, low, high, *where)

    return in_blocks(op, function, input, block_size, scale, _present(zero_point))


@translation("torchao::dequantize_affine")
def dequantize_affine(
    op: Builder,
    input: Tensor,
    block_size: Sequence[Any],
    scale: Tensor,
    zero_point: Tensor | None,
    input_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``(input - zero_point) * scale``; the range is only said, not applied."""
    low, high = _range(input_dtype, quant_min, quant_max)

    def function(integer: Tensor, step: Any, zero: Any, *where: Any) -> Tensor:
        return dequantize(op, integer, step, zero, op.result.dtype, low, high, *where)

    return in_blocks(op, function, input, block_size, scale, _present(zero_point))


@translation("torchao::choose_qparams_affine")
def choose_qparams_affine(
    op: Builder,
    input: Tensor,
    mapping_type: str,
    block_size: Sequence[Any],
    target_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
    eps: float | None = None,
    scale_dtype: torch.dtype | None = None,
    zero_point_dtype: torch.dtype | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """A scale and a zero point for each block, from its least and greatest value."""
    low, high = _range(target_dtype, quant_min, quant_max)
    floor = float(torch.finfo(_TORCH_FLOATS[input.dtype]).smallest_normal if eps is None else eps)
    real, axes = _blocked(op, op.cast(input, DataType.FLOAT), block_size)
    least = op.Min(op.ReduceMin(real, axes, keepdims=int(keepdim)) if axes else real, 0.0)
    most = op.Max(op.ReduceMax(real, axes, keepdims=int(keepdim)) if axes else real, 0.0)
    if mapping_type == "ASYMMETRIC":
        scale = op.Max(op.Div(op.Sub(most, least), float(high - low)), floor)
        zero = op.Clip(op.Sub(float(low), op.Round(op.Div(least, scale))), float(low), float(high))
    elif mapping_type in ("SYMMETRIC", "SYMMETRIC_NO_CLIPPING_ERR"):
        if mapping_type == "SYMMETRIC":
            scale = op.Div(op.Max(op.Neg(least), most), (high - low) / 2)
        else:
            scale = op.Max(op.Div(least, float(low)), op.Div(most, float(high)))
        scale = op.Max(scale, floor)
        middle = int((high + low + 1) / 2)
        zero = op.Expand(op.const(middle, op.results[1].dtype), op.Shape(scale))
    else:
        raise Unsupported(f"mapping type {mapping_type}")
    return _result(op, scale, 0), _result(op, zero, 1)


@translation("torchao::choose_scale_float8")
def choose_scale_float8(
    op: Builder,
    tensor: Tensor,
    block_size: Sequence[Any],
    float8_dtype: torch.dtype = torch.float8_e4m3fn,
    scale_dtype: torch.dtype = torch.float32,
    hp_value_lb: float | None = None,
    hp_value_ub: float | None = None,
) -> Tensor:
    """The greatest absolute value of each block over the greatest float8."""
    if scale_dtype is not torch.float32:
        raise Unsupported(f"scales of {scale_dtype}")
    real, axes = _blocked(op, op.Abs(op.cast(tensor, DataType.FLOAT)), block_size)
    most = op.ReduceMax(real, axes, keepdims=1) if axes else real
    if hp_value_lb is not None:
        most = op.Max(most, float(hp_value_lb))
    if hp_value_ub is not None:
        most = op.Min(most, float(hp_value_ub))
    return _result(op, op.Div(most, torch.finfo(float8_dtype).max), 0)


@translation("torchao::quantize_affine_float8_non_decomposed")
def quantize_affine_float8(
    op: Builder, tensor: Tensor, scale: Tensor, float8_dtype: torch.dtype = torch.float8_e4m3fn
) -> Tensor:
    """``tensor / scale`` as float8, values beyond its range at its ends."""
    target = onnx_dtype(float8_dtype)
    most = torch.finfo(float8_dtype).max
    function = functools.partial(_to_float8, op, target)
    if target is DataType.FLOAT8E4M3FN:
        return in_blocks(op, function, tensor, _blocks_of(op, tensor, scale), scale, None)
    return op.cast(op.Clip(op.Div(op.cast(tensor, DataType.FLOAT), scale), -most, most), target)


@translation("torchao::dequantize_affine_float8_non_decomposed")
def dequantize_affine_float8(
    op: Builder, tensor: Tensor, scale: Tensor, output_dtype: torch.dtype = torch.float32
) -> Tensor:
    def function(value: Tensor, step: Any, zero: Any, *where: Any) -> Tensor:
        return dequantize(op, value, step, None, op.result.dtype, None, None, *where)

    return in_blocks(op, function, tensor, _blocks_of(op, tensor, scale), scale, None)


_TORCH_FLOATS = {DataType.FLOAT: torch.float32, DataType.FLOAT16: torch.float16, DataType.BFLOAT16: torch.bfloat16}


def _range(dtype: torch.dtype, low: Any, high: Any) -> tuple[Any, Any]:
    """The range that is given, with the dtype's own ends where it isn't."""
    own = RANGES.get(onnx_dtype(dtype)) if low is None or high is None else (low, high)
    if own is None:
        raise Unsupported(f"affine quantization to {dtype}")
    return own[0] if low is None else low, own[1] if high is None else high


def _present(zero_point: Tensor | None) -> Tensor | None:
    """An empty tensor stands for no zero point."""
    return None if zero_point is None or list(zero_point.shape) == [0] else zero_point


def _blocked(op: Builder, value: Tensor, blocks: Sequence[Any]) -> tuple[Tensor, list[int]]:
    """The value with an axis for the inside of each block, and the axes to reduce."""
    shape: list[Any] = []
    axes: list[int] = []
    for size, block in zip(value.shape, blocks, strict=True):
        if size == block or block == 1:
            shape.append(size)
            if block != 1:
                axes.append(len(shape) - 1)
        else:
            shape += [size // block, block]
            axes.append(len(shape) - 1)
    return (value if len(shape) == len(value.shape) else op.Reshape(value, op.sizes(shape))), axes


def _blocks_of(op: Builder, value: Tensor, scale: Tensor) -> list[Any]:
    """The block that each number of a scale stands for, from the two shapes."""
    if all(size == 1 for size in scale.shape):
        return list(value.shape)
    if len(scale.shape) != len(value.shape):
        raise Unsupported("a scale of another rank than the tensor")
    return [size // count if count != size else 1 for size, count in zip(value.shape, scale.shape)]


def _to_float8(op: Builder, target: DataType, real: Tensor, scale: Any, zero: Any, *where: Any) -> Tensor:
    return quantize(op, real, scale, zero, target, None, None, *where)


def _result(op: Builder, value: Tensor, index: int) -> Tensor:
    """The value in the element type and shape that the operator's result has."""
    wanted = op.results[index]
    value = op.cast(value, wanted.dtype)
    if value.shape is not None and len(value.shape) == len(wanted.shape):
        return value
    return op.Reshape(value, op.sizes(list(wanted.shape)))
