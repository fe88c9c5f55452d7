"""Views, orders, broadcasting and joining: values, dtypes and how few nodes they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

AUTO = torch.export.Dim.DYNAMIC


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Distinct values of any dtype."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    values = torch.arange(count) % 2 if dtype == torch.bool else torch.arange(count)
    return values.reshape(shape).to(dtype)


UNARY: list[tuple[str, Callable[[torch.Tensor], Any], tuple[int, ...]]] = [
    ("view", lambda t: t.view(4, -1), (2, 3, 4)),
    ("view_empty", lambda t: t.view(3, 0, 2), (0, 6)),
    ("reshape_scalar", lambda t: t.reshape(()), (1, 1)),
    ("flatten_0d", lambda t: t.flatten(), ()),
    ("flatten_inner", lambda t: t.flatten(1, -2), (2, 3, 4, 5)),
    ("unflatten", lambda t: t.unflatten(-1, (2, -1)), (3, 6)),
    ("squeeze", lambda t: t.squeeze(), (1, 3, 1)),
    ("squeeze_dims", lambda t: t.squeeze((0, -1)), (1, 3, 1)),
    ("squeeze_not_one", lambda t: t.squeeze(1), (1, 3, 1)),
    ("unsqueeze", lambda t: t.unsqueeze(-2), (3, 2)),
    ("expand", lambda t: t.expand(2, -1, 4), (3, 1)),
    ("expand_to_empty", lambda t: t.expand(0, 3), (1, 3)),
    ("permute", lambda t: t.permute(-1, 0, 1), (2, 3, 4)),
    ("transpose", lambda t: t.transpose(-1, 0), (2, 3, 4)),
    ("mT", lambda t: t.mT, (2, 3, 4)),
    ("adjoint", lambda t: t.adjoint(), (2, 3)),
    ("movedim", lambda t: t.movedim((0, 1), (-1, 0)), (2, 3, 4)),
    ("repeat", lambda t: t.repeat(2, 1, 3), (2, 3)),
    ("repeat_zero", lambda t: t.repeat(0, 3), (2,)),
    ("tile", lambda t: t.tile(2), (2, 3)),
    ("pixel_shuffle", lambda t: torch.nn.functional.pixel_shuffle(t, 2), (1, 8, 2, 3)),
    ("pixel_unshuffle", lambda t: torch.nn.functional.pixel_unshuffle(t, 2), (2, 1, 4, 6)),
    ("channel_shuffle", lambda t: torch.nn.functional.channel_shuffle(t, 3), (2, 6, 2, 2)),
    ("unfold", lambda t: t.unfold(-1, 3, 2), (2, 7)),
    ("unfold_outer", lambda t: t.unfold(0, 2, 1), (4, 3)),
    ("as_strided", lambda t: t.as_strided((2, 2), (3, 1), 1), (3, 3)),
    ("as_strided_transposed", lambda t: t.t().as_strided((2, 3), (1, 2)), (3, 4)),
    ("split", lambda t: t.split(2, dim=1), (2, 5)),
    ("split_sizes", lambda t: t.split([1, 0, 4], dim=-1), (2, 5)),
    ("chunk", lambda t: t.chunk(3), (7, 2)),
    ("tensor_split", lambda t: t.tensor_split(3, dim=1), (2, 5)),
    ("tensor_split_overlap", lambda t: t.tensor_split((3, 1, -1), dim=1), (2, 5)),
    ("unbind", lambda t: t.unbind(1), (2, 3)),
    ("roll", lambda t: t.roll((1, -2), (0, 1)), (3, 4)),
    ("roll_flat", lambda t: t.roll(5), (3, 4)),
    ("roll_far", lambda t: t.roll(-7, 0), (3, 4)),
    ("flip", lambda t: t.flip(0, -1), (3, 4, 2)),
    ("flip_empty", lambda t: t.flip(0), (0, 2)),
    ("rot90", lambda t: torch.stack([t.rot90(k) for k in (0, 2, 4)]), (3, 4)),
    ("rot90_odd", lambda t: torch.stack([t.rot90(k, (1, 0)) for k in (1, 3, -1)]), (3, 4)),
    ("diagonal", lambda t: t.diagonal(1, 0, 2), (4, 2, 3)),
    ("diagonal_below", lambda t: t.diagonal(-2), (5, 3)),
    ("diagonal_none", lambda t: t.diagonal(3), (3, 3)),
    ("diag_embed", lambda t: t.diag_embed(-2, 0, 2), (2, 3)),
    ("diag_embed_above", lambda t: t.diag_embed(1), (2, 3)),
    ("diagflat", lambda t: torch.diagflat(t, -1), (2, 2)),
    ("tril", lambda t: t.tril(-1), (2, 3, 4)),
    ("triu", lambda t: t.triu(5), (3, 4)),
    ("atleast_3d", lambda t: torch.atleast_3d(t), (2, 3)),
    ("kron", lambda t: torch.kron(t, t[0]), (2, 3)),
    ("combinations", lambda t: torch.combinations(t, 2, with_replacement=True), (4,)),
    ("cartesian_prod", lambda t: torch.cartesian_prod(t, t[:2]), (3,)),
    ("meshgrid_xy", lambda t: torch.meshgrid(t, t[:2], indexing="xy"), (3,)),
    ("block_diag", lambda t: torch.block_diag(t, t[0], t), (2, 3)),
]


@pytest.mark.parametrize(("function", "shape"), [pytest.param(f, s, id=n) for n, f, s in UNARY])
def test_values(function: Callable[[torch.Tensor], Any], shape: tuple[int, ...]) -> None:
    export_and_compare(function, (x(*shape),))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64, torch.int8])
def test_dtypes(dtype: torch.dtype) -> None:
    def several(t: torch.Tensor) -> list[torch.Tensor]:
        return [
            t.reshape(6, 2), t.expand(2, 3, 4), t.repeat(2, 2), t.roll(1, 0), t.flip(1), t.tril(), t.diag_embed(1),
            t.diagonal(1), t.unfold(1, 2, 1), torch.cat([t, t], 1), torch.stack([t, t]), torch.block_diag(t, t),
            torch.kron(t, t), *t.split(2, 1), *t.unbind(0), torch.nn.functional.pixel_shuffle(t.reshape(1, 4, 3, 1), 2),
        ]  # fmt: skip

    export_and_compare(several, (x(3, 4, dtype=dtype),))


DYNAMIC: list[tuple[str, Callable[[torch.Tensor], Any], tuple[int, ...], tuple[int, ...]]] = [
    ("view", lambda t: t.view(t.shape[0], t.shape[1], 2, 4), (3, 5, 8), (2, 7, 8)),
    ("merge", lambda t: t.reshape(-1, t.shape[-1]), (3, 5, 8), (2, 7, 8)),
    ("merge_two", lambda t: t.permute(0, 2, 1).flatten(1), (3, 5, 8), (2, 7, 8)),
    ("expand", lambda t: t[:, :, None].expand(-1, -1, 3, -1), (3, 5, 8), (2, 7, 8)),
    ("expand_to_size", lambda t: t[:1].expand(t.shape[1], -1, -1), (3, 5, 8), (2, 7, 8)),
    ("repeat", lambda t: t.repeat(1, t.shape[0], 2), (3, 5, 8), (2, 7, 8)),
    ("roll", lambda t: t.roll((1, -2), (0, 1)), (3, 5, 8), (2, 7, 8)),
    ("roll_flat", lambda t: t.roll(3), (3, 5), (2, 7)),
    ("flip", lambda t: t.flip(0, 1), (3, 5, 8), (2, 7, 8)),
    ("diagonal", lambda t: t.diagonal(1, 0, 1), (4, 5, 8), (2, 7, 8)),
    ("diag_embed", lambda t: t.diag_embed(1), (3, 5), (2, 7)),
    ("tril", lambda t: t.tril(1), (3, 5), (2, 7)),
    ("unfold", lambda t: t.unfold(1, 3, 2), (3, 5, 8), (2, 9, 8)),
    ("chunk", lambda t: t.chunk(2, -1), (3, 5, 8), (2, 7, 8)),
    ("split", lambda t: t.split([2, t.shape[1] - 2], 1), (3, 5, 8), (2, 7, 8)),
    ("cat", lambda t: torch.cat([t, t[:, :1], t], 1), (3, 5, 8), (2, 7, 8)),
    ("meshgrid", lambda t: torch.meshgrid(t[0, :, 0], t[:, 0, 0], indexing="ij"), (3, 5, 8), (2, 7, 8)),
    ("pixel_shuffle", lambda t: torch.nn.functional.pixel_shuffle(t, 2), (4, 3, 5), (4, 2, 7)),
    ("pixel_unshuffle", lambda t: torch.nn.functional.pixel_unshuffle(t[..., None], 1), (3, 4, 6), (2, 8, 4)),
    ("block_diag", lambda t: torch.block_diag(t, t), (3, 5), (2, 7)),
    ("repeat_interleave", lambda t: t.repeat_interleave(3, 1), (3, 5, 8), (2, 7, 8)),
]


@pytest.mark.parametrize(("function", "shape", "other"), [pytest.param(*c[1:], id=c[0]) for c in DYNAMIC])
def test_dynamic(function: Callable[[torch.Tensor], Any], shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    dims = {i: AUTO for i, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b}
    export_and_compare(function, (x(*shape),), dynamic_shapes=((dims,),), other_args=(x(*other),))


LEAN: list[tuple[str, Callable[[torch.Tensor], Any], list[str]]] = [
    ("one_symbol", lambda t: t.reshape(-1, 8), ["Reshape"]),
    ("copied_dims", lambda t: t.view(t.shape[0], t.shape[1], 2, 4), ["Reshape"]),
    ("heads", lambda t: t.view(t.shape[0], -1, 2, 4).transpose(1, 2), ["Reshape", "Transpose"]),
    ("same_shape", lambda t: t.view(t.shape) + 1, ["Add"]),
    ("same_expand", lambda t: t.expand(-1, -1, 8) + 1, ["Add"]),
    ("full_slice", lambda t: t[:, 0:] + 1, ["Add"]),
    ("select", lambda t: t[:, -1], ["Gather"]),
    ("slice", lambda t: t[1:, :-1], ["Slice", "Slice"]),
    ("flip", lambda t: t.flip(0, 2), ["Slice"]),
    ("cat_one", lambda t: torch.cat([t]) + 1, ["Add"]),
    ("repeat_heads", lambda t: t.repeat_interleave(2, 2), ["Gather"]),
]


@pytest.mark.parametrize(("function", "expected"), [pytest.param(f, e, id=n) for n, f, e in LEAN])
def test_few_nodes(function: Callable[[torch.Tensor], Any], expected: list[str]) -> None:
    program = export_and_compare(
        function, (x(3, 5, 8),), dynamic_shapes=(({0: AUTO, 1: AUTO},),), other_args=(x(2, 7, 8),), optimize=False
    )
    assert op_types(program) == expected


def test_cat_promotes_and_skips_empty_vectors() -> None:
    def joined(a: torch.Tensor, b: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        return torch.cat([empty, a, b], -1)

    export_and_compare(joined, (x(2, 3, dtype=torch.int32), x(2, 2), torch.zeros(0)))


@pytest.mark.parametrize("join", [torch.hstack, torch.vstack, torch.dstack, torch.column_stack])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (3, 2, 4)])
def test_stacks(join: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> None:
    export_and_compare(lambda a, b: join([a, b]), (x(*shape), x(*shape, dtype=torch.int64)))


def test_tensor_split_by_tensor() -> None:
    export_and_compare(lambda t: t.tensor_split(torch.tensor([1, 4]), 1), (x(2, 6),))
