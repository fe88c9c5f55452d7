"""``quantized_decomposed``: what models converted by PT2E quantization are made of."""

from __future__ import annotations

import functools
from typing import Any

import torch
from onnxport import Builder, DataType, Tensor, Unsupported, onnx_dtype, translation

from onnxport_builtin.affine import RANGES, dequantize, in_blocks, quantize, reshaped, rounded, row_scale


@translation("quantized_decomposed::quantize_per_tensor")
def quantize_per_tensor(
    op: Builder, input: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    """``clamp(round(input / scale) + zero_point, quant_min, quant_max)``."""
    return _quantize(op, input, scale, zero_point, quant_min, quant_max, dtype)


@translation("quantized_decomposed::quantize_per_tensor.tensor", "quantized_decomposed::quantize_per_tensor.tensor2")
def quantize_per_tensor_tensor(
    op: Builder, input: Tensor, scale: Tensor, zero_point: Tensor, quant_min: Any, quant_max: Any, dtype: torch.dtype
) -> Tensor:
    """The same, with a scale and a zero point of one element."""
    return _quantize(
        op,
        input,
        reshaped(op, scale, []),
        reshaped(op, zero_point, []),
        _number(quant_min),
        _number(quant_max),
        dtype,
    )


@translation("quantized_decomposed::quantize_per_channel")
def quantize_per_channel(
    op: Builder,
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> Tensor:
    return _quantize(op, input, scales, zero_points, quant_min, quant_max, dtype, axis % op.rank(input))


@translation("quantized_decomposed::quantize_per_channel_group")
def quantize_per_channel_group(
    op: Builder,
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    group_size: int,
) -> Tensor:
    """Each ``group_size`` neighbours of a row (N, K) share one of the scales (N, K / group_size)."""
    function = functools.partial(_in_block, _quantize, op, quant_min, quant_max, dtype)
    return in_blocks(op, function, input, _group(op, input, scales, group_size), scales, zero_points)


@translation("quantized_decomposed::quantize_per_token")
def quantize_per_token(
    op: Builder, input: Tensor, scales: Tensor, zero_points: Tensor, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    """Each row along the last axis has a scale; they are (..., 1)."""
    function = functools.partial(_in_block, _quantize, op, quant_min, quant_max, dtype)
    return in_blocks(op, function, input, _row(input), scales, _whole(op, zero_points, RANGES[onnx_dtype(dtype)]))


@translation("quantized_decomposed::dequantize_per_tensor")
def dequantize_per_tensor(
    op: Builder,
    input: Tensor,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``(input - zero_point) * scale``; the range is only said, not applied."""
    return dequantize(op, input, scale, zero_point, op.result.dtype, quant_min, quant_max)


@translation(
    "quantized_decomposed::dequantize_per_tensor.tensor", "quantized_decomposed::dequantize_per_tensor.tensor2"
)
def dequantize_per_tensor_tensor(
    op: Builder,
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: Any,
    quant_max: Any,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    return dequantize(op, input, reshaped(op, scale, []), reshaped(op, zero_point, []), op.result.dtype)


@translation("quantized_decomposed::dequantize_per_channel")
def dequantize_per_channel(
    op: Builder,
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    axis %= op.rank(input)
    if zero_points is not None and zero_points.dtype.is_floating_point():
        try:
            zero_points = _whole(op, zero_points, RANGES[input.dtype])
        except Unsupported:
            step, zero = (
                row_scale(op, op.cast(v, DataType.FLOAT), op.rank(input), axis) for v in (scales, zero_points)
            )
            return op.cast(op.Mul(op.Sub(op.cast(input, DataType.FLOAT), zero), step), op.result.dtype)
    return dequantize(op, input, scales, zero_points, op.result.dtype, quant_min, quant_max, axis)


@translation("quantized_decomposed::dequantize_per_channel_group")
def dequantize_per_channel_group(
    op: Builder,
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    group_size: int,
    output_dtype: torch.dtype,
) -> Tensor:
    function = functools.partial(_out_of_block, op, op.result.dtype, quant_min, quant_max)
    zeros = None if zero_points is None else _whole(op, zero_points, RANGES[input.dtype])
    return in_blocks(op, function, input, _group(op, input, scales, group_size), scales, zeros)


@translation("quantized_decomposed::dequantize_per_token")
def dequantize_per_token(
    op: Builder,
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    output_dtype: torch.dtype,
) -> Tensor:
    function = functools.partial(_out_of_block, op, op.result.dtype, None, None)
    return in_blocks(op, function, input, _row(input), scales, _whole(op, zero_points, RANGES[input.dtype]))


@translation("quantized_decomposed::choose_qparams.tensor")
def choose_qparams(
    op: Builder, input: Tensor, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The scale and zero point that put the range of the values, widened to hold 0, on ``quant_min``...``quant_max``.

    Returns:
        A scale of shape (1,), float64, and a zero point of shape (1,), int64.
    """
    least, most = _range(op, input)
    scale = op.Max(op.Div(op.Sub(most, least), float(quant_max - quant_min)), float(eps))
    zero = op.Sub(float(quant_min), op.Round(op.Div(least, scale)))
    zero = op.Clip(zero, float(quant_min), float(quant_max))
    return _as_results(op, scale, zero)


@translation("quantized_decomposed::choose_qparams_symmetric.tensor")
def choose_qparams_symmetric(
    op: Builder, input: Tensor, quant_min: int, quant_max: int, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The scale that puts the greatest absolute value on the end of the range; the zero point is the middle."""
    least, most = _range(op, input)
    scale = op.Max(op.Div(op.Max(op.Neg(least), most), (quant_max - quant_min) / 2), float(eps))
    return _as_results(op, scale, op.const(128 if dtype is torch.uint8 else 0))


@translation("quantized_decomposed::choose_qparams_per_token")
def choose_qparams_per_token(op: Builder, input: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A scale for each row along the last axis, ``amax(abs(row)) / 127``, and zero points of 0."""
    if dtype is not torch.int8:
        raise Unsupported(f"rows quantized to {dtype}")
    real = op.cast(input, DataType.FLOAT)
    most = op.ReduceMax(op.Abs(real), [-1], keepdims=1)
    scale = op.Div(op.Max(most, 1e-5), 127.0)
    return _as_results(op, scale, op.Mul(scale, 0.0))


@translation(
    "quantized_decomposed::choose_qparams_per_token_asymmetric",
    "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl",
)
def choose_qparams_per_token_asymmetric(op: Builder, input: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A scale and a zero point for each row along the last axis, of int8 whatever ``dtype`` says."""
    low, high = -128.0, 127.0
    real = op.cast(input, DataType.FLOAT)
    least = op.Min(op.ReduceMin(real, [-1], keepdims=1), 0.0)
    most = op.Max(op.ReduceMax(real, [-1], keepdims=1), 0.0)
    scale = op.Max(op.Div(op.Sub(most, least), high - low), torch.finfo(torch.float32).eps)
    from_least, from_most = op.Div(least, scale), op.Div(most, scale)
    error = op.Add(op.Add(low, from_least), op.Add(high, from_most))
    zero = op.Where(op.Greater(error, 0.0), op.Sub(low, from_least), op.Sub(high, from_most))
    return _as_results(op, scale, op.Round(op.Clip(zero, low, high)))


@translation("quantized_decomposed::convert_element_type.no_fuse")
def convert_element_type(op: Builder, input: Tensor, dtype: torch.dtype) -> Tensor:
    return op.cast(input, dtype)


@translation(
    "aten::quantize_per_tensor",
    "aten::quantize_per_tensor.tensor_qparams",
    "aten::quantize_per_tensor_dynamic",
    "aten::quantize_per_channel",
    "aten::dequantize.self",
)
def quantized_tensor(op: Builder, **_: Any) -> Tensor:
    """Quantized tensors carry their scale within; ONNX has no such type."""
    raise Unsupported(
        "quantized tensors have no ONNX type: quantize with PT2E (torchao.quantization.pt2e), whose operators become "
        "QuantizeLinear and DequantizeLinear, or use torch.fake_quantize_per_tensor_affine"
    )


def _quantize(
    op: Builder,
    real: Tensor,
    scale: Any,
    zero_point: Any,
    low: float | None,
    high: float | None,
    dtype: torch.dtype,
    axis: int | None = None,
    block: int | None = None,
) -> Tensor:
    target = onnx_dtype(dtype)
    if target in RANGES:
        return quantize(op, real, scale, zero_point, target, low, high, axis, block)
    if not target.is_floating_point() or low is None or high is None or block is not None:
        raise Unsupported(f"quantized to {dtype}")
    # Whole numbers as float8: QuantizeLinear would keep the fractions.
    return op.cast(rounded(op, op.cast(real, DataType.FLOAT), scale, zero_point, low, high, axis), target)


def _in_block(
    function: Any, op: Builder, low: Any, high: Any, dtype: Any, real: Tensor, scale: Any, zero: Any, *where: Any
) -> Tensor:
    return function(op, real, scale, zero, low, high, dtype, *where)


def _out_of_block(
    op: Builder, out: DataType, low: Any, high: Any, integer: Tensor, scale: Any, zero: Any, *where: Any
) -> Tensor:
    return dequantize(op, integer, scale, zero, out, low, high, *where)


def _group(op: Builder, input: Tensor, scales: Tensor, group_size: int) -> list[Any]:
    """The block that a group is; one that is wider than the only group there is shrinks to it."""
    width = op.size(input, -1)
    if isinstance(width, int) and group_size > width and op.size(scales, -1) == 1:
        group_size = width
    return [1] * (op.rank(input) - 1) + [group_size]


def _row(input: Tensor) -> list[Any]:
    return [1] * (len(input.shape) - 1) + [input.shape[-1]]


def _whole(op: Builder, zero_points: Tensor, limits: tuple[int, int]) -> Tensor:
    """Zero points of a float dtype, which torch allows, as integers.

    Raises:
        Unsupported: a weight among them isn't whole.
    """
    if not zero_points.dtype.is_floating_point():
        return zero_points
    data: Any = zero_points.const_value
    if getattr(data, "has_data", False) and bool((data.raw != data.raw.round()).any()):
        raise Unsupported("zero points that are no integers")
    stored = op.derived("int32", lambda tensor: tensor.to(torch.int32), zero_points)
    return op.cast(zero_points, DataType.INT32) if stored is None else stored


def _number(value: Any) -> int:
    """A bound that may be given as a tensor of one element.

    Raises:
        Unsupported: it isn't known at export time.
    """
    if not isinstance(value, Tensor):
        return value
    if value.const_value is None:
        raise Unsupported("a range that isn't known at export time")
    return int(value.const_value.numpy().reshape(-1)[0])


def _range(op: Builder, input: Tensor) -> tuple[Tensor, Tensor]:
    """The least and greatest value, widened to hold 0, each a float32 scalar."""
    real = op.cast(input, DataType.FLOAT)
    return op.Min(op.ReduceMin(real, keepdims=0), 0.0), op.Max(op.ReduceMax(real, keepdims=0), 0.0)


def _as_results(op: Builder, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the element types and shapes that the operator gives."""
    first, second = (
        op.cast(value, result.dtype) if len(result.shape) > 1 else op.Reshape(op.cast(value, result.dtype), [1])
        for value, result in zip((scale, zero_point), op.results, strict=True)
    )
    return first, second
