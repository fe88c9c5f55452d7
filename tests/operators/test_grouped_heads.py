"""Keys and values that groups of query heads share: never copied, whatever form a model gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import as_module, export_and_compare, op_types
from torch.export import Dim

COPIES = {"Expand", "Tile", "GatherND"}
LENGTHS = {0: Dim.AUTO, 2: Dim.AUTO}


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


def copies(program: onnxport.ONNXProgram) -> list[str]:
    """The nodes that repeat elements."""
    wide = {v.name for v in program.model.graph.initializers.values()}
    return [
        node.op_type
        for node in program.model.graph
        if node.op_type in COPIES or (node.op_type == "Gather" and node.inputs[0].name not in wide)
    ]


def unsqueezed(x: torch.Tensor, times: int) -> torch.Tensor:
    batch, heads, length, width = x.shape
    return x[:, :, None].expand(batch, heads, times, length, width).reshape(batch, heads * times, length, width)


def interleaved(x: torch.Tensor, times: int) -> torch.Tensor:
    return x.repeat_interleave(times, dim=1)


def indexed(x: torch.Tensor, times: int) -> torch.Tensor:
    return x[:, torch.arange(x.shape[1]).repeat_interleave(times)]


def of_rows(x: torch.Tensor, times: int) -> torch.Tensor:
    """Repeated where heads are the third axis, as flash attention has them."""
    x = x.transpose(1, 2).unsqueeze(3)
    batch, length, heads, _, width = x.shape
    return x.expand(-1, -1, -1, times, -1).reshape(batch, length, heads * times, width).transpose(1, 2)


def as_float(x: torch.Tensor, times: int) -> torch.Tensor:
    return unsqueezed(x, times).float()


FORMS = [unsqueezed, interleaved, indexed, of_rows, as_float]


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask)


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    scores = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)


def einsum(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


@pytest.mark.parametrize("attend", [fused, by_hand, einsum])
@pytest.mark.parametrize("repeat", FORMS)
def test_repeated_keys(repeat: Callable[..., Any], attend: Callable[..., Any]) -> None:
    program = export_and_compare(
        lambda q, k, v: attend(q, repeat(k, 3), repeat(v, 3)),
        (values(2, 6, 5, 8), values(2, 2, 7, 8), values(2, 2, 7, 4)),
        other_args=(values(3, 6, 1, 8), values(3, 2, 9, 8), values(3, 2, 9, 4)),
        dynamic_shapes=((LENGTHS, LENGTHS, LENGTHS),),
    )
    assert not copies(program)


@pytest.mark.parametrize("opset", [18, 20, 23, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_grouped_queries(dtype: torch.dtype, opset: int) -> None:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)

    args = tuple(values(2, heads, 5, 8, dtype=dtype) for heads in (6, 2, 3))
    other = tuple(values(3, heads, 4, 8, dtype=dtype) for heads in (6, 2, 3))
    shapes = ((LENGTHS, LENGTHS, LENGTHS),)
    program = export_and_compare(attend, args, other_args=other, dynamic_shapes=shapes, opset_version=opset)
    assert not copies(program)
    static = export_and_compare(attend, tuple(x[0] for x in args), opset_version=opset)
    assert not copies(static)


def test_bfloat16() -> None:
    """onnxruntime 1.32 has no kernels of it: the file is run by ONNX's reference implementation."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    args = tuple(values(2, heads, 5, 8, dtype=torch.bfloat16) for heads in (6, 2, 2))
    program = onnxport.export(as_module(attend), args)
    assert not copies(program)
    torch.testing.assert_close(program.call_reference(*args)[0].bfloat16(), attend(*args), rtol=5e-2, atol=2e-2)


MASKS = {
    "bool": lambda allowed: allowed,
    "minus infinity": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, -float("inf")),
    "least float": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min),
}


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (2, 6, 5, 7), (5, 7), (2, 1, 1, 7)])
@pytest.mark.parametrize("kind", MASKS)
def test_rows_that_no_key_is_left_for(kind: str, shape: tuple[int, ...]) -> None:
    """Zeros for masks of bools and of minus infinity, the mean of the values for the least float."""
    allowed = torch.rand(shape) > 0.4
    allowed[..., 0, :] = False
    q, k, v = values(2, 6, 5, 8), values(2, 2, 7, 8), values(2, 2, 7, 8)
    mask = MASKS[kind](allowed)
    shapes = ({0: Dim.AUTO}, {0: Dim.AUTO}, {0: Dim.AUTO}, {0: Dim.AUTO} if len(shape) == 4 else None)
    program = export_and_compare(
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True),
        (q, k, v, mask),
        dynamic_shapes=(shapes,),
    )
    assert not copies(program)
    expected = v[:, :1].mean(2) if kind == "least float" else torch.zeros(2, 1, 8)
    torch.testing.assert_close(program(q, k, v, mask)[0][:, :1, 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
def test_no_keys(dynamic: bool) -> None:
    """Nothing to attend to gives zeros, also where it is so at run time alone."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    q, empty = values(2, 6, 5, 8), values(2, 2, 0, 8)
    if not dynamic:
        export_and_compare(attend, (q, empty, empty.clone()))
        return
    key = {2: Dim.DYNAMIC}
    k = values(2, 2, 7, 8)
    program = onnxport.export(as_module(attend), (q, k, k.clone()), dynamic_shapes=((key, key, key),))
    assert not program(q, empty, empty.clone())[0].any()
    assert program(values(2, 6, 3, 8), empty, empty.clone())[0].shape == (2, 6, 3, 8)


def test_one_key_head_for_all() -> None:
    """Expanded by the model, or broadcast by its product."""
    args = values(2, 6, 5, 8), values(2, 1, 7, 8), values(2, 1, 7, 8)
    other = values(3, 6, 2, 8), values(3, 1, 4, 8), values(3, 1, 4, 8)
    shapes = ((LENGTHS, LENGTHS, LENGTHS),)
    expanded = export_and_compare(
        lambda q, k, v: fused(q, k.expand(-1, 6, -1, -1), v.expand(-1, 6, -1, -1)),
        args,
        other_args=other,
        dynamic_shapes=shapes,
    )
    assert not copies(expanded)
    export_and_compare(by_hand, args, other_args=other, dynamic_shapes=shapes)


def test_groups_as_an_axis() -> None:
    """(B, heads, groups, S, D): the product broadcasts."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q = q.unflatten(1, (k.shape[1], -1))
        scores = torch.matmul(q, k.unsqueeze(2).transpose(-1, -2))
        return torch.matmul(scores.softmax(-1), v.unsqueeze(2)).flatten(1, 2)

    program = export_and_compare(
        attend,
        (values(2, 6, 5, 8), values(2, 2, 7, 8), values(2, 2, 7, 8)),
        other_args=(values(3, 6, 1, 8), values(3, 2, 4, 8), values(3, 2, 4, 8)),
        dynamic_shapes=((LENGTHS, LENGTHS, LENGTHS),),
    )
    assert not copies(program)


def test_what_is_no_group() -> None:
    """Heads in another order, several axes at once, products along the repeated axis, batches of one side alone."""
    q, k = values(2, 6, 5, 8), values(2, 2, 7, 8)
    export_and_compare(lambda q, k: fused(q, k.repeat(1, 3, 1, 1), k.repeat(1, 3, 1, 1)), (q, k))
    export_and_compare(lambda q, k: q @ k[:, torch.tensor([0, 1, 0, 1, 1, 0])].mT, (q, k))
    export_and_compare(lambda q, k: q @ k[:, torch.tensor([0, 0, 0, 1, 1, 1])].mT, (q, k))
    export_and_compare(lambda q, k: q @ interleaved(k, 3).permute(2, 1, 3, 0), (values(7, 6, 5, 8), k))
    export_and_compare(
        lambda q, k: q @ k[:, :, None].expand(4, 2, 2, 7, 8).reshape(8, 2, 7, 8).mT,
        (values(8, 2, 5, 8), values(4, 2, 7, 8)),
    )
    export_and_compare(lambda q, k: q @ k.expand(2, 6, 7, 8).mT, (q, values(1, 1, 7, 8)))
    one = values(1, 6, 5, 8)
    export_and_compare(lambda q, k, v: fused(q, k, interleaved(v, 3)), (one, values(2, 6, 7, 8), values(1, 2, 7, 8)))


def test_nodes_of_a_step() -> None:
    """One query: no shape is computed for it."""
    program = export_and_compare(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (values(2, 6, 1, 8), values(2, 2, 7, 8), values(2, 2, 7, 8)),
        other_args=(values(3, 6, 1, 8), values(3, 2, 9, 8), values(3, 2, 9, 8)),
        dynamic_shapes=(({0: Dim.AUTO}, LENGTHS, LENGTHS),),
    )
    assert op_types(program) == [
        "Reshape", "Mul", "Transpose", "MatMul", "Reshape", "Softmax", "Reshape", "MatMul", "Reshape"
    ]  # fmt: skip


@pytest.mark.parametrize("mask", [torch.ones(5, 7, dtype=torch.bool), torch.zeros(5, 7)])
def test_mask_that_keeps_everything(mask: torch.Tensor) -> None:
    """Models make such masks for the whole batch where the caller gives none."""
    program = export_and_compare(
        lambda q, k, v: fused(q, k, v, mask.expand(q.shape[0], 1, 5, 7)),
        (values(2, 6, 5, 8), values(2, 6, 7, 8), values(2, 6, 7, 8)),
        other_args=(values(3, 6, 5, 8), values(3, 6, 7, 8), values(3, 6, 7, 8)),
        dynamic_shapes=(({0: Dim.AUTO}, {0: Dim.AUTO}, {0: Dim.AUTO}),),
    )
    assert op_types(program) == ["Mul", "Transpose", "MatMul", "Softmax", "MatMul"]


def test_mask_that_was_expanded() -> None:
    """Added as it was before."""
    allowed = torch.rand(2, 7) > 0.4
    allowed[1] = False
    program = export_and_compare(
        lambda q, k, v, allowed: fused(q, k, v, allowed[:, None, None].expand(-1, -1, q.shape[2], -1)),
        (values(2, 6, 5, 8), values(2, 6, 7, 8), values(2, 6, 7, 8), allowed),
    )
    assert "Expand" not in op_types(program)


def test_mask_among_the_weights() -> None:
    """What is no key of any query is asked of the mask that a checkpoint brings, not of the model's own."""

    class Masked(torch.nn.Module):
        def __init__(self, allowed: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("allowed", allowed)

        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return fused(q, k, v, self.allowed)

    args = values(2, 6, 5, 8), values(2, 6, 7, 8), values(2, 6, 7, 8)
    other = Masked(torch.arange(5)[:, None].expand(5, 7) > 0)
    program = onnxport.export(Masked(torch.ones(5, 7, dtype=torch.bool)), args)
    program.apply_weights(other.state_dict())
    torch.testing.assert_close(program(*args)[0], other(*args), rtol=1e-4, atol=1e-5)
