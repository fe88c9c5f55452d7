"""Activation functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DataType, Tensor, Unsupported, translation

from onnxport_builtin.aten.kernels import UNSIGNED, elementary, in_float32, maximum
from onnxport_builtin.aten.special import error_function
from onnxport_builtin.aten.transcendental import exp_minus_one, sigmoid, soft_plus

if TYPE_CHECKING:
    from onnxport import Builder

_DOUBLE = DataType.DOUBLE
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848, 1.0507009873554804934


@translation("aten::relu")
def relu(op: Builder, self: Tensor) -> Tensor:
    if self.dtype.is_floating_point():
        return op.Relu(self)
    return self if self.dtype in UNSIGNED else maximum(op, self, 0)


@translation("aten::relu6")
def relu6(op: Builder, self: Tensor) -> Tensor:
    return op.Clip(self, 0, 6)


@translation("aten::hardtanh")
def hardtanh(op: Builder, self: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor:
    return op.Clip(self, op.const(min_val, self.dtype), op.const(max_val, self.dtype))


@translation("aten::gelu")
def gelu_composed(op: Builder, self: Tensor, *, approximate: str = "none") -> Tensor:
    def formula(op: Builder, x: Tensor) -> Tensor:  # as onnxruntime fuses it, of float32
        if approximate == "tanh":
            cubic = op.Add(x, op.Mul(op.Pow(x, op.const(3.0, x.dtype)), 0.044715))
            factor = op.Add(op.Tanh(op.Mul(cubic, math.sqrt(2 / math.pi))), 1.0)
        else:
            factor = op.Add(error_function(op, op.Div(x, math.sqrt(2))), 1.0)
        return op.Mul(op.Mul(x, 0.5), factor)

    return in_float32(formula, op, self)


@translation("aten::gelu", opset=20)
def gelu(op: Builder, self: Tensor, *, approximate: str = "none") -> Tensor:
    if self.dtype is _DOUBLE:
        raise Unsupported("onnxruntime has no Gelu of float64")
    return op.Gelu(self, approximate=None if approximate == "none" else approximate)


@translation("aten::silu")
def silu(op: Builder, self: Tensor) -> Tensor:
    # Not Swish, which opset 24 has: onnxruntime 1.32 runs it at opset 24 alone, and fuses these two anyway.
    return op.Mul(self, sigmoid(op, self))


@translation("aten::mish")
def mish(op: Builder, self: Tensor) -> Tensor:
    return op.Mul(self, op.Tanh(soft_plus(op, self))) if self.dtype is _DOUBLE else elementary(op, "Mish", self)


@translation("aten::hardswish")
def hardswish(op: Builder, self: Tensor) -> Tensor:
    if self.dtype is not _DOUBLE:
        return elementary(op, "HardSwish", self)
    return op.Div(op.Mul(self, op.Clip(op.Add(self, 3.0), 0.0, 6.0)), 6.0)


@translation("aten::hardsigmoid")
def hardsigmoid(op: Builder, self: Tensor) -> Tensor:
    if self.dtype is not _DOUBLE:
        return elementary(op, "HardSigmoid", self, alpha=1 / 6, beta=0.5)
    return op.Div(op.Clip(op.Add(self, 3.0), 0.0, 6.0), 6.0)


@translation("aten::leaky_relu")
def leaky_relu(op: Builder, self: Tensor, negative_slope: float = 0.01) -> Tensor:
    if self.dtype is not _DOUBLE and math.isfinite(negative_slope):
        return op.LeakyRelu(self, alpha=float(negative_slope))
    return op.Where(op.Greater(self, 0), self, op.Mul(self, op.const(negative_slope, self.dtype)))


def exponential_unit(op: Builder, x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    """``scale * x`` above 0, ``scale * alpha * (exp(input_scale * x) - 1)`` below."""

    def formula(op: Builder, x: Tensor) -> Tensor:
        # Only where x is negative: the exponential of great numbers is infinite.
        low = op.Min(x, 0.0) if input_scale > 0 else op.Where(op.Greater(x, 0.0), 0.0, x)
        below = op.Mul(exp_minus_one(op, _times(op, low, input_scale)), alpha * scale)
        return op.Where(op.Greater(x, 0.0), _times(op, x, scale), below)

    return in_float32(formula, op, x)


def _times(op: Builder, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else op.Mul(x, op.const(float(factor), x.dtype))


@translation("aten::elu")
def elu(op: Builder, self: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    if self.dtype is not _DOUBLE and input_scale == 1:
        value = elementary(op, "Elu", self, alpha=float(alpha))
        return _times(op, value, scale)
    return exponential_unit(op, self, alpha, scale, input_scale)


@translation("aten::selu")
def selu(op: Builder, self: Tensor) -> Tensor:
    if self.dtype is not _DOUBLE:
        return elementary(op, "Selu", self)
    return exponential_unit(op, self, _SELU_ALPHA, _SELU_SCALE, 1)


@translation("aten::celu")
def celu(op: Builder, self: Tensor, alpha: float = 1.0) -> Tensor:
    if self.dtype is _DOUBLE:
        return exponential_unit(op, self, alpha, 1, 1 / alpha)
    return in_float32(lambda op, x: op.Celu(x, alpha=float(alpha)), op, self)  # Celu has no float16


@translation("aten::prelu")
def prelu(op: Builder, self: Tensor, weight: Tensor) -> Tensor:
    """One slope for all, or one for each channel (axis 1)."""
    rank = op.rank(self)
    if rank < 2:
        weight = op.Reshape(weight, [1] * rank) if op.rank(weight) > rank else weight
    elif op.rank(weight):
        weight = op.Reshape(weight, [1, -1] + [1] * (rank - 2))
    return prelu_kernel(op, self, weight)


@translation("aten::_prelu_kernel")
def prelu_kernel(op: Builder, self: Tensor, weight: Tensor) -> Tensor:
    if self.dtype is _DOUBLE:
        return op.Where(op.Greater(self, 0.0), self, op.Mul(self, weight))
    return op.PRelu(self, weight)


@translation("aten::rrelu")
def rrelu(
    op: Builder,
    self: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Tensor:
    if training:
        raise Unsupported("rrelu in training mode draws random slopes")
    return leaky_relu(op, self, (lower + upper) / 2)


@translation("aten::rrelu_with_noise_functional")
def rrelu_with_noise(
    op: Builder,
    self: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> tuple[Tensor, Tensor]:
    return rrelu(op, self, lower, upper, training), noise


@translation("aten::softplus")
def softplus(op: Builder, self: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """The identity above the threshold, where float32 and less can't tell anyway from 20 on."""

    def formula(op: Builder, x: Tensor) -> Tensor:
        scaled = _times(op, x, beta)
        value = soft_plus(op, scaled)
        if beta != 1:
            value = op.Div(value, op.const(float(beta), x.dtype))
        if threshold >= 20 and x.dtype is not _DOUBLE:
            return value
        return op.Where(op.Greater(scaled, op.const(float(threshold), x.dtype)), x, value)

    return formula(op, self) if beta == 1 and threshold >= 20 else in_float32(formula, op, self)


@translation("aten::threshold")
def threshold(op: Builder, self: Tensor, threshold: float, value: float) -> Tensor:
    below = op.LessOrEqual(self, op.const(threshold, self.dtype))
    return op.Where(below, op.const(value, self.dtype), self)


@translation("aten::softshrink")
def softshrink(op: Builder, self: Tensor, lambd: float = 0.5) -> Tensor:
    return op.Sub(self, op.Clip(self, op.const(-lambd, self.dtype), op.const(lambd, self.dtype)))


@translation("aten::hardshrink")
def hardshrink(op: Builder, self: Tensor, lambd: float = 0.5) -> Tensor:
    return op.Where(op.LessOrEqual(op.Abs(self), op.const(lambd, self.dtype)), op.const(0, self.dtype), self)


@translation("aten::glu")
def glu(op: Builder, self: Tensor, dim: int = -1) -> Tensor:
    value, gate = op.Split(self, axis=dim, num_outputs=2, outputs=2)
    return op.Mul(value, sigmoid(op, gate))


@translation("aten::softmax.int", "aten::special_softmax")
def softmax(op: Builder, self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    return _along(op, op.Softmax, self if dtype is None else op.cast(self, dtype), dim)


@translation("aten::log_softmax.int", "aten::special_log_softmax")
def log_softmax(op: Builder, self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    value = self if dtype is None else op.cast(self, dtype)
    if value.dtype is _DOUBLE and op.rank(value) and op.size(value, dim) != 0:
        # onnxruntime 1.32: LogSoftmax of a float64 row with a NaN or infinity is wrong in the other elements.
        shifted = op.Sub(value, op.ReduceMax(value, [dim], keepdims=1))
        return op.Sub(shifted, op.Log(op.ReduceSum(op.Exp(shifted), [dim], keepdims=1)))
    return _along(op, op.LogSoftmax, value, dim)


@translation("aten::_softmax")
def softmax_core(op: Builder, self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return softmax(op, self, dim, torch.float32 if half_to_float else None)


@translation("aten::_log_softmax")
def log_softmax_core(op: Builder, self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return log_softmax(op, self, dim, torch.float32 if half_to_float else None)


@translation("aten::_safe_softmax")
def safe_softmax(op: Builder, self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Rows that are masked out entirely (minus infinity) give 0."""
    value = self if dtype is None else op.cast(self, dtype)
    result = _along(op, op.Softmax, value, dim)
    if op.rank(self) == 0:
        return op.Where(op.Equal(value, -math.inf), 0.0, result)
    return op.Where(op.Equal(op.ReduceMax(value, [dim]), -math.inf), 0.0, result)


def _along(op: Builder, emit: Any, value: Tensor, dim: int) -> Tensor:
    if op.rank(value):
        return emit(value, axis=dim)
    return op.Reshape(emit(op.Reshape(value, [1]), axis=0), [])
