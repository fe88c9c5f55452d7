"""Scaled dot-product attention in all its forms, and the fused layers of transformers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, iota, is_used, permute, reshape
from onnxport.optimize.rewriting import attribute, constant

from onnxport_builtin.aten.grouped_heads import Groups, groups_of
from onnxport_builtin.aten.matmul import swap_last
from onnxport_builtin.aten.normalization import layer_norm
from onnxport_builtin.aten.random import dropout

if TYPE_CHECKING:
    from onnxport import Builder

_MINUS_INFINITY = -float("inf")
_MODERATE = 1e9
_MASK_LIMIT = 64 * 1024 * 1024  # bytes of a constant mask that is looked at


def _causal_mask(op: Builder, queries: Dim, keys: Dim, dtype: DataType) -> Tensor:
    """(queries, keys): 0 up to the diagonal that starts top left, minus infinity above it."""
    if isinstance(queries, int) and isinstance(keys, int):
        allowed = np.tril(np.ones((queries, keys), dtype=bool))
        return op.const(np.where(allowed, 0.0, _MINUS_INFINITY), dtype)
    later = op.Less(op.Unsqueeze(iota(op, queries), [1]), iota(op, keys))
    return op.Where(later, op.const(_MINUS_INFINITY, dtype), op.const(0.0, dtype))


def _narrowed(op: Builder, mask: Tensor) -> Tensor | None:
    """A mask as it was before it was expanded, since adding it broadcasts; None for one that keeps everything.

    Models make masks of ones for the whole batch where the caller gives none.
    """
    node = mask.producer()
    while node is not None and not node.domain and node.op_type == "Expand" and not mask.is_complex:
        mask = node.inputs[0]  # type: ignore[assignment]
        node = mask.producer()
    values = constant(mask, _MASK_LIMIT)
    if values is None:
        return mask
    changes_nothing = values.all() if values.dtype == bool else not values.any()
    return None if changes_nothing else mask


def _rows_left(op: Builder, mask: Tensor) -> Tensor | None:
    """For each query whether any key is left, bool (..., 1); None where that is known of all of them."""
    values = constant(mask, _MASK_LIMIT)  # not of a weight, which may be another one later
    if values is not None:
        left = (values if values.dtype == bool else values != _MINUS_INFINITY).any(axis=-1, keepdims=True)
        return None if left.all() else op.const(left)
    if mask.dtype == DataType.BOOL:
        return op.cast(op.ReduceMax(op.cast(mask, DataType.INT32), [-1]), DataType.BOOL)
    return op.Greater(op.ReduceMax(mask, [-1]), _MINUS_INFINITY)


class _Scores:
    """The masked scores of an attention, (..., queries, keys), and which of its rows aren't masked altogether."""

    def __init__(
        self,
        op: Builder,
        query: Tensor,
        key: Tensor | Groups,
        mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
        keys: Dim,
    ) -> None:
        queries, dtype = query.shape[-2], query.dtype
        self.rows: Tensor | None = None
        scores = _product_with_keys(op, query, key, _factor(op, query, scale))
        if is_causal:
            scores = op.Add(scores, _causal_mask(op, queries, keys, dtype))
        mask = None if mask is None else _narrowed(op, mask)
        if mask is not None:
            self.rows = _rows_left(op, mask)
            if mask.dtype == DataType.BOOL:
                mask = op.Where(mask, op.const(0.0, dtype), op.const(_MINUS_INFINITY, dtype))
            scores = op.Add(scores, op.cast(mask, dtype))
        self.scores = scores


def _factor(op: Builder, query: Tensor, scale: float | None) -> Any:
    """What the scores are multiplied by; None where that changes nothing."""
    width = query.shape[-1]
    if scale is None and not isinstance(width, int):
        return op.Reciprocal(op.Sqrt(op.cast(width, query.dtype)))
    factor = scale if scale is not None else 1.0 / math.sqrt(width) if width else 1.0
    return None if factor == 1.0 else factor


def _product_with_keys(op: Builder, query: Tensor, key: Tensor | Groups, factor: Any) -> Tensor:
    groups = key if isinstance(key, Groups) else None
    rows = query if groups is None else groups.rows(op, query)
    if factor is not None:  # directly before the product: onnxruntime makes one node of both
        rows = op.Mul(rows, factor)
    matrices = key if groups is None else groups.matrices
    scores = op.MatMul(rows, swap_last(op, matrices, len(matrices.shape)))
    return scores if groups is None else groups.heads(op, scores, query, matrices.shape[-2])


def _attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    with_weights: bool = False,
) -> tuple[Tensor, Tensor, _Scores]:
    """The attention's result, its weights after the softmax, and its scores.

    `query` (..., L, E), `key` (..., S, E), `value` (..., S, E_v). A query that no key is left for gives zeros, as
    torch's own kernels do.
    """
    keys = key.shape[-2]
    is_plain = list(query.shape[:-3]) == list(key.shape[:-3])  # a batch of keys alone is one of the weights too
    shared_key, shared_value = (_shared_heads(op, query, x, enable_gqa, is_plain) for x in (key, value))
    scores = _Scores(op, query, shared_key, mask, is_causal, scale, keys)
    weights = op.Softmax(scores.scores, axis=-1)
    if scores.rows is not None and with_weights:
        weights = op.Where(scores.rows, weights, 0)
    if dropout_p > 0:
        weights = dropout(op, weights, dropout_p, train=True)
    if isinstance(shared_value, Groups):
        weights.shape = ir.Shape([*query.shape[:-1], keys])
        result = shared_value.product(op, weights)
    else:
        result = op.MatMul(weights, shared_value)
    if scores.rows is not None and not with_weights:
        result = op.Where(scores.rows, result, 0)
    return result, weights, scores


def _shared_heads(op: Builder, query: Tensor, x: Tensor, enable_gqa: bool, may_group: bool) -> Tensor | Groups:
    """Keys or values (..., H_kv, S, E) for the heads of ``query``, without copies where that is possible."""
    if not enable_gqa or x.shape[-3] == query.shape[-3]:
        return (groups_of(op, query, x) if may_group else None) or x
    *lead, own, length, width = x.shape
    heads = query.shape[-3]
    repeats = heads // own
    if may_group and isinstance(repeats, int) and list(query.shape[:-3]) == lead:
        return Groups(x, repeats)
    axis = len(lead) + 1
    spread = expand(op, op.Unsqueeze(x, [axis]), [*lead, own, repeats, length, width])
    return reshape(op, spread, [*lead, heads, length, width])


@translation("aten::scaled_dot_product_attention")
def scaled_dot_product_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    return _attention(op, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)[0]


@translation("aten::scaled_dot_product_attention", opset=23)
def attention_of_rows(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """ONNX's Attention, where queries, keys and values were (B, S, H * D) before a model laid their heads apart.

    It reads and writes that layout, which spares four transposes: on onnxruntime 1.32, a layer of 12 heads of 64 at
    128 places takes 1.53 ms so, 1.99 in steps and 1.85 with heads laid apart. All versions that load opset 23 have the
    kernel. Shared key heads are left to the steps, which are faster then (``grouped_heads.py``).
    """
    factor = _factor(op, query, scale)
    factor = 1.0 if factor is None else factor
    if query.dtype is not DataType.FLOAT or dropout_p or not isinstance(factor, float) or factor <= 0:
        raise Unsupported("not a case of the kernel")
    heads, keys = query.shape[-3], key.shape[-2]
    rows = [_heads_together(op, x, heads, query.shape[0]) for x in (query, key, value)]
    if any(x is None for x in rows) or keys == 0:
        raise Unsupported("heads that weren't laid apart by a reshape and a transpose")
    batch, _, queries, _ = query.shape
    bias = None if attn_mask is None else _narrowed(op, attn_mask)
    if bias is not None and bias.dtype != DataType.BOOL and not _is_moderate(bias):
        raise Unsupported("a mask of floats: the kernel of onnxruntime 1.32 takes the least float for minus infinity")
    left = None if bias is None else _rows_left(op, bias)
    if bias is not None:
        bias = _kernel_bias(op, bias, [batch, heads, queries, keys], query.dtype)
    if is_causal:
        bias = _causal_mask(op, queries, keys, query.dtype)
    y = op.Attention(*rows, bias, scale=factor, q_num_heads=heads, kv_num_heads=heads)
    width = value.shape[-1]
    y.shape = ir.Shape([batch, queries, heads * width])
    result = permute(op, reshape(op, y, [batch, queries, heads, width]), [0, 2, 1, 3])
    return result if left is None else op.Where(left, result, 0)


def _is_moderate(mask: Tensor) -> bool:
    """A constant mask of numbers that are far from the least float."""
    values = constant(mask, _MASK_LIMIT)
    return values is not None and bool((np.abs(values) < _MODERATE).all())


def _heads_together(op: Builder, x: Tensor, heads: Dim, batch: Dim) -> Tensor | None:
    """The (B, S, H * D) that (B, H, S, D) was made of; None where it wasn't, or a size of it differs."""
    node = x.producer()
    if node is None or node.domain or node.op_type != "Transpose" or list(attribute(node, "perm")) != [0, 2, 1, 3]:
        return None
    apart = node.inputs[0].producer()  # type: ignore[union-attr]
    if apart is None or apart.domain or apart.op_type != "Reshape" or apart.inputs[0] is None:
        return None
    rows = apart.inputs[0]
    b, h, length, width = x.shape
    if b != batch or h != heads or not isinstance(h, int) or not isinstance(width, int) or not width or not h:
        return None
    together = rows.shape is not None and list(rows.shape) == [b, length, h * width]
    return rows if together else None  # type: ignore[return-value]


def _kernel_bias(op: Builder, mask: Tensor, shape: list[Dim], dtype: DataType) -> Tensor:
    """A mask as onnxruntime 1.32 takes it: of floats, with a column for each key and a row for each query.

    Raises:
        Unsupported: its other axes don't broadcast, as far as is known.
    """
    if mask.dtype == DataType.BOOL:
        mask = op.Where(mask, op.const(0.0, dtype), op.const(_MINUS_INFINITY, dtype))
    dims = list(mask.shape)
    lead = [1] * (4 - len(dims)) + dims[:-2]
    if len(dims) > 4 or any(dim not in (1, wanted) for dim, wanted in zip(lead, shape[:2], strict=False)):
        raise Unsupported("a mask of other sizes")
    if len(dims) < 2 or dims[-2:] != shape[2:]:
        mask = expand(op, mask, [*dims[:-2], *shape[2:]])
    return op.cast(mask, dtype)


@translation("aten::_scaled_dot_product_attention_math")
def attention_math(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    dropout_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> list[Tensor | None]:
    if dropout_mask is not None:
        raise Unsupported("a dropout mask")
    if attn_mask is not None:  # this operator adds a mask of bools as numbers: its caller has converted them
        attn_mask = op.cast(attn_mask, query.dtype)
    arguments = (attn_mask, dropout_p, is_causal, scale, enable_gqa)
    used = is_used(op, 1)
    result, weights, _ = _attention(op, query, key, value, *arguments, with_weights=used)
    return [result, weights if used else None]


def _with_log_sum(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> list[Tensor | None]:
    log_sum = None
    if not is_used(op, 1):
        result = _attention(op, query, key, value, mask, dropout_p, is_causal, scale)[0]
    else:
        expected = op.results[1]
        dtype = value.dtype  # the log-sum-exp of halves is a float: so are the scores it comes from
        query, key, value = (op.cast(x, expected.dtype) for x in (query, key, value))
        result, _, scores = _attention(op, query, key, value, mask, dropout_p, is_causal, scale)
        result = op.cast(result, dtype)
        if len(expected.shape) != len(query.shape) - 1:
            raise Unsupported("this layout of the log-sum-exp")
        log_sum = op.cast(op.ReduceLogSumExp(scores.scores, [-1], keepdims=0), expected.dtype)
    values: list[Tensor | None] = [result, log_sum]
    fakes = op.node.meta["val"] if op.node is not None else ()
    for i in range(2, len(fakes)):
        if is_used(op, i):
            raise Unsupported(f"result {i}, which only a backward pass reads")
        values.append(None)
    return values


@translation("aten::_scaled_dot_product_flash_attention_for_cpu")
def flash_attention_for_cpu(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> list[Tensor | None]:
    return _with_log_sum(op, query, key, value, attn_mask, dropout_p, is_causal, scale)


@translation("aten::_scaled_dot_product_flash_attention")
def flash_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> list[Tensor | None]:
    return _with_log_sum(op, query, key, value, None, dropout_p, is_causal, scale)


@translation("aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention")
def efficient_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> list[Tensor | None]:
    return _with_log_sum(op, query, key, value, attn_bias, dropout_p, is_causal, scale)


@translation("aten::_scaled_dot_product_fused_attention_overrideable")
def overrideable_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> list[Tensor | None]:
    return _with_log_sum(op, query, key, value, attn_bias, dropout_p, is_causal, scale)


# ---- whole layers


def _projected(op: Builder, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = op.MatMul(x, op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _forbidden(op: Builder, mask: Tensor, mask_type: int | None, dtype: DataType) -> Tensor:
    """An additive mask that broadcasts against (batch, heads, queries, keys); True means: not to be read."""
    if mask.dtype == DataType.BOOL:
        mask = op.Where(mask, op.const(_MINUS_INFINITY, dtype), op.const(0.0, dtype))
    if mask_type == 1:  # of keys, (batch, keys)
        return op.Unsqueeze(mask, [1, 2])
    return mask


def _self_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None,
    mask_type: int | None,
) -> tuple[Tensor, Tensor]:
    """Multi-head attention on (batch, length, width): its result, and the weights (batch, heads, L, S)."""
    width = query.shape[-1]
    if not isinstance(width, int):
        raise Unsupported("multi-head attention needs a static width")
    weights = op.Split(qkv_weight, [width] * 3, axis=0, outputs=3)
    biases = op.Split(qkv_bias, [width] * 3, axis=0, outputs=3)
    projected = []
    for x, weight, bias in zip((query, key, value), weights, biases):
        y = reshape(op, _projected(op, x, weight, bias), [*list(x.shape)[:2], heads, width // heads])
        y = permute(op, y, [0, 2, 1, 3])
        y.shape = None if y.shape is None else y.shape
        projected.append(y)
    additive = None if mask is None else _forbidden(op, mask, mask_type, query.dtype)
    q = op.Mul(projected[0], 1.0 / math.sqrt(width // heads))
    scores = op.MatMul(q, op.Transpose(projected[1], perm=[0, 1, 3, 2]))
    if additive is not None:
        scores = op.Add(scores, additive)
    attention = op.Softmax(scores, axis=-1)
    mixed = permute(op, op.MatMul(attention, projected[2]), [0, 2, 1, 3])
    joined = op.Reshape(mixed, [0, 0, width])
    return _projected(op, joined, proj_weight, proj_bias), attention


@translation("aten::_native_multi_head_attention")
def native_multi_head_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> list[Tensor | None]:
    parameters = (qkv_weight, qkv_bias, proj_weight, proj_bias)
    y, weights = _self_attention(op, query, key, value, num_head, *parameters, mask, mask_type)
    if not need_weights or not is_used(op, 1):
        return [y, None]
    return [y, op.ReduceMean(weights, [1], keepdims=0) if average_attn_weights else weights]


@translation("aten::_transformer_encoder_layer_fwd")
def transformer_encoder_layer(
    op: Builder,
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    def first_norm(x: Tensor) -> Tensor:
        return layer_norm(op, x, [embed_dim], norm_weight_1, norm_bias_1, eps)

    def second_norm(x: Tensor) -> Tensor:
        return layer_norm(op, x, [embed_dim], norm_weight_2, norm_bias_2, eps)

    def attend(x: Tensor) -> Tensor:
        parameters = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        return _self_attention(op, x, x, x, num_heads, *parameters, mask, mask_type)[0]

    def feed_forward(x: Tensor) -> Tensor:
        hidden = _projected(op, x, ffn_weight_1, ffn_bias_1)
        if not use_gelu:
            hidden = op.Relu(hidden)
        elif op.opset >= 20:
            hidden = op.Gelu(hidden)
        else:
            hidden = op.Mul(op.Mul(hidden, 0.5), op.Add(op.Erf(op.Mul(hidden, math.sqrt(0.5))), 1))
        return _projected(op, hidden, ffn_weight_2, ffn_bias_2)

    if norm_first:
        x = op.Add(src, attend(first_norm(src)))
        return op.Add(x, feed_forward(second_norm(x)))
    x = first_norm(op.Add(src, attend(src)))
    return second_norm(op.Add(x, feed_forward(x)))
