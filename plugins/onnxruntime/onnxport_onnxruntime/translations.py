"""Operators of the pack as onnxruntime's own: one node each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import DataType, Size, Tensor, Unsupported, translation

from onnxport_onnxruntime.grouped import Mixture

if TYPE_CHECKING:
    from onnxport import Builder

DOMAIN = "com.microsoft"
_PROFILES = "onnxruntime-*"
_LOWEST = float(np.finfo(np.float32).min)
_LOOKED_AT = 2**20
"""Elements of a constant whose least is looked for."""
_MOVING = frozenset({"Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})


@translation("onnxport_onnxruntime::group_query_attention", profile=_PROFILES)
def group_query_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    heads: int,
    kv_heads: int,
    scale: float | None = None,
    is_causal: bool = False,
    window: int = -1,
) -> list[Tensor | None]:
    if op.profile.portable and mask is not None:
        raise Unsupported("portable=True: a mask that isn't causal is no input of the function")
    batch, queries, _ = query.shape
    total = queries if past_key is None else queries + past_key.shape[2]
    last = op.cast(op.tensor(total - 1), DataType.INT32)
    inputs: list[Any] = [query, key, value, past_key, past_value]
    inputs += [op.Expand(last, op.sizes([batch])), op.cast(op.tensor(total), DataType.INT32)]
    if mask is not None:
        inputs += [None] * 3 + [_bias(op, mask, queries, -np.inf)]
    # Its kernel takes several queries behind a past for one sequence alone, unless it is told that none is padding.
    if past_key is not None and queries != 1 and batch != 1:
        inputs += [None] * (16 - len(inputs))
        inputs.append(op.Expand(op.cast(op.tensor(queries), DataType.INT32), op.sizes([batch])))
    if op.profile.portable:
        return _portable_grouped(op, inputs, heads, kv_heads, scale, window)
    output, *present = op.call(
        DOMAIN,
        "GroupQueryAttention",
        *inputs,
        outputs=3,
        num_heads=heads,
        kv_num_heads=kv_heads,
        scale=scale,
        local_window_size=window if window >= 0 else None,
    )
    if mask is not None and not (isinstance(total, int) and total > 1):  # of a single key, its kernel makes NaN
        output = _zeros_where_no_key_is_left(op, output, mask, heads)
    return [output, *present]


@translation("onnxport_onnxruntime::multi_head_attention", profile=_PROFILES)
def multi_head_attention(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    heads: int,
    kv_heads: int,
    scale: float | None = None,
    is_causal: bool = False,
    window: int = -1,
) -> list[Tensor | None]:
    if op.profile.portable:
        return [_portable_multi_head(op, query, key, value, mask, past_key, heads, scale, is_causal), None, None]
    queries = query.shape[1]
    bias = None if mask is None else _bias(op, mask, queries, _LOWEST)
    count = 1 if past_key is None else 3
    results = op.call(
        DOMAIN,
        "MultiHeadAttention",
        query,
        key,
        value,
        *((None, None, bias, past_key, past_value) if bias is not None or past_key is not None else ()),
        outputs=count,
        num_heads=heads,
        scale=scale,
        unidirectional=1 if is_causal and mask is None and queries != 1 else None,
    )
    output, *present = results if count > 1 else [results]
    if mask is not None:
        output = _zeros_where_no_key_is_left(op, output, mask, heads)
    if not present:
        present = [_apart(op, each, heads) for each in (key, value)] if _is_used(op) else [None, None]
    return [output, *present]


def _portable_multi_head(
    op: Builder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    past_key: Tensor | None,
    heads: int,
    scale: float | None,
    is_causal: bool,
) -> Tensor:
    """A call of a function that onnxruntime has a kernel for, and other runtimes the body."""
    if mask is not None or past_key is not None or _is_used(op):
        raise Unsupported("portable=True: a mask or a cache is no input of the function")
    is_causal = is_causal and query.shape[1] != 1

    def body(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        q, k, v = (_apart(op, each, heads) for each in (query, key, value))
        result = op.translate("aten::scaled_dot_product_attention", q, k, v, None, 0.0, is_causal, scale=scale)
        return op.Reshape(op.Transpose(result, perm=[0, 2, 1, 3]), [0, 0, -1])

    return op.function(
        DOMAIN,
        "MultiHeadAttention",
        body,
        query,
        key,
        value,
        key=(heads, scale, is_causal),
        num_heads=heads,
        scale=scale if scale is not None else (query.shape[2] // heads) ** -0.5,
        unidirectional=int(is_causal),
    )


def _portable_grouped(
    op: Builder, inputs: list[Any], heads: int, kv_heads: int, scale: float | None, window: int
) -> list[Tensor | None]:
    """A call of a function with the inputs of onnxruntime's kernel, and all that they say in its body."""

    def body(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past_key: Tensor | None,
        past_value: Tensor | None,
        last: Tensor,
        total: Tensor,
        *_: Any,
        **__: Any,
    ) -> list[Tensor]:
        q = _apart(op, query, heads)
        k, v = (_apart(op, each, kv_heads) for each in (key, value))
        if past_key is not None and past_value is not None:
            k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
            k.shape = v.shape = ir.Shape([key.shape[0], kv_heads, past_key.shape[2] + key.shape[1], q.shape[3]])
        ahead = op.Sub(op.Range(0, op.tensor(query.shape[1]), 1), op.tensor(query.shape[1] - 1))
        places = op.Add(op.Reshape(op.cast(last, DataType.INT64), [-1, 1, 1, 1]), op.Unsqueeze(ahead, [1]))
        keys = op.Range(0, op.cast(total, DataType.INT64), 1)
        mask = op.LessOrEqual(keys, places)
        if window >= 0:
            mask = op.And(mask, op.Greater(keys, op.Sub(places, window)))
        mask.shape = ir.Shape([key.shape[0], 1, query.shape[1], k.shape[2]])
        result = op.translate(
            "aten::scaled_dot_product_attention", q, k, v, mask, scale=scale, enable_gqa=heads != kv_heads
        )
        return [op.Reshape(op.Transpose(result, perm=[0, 2, 1, 3]), [0, 0, heads * (query.shape[2] // heads)]), k, v]

    options: dict[str, Any] = {"num_heads": heads, "kv_num_heads": kv_heads}
    options |= {} if scale is None else {"scale": scale}
    options |= {} if window < 0 else {"local_window_size": window}
    key = (heads, kv_heads, scale, window)
    return list(op.function(DOMAIN, "GroupQueryAttention", body, *inputs, key=key, **options))


def _expect_no_portable(op: Builder, name: str) -> None:
    """What has inputs that a body doesn't need is written in the standard where the file is for other runtimes too."""
    if op.profile.portable:
        raise Unsupported(f"portable=True: {name} is written in the standard")


def _is_used(op: Builder) -> bool:
    return op.node is not None and any(user.args[1] != 0 for user in op.node.users)


def _apart(op: Builder, x: Tensor, heads: int) -> Tensor:
    """(B, S, heads * D) as (B, heads, S, D)."""
    return op.Transpose(op.Reshape(x, [0, 0, heads, x.shape[2] // heads]), perm=[0, 2, 1, 3])


def _bias(op: Builder, mask: Tensor, queries: int | Size, lowest: float) -> Tensor:
    """What is added to scores; kernels broadcast it over the batch and heads, but not over queries."""
    if mask.dtype is DataType.BOOL:
        mask = op.Where(mask, op.const(0.0, DataType.FLOAT), op.const(lowest, DataType.FLOAT))
    elif lowest > _least(mask):
        mask = op.Max(mask, op.const(lowest, DataType.FLOAT))  # minus infinity in a whole row would make NaN
    return mask if mask.shape[-2] == queries else op.Expand(mask, op.sizes([1, 1, queries, 1]))


def _zeros_where_no_key_is_left(op: Builder, output: Tensor, mask: Tensor, heads: int) -> Tensor:
    """(B, S, heads * D) as eager attention gives it: zeros for a query that reads no key."""
    if mask.dtype is not DataType.BOOL and _least(mask) > -np.inf:
        return output
    kept = op.cast(mask, DataType.INT32) if mask.dtype is DataType.BOOL else mask
    most = op.ReduceMax(kept, [-1], keepdims=1)
    left = op.cast(most, DataType.BOOL) if mask.dtype is DataType.BOOL else op.Greater(most, -np.inf)
    if mask.shape[1] == 1:
        return op.Where(op.Squeeze(left, [1]), output, 0)
    apart = op.Reshape(output, [0, 0, heads, -1])
    return op.Reshape(op.Where(op.Transpose(left, perm=[0, 2, 1, 3]), apart, 0), [0, 0, -1])


def _least(value: Tensor) -> float:
    """No element of a float tensor is below it, as far as that is known of weights and what is made of them."""
    if value.const_value is not None:
        size = value.const_value.size
        return float(np.min(value.const_value.numpy())) if 0 < size <= _LOOKED_AT else -np.inf
    node = value.producer()
    if node is None or node.domain:
        return -np.inf
    if node.op_type in _MOVING:
        return _least(node.inputs[0])  # type: ignore[arg-type]
    if node.op_type == "Where":
        return min(_least(branch) for branch in node.inputs[1:])  # type: ignore[arg-type]
    if node.op_type == "Add":
        return float(np.float32(sum(_least(term) for term in node.inputs)))  # type: ignore[arg-type]
    return -np.inf


@translation("onnxport_onnxruntime::rotary_embedding", profile=_PROFILES)
def rotary_embedding(op: Builder, x: Tensor, cos: Tensor, sin: Tensor, *, heads: int) -> Tensor:
    _expect_no_portable(op, "RotaryEmbedding")
    batch, length, _ = x.shape
    if cos.shape[0] == 1 and sin.shape[0] == 1:
        positions = op.const([0], DataType.INT64)
        tables = [op.Squeeze(each, [0]) for each in (cos, sin)]
    else:
        count = op.tensor(batch * length)
        positions = op.Reshape(op.Range(0, count, 1), op.sizes([batch, length]))
        wide = op.sizes([batch, 1, 1])
        tables = [op.Reshape(op.Expand(each, wide), [-1, each.shape[2]]) for each in (cos, sin)]
    return op.call(DOMAIN, "RotaryEmbedding", x, positions, *tables)


@translation("onnxport_onnxruntime::skip_layer_norm", profile=_PROFILES)
def skip_layer_norm(
    op: Builder, x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> list[Tensor]:
    return _skip_norm(op, "SkipLayerNormalization", [x, skip, weight, bias], eps)


@translation("onnxport_onnxruntime::skip_rms_norm", profile=_PROFILES)
def skip_rms_norm(op: Builder, x: Tensor, skip: Tensor, weight: Tensor, eps: float) -> list[Tensor]:
    return _skip_norm(op, "SkipSimplifiedLayerNormalization", [x, skip, weight], eps)


def _skip_norm(op: Builder, name: str, inputs: list[Tensor | None], eps: float) -> list[Tensor]:
    """Its second and third results are of training."""
    _expect_no_portable(op, name)
    normed, *_, total = op.call(DOMAIN, name, *inputs, outputs=4, epsilon=eps)
    return [normed, total]


@translation("onnxport_onnxruntime::fast_gelu", profile=_PROFILES)
def fast_gelu(op: Builder, x: Tensor) -> Tensor:
    if op.profile.portable:
        return op.function(
            DOMAIN, "FastGelu", lambda x: op.translate("aten::gelu", x, approximate="tanh"), x, key="tanh"
        )
    return op.call(DOMAIN, "FastGelu", x)


@translation("onnxport_onnxruntime::quick_gelu", profile=_PROFILES)
def quick_gelu(op: Builder, x: Tensor, alpha: float) -> Tensor:
    if op.profile.portable:

        def body(x: Tensor, **_: Any) -> Tensor:
            return op.Mul(x, op.Sigmoid(x if alpha == 1 else op.Mul(x, alpha)))

        return op.function(DOMAIN, "QuickGelu", body, x, key=alpha, alpha=alpha)
    return op.call(DOMAIN, "QuickGelu", x, alpha=alpha)


@translation("onnxport_onnxruntime::mixture", profile=_PROFILES)
def mixture(
    op: Builder,
    x: Tensor,
    logits: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    *,
    count: int,
    is_normalized: bool,
    is_turned: bool,
    is_interleaved: bool,
    alpha: float,
    beta: float,
    limit: float | None,
) -> Tensor:
    """As one node, whose kernel takes stacks (E, N, K) and gates that take turns with what they are multiplied with."""
    form = Mixture(count, is_normalized, alpha, beta, limit)
    if op.profile.quantized or op.profile.portable:  # each expert is a weight of its own, which can be rounded
        stacks = [_turned(op, stack) if is_turned else stack for stack in (up, down)]
        return form.products(op, x, logits, stacks[0], up_bias, stacks[1], down_bias, is_interleaved)
    first, second = (stack if is_turned else _turned(op, stack) for stack in (up, down))
    if not is_interleaved:
        first = _in_turns(op, first)
        up_bias = None if up_bias is None else _in_turns(op, up_bias)
    attributes: dict[str, Any] = {
        "k": count,
        "normalize_routing_weights": int(is_normalized),
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": alpha,
        "activation_beta": beta,
        **({} if limit is None else {"swiglu_limit": limit}),
    }
    return op.call(DOMAIN, "MoE", x, logits, first, up_bias, second, down_bias, **attributes)


def _turned(op: Builder, stack: Tensor) -> Tensor:
    """Matrices with their axes exchanged."""
    stored = op.derived("turned", lambda tensor: tensor.transpose(1, 2), stack)
    return op.Transpose(stack, perm=[0, 2, 1]) if stored is None else stored


def _in_turns(op: Builder, stack: Tensor) -> Tensor:
    """(E, 2 * I, ...) with the second half of the rows between those of the first."""
    experts, rows, *rest = stack.shape
    stored = op.derived("interleaved", lambda tensor: tensor.unflatten(1, [2, -1]).transpose(1, 2).flatten(1, 2), stack)
    if stored is not None:
        return stored
    halves = op.Reshape(stack, [experts, 2, rows // 2, *rest])
    return op.Reshape(op.Transpose(halves, perm=[0, 2, 1, 3][: len(rest) + 3]), [experts, rows, *rest])
