"""``torch.ops.quantized``: each operator as the float one on dequantized values, with the result quantized.

``Qx`` stands for :class:`Quantized`. Parameters are named as in the operators' schemas where they are given by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from onnxport_builtin.capture.quantized_values import Packed, Quantized, real

_decomposed = torch.ops.quantized_decomposed
Function = Callable[..., torch.Tensor]


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


def _linear(after: Function = _same) -> Callable[..., Quantized]:
    def linear(x: Quantized, packed: Packed, scale: Any, zero_point: Any, *more: Any) -> Quantized:
        value = after(F.linear(x.dequantize(), packed.real(), packed.real_bias()), *more)
        return Quantized.of(value, scale, zero_point, x.dtype)

    return linear


def _convolved(x: torch.Tensor, packed: Packed, axes: int) -> torch.Tensor:
    weight, options = packed.real(), dict(packed.options)
    if axes == 1:  # packed with an axis of size 1 before the last
        weight = weight.squeeze(-2)
        options = {name: value[-1:] if isinstance(value, list) else value for name, value in options.items()}
    if options.pop("transpose"):
        return getattr(F, f"conv_transpose{axes}d")(x, weight, packed.real_bias(), **options)  # type: ignore[no-any-return]
    del options["output_padding"]
    return getattr(F, f"conv{axes}d")(x, weight, packed.real_bias(), **options)  # type: ignore[no-any-return]


def _convolution(axes: int, after: Function = _same) -> Callable[..., Quantized]:
    def convolution(qx: Quantized, packed: Packed, *args: Any) -> Quantized:
        *_, scale, zero_point = args  # an older form has the options of the convolution in between
        return Quantized.of(after(_convolved(qx.dequantize(), packed, axes)), scale, zero_point, qx.dtype)

    return convolution


def _convolution_and_sum(after: Function = _same) -> Callable[..., Quantized]:
    def convolution(qx: Quantized, other: Quantized, packed: Packed, scale: Any, zero_point: Any) -> Quantized:
        value = after(_convolved(qx.dequantize(), packed, 2) + other.dequantize())
        return Quantized.of(value, scale, zero_point, qx.dtype)

    return convolution


def _dynamic(x: torch.Tensor, reduce_range: bool) -> torch.Tensor:
    """The values of a float tensor after they were quantized to the range that they have."""
    narrow = reduce_range and torch.backends.quantized.engine != "qnnpack"
    given = (0, 127 if narrow else 255)
    scale, zero_point = _decomposed.choose_qparams.tensor(x, *given, torch.finfo(torch.float32).eps, torch.uint8)
    integers = _decomposed.quantize_per_tensor.tensor(x, scale, zero_point, *given, torch.uint8)
    return _decomposed.dequantize_per_tensor.tensor(integers, scale, zero_point, *given, torch.uint8)  # type: ignore[no-any-return]


def _dynamic_linear(after: Function = _same) -> Function:
    def linear(X: torch.Tensor, packed: Packed, reduce_range: bool = False) -> torch.Tensor:
        return after(F.linear(_dynamic(X, reduce_range), packed.real(), packed.real_bias()))

    return linear


def _half_linear(after: Function = _same) -> Function:
    return lambda X, packed: after(F.linear(X, packed.real(), packed.real_bias()))


def _dynamic_convolution(axes: int) -> Function:
    def convolution(x: torch.Tensor, packed: Packed, reduce_range: bool = True) -> torch.Tensor:
        return _convolved(_dynamic(x, reduce_range), packed, axes)

    return convolution


def _of_two(function: Function, after: Function = _same) -> Callable[..., Quantized]:
    """Of two quantized tensors; or of one and a number, for which the scale follows from the number."""

    def combined(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Quantized:
        if scale is None:
            first, number = (qa, qb) if isinstance(qa, Quantized) else (qb, qa)
            return _of_number(function, first, number, after)
        return Quantized.of(after(function(real(qa), real(qb))), scale, zero_point, qa.dtype)

    return combined


def _of_number(function: Function, value: Quantized, number: Any, after: Function) -> Quantized:
    """torch keeps the integers of a sum or product with a number, and changes the scale or the zero point.

    Raises:
        CaptureError: where the scale isn't a number.
    """
    scale, zero_point, low, high = value.scale, value.zero_point, *_range(value)
    if function is torch.mul:
        number = float(number)
        if number == 0:
            result = Quantized.of(value.dequantize() * 0, 1.0, 0, value.dtype)
        elif number > 0:
            result = Quantized(value.integers, scale * number, zero_point, value.dtype)
        else:
            flipped = (high + low - value.integers.to(torch.int32)).to(value.integers.dtype)
            result = Quantized(flipped, scale * -number, high + low - zero_point, value.dtype)
    else:
        shifted = zero_point - round(float(number) / scale)
        if low <= shifted <= high:
            result = Quantized(value.integers, scale, shifted, value.dtype)
        else:
            result = _widened(value, shifted, low, high)
    return result if after is _same else result.like(after(result.dequantize()))


def _widened(value: Quantized, zero_point: int, low: int, high: int) -> Quantized:
    """A sum whose zero point lies outside of the range: the scale grows until it fits."""
    if zero_point < low:
        factor = (high - zero_point) / (high - low)
        new_scale, new_zero = value.scale * factor, low
    else:
        factor = (zero_point - low) / (high - low)
        new_scale, new_zero = value.scale * factor, high
    shifted = (value.integers.to(torch.float32) - float(zero_point)) * value.scale
    return Quantized.of(shifted, new_scale, new_zero, value.dtype)


def _range(value: Quantized) -> tuple[int, int]:
    info = torch.iinfo(value.integers.dtype)
    return info.min, info.max


def _cat(after: Function = _same) -> Callable[..., Quantized]:
    def cat(qx: list[Quantized], dim: int, scale: Any = None, zero_point: Any = None) -> Quantized:
        first = qx[0]
        scale = first.scale if scale is None else scale
        zero_point = first.zero_point if zero_point is None else zero_point
        return Quantized.of(after(torch.cat(real(list(qx)), dim)), scale, zero_point, first.dtype)

    return cat


def _batch_norm(after: Function = _same) -> Callable[..., Quantized]:
    def batch_norm(
        qx: Quantized, weight: Any, bias: Any, mean: torch.Tensor, var: torch.Tensor, eps: float, scale: Any, zero: Any
    ) -> Quantized:
        value = F.batch_norm(qx.dequantize(), mean, var, weight, bias, False, 0.0, eps)
        return Quantized.of(after(value), scale, zero, qx.dtype)

    return batch_norm


def _layer_norm(
    input: Quantized,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float,
    output_scale: Any,
    output_zero_point: Any,
) -> Quantized:
    value = F.layer_norm(input.dequantize(), normalized_shape, weight, bias, eps)
    return Quantized.of(value, output_scale, output_zero_point, input.dtype)


def _group_norm(
    input: Quantized, num_groups: int, weight: Any, bias: Any, eps: float, output_scale: Any, output_zero_point: Any
) -> Quantized:
    value = F.group_norm(input.dequantize(), num_groups, weight, bias, eps)
    return Quantized.of(value, output_scale, output_zero_point, input.dtype)


def _instance_norm(
    input: Quantized, weight: Any, bias: Any, eps: float, output_scale: Any, output_zero_point: Any
) -> Quantized:
    value = F.instance_norm(input.dequantize(), weight=weight, bias=bias, eps=eps)
    return Quantized.of(value, output_scale, output_zero_point, input.dtype)


def _elementwise(function: Function) -> Callable[..., Quantized]:
    return lambda qx, output_scale, output_zero_point: Quantized.of(
        function(qx.dequantize()), output_scale, output_zero_point, qx.dtype
    )


def _leaky_relu(qx: Quantized, slope: float, inplace: bool, output_scale: Any, output_zero_point: Any) -> Quantized:
    return Quantized.of(F.leaky_relu(qx.dequantize(), slope), output_scale, output_zero_point, qx.dtype)


def _elu(
    self: Quantized, output_scale: Any, output_zero_point: Any, alpha: float = 1, scale: float = 1,
    input_scale: float = 1,
) -> Quantized:  # fmt: skip
    value = torch.ops.aten.elu(self.dequantize(), alpha, scale, input_scale)
    return Quantized.of(value, output_scale, output_zero_point, self.dtype)


def _celu(self: Quantized, output_scale: Any, output_zero_point: Any, alpha: float = 1) -> Quantized:
    return Quantized.of(F.celu(self.dequantize(), alpha), output_scale, output_zero_point, self.dtype)


def _softmax(qx: Quantized, dim: int, output_scale: Any, output_zero_point: Any) -> Quantized:
    return Quantized.of(torch.softmax(qx.dequantize(), dim), output_scale, output_zero_point, qx.dtype)


def _rows(packed: Packed, indices: torch.Tensor) -> torch.Tensor:
    """Rows of a table whose rows have a scale and a float zero point each."""
    table = packed.quantized
    integers = F.embedding(indices, table.integers).float()
    return (integers - table.zero_point[indices].unsqueeze(-1)) * table.scale[indices].unsqueeze(-1)  # type: ignore[no-any-return]


def _embedding(weight: Packed, indices: torch.Tensor, pruned_weights: bool = False) -> torch.Tensor:
    return _rows(weight, indices)


def _embedding_bag(
    weight: Packed, indices: torch.Tensor, offsets: torch.Tensor | None = None, scale_grad_by_freq: bool = False,
    mode: int = 0, pruned_weights: bool = False, per_sample_weights: torch.Tensor | None = None,
    compressed_indices_mapping: Any = None, include_last_offset: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Sums of rows: of each row of indices, or of the stretches that offsets begin."""
    rows = _rows(weight, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if indices.dim() == 2:
        return rows.sum(1)
    given = offsets if offsets is not None else indices.new_zeros(1)
    starts = given[:-1] if include_last_offset else given
    place = torch.arange(indices.shape[0], device=indices.device)
    bag = torch.searchsorted(starts.contiguous(), place, right=True) - 1
    return rows.new_zeros(starts.shape[0], rows.shape[-1]).index_add(0, bag, rows)


def _lstm_cell(
    input: torch.Tensor, hx: Any, w_ih: Packed, w_hh: Packed, bias_ih: torch.Tensor, bias_hh: torch.Tensor
) -> Any:
    gates = _gate(input, w_ih) + _gate(hx[0], w_hh)
    into, forget, cell, out = gates.chunk(4, 1)
    state = torch.sigmoid(forget) * hx[1] + torch.sigmoid(into) * torch.tanh(cell)
    return torch.sigmoid(out) * torch.tanh(state), state


def _gru_cell(input: torch.Tensor, hx: torch.Tensor, w_ih: Packed, w_hh: Packed, b_ih: Any, b_hh: Any) -> torch.Tensor:
    reset, update, new = _gate(input, w_ih).chunk(3, 1)
    hidden_reset, hidden_update, hidden_new = _gate(hx, w_hh).chunk(3, 1)
    new = torch.tanh(new + torch.sigmoid(reset + hidden_reset) * hidden_new)
    update = torch.sigmoid(update + hidden_update)
    return new + update * (hx - new)


def _rnn_cell(after: Function) -> Function:
    return lambda input, hx, w_ih, w_hh, b_ih, b_hh: after(_gate(input, w_ih) + _gate(hx, w_hh))


def _gate(x: torch.Tensor, packed: Packed) -> torch.Tensor:
    value = x if packed.dtype is None else _dynamic(x, True)
    return F.linear(value, packed.real(), packed.real_bias())


def _matmul(qa: Quantized, qb: Quantized, scale: Any, zero_point: Any) -> Quantized:
    return Quantized.of(qa.dequantize() @ qb.dequantize(), scale, zero_point, qa.dtype)


def _same_scale(function: Function) -> Callable[..., Quantized]:
    return lambda qx, *args: qx.like(function(qx.dequantize(), *args))


def _relu6(qx: Quantized, inplace: bool = False) -> Quantized:
    return qx.like(F.relu6(qx.dequantize()))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "linear": _linear(),
    "linear_relu": _linear(torch.relu),
    "linear_leaky_relu": _linear(F.leaky_relu),
    "linear_tanh": _linear(torch.tanh),
    "linear_dynamic": _dynamic_linear(),
    "linear_relu_dynamic": _dynamic_linear(torch.relu),
    "linear_dynamic_fp16": _half_linear(),
    "linear_relu_dynamic_fp16": _half_linear(torch.relu),
    **{f"conv{axes}d": _convolution(axes) for axes in (1, 2, 3)},
    **{f"conv{axes}d_relu": _convolution(axes, torch.relu) for axes in (1, 2, 3)},
    **{f"conv{axes}d_dynamic": _dynamic_convolution(axes) for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _convolution(axes) for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d_dynamic": _dynamic_convolution(axes) for axes in (1, 2, 3)},
    "conv2d_add": _convolution_and_sum(),
    "conv2d_add_relu": _convolution_and_sum(torch.relu),
    **{f"add{kind}": _of_two(torch.add) for kind in ("", "_scalar")},
    **{f"add{kind}_relu": _of_two(torch.add, torch.relu) for kind in ("", "_scalar")},
    **{f"mul{kind}": _of_two(torch.mul) for kind in ("", "_scalar")},
    **{f"mul{kind}_relu": _of_two(torch.mul, torch.relu) for kind in ("", "_scalar")},
    "matmul": _matmul,
    "cat": _cat(),
    "cat_relu": _cat(torch.relu),
    **{f"batch_norm{axes}": _batch_norm() for axes in ("", "1d", "2d", "3d")},
    **{f"batch_norm{axes}_relu": _batch_norm(torch.relu) for axes in ("", "1d", "2d", "3d")},
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "hardswish": _elementwise(F.hardswish),
    "sigmoid": _elementwise(torch.sigmoid),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "celu": _celu,
    "softmax": _softmax,
    "relu6": _relu6,
    "clamp": _same_scale(torch.clamp),
    "threshold": _same_scale(F.threshold),
    "embedding_byte": _embedding,
    "embedding_4bit": _embedding,
    "embedding_bag_byte": _embedding_bag,
    "embedding_bag_4bit": _embedding_bag,
    "quantized_lstm_cell_dynamic": _lstm_cell,
    "quantized_gru_cell_dynamic": _gru_cell,
    "quantized_rnn_tanh_cell_dynamic": _rnn_cell(torch.tanh),
    "quantized_rnn_relu_cell_dynamic": _rnn_cell(torch.relu),
}
