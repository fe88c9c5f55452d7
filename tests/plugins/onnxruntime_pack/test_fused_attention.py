"""Attention as one node of onnxruntime: what is fused, and that it gives what eager torch gives at every size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxport
import onnxport_onnxruntime
import onnxruntime
import pytest
import torch
from onnxport_onnxruntime import fusion, measure
from torch.nn.functional import scaled_dot_product_attention as product

GROUPED, MULTI = "GroupQueryAttention", "MultiHeadAttention"
DYNAMIC = torch.export.Dim.DYNAMIC
# Every form, whatever the processor that was measured says of it.
RUNTIME: dict[str, Any] = {
    "runtime": "onnxruntime-cpu",
    "plugins": [measure.Chosen("onnxruntime-cpu", *fusion.FORMS)],
}


def exported(model: torch.nn.Module, args: tuple[Any, ...], **options: Any) -> onnxport.ONNXProgram:
    return onnxport.export(model.eval(), args, verbose=False, **RUNTIME, **options)


def counts(program: onnxport.ONNXProgram) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph)


def compare(program: onnxport.ONNXProgram, model: torch.nn.Module, *calls: tuple[Any, ...]) -> None:
    """In a plain session with default options."""
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    for args in calls:
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(model(*args))
        flat = [leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(args) if leaf is not None]
        found = session.run(None, dict(zip(names, flat, strict=True)))
        for value, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, reference.numpy(), rtol=1e-4, atol=2e-5)


class Attention(torch.nn.Module):
    """Projections, heads, mask, product: what layers of libraries do.

    Args:
        mask: of (queries, keys), and what is given as the last argument.
    """

    def __init__(
        self,
        heads: int = 4,
        kv_heads: int | None = None,
        width: int = 16,
        mask: Callable[[int, int, Any], Any] | None = None,
        past: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads or heads, width
        self.mask, self.past, self.options = mask, past, options
        torch.manual_seed(0)
        self.q = torch.nn.Linear(24, heads * width)
        self.k, self.v = (torch.nn.Linear(24, self.kv_heads * width) for _ in range(2))

    def split(self, x: torch.Tensor, heads: int) -> torch.Tensor:
        return x.view(*x.shape[:2], heads, self.width).transpose(1, 2)

    def forward(self, x, past=None, given=None):
        q = self.split(self.q(x), self.heads)
        k, v = (self.split(p(x), self.kv_heads) for p in (self.k, self.v))
        if self.past:
            k, v = (torch.cat([before, new], dim=-2) for before, new in zip(past, (k, v)))
        mask = None if self.mask is None else self.mask(q.shape[2], k.shape[2], given)
        y = product(q, k, v, mask, enable_gqa=self.heads != self.kv_heads, **self.options)
        y = y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)
        return (y, k, v) if self.past else y


def causal(s: int, t: int, _: Any = None) -> torch.Tensor:
    return (torch.arange(t)[None] <= torch.arange(s)[:, None] + (t - s))[None, None]


def window(s: int, t: int, _: Any = None) -> torch.Tensor:
    return causal(s, t) & (torch.arange(t)[None] > torch.arange(s)[:, None] + (t - s) - 3)


def padding(s: int, t: int, given: torch.Tensor) -> torch.Tensor:
    return given[:, None, None, :]


def rows_padding(s: int, t: int, given: torch.Tensor) -> torch.Tensor:
    return given[:, None, None, :].expand(-1, 1, s, t)


def causal_padding(s: int, t: int, given: torch.Tensor) -> torch.Tensor:
    return causal(s, t) & given[:, None, None, :]


def added(s: int, t: int, given: torch.Tensor) -> torch.Tensor:
    return torch.where(given[:, None, None, :], 0.0, -float("inf"))


def inputs(model: Attention, batch: int, length: int, past: int = 0, given: bool = False) -> tuple[Any, ...]:
    cache, past = None, past if model.past else 0
    if model.past:
        cache = tuple(torch.randn(batch, model.kv_heads, past, model.width) for _ in range(2))
    kept = None
    if given:
        kept = torch.ones(batch, past + length, dtype=torch.bool)
        kept[0, : (past + length) // 2] = False
    return torch.randn(batch, length, 24), cache, kept


def shapes(model: Attention, given: bool = False, batch: Any = DYNAMIC, length: Any = DYNAMIC) -> tuple[Any, ...]:
    cache = ({0: batch, 2: DYNAMIC},) * 2 if model.past else None
    return ({0: batch, 1: length}, cache, {0: batch, 1: DYNAMIC} if given else None)


CASES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "encoder": ({}, MULTI, False),
    "encoder, odd width": ({"width": 5}, MULTI, False),
    "encoder, scale": ({"scale": 0.5}, MULTI, False),
    "encoder, padding": ({"mask": padding}, MULTI, True),
    "encoder, padding of rows": ({"mask": rows_padding}, MULTI, True),
    "encoder, added": ({"mask": added}, MULTI, True),
    "causal": ({"mask": causal}, MULTI, False),
    "causal by flag": ({"is_causal": True}, MULTI, False),
    "causal, padding": ({"mask": causal_padding}, MULTI, True),
    "grouped": ({"mask": causal, "kv_heads": 2}, GROUPED, False),
    "grouped, one": ({"mask": causal, "kv_heads": 1}, GROUPED, False),
    "grouped, padding": ({"mask": causal_padding, "kv_heads": 2}, GROUPED, True),
    "grouped, window": ({"mask": window, "kv_heads": 2}, GROUPED, False),
    "window": ({"mask": window}, GROUPED, False),
    "cache": ({"mask": causal, "past": True}, GROUPED, False),
    "cache, grouped": ({"mask": causal, "kv_heads": 2, "past": True}, GROUPED, False),
    "cache, grouped, scale": ({"mask": causal, "kv_heads": 2, "past": True, "scale": 0.3}, GROUPED, False),
    "cache, window": ({"mask": window, "kv_heads": 2, "past": True}, GROUPED, False),
    "cache, padding": ({"mask": causal_padding, "kv_heads": 2, "past": True}, GROUPED, True),
    "cache of an encoder": ({"past": True}, MULTI, False),
    "cache, odd width": ({"mask": causal, "past": True, "width": 5}, MULTI, False),
    "cache of an encoder, padding": ({"mask": padding, "past": True}, MULTI, True),
}


@pytest.mark.parametrize("name", CASES)
def test_every_size(name: str) -> None:
    options, operator, given = CASES[name]
    model = Attention(**options)
    program = exported(model, inputs(model, 2, 3, 5, given), dynamic_shapes=shapes(model, given))
    assert counts(program)[operator] == 1 and counts(program)["Softmax"] == 0, counts(program)
    pasts = (
        [(2, 3, 5), (1, 1, 7), (3, 1, 4), (1, 6, 2), (2, 4, 0), (3, 1, 0)] if model.past else [(2, 3), (3, 7), (1, 1)]
    )
    compare(program, model, *(inputs(model, *sizes, given=given) for sizes in pasts))


def test_rows_without_a_key_are_zeros() -> None:
    for options in ({"mask": padding}, {"mask": causal_padding, "kv_heads": 2}, {"mask": added}):
        model = Attention(**options)
        program = exported(model, inputs(model, 2, 3, given=True), dynamic_shapes=shapes(model, True))
        x, _, kept = inputs(model, 3, 4, given=True)
        kept[1] = False
        compare(program, model, (x, None, kept), (x[:, :1], None, kept[:, :1]))
        assert (model(x, None, kept)[1] == 0).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kv_heads": 2}, "grouped, and nothing says that it is causal"),
        ({"mask": causal, "kv_heads": 2, "width": 12}, "a width that is no multiple of 8"),
        ({"is_causal": True, "past": True}, "torch's causal mask begins at the top left"),
        ({"mask": lambda s, t, _: torch.ones(4, s, t, dtype=torch.bool).tril()}, "a mask of three axes"),
    ],
)
def test_what_no_kernel_takes_stays_standard(options: dict[str, Any], why: str) -> None:
    model = Attention(**options)
    program = exported(model, inputs(model, 2, 3, 5), dynamic_shapes=shapes(model))
    assert not any(node.domain for node in program.model.graph), why
    compare(program, model, inputs(model, 2, 3, 5), inputs(model, 1, 4, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_stay_standard(dtype: torch.dtype) -> None:
    model = Attention().to(dtype)
    program = exported(model, (torch.randn(2, 3, 24, dtype=dtype),))
    assert not any(node.domain for node in program.model.graph)


@pytest.mark.parametrize(
    ("length", "is_fixed", "mask", "is_taken"),
    [
        (512, True, None, True),
        (511, True, None, False),
        (512, False, None, False),
        (512, True, causal, False),
    ],
)
def test_a_form_of_long_sequences(length: int, is_fixed: bool, mask: Any, is_taken: bool) -> None:
    model = Attention(heads=2, width=8, mask=mask)
    options = RUNTIME | {"plugins": [measure.Chosen("onnxruntime-cpu", fusion.MULTI_HEAD_LONG)]}
    dims = shapes(model, length=None if is_fixed else DYNAMIC)
    program = onnxport.export(model.eval(), inputs(model, 1, length), dynamic_shapes=dims, **options)
    assert counts(program)["MultiHeadAttention"] == is_taken
    compare(program, model, inputs(model, 2, length))


def test_one_query_needs_no_lengths() -> None:
    model = Attention(mask=causal, kv_heads=2, past=True)
    step = exported(model, inputs(model, 2, 1, 5), dynamic_shapes=shapes(model, length=None))
    (node,) = (node for node in step.model.graph if node.op_type == GROUPED)
    assert len(node.inputs) == 7
    compare(step, model, inputs(model, 3, 1, 9), inputs(model, 1, 1, 0))
    one = exported(model, inputs(model, 1, 3, 5), dynamic_shapes=shapes(model, batch=None))
    (node,) = (node for node in one.model.graph if node.op_type == GROUPED)
    assert len(node.inputs) == 7
    compare(one, model, inputs(model, 1, 1, 9), inputs(model, 1, 4, 2))


def test_static_sizes() -> None:
    for options in ({}, {"mask": causal, "kv_heads": 2}, {"mask": causal, "past": True}):
        model = Attention(**options)
        args = inputs(model, 2, 3, 5)
        compare(exported(model, args), model, args)


class Repeated(Attention):
    """Heads repeated by hand, and a cache that others read too."""

    def forward(self, x, past=None, given=None):
        q = self.split(self.q(x), self.heads)
        k, v = (self.split(p(x), self.kv_heads) for p in (self.k, self.v))
        k, v = (torch.cat([before, new], dim=2) for before, new in zip(past, (k, v)))
        times = self.heads // self.kv_heads
        wide = [
            h[:, :, None].expand(-1, -1, times, -1, -1).reshape(h.shape[0], self.heads, -1, self.width) for h in (k, v)
        ]
        y = product(q, *wide, causal(q.shape[2], k.shape[2]))
        return y.transpose(1, 2).flatten(2), y.sum(1), k[:, :, 1:], v


def test_repeated_heads_and_a_cache_with_other_readers() -> None:
    model = Repeated(kv_heads=2, past=True)
    program = exported(model, inputs(model, 2, 3, 5), dynamic_shapes=shapes(model))
    assert counts(program)[GROUPED] == 1 and counts(program)["Concat"] < 3
    compare(program, model, inputs(model, 2, 3, 5), inputs(model, 1, 4, 1))


def test_verify_and_find_mismatch(tmp_path) -> None:
    for options, given in (({"mask": causal, "kv_heads": 2, "past": True}, False), ({"mask": padding}, True)):
        model = Attention(**options)
        args = inputs(model, 2, 3, 5, given)
        program = exported(model, args, dynamic_shapes=shapes(model, given), verify=True)
        result = onnxport.find_mismatch(program, args)
        assert result.passed and result.compared
        assert onnxport.verify(program, model, args).passed


def test_find_mismatch_names_the_attention() -> None:
    model = Attention()
    args = (torch.randn(2, 3, 24),)
    program = exported(model, args)
    (node,) = (node for node in program.model.graph if node.op_type == MULTI)
    node.attributes["scale"] = type(next(iter(node.attributes.values())))("scale", node.attributes["num_heads"].type, 1)
    del node.attributes["scale"]
    node.replace_input_with(1, node.inputs[2])
    result = onnxport.find_mismatch(program, args)
    assert result.mismatch is not None and result.mismatch.operator == "onnxport_onnxruntime::multi_head_attention"


def test_check_knows_the_kernels() -> None:
    model = Attention()
    pack: dict[str, Any] = {"plugins": [onnxport_onnxruntime], "runtime": "onnxruntime-cpu"}
    assert not onnxport.check(model, (torch.randn(2, 3, 24),), **pack).missing_kernels


def test_files_for_every_runtime_have_none_of_it() -> None:
    model = Attention(mask=causal, kv_heads=2, past=True)
    args = inputs(model, 2, 3, 5)
    program = onnxport.export(model, args, verbose=False, plugins=[onnxport_onnxruntime])
    assert set(program.model.opset_imports) == {""}
    assert not any(node.domain for node in program.model.graph)
