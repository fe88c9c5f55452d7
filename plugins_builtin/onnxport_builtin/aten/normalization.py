"""Normalizations: batch, layer, group, instance and root mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DataType, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, is_static, is_used, product, reshape

if TYPE_CHECKING:
    from onnxport import Builder

# onnxruntime 1.32 normalizes instances in these only (bfloat16 runs elsewhere).
_INSTANCE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
_HALVES = (DataType.FLOAT16, DataType.BFLOAT16)


def _filled(op: Builder, value: float, dims: Sequence[Dim], dtype: DataType) -> Tensor:
    if is_static(dims):
        return op.const(torch.full(list(dims), value), dtype)
    return expand(op, op.const(value, dtype), dims)


def _channelwise(op: Builder, x: Tensor, rank: int) -> Tensor:
    """A vector over the channels, in a shape that broadcasts against (N, C, ...)."""
    axes = list(range(1, rank - 1))
    return op.Unsqueeze(x, axes) if axes else x


def _moments(op: Builder, x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation from it, and population variance over `axes`, which stay as 1."""
    mean = op.ReduceMean(x, axes)
    deviation = op.Sub(x, mean)
    return mean, deviation, op.ReduceMean(op.Mul(deviation, deviation), axes)


def _affine(op: Builder, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        x = op.Mul(x, op.cast(weight, x.dtype))
    return x if bias is None else op.Add(x, op.cast(bias, x.dtype))


# ---- batch


def _batch_norm_eval(
    op: Builder, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    channels = [x.shape[1]]
    scale = _filled(op, 1.0, channels, x.dtype) if weight is None else op.cast(weight, x.dtype)
    shift = _filled(op, 0.0, channels, x.dtype) if bias is None else op.cast(bias, x.dtype)
    var = op.cast(var, x.dtype)
    if x.dtype is DataType.DOUBLE:  # attributes are float32
        var, eps = op.Add(var, eps), 0.0
    return op.BatchNormalization(x, scale, shift, op.cast(mean, x.dtype), var, epsilon=eps)


class _BatchStatistics:
    """The normalized input of a batch norm in training, and the statistics that it was normalized by."""

    def __init__(self, op: Builder, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        rank = len(x.shape)
        axes = [axis for axis in range(rank) if axis != 1]
        work = DataType.FLOAT if x.dtype in _HALVES else x.dtype
        mean, deviation, var = _moments(op, op.cast(x, work), axes)
        root = op.Sqrt(op.Add(var, eps))
        weight = None if weight is None else _channelwise(op, weight, rank)
        bias = None if bias is None else _channelwise(op, bias, rank)
        self._op, self._axes, self._x = op, axes, x
        self._mean, self._var, self._root = mean, var, root
        self.y = op.cast(_affine(op, op.Div(deviation, root), weight, bias), x.dtype)

    def mean(self) -> Tensor:
        return self._op.Squeeze(self._mean, self._axes)

    def inverse_deviation(self) -> Tensor:
        return self._op.Reciprocal(self._op.Squeeze(self._root, self._axes))

    def variance(self) -> Tensor:
        return self._op.Squeeze(self._var, self._axes)

    def updated(self, running: Tensor, batch: Tensor, momentum: float, *, unbiased: bool) -> Tensor:
        """``(1 - momentum) * running + momentum * batch``, the variance corrected to the unbiased one."""
        op = self._op
        batch = op.cast(batch, running.dtype)
        if unbiased:
            count = product(self._x.shape[axis] for axis in self._axes)
            if isinstance(count, int):
                batch = op.Mul(batch, count / (count - 1) if count > 1 else float("nan"))
            else:
                size = op.cast(count, running.dtype)
                batch = op.Mul(batch, op.Div(size, op.Sub(size, 1)))
        return op.Add(op.Mul(running, 1 - momentum), op.Mul(batch, momentum))


@translation("aten::batch_norm")
def batch_norm(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    if not training and running_mean is not None and running_var is not None:
        return _batch_norm_eval(op, input, weight, bias, running_mean, running_var, eps)
    return _BatchStatistics(op, input, weight, bias, eps).y


def _saved(op: Builder, index: int, value: Tensor) -> Tensor:
    """A statistic kept for the backward pass: empty where torch leaves it so."""
    result = op.results[index]
    if list(result.shape) == [0]:
        return op.const(torch.zeros(0), result.dtype)
    return op.cast(value, result.dtype)


def _native_batch_norm(
    op: Builder,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[list[Tensor | None], Tensor | None, Tensor | None]:
    """The normalized input, the saved mean and inverse deviation; then the running statistics, updated."""
    if not training and running_mean is not None and running_var is not None:
        y = _batch_norm_eval(op, x, weight, bias, running_mean, running_var, eps)
        mean = _saved(op, 1, running_mean) if is_used(op, 1) else None
        inverse = None
        if is_used(op, 2):
            inverse = _saved(op, 2, op.Reciprocal(op.Sqrt(op.Add(running_var, eps))))
        return [y, mean, inverse], running_mean, running_var
    batch = _BatchStatistics(op, x, weight, bias, eps)
    mean = _saved(op, 1, batch.mean()) if is_used(op, 1) else None
    inverse = _saved(op, 2, batch.inverse_deviation()) if is_used(op, 2) else None
    new_mean = new_var = None
    if running_mean is not None:
        new_mean = batch.updated(running_mean, batch.mean(), momentum, unbiased=False)
    if running_var is not None:
        new_var = batch.updated(running_var, batch.variance(), momentum, unbiased=True)
    return [batch.y, mean, inverse], new_mean, new_var


@translation("aten::native_batch_norm", "aten::_native_batch_norm_legit")
def native_batch_norm(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    stats = (running_mean, running_var)
    return _native_batch_norm(op, input, weight, bias, *stats, training, momentum, eps)[0]


@translation("aten::_native_batch_norm_legit.no_stats")
def native_batch_norm_no_stats(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    return _native_batch_norm(op, input, weight, bias, None, None, True, momentum, eps)[0]


@translation("aten::_native_batch_norm_legit_no_training")
def native_batch_norm_no_training(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    return _native_batch_norm(op, input, weight, bias, running_mean, running_var, False, momentum, eps)[0]


@translation("aten::_native_batch_norm_legit_functional")
def native_batch_norm_functional(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    stats = (running_mean, running_var)
    values, mean, var = _native_batch_norm(op, input, weight, bias, *stats, training, momentum, eps)
    return [*values, mean, var]


def _reserve(op: Builder, index: int) -> Tensor | None:
    """The workspace of cuDNN, empty on a CPU."""
    return op.const(torch.zeros(0), op.results[index].dtype) if is_used(op, index) else None


@translation("aten::_batch_norm_with_update_functional")
def batch_norm_with_update_functional(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    stats = (running_mean, running_var)
    values, mean, var = _native_batch_norm(op, input, weight, bias, *stats, True, momentum, eps)
    return [*values, _reserve(op, 3), mean, var]


@translation("aten::_batch_norm_with_update")
def batch_norm_with_update(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    values = _native_batch_norm(op, input, weight, bias, running_mean, running_var, True, momentum, eps)[0]
    return [*values, _reserve(op, 3)]


@translation("aten::_batch_norm_no_update")
def batch_norm_no_update(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> list[Tensor | None]:
    values = _native_batch_norm(op, input, weight, bias, running_mean, running_var, False, momentum, eps)[0]
    return [*values, _reserve(op, 3)]


@translation("aten::_batch_norm_impl_index")
def batch_norm_impl_index(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> list[Any]:
    stats = (running_mean, running_var)
    values = _native_batch_norm(op, input, weight, bias, *stats, training, momentum, eps)[0]
    return [*values, _reserve(op, 3), 0]


# ---- layer


def _layer_norm(
    op: Builder, x: Tensor, normalized: Sequence[Dim], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    if x.dtype is DataType.DOUBLE:  # the node's epsilon is float32, and so are its statistics by default
        rank = len(x.shape)
        _, deviation, var = _moments(op, x, list(range(rank - len(normalized), rank)))
        return _affine(op, op.Div(deviation, op.Sqrt(op.Add(var, eps))), weight, bias)
    scale = _filled(op, 1.0, normalized, x.dtype) if weight is None else op.cast(weight, x.dtype)
    shift = None if bias is None else op.cast(bias, x.dtype)
    return op.LayerNormalization(x, scale, shift, axis=-len(normalized), epsilon=eps)


@translation("aten::layer_norm")
def layer_norm(
    op: Builder,
    input: Tensor,
    normalized_shape: Sequence[Dim],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return _layer_norm(op, input, normalized_shape, weight, bias, eps)


@translation("aten::native_layer_norm")
def native_layer_norm(
    op: Builder,
    input: Tensor,
    normalized_shape: Sequence[Dim],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> list[Tensor | None]:
    if not is_used(op, 1) and not is_used(op, 2):
        return [_layer_norm(op, input, normalized_shape, weight, bias, eps), None, None]
    rank = len(input.shape)
    work = op.results[1].dtype
    mean, deviation, var = _moments(op, op.cast(input, work), list(range(rank - len(normalized_shape), rank)))
    inverse = op.Reciprocal(op.Sqrt(op.Add(var, eps)))
    y = _affine(op, op.Mul(deviation, inverse), weight, bias)
    return [op.cast(y, input.dtype), mean, inverse]


# ---- group and instance


def _instance_norm(op: Builder, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalized over all axes but the first two; `weight` and `bias` are vectors over the second."""
    if x.dtype in _INSTANCE:
        return op.InstanceNormalization(x, weight, bias, epsilon=eps)
    rank = len(x.shape)
    _, deviation, var = _moments(op, x, list(range(2, rank)))
    normal = op.Div(deviation, op.Sqrt(op.Add(var, eps)))
    return _affine(op, normal, _channelwise(op, weight, rank), _channelwise(op, bias, rank))


def _group_norm(op: Builder, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    # onnxruntime 1.32 has no kernel of ONNX's GroupNormalization: its function body is slower than these five nodes.
    shape, rank = list(x.shape), len(x.shape)
    if 0 in shape:
        return op.Identity(x)
    ones, zeros = _filled(op, 1.0, [groups], x.dtype), _filled(op, 0.0, [groups], x.dtype)
    grouped = op.Reshape(x, [0, groups, -1])
    grouped.shape = None
    y = reshape(op, _normalized_groups(op, grouped, ones, zeros, eps), shape)
    weight = None if weight is None else _channelwise(op, weight, rank)
    bias = None if bias is None else _channelwise(op, bias, rank)
    return _affine(op, y, weight, bias)


def _normalized_groups(op: Builder, grouped: Tensor, ones: Tensor, zeros: Tensor, eps: float) -> Tensor:
    if grouped.dtype in _INSTANCE:
        return op.InstanceNormalization(grouped, ones, zeros, epsilon=eps)
    _, deviation, var = _moments(op, grouped, [2])
    return op.Div(deviation, op.Sqrt(op.Add(var, eps)))


@translation("aten::group_norm")
def group_norm(
    op: Builder,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    return _group_norm(op, input, num_groups, weight, bias, eps)


@translation("aten::native_group_norm")
def native_group_norm(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: Any,
    C: Any,
    HxW: Any,
    group: int,
    eps: float,
) -> list[Tensor | None]:
    y = _group_norm(op, input, group, weight, bias, eps)
    mean = inverse = None
    if is_used(op, 1) or is_used(op, 2):
        work = op.results[1].dtype
        if 0 in input.shape:
            empty = _filled(op, 0.0, list(op.results[1].shape), work)
            return [y, empty, empty]
        grouped = reshape(op, op.cast(input, work), [N, group, C * HxW // group])
        mean_, _, var = _moments(op, grouped, [2])
        mean = op.Squeeze(mean_, [2])
        inverse = op.Reciprocal(op.Sqrt(op.Add(op.Squeeze(var, [2]), eps)))
    return [y, mean, inverse]


@translation("aten::instance_norm")
def instance_norm(
    op: Builder,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise Unsupported("instance_norm without input statistics needs running ones")
        return _batch_norm_eval(op, input, weight, bias, running_mean, running_var, eps)
    channels = [input.shape[1]]
    scale = _filled(op, 1.0, channels, input.dtype) if weight is None else op.cast(weight, input.dtype)
    shift = _filled(op, 0.0, channels, input.dtype) if bias is None else op.cast(bias, input.dtype)
    return _instance_norm(op, input, scale, shift, eps)


# ---- root mean square


_EPSILON = {DataType.DOUBLE: torch.finfo(torch.float64).eps}


def _rms_norm(
    op: Builder, x: Tensor, normalized: Sequence[Dim], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axes, and the root.

    In float32 it is spelled as onnxruntime fuses it (``passes/norms.py``), which takes a weight.
    """
    work = DataType.FLOAT if x.dtype in _HALVES else x.dtype
    eps = _EPSILON.get(work, torch.finfo(torch.float32).eps) if eps is None else eps
    wide = op.cast(x, work)
    axes = list(range(-len(normalized), 0))
    fused = work is DataType.FLOAT
    square = op.Pow(wide, op.const(2.0, work)) if fused else op.Mul(wide, wide)
    root = op.Sqrt(op.Add(op.ReduceMean(square, axes), eps))
    y = op.Div(wide, root)
    if weight is None and fused and is_static(normalized):
        weight = _filled(op, 1.0, normalized, work)
    if weight is not None:
        y = op.Mul(y, op.cast(weight, work))
    return op.cast(y, x.dtype), root


@translation("aten::rms_norm")
def rms_norm(
    op: Builder,
    input: Tensor,
    normalized_shape: Sequence[Dim],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    return op.cast(_rms_norm(op, input, normalized_shape, weight, eps)[0], op.result.dtype)


@translation("aten::rms_norm", opset=23)
def rms_norm_23(
    op: Builder,
    input: Tensor,
    normalized_shape: Sequence[Dim],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    if eps is None:
        eps = _EPSILON.get(input.dtype, torch.finfo(torch.float32).eps)
    if input.dtype is DataType.DOUBLE:  # the node's epsilon is float32, and so are its statistics by default
        return rms_norm(op, input, normalized_shape, weight, eps)
    scale = _filled(op, 1.0, normalized_shape, input.dtype) if weight is None else op.cast(weight, input.dtype)
    y = op.RMSNormalization(input, scale, axis=-len(normalized_shape), epsilon=eps)
    return op.cast(y, op.result.dtype)


@translation("aten::_fused_rms_norm")
def fused_rms_norm(
    op: Builder, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> list[Tensor | None]:
    y, root = _rms_norm(op, input, normalized_shape, weight, eps)
    inverse = op.cast(op.Reciprocal(root), op.results[1].dtype) if is_used(op, 1) else None
    return [op.cast(y, op.results[0].dtype), inverse]
