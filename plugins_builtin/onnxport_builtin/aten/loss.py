"""Losses and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport import DataType, Tensor, Unsupported, promote, translation
from onnxport.authoring import Dim, broadcast_shape, expand, is_used, product
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from onnxport_builtin.aten.reduction import NARROW_FLOATS, widen

if TYPE_CHECKING:
    from onnxport import Builder

_NONE, _MEAN, _SUM = range(3)


def _reduce(op: Builder, x: Tensor, reduction: int) -> Tensor:
    if reduction == _NONE:
        return x
    operands = [source.meta.get("val") for source in op.node.all_input_nodes]
    if reduction == _MEAN and any(free_unbacked_symbols(val) for val in operands if isinstance(val, torch.Tensor)):
        # Nothing may be left when the model runs: ONNX's mean of that is 0 in onnxruntime, torch's is NaN.
        return op.Div(op.ReduceSum(x, keepdims=0), op.cast(op.Size(x), x.dtype))
    return op.ReduceMean(x, keepdims=0) if reduction == _MEAN else op.ReduceSum(x, keepdims=0)


def _alike(op: Builder, *tensors: Tensor) -> list[Tensor]:
    dtype = promote(*tensors)
    return [op.cast(tensor, dtype) for tensor in tensors]


def _floating(op: Builder, *tensors: Tensor) -> list[Tensor]:
    """Tensors in the float type that torch gives the node's result; integer arithmetic comes before this."""
    dtype = op.result.dtype
    return [op.cast(tensor, dtype) for tensor in tensors]


def _power(op: Builder, x: Tensor, p: float) -> Tensor:
    if p == 1:
        return x
    return op.Mul(x, x) if p == 2 else op.Pow(x, op.const(p, x.dtype))


# ---- regression


@translation("aten::mse_loss")
def mse_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    a, b = _alike(op, self, target)
    difference = op.Sub(a, b)
    return _reduce(op, op.Mul(difference, difference), reduction)


@translation("aten::l1_loss")
def l1_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    a, b = _alike(op, self, target)
    return _reduce(op, op.Abs(op.Sub(a, b)), reduction)


@translation("aten::smooth_l1_loss")
def smooth_l1_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    a, b = _alike(op, self, target)
    distance = op.Abs(op.Sub(a, b))
    if beta == 0:
        return _reduce(op, distance, reduction)
    near = op.Mul(op.Mul(distance, distance), 0.5 / beta)
    loss = op.Where(op.Less(distance, beta), near, op.Sub(distance, 0.5 * beta))
    return _reduce(op, loss, reduction)


@translation("aten::huber_loss")
def huber_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    a, b = _alike(op, self, target)
    distance = op.Abs(op.Sub(a, b))
    near = op.Mul(op.Mul(distance, distance), 0.5)
    far = op.Mul(op.Sub(distance, 0.5 * delta), delta)
    return _reduce(op, op.Where(op.LessOrEqual(distance, delta), near, far), reduction)


@translation("aten::poisson_nll_loss")
def poisson_nll_loss(
    op: Builder, input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Tensor:
    x, y = _alike(op, input, target)
    if log_input:
        exponential, product_ = _floating(op, op.Exp(_floating(op, x)[0]), op.Mul(y, x))
        loss = op.Sub(exponential, product_)
    else:
        x, y = _floating(op, x, y)
        loss = op.Sub(x, op.Mul(y, op.Log(op.Add(x, eps))))
    if full:
        (y,) = _floating(op, y)
        stirling = op.Add(op.Sub(op.Mul(y, op.Log(y)), y), op.Mul(op.Log(op.Mul(y, 2 * math.pi)), 0.5))
        loss = op.Add(loss, op.Where(op.LessOrEqual(y, 1), op.const(0, y.dtype), stirling))
    return _reduce(op, loss, reduction)


@translation("aten::kl_div")
def kl_div(op: Builder, self: Tensor, target: Tensor, reduction: int = 1, *, log_target: bool = False) -> Tensor:
    x, y = _alike(op, self, target)
    if log_target:
        return _reduce(op, op.Mul(op.Exp(y), op.Sub(y, x)), reduction)
    entropy = op.Where(op.Equal(y, 0), op.const(0, y.dtype), op.Mul(y, op.Log(y)))
    return _reduce(op, op.Sub(entropy, op.Mul(y, x)), reduction)


# ---- classification


def _log_clamped(op: Builder, x: Tensor) -> Tensor:
    return op.Max(op.Log(x), -100)


@translation("aten::binary_cross_entropy")
def binary_cross_entropy(
    op: Builder, self: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    positive = op.Mul(op.Sub(target, 1), _log_clamped(op, op.Sub(op.const(1, self.dtype), self)))
    loss = op.Sub(positive, op.Mul(target, _log_clamped(op, self)))
    if weight is not None:
        loss = op.Mul(loss, weight)
    return _reduce(op, loss, reduction)


def _softplus(op: Builder, x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` without overflow, in any float type (onnxruntime 1.32 has no Softplus of doubles)."""
    tail = op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), 1))
    return op.Add(op.Max(x, 0), tail)


@translation("aten::binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    op: Builder,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    x, y = _alike(op, self, target)
    rest = op.Mul(op.Sub(op.const(1, x.dtype), y), x)
    tail = _softplus(op, op.Neg(x))
    if pos_weight is not None:
        tail = op.Mul(tail, op.Add(op.Mul(op.Sub(pos_weight, 1), y), 1))
    loss = op.Add(rest, tail)
    if weight is not None:
        loss = op.Mul(loss, weight)
    return _reduce(op, loss, reduction)


def _picked(
    op: Builder, scores: Tensor, target: Tensor, weight: Tensor | None, ignore_index: Any, axis: int
) -> tuple[Tensor, Tensor]:
    """``-weight[target] * scores[target]`` with zeros for ignored targets, and the weights it is made of."""
    dtype = scores.dtype
    kept = op.Not(op.Equal(target, ignore_index))
    safe = op.Where(kept, target, 0)
    chosen = op.Squeeze(op.GatherElements(scores, op.Unsqueeze(safe, [axis]), axis=axis), [axis])
    if weight is None:
        weights = op.cast(kept, dtype)
    else:
        weights = op.Where(kept, op.Gather(op.cast(weight, dtype), safe), 0)
    loss = op.Where(kept, op.Neg(chosen if weight is None else op.Mul(weights, chosen)), 0)
    return loss, weights


def _nll(
    op: Builder, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: Any
) -> tuple[Tensor, Tensor]:
    axis = 1 if len(self.shape) > 1 else 0
    loss, weights = _picked(op, self, op.cast(target, DataType.INT64), weight, ignore_index, axis)
    total = op.ReduceSum(weights, keepdims=0)
    if reduction == _NONE:
        return loss, total
    summed = op.ReduceSum(loss, keepdims=0)
    return (op.Div(summed, total) if reduction == _MEAN else summed), total


@translation("aten::nll_loss", "aten::nll_loss_nd", "aten::nll_loss2d")
def nll_loss(
    op: Builder,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = 1,
    ignore_index: Any = -100,
) -> Tensor:
    return _nll(op, self, target, weight, reduction, ignore_index)[0]


@translation("aten::nll_loss_forward", "aten::nll_loss2d_forward")
def nll_loss_forward(
    op: Builder, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: Any
) -> tuple[Tensor, Tensor]:
    loss, total = _nll(op, self, target, weight, reduction, ignore_index)
    # without a reduction torch leaves the total weight at zero
    return loss, op.const(0, self.dtype) if reduction == _NONE else total


@translation("aten::cross_entropy_loss")
def cross_entropy_loss(
    op: Builder,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = 1,
    ignore_index: Any = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    axis = 1 if len(self.shape) > 1 else 0
    rank = len(self.shape)
    classes = self.shape[axis]
    log_p = op.LogSoftmax(self, axis=axis)
    shaped = None
    if weight is not None:
        trailing = list(range(1, rank - axis))
        shaped = op.Unsqueeze(weight, trailing) if trailing else weight
    count = op.cast(classes, self.dtype)
    if len(target.shape) == rank and target.dtype not in (DataType.INT64, DataType.UINT8, DataType.INT32):
        probability = target
        if label_smoothing > 0:
            spread = op.Div(op.const(label_smoothing, self.dtype), count)
            probability = op.Add(op.Mul(target, 1 - label_smoothing), spread)
        product_ = op.Mul(log_p, probability)
        if shaped is not None:
            product_ = op.Mul(product_, shaped)
        loss = op.Neg(op.ReduceSum(product_, [axis], keepdims=0))
        if reduction != _MEAN:
            return _reduce(op, loss, reduction)
        samples = product(d for i, d in enumerate(self.shape) if i != axis)
        return op.Div(op.ReduceSum(loss, keepdims=0), op.cast(samples, self.dtype))
    target = op.cast(target, DataType.INT64)
    loss, weights = _picked(op, log_p, target, weight, ignore_index, axis)
    if label_smoothing > 0:
        smooth = log_p if shaped is None else op.Mul(log_p, shaped)
        smooth = op.Neg(op.ReduceSum(smooth, [axis], keepdims=0))
        smooth = op.Where(op.Equal(target, ignore_index), op.const(0, self.dtype), smooth)
        spread = op.Div(op.const(label_smoothing, self.dtype), count)
        loss = op.Add(op.Mul(loss, 1 - label_smoothing), op.Mul(smooth, spread))
    if reduction != _MEAN:
        return _reduce(op, loss, reduction)
    return op.Div(op.ReduceSum(loss, keepdims=0), op.ReduceSum(weights, keepdims=0))


def _chunked(
    op: Builder,
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: Any,
    reduction: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of ``input @ linear_weight.T + linear_bias``; the chunks that torch makes only save memory.

    Halves are widened, as torch's accumulators are (``acc_dtype``).
    """
    dtype = input.dtype
    wide = DataType.FLOAT if dtype in (DataType.FLOAT16, DataType.BFLOAT16) else dtype
    values = (None if x is None else op.cast(x, wide) for x in (input, linear_weight, linear_bias, weight))
    x, matrix, bias, weight = values
    logits = op.MatMul(x, op.Transpose(matrix, perm=[1, 0]))
    if bias is not None:
        logits = op.Add(logits, bias)
    target = op.cast(target, wide) if target.dtype.is_floating_point() else target
    loss = cross_entropy_loss(op, logits, target, weight, reduction, ignore_index, label_smoothing)
    return op.cast(loss, dtype)


@translation("torch_nn::_linear_cross_entropy_batch_chunked")
def linear_cross_entropy_batch_chunked(
    op: Builder,
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    ignore_index: Any,
    label_smoothing: float,
    batch_chunk_size: Any,
    acc_policy: str,
    acc_dtype: Any,
    allow_retain_graph: bool,
    compute_input_grad: bool,
    compute_linear_weight_grad: bool,
    compute_linear_bias_grad: bool,
) -> list[Tensor | None]:
    if any(is_used(op, i) for i in (1, 2, 3)):
        raise Unsupported("the gradients that it gives for a backward pass")
    kind = {"none": _NONE, "mean": _MEAN, "sum": _SUM}[reduction]
    loss = _chunked(op, input, linear_weight, target, linear_bias, weight, ignore_index, kind, label_smoothing)
    return [loss, None, None, None]


@translation("torch_nn::_linear_cross_entropy_batch_chunked_no_reduction")
def linear_cross_entropy_batch_chunked_no_reduction(
    op: Builder,
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: Any,
    batch_chunk_size: Any,
    acc_policy: str,
    acc_dtype: Any,
) -> Tensor:
    return _chunked(op, input, linear_weight, target, linear_bias, weight, ignore_index, _NONE)


@translation("aten::soft_margin_loss")
def soft_margin_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    x, y = _alike(op, self, target)
    return _reduce(op, op.Log(op.Add(op.Exp(op.Neg(op.Mul(x, y))), 1)), reduction)


@translation("aten::multi_margin_loss")
def multi_margin_loss(
    op: Builder,
    self: Tensor,
    target: Tensor,
    p: Any = 1,
    margin: Any = 1,
    weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    rank = len(self.shape)
    x = self if rank == 2 else op.Reshape(self, [1, -1])
    y = op.Reshape(op.cast(target, DataType.INT64), [-1, 1])
    classes = self.shape[-1] if rank else 1
    chosen = op.GatherElements(x, y, axis=1)
    loss = _power(op, op.Relu(op.Add(op.Sub(x, chosen), margin)), float(p))
    if weight is not None:
        loss = op.Mul(loss, op.Gather(weight, y))
    index = op.Range(0, classes, 1)
    loss = op.Where(op.Equal(index, y), op.const(0, x.dtype), loss)
    loss = op.Div(op.ReduceSum(loss, [1], keepdims=0), op.cast(classes, x.dtype))
    if reduction == _NONE and len(target.shape) == 0:
        return op.Squeeze(loss, [0])
    return _reduce(op, loss, reduction)


def _multilabel_margin(op: Builder, self: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """The loss, and which classes are targets: those listed before the first -1."""
    rank = len(self.shape)
    x = self if rank == 2 else op.Reshape(self, [1, -1])
    y = target if rank == 2 else op.Reshape(target, [1, -1])
    dtype = x.dtype
    ended = op.CumSum(op.cast(op.Less(y, 0), DataType.INT32), op.const(np.int64(1)))
    listed = op.Equal(ended, 0)
    safe = op.Where(listed, y, 0)
    classes = self.shape[-1] if rank else 1
    index = op.Range(0, classes, 1)
    # (batch, place in the list, class): whether this place names this class
    named = op.And(op.Equal(op.Unsqueeze(y, [2]), index), op.Unsqueeze(listed, [2]))
    is_target = op.ReduceMax(op.cast(named, DataType.INT32), [1], keepdims=0)
    chosen = op.Unsqueeze(op.GatherElements(x, safe, axis=1), [2])
    gaps = op.Relu(op.Add(op.Sub(op.Unsqueeze(x, [1]), chosen), 1))
    counted = op.And(op.Unsqueeze(listed, [2]), op.Unsqueeze(op.Equal(is_target, 0), [1]))
    loss = op.ReduceSum(op.Where(counted, gaps, 0), [1, 2], keepdims=0)
    loss = op.Div(loss, op.cast(classes, dtype))
    is_target = op.cast(is_target, dtype)
    if rank < 2:
        is_target = op.Reshape(is_target, op.sizes(list(target.shape)))
        loss = op.Squeeze(loss, [0])
    return _reduce(op, loss, reduction if rank == 2 else _NONE), is_target


@translation("aten::multilabel_margin_loss")
def multilabel_margin_loss(op: Builder, self: Tensor, target: Tensor, reduction: int = 1) -> Tensor:
    return _multilabel_margin(op, self, target, reduction)[0]


@translation("aten::multilabel_margin_loss_forward")
def multilabel_margin_loss_forward(op: Builder, self: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    return _multilabel_margin(op, self, target, reduction)


# ---- ranking


@translation("aten::margin_ranking_loss")
def margin_ranking_loss(
    op: Builder, input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    a, b, y = _alike(op, input1, input2, target)
    (slack,) = _floating(op, op.Mul(y, op.Sub(b, a)))
    if margin:
        slack = op.Add(slack, margin)
    return _reduce(op, op.Relu(slack), reduction)


@translation("aten::hinge_embedding_loss")
def hinge_embedding_loss(op: Builder, self: Tensor, target: Tensor, margin: float = 1.0, reduction: int = 1) -> Tensor:
    x, y = _alike(op, self, target)
    zero = op.const(0, x.dtype)
    apart = op.Where(op.Equal(y, 1), zero, op.Max(op.Sub(op.const(margin, x.dtype), x), 0))
    together = op.Where(op.Equal(y, -1), zero, x)
    return _reduce(op, op.Add(apart, together), reduction)


@translation("aten::cosine_embedding_loss")
def cosine_embedding_loss(
    op: Builder, input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    a, b = _alike(op, input1, input2)
    if a.dtype is DataType.BOOL:  # products of bools are bools, and sums of those int64
        a, b = op.cast(a, DataType.INT64), op.cast(b, DataType.INT64)
    if target.dtype is DataType.BOOL:
        target = op.cast(target, DataType.INT64)
    axis = [max(len(a.shape), len(b.shape)) - 1]

    def dot(x: Tensor, y: Tensor) -> Tensor:
        product_ = op.Mul(x, y)  # integers are summed as int64, as torch does
        wide = DataType.INT64 if product_.dtype.is_integer() else product_.dtype
        return _floating(op, op.ReduceSum(op.cast(product_, wide), axis, keepdims=0))[0]

    epsilon = 1e-12
    norms = op.Mul(op.Add(dot(a, a), epsilon), op.Add(dot(b, b), epsilon))
    cosine = op.Div(dot(a, b), op.Sqrt(norms))
    zero = op.const(0, cosine.dtype)
    similar = op.Where(op.Equal(target, 1), op.Sub(op.const(1, cosine.dtype), cosine), zero)
    different = op.Where(op.Equal(target, -1), op.Max(op.Sub(cosine, margin), 0), zero)
    return _reduce(op, op.Add(similar, different), reduction)


@translation("aten::triplet_margin_loss")
def triplet_margin_loss(
    op: Builder,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = 1,
) -> Tensor:
    near = _pairwise(op, anchor, positive, p, eps, keepdim=False)
    far = _pairwise(op, anchor, negative, p, eps, keepdim=False)
    if swap:
        far = op.Min(far, _pairwise(op, positive, negative, p, eps, keepdim=False))
    return _reduce(op, op.Relu(op.Add(op.Sub(near, far), margin)), reduction)


# ---- distances


def _norm(op: Builder, x: Tensor, axes: Sequence[int], p: float, *, keepdims: bool = False) -> Tensor:
    """The p-norm of `x` over `axes`; narrow floats in float32, as torch accumulates them."""
    listed, keep = list(axes) or None, int(keepdims)
    if x.dtype in NARROW_FLOATS:
        return op.cast(_norm(op, widen(op, x), axes, p, keepdims=keepdims), x.dtype)
    if p == 2:
        return op.Sqrt(op.ReduceSum(op.Mul(x, x), listed, keepdims=keep))
    magnitude = op.Abs(x)
    if p == 0:
        different = op.cast(op.Not(op.Equal(x, op.const(0, x.dtype))), x.dtype)
        return op.ReduceSum(different, listed, keepdims=keep)
    if p == 1:
        return op.ReduceSum(magnitude, listed, keepdims=keep)
    if math.isinf(p):
        reduce = op.ReduceMax if p > 0 else op.ReduceMin
        return reduce(magnitude, listed, keepdims=keep)
    total = op.ReduceSum(op.Pow(magnitude, op.const(p, x.dtype)), listed, keepdims=keep)
    return op.Pow(total, op.const(1.0 / p, x.dtype))


def _pairwise(op: Builder, a: Tensor, b: Tensor, p: float, eps: float, *, keepdim: bool) -> Tensor:
    a, b = _alike(op, a, b)
    (difference,) = _floating(op, op.Sub(a, b))
    return _norm(op, op.Add(difference, eps), [-1], p, keepdims=keepdim)


@translation("aten::pairwise_distance")
def pairwise_distance(
    op: Builder, x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    return _pairwise(op, x1, x2, p, eps, keepdim=keepdim)


@translation("aten::cosine_similarity")
def cosine_similarity(op: Builder, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    rank = max(len(x1.shape), len(x2.shape))
    axis = dim % rank if rank else 0
    length = broadcast_shape(x1.shape, x2.shape)[axis] if rank else 1
    normal = []
    for x in (x1, x2):  # each in its own type, as in eager: only the product promotes
        x = x if x.dtype.is_floating_point() else op.cast(x, DataType.FLOAT)
        x = _along(op, x, axis - rank, length) if rank else x
        normal.append(op.Div(x, op.Max(_norm(op, x, [axis - rank] if rank else [], 2, keepdims=True), eps)))
    cosine = op.Mul(*_floating(op, *normal))
    return op.ReduceSum(cosine, [axis], keepdims=0) if rank else cosine


def _along(op: Builder, x: Tensor, axis: int, length: Dim) -> Tensor:
    """`x` broadcast along one axis, counted from behind: what is reduced there has the length of both operands."""
    rank = max(len(x.shape), -axis)
    shape = [1] * (rank - len(x.shape)) + list(x.shape)
    shape[axis] = length
    return expand(op, x, shape)


def _cdist(op: Builder, x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    """Distances of the rows of `x1` (..., P, M) and `x2` (..., R, M): (..., P, R)."""
    rows = x1.shape[-2], x2.shape[-2]
    large = any(isinstance(count, int) and count > 25 for count in rows)
    if p == 2 and (compute_mode == 1 or (compute_mode in (None, 0) and large)):
        return _euclidean(op, x1, x2)
    difference = op.Sub(op.Unsqueeze(x1, [-2]), op.Unsqueeze(x2, [-3]))
    return _norm(op, difference, [-1], p)


def _euclidean(op: Builder, x1: Tensor, x2: Tensor) -> Tensor:
    """Euclidean distances by a matrix product, as torch computes them between many rows."""
    squares = [op.ReduceSum(op.Mul(x, x), [-1]) for x in (x1, x2)]
    rank = len(x2.shape)
    flipped = [*range(rank - 2), rank - 1, rank - 2]
    mixed = op.Mul(op.MatMul(x1, op.Transpose(x2, perm=flipped)), -2)
    total = op.Add(op.Add(mixed, squares[0]), op.Transpose(squares[1], perm=flipped))
    return op.Sqrt(op.Max(total, 0))


@translation("aten::cdist", "aten::_cdist_forward")
def cdist(op: Builder, x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: int | None = None) -> Tensor:
    a, b = _alike(op, x1, x2)
    shape = list(op.result.shape)
    if 0 in list(a.shape)[-2:] or 0 in list(b.shape)[-2:] or 0 in shape:
        return expand(op, op.const(0, a.dtype), shape)
    return _cdist(op, a, b, p, compute_mode)


@translation("aten::_euclidean_dist")
def euclidean_dist(op: Builder, x1: Tensor, x2: Tensor) -> Tensor:
    return _euclidean(op, x1, x2)


@translation("aten::pdist", "aten::_pdist_forward")
def pdist(op: Builder, self: Tensor, p: float = 2.0) -> Tensor:
    count = self.shape[0]
    if isinstance(count, int):
        first, second = np.triu_indices(count, 1)
        rows = [op.Gather(self, op.const(index.astype(np.int64))) for index in (first, second)]
        return _norm(op, op.Sub(*rows), [1], p)
    distances = _norm(op, op.Sub(op.Unsqueeze(self, [1]), op.Unsqueeze(self, [0])), [2], p)
    index = op.Range(0, count, 1)
    above = op.Less(op.Unsqueeze(index, [1]), index)
    return op.Compress(op.Reshape(distances, [-1]), op.Reshape(above, [-1]))
