"""ONNX operators called from torch: ``torch.ops.onnx.*``, and any node by ``torch.onnx.ops.symbolic``.

``symbolic`` and ``symbolic_multi_out`` arrive as two operators whose arguments spell out the node. Those of
``torch.ops.onnx`` become the native node where the opset has it, onnxruntime's kernel takes the element type, and the
node computes what torch does; else the same in other operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxport import Builder, DataType, Tensor, Unsupported, translation
from onnxport.authoring import Dim, expand, iota, is_used, permute, reshape

if TYPE_CHECKING:
    from collections.abc import Callable


# ---- any node


def _attributes(
    keys: Sequence[str],
    kinds: Sequence[str],
    places: Sequence[Sequence[int]],
    ints: Sequence[int],
    floats: Sequence[float],
    strings: Sequence[str],
) -> dict[str, Any]:
    """The attributes by name, of the lists into which torch flattens them."""
    pools: dict[str, Sequence[Any]] = {"i": ints, "f": floats, "s": strings}
    values = {}
    for key, kind, (start, end) in zip(keys, kinds, places):
        pool = pools.get(kind[0])
        if pool is None:
            raise Unsupported(f"attribute {key!r} of kind {kind!r}")
        values[key] = list(pool[start:end]) if kind.endswith("s") and len(kind) == 2 else pool[start]
    return values


def _standard_emitter(op: Builder, op_type: str, version: int | None) -> Callable[..., Any]:
    """What emits an operator of the default domain, which the target opset must define as ``version`` does."""
    try:
        emit: Any = getattr(op, op_type)
        asked: Any = emit if version is None else getattr(Builder(version), op_type)
    except AttributeError as error:
        raise Unsupported(f"{error}; give a domain to an operator that isn't ONNX's own") from error
    if asked.since != emit.since:
        raise Unsupported(
            f"version={version} asks for {op_type} of opset {asked.since}, opset {op.opset} has that of {emit.since}: "
            f"export with opset_version={version}"
        )
    return emit  # type: ignore[no-any-return]


def _custom_node(
    op: Builder, domain: str, op_type: str, version: int | None, inputs: Sequence[Any], dtypes: Sequence[DataType]
) -> list[Tensor]:
    imported = op.domains.get(domain)
    if version is not None and imported not in (None, version):
        raise Unsupported(f"version {version} of the domain {domain!r}: the model imports its version {imported}")
    results = op.call(domain, op_type, *inputs, version=version or imported or 1, dtypes=dtypes)
    return list(results) if isinstance(results, tuple) else [results]


def _node(
    op: Builder,
    inputs: Sequence[Tensor | None],
    op_type: str,
    dtypes: Sequence[int],
    attributes: dict[str, Any],
    properties: dict[str, str],
    domain: str,
    version: int | None,
) -> list[Tensor]:
    """The node that the call describes, and its results."""
    elements = [DataType(dtype) for dtype in dtypes]
    if domain in ("", "ai.onnx"):
        emit = _standard_emitter(op, op_type, version)
        try:
            made = emit(*inputs, outputs=len(elements), **attributes)
        except (TypeError, ValueError) as error:
            raise Unsupported(f"{op_type} isn't called so: {error}") from error
        results = list(made) if isinstance(made, tuple) else [made]
    else:
        results = _custom_node(op, domain, op_type, version, inputs, elements)
        node = results[0].producer()
        for key, value in attributes.items():
            node.attributes.add(ir.convenience.convert_attribute(key, value))  # type: ignore[union-attr]
    for i, (result, dtype, expected) in enumerate(zip(results, elements, op.results, strict=True)):
        if result.dtype is None:
            result.dtype = dtype
        elif result.dtype is not dtype:
            raise Unsupported(f"output {i} of {op_type} is {result.dtype.name}, the call says {dtype.name}")
        known = [] if result.shape is None else list(result.shape)
        wrong = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(known, expected.shape))
        if result.shape is not None and (wrong or len(known) != len(expected.shape)):
            raise Unsupported(f"output {i} of {op_type} has shape {result.shape}, the call says {expected.shape}")
    results[0].producer().metadata_props.update(properties)  # type: ignore[union-attr]
    return results


@translation("onnx_symbolic::_symbolic")
def symbolic(
    op: Builder,
    inputs: Sequence[Tensor | None],
    op_type: str,
    onnx_dtype: int,
    *,
    shape: Sequence[Dim],
    attr_keys: Sequence[str],
    attr_types: Sequence[str],
    attr_pos: Sequence[Sequence[int]],
    attr_ints: Sequence[int],
    attr_floats: Sequence[float],
    attr_strs: Sequence[str],
    metadata_props_keys: Sequence[str],
    metadata_props_values: Sequence[str],
    domain: str = "",
    version: int | None = None,
) -> Tensor:
    """``torch.onnx.ops.symbolic``: one node with one output."""
    attributes = _attributes(attr_keys, attr_types, attr_pos, attr_ints, attr_floats, attr_strs)
    properties = dict(zip(metadata_props_keys, metadata_props_values))
    return _node(op, inputs, op_type, [onnx_dtype], attributes, properties, domain, version)[0]


@translation("onnx_symbolic::_symbolic_multi_out")
def symbolic_multi_out(
    op: Builder,
    inputs: Sequence[Tensor | None],
    op_type: str,
    onnx_dtypes: Sequence[int],
    *,
    shapes: Sequence[Sequence[Dim]],
    attr_keys: Sequence[str],
    attr_types: Sequence[str],
    attr_pos: Sequence[Sequence[int]],
    attr_ints: Sequence[int],
    attr_floats: Sequence[float],
    attr_strs: Sequence[str],
    metadata_props_keys: Sequence[str],
    metadata_props_values: Sequence[str],
    domain: str = "",
    version: int | None = None,
) -> list[Tensor]:
    """``torch.onnx.ops.symbolic_multi_out``: one node with several outputs."""
    attributes = _attributes(attr_keys, attr_types, attr_pos, attr_ints, attr_floats, attr_strs)
    properties = dict(zip(metadata_props_keys, metadata_props_values))
    return _node(op, inputs, op_type, onnx_dtypes, attributes, properties, domain, version)


# ---- RotaryEmbedding


@translation("onnx::RotaryEmbedding.opset23", opset=23)
def rotary_embedding_native(
    op: Builder,
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: bool = False,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    if x.dtype not in (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16):
        raise Unsupported(f"the node isn't defined for {x.dtype.name}")
    return op.RotaryEmbedding(
        x,
        cos_cache,
        sin_cache,
        position_ids,
        interleaved=int(interleaved) or None,
        num_heads=num_heads or None,
        rotary_embedding_dim=rotary_embedding_dim or None,
    )


@translation("onnx::RotaryEmbedding.opset23")
def rotary_embedding(
    op: Builder,
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: bool = False,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """The definition of RotaryEmbedding-23, on x as (batch, length, heads, width)."""
    shape = list(x.shape)
    flat = len(shape) == 3
    whole = reshape(op, x, [*shape[:2], num_heads, shape[2] // num_heads]) if flat else permute(op, x, [0, 2, 1, 3])
    width = shape[2] // num_heads if flat else shape[3]
    turned = rotary_embedding_dim or width
    if not isinstance(width, int) or not isinstance(turned, int):
        raise Unsupported("a head size that isn't static")
    half = turned // 2
    cos, sin = (
        op.Unsqueeze(cache if position_ids is None else op.Gather(cache, position_ids, axis=0), [2])
        for cache in (cos_cache, sin_cache)
    )
    rest = None
    if turned < width:
        whole, rest = op.Split(whole, [turned, width - turned], axis=3, outputs=2)
    if interleaved:
        first, second = (op.Slice(whole, [start], [turned], [3], [2]) for start in (0, 1))
    else:
        first, second = op.Split(whole, [half, half], axis=3, outputs=2)
    real = op.Sub(op.Mul(cos, first), op.Mul(sin, second))
    imag = op.Add(op.Mul(sin, first), op.Mul(cos, second))
    if interleaved:
        pairs = op.Concat(op.Unsqueeze(real, [-1]), op.Unsqueeze(imag, [-1]), axis=-1)
        parts = [op.Reshape(pairs, [0, 0, 0, turned])]
    else:
        parts = [real, imag]
    if turned < width:
        parts.append(rest)
    joined = op.Concat(*parts, axis=3) if len(parts) > 1 else parts[0]
    if flat:
        return op.Reshape(joined, [0, 0, shape[2]])
    return permute(op, joined, [0, 2, 1, 3])


# ---- Attention

_ROW_OF_SCORES = 3  # which result is that of the product of queries and keys


def _check_widths(query: Tensor, key: Tensor, value: Tensor, q_heads: int, kv_heads: int) -> None:
    """torch 2.14 takes the width of values to be that of keys when it captures."""
    widths = [x.shape[-1] for x in (query, key, value)]
    if len(query.shape) == 3:
        if not q_heads or not kv_heads:
            raise Unsupported("Attention of 3-D tensors without q_num_heads and kv_num_heads")
        widths = [widths[0] // q_heads, widths[1] // kv_heads, widths[2] // kv_heads]
    if widths[1] != widths[2]:
        raise Unsupported(
            f"heads of width {widths[2]} for values and {widths[1]} for keys: torch captures them with a wrong shape"
        )


@translation("onnx::Attention.opset23", opset=23)
def attention_native(
    op: Builder,
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    is_causal: bool = False,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> list[Tensor | None]:
    """One node, where it computes what torch does.

    A query that a float mask leaves no key for gives zeros, as ONNX says; torch gives NaN.
    """
    _check_widths(Q, K, V, q_num_heads, kv_num_heads)
    if softcap and (attn_mask is not None or is_causal):
        raise Unsupported("torch caps scores after masking them, the node before")
    if is_causal and past_key is not None:
        raise Unsupported("torch's causal mask starts at the first key, the node's after the past ones")
    if is_used(op, _ROW_OF_SCORES) and qk_matmul_output_mode not in (0, 3):
        raise Unsupported("runtimes differ in the modes 1 and 2 of the scores")
    if softmax_precision not in (None, int(Q.dtype)) and (softmax_precision, Q.dtype) != (1, DataType.FLOAT16):
        raise Unsupported("a softmax in another precision")
    count = next((i + 1 for i in (3, 2, 1) if is_used(op, i)), 1)
    results = op.Attention(
        Q,
        K,
        V,
        attn_mask,
        past_key,
        past_value,
        outputs=count,
        is_causal=int(is_causal) or None,
        kv_num_heads=kv_num_heads or None,
        q_num_heads=q_num_heads or None,
        qk_matmul_output_mode=qk_matmul_output_mode or None,
        scale=scale,
        softcap=softcap or None,
        softmax_precision=softmax_precision,
    )
    made = list(results) if isinstance(results, tuple) else [results]
    if count > 1 and made[0].shape is None:
        made[0].shape = Q.shape
    return [*made, *[None] * (4 - count)]


def _heads_first(op: Builder, x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * width) as (batch, heads, length, width)."""
    batch, length, width = x.shape
    split = permute(op, reshape(op, x, [batch, length, heads, width // heads]), [0, 2, 1, 3])
    split.shape = ir.Shape([batch, heads, length, width // heads])
    return split


def _with_past(op: Builder, past: Tensor | None, x: Tensor) -> Tensor:
    if past is None:
        return x
    whole = op.Concat(past, x, axis=2)
    whole.shape = ir.Shape([*x.shape[:2], past.shape[2] + x.shape[2], x.shape[3]])
    return whole


def _repeated(op: Builder, x: Tensor, heads: Dim) -> Tensor:
    """Each head repeated, up to ``heads`` of them."""
    batch, own, length, width = x.shape
    if own == heads:
        return x
    spread = expand(op, op.Unsqueeze(x, [2]), [batch, own, heads // own, length, width])
    return reshape(op, spread, [batch, heads, length, width])


def _bias(op: Builder, mask: Tensor | None, is_causal: bool, queries: Dim, keys: Dim, dtype: DataType) -> list[Tensor]:
    """What is added to the scores."""
    minus_infinity, zero = op.const(-np.inf, dtype), op.const(0.0, dtype)
    if is_causal:
        later = op.Less(op.Unsqueeze(iota(op, queries), [1]), iota(op, keys))
        return [op.Where(later, minus_infinity, zero)]
    if mask is None:
        return []
    return [op.Where(mask, zero, minus_infinity) if mask.dtype is DataType.BOOL else op.cast(mask, dtype)]


@translation("onnx::Attention.opset23")
def attention(
    op: Builder,
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    is_causal: bool = False,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> list[Tensor | None]:
    """As torch computes it: (output, present keys, present values, scores)."""
    _check_widths(Q, K, V, q_num_heads, kv_num_heads)
    batch, length = Q.shape[0], Q.shape[-2]
    flat = len(Q.shape) == 3
    if flat:
        Q, K, V = _heads_first(op, Q, q_num_heads), _heads_first(op, K, kv_num_heads), _heads_first(op, V, kv_num_heads)
    keys, values = _with_past(op, past_key, K), _with_past(op, past_value, V)
    heads, width, count = Q.shape[1], Q.shape[3], keys.shape[2]
    if scale is None:
        if not isinstance(width, int):
            raise Unsupported("a head size that isn't static")
        scale = 1 / math.sqrt(width)
    plain = (
        not softcap
        and not qk_matmul_output_mode
        and softmax_precision is None
        and (attn_mask is None or attn_mask.dtype is DataType.BOOL)
    )
    scores = None
    if not plain or is_used(op, _ROW_OF_SCORES):
        root = math.sqrt(scale)
        turned = permute(op, op.Mul(_repeated(op, keys, heads), root), [0, 1, 3, 2])
        scores = op.MatMul(op.Mul(Q, root), turned)
    if plain:
        out = op.translate(
            "aten::scaled_dot_product_attention",
            Q,
            keys,
            values,
            attn_mask,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=heads != keys.shape[1],
        )
        stages = [scores]
    else:
        biased = scores
        for bias in _bias(op, attn_mask, is_causal, length, count, Q.dtype):
            biased = op.Add(biased, bias)
        capped = op.Mul(op.Tanh(op.Div(biased, softcap)), softcap) if softcap else biased
        within = Q.dtype if softmax_precision not in (1, 10, 11, 16) else DataType(softmax_precision)
        weights = op.cast(op.Softmax(op.cast(capped, within), axis=-1), Q.dtype)
        out = op.MatMul(weights, _repeated(op, values, heads))
        stages = [scores, biased, capped, weights]
    if flat:
        out = op.Reshape(permute(op, out, [0, 2, 1, 3]), [0, 0, width * heads])
        out.shape = ir.Shape([batch, length, width * heads])
    return [out, keys, values, stages[qk_matmul_output_mode]]
