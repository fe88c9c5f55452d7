"""Writing elements: scatters, index_put, writes through views, masks, segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

AUTO = torch.export.Dim.DYNAMIC
I = torch.tensor  # noqa: E741
NAN = float("nan")


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Distinct values."""
    return torch.arange(int(torch.tensor(shape).prod()) if shape else 1).reshape(shape).to(dtype)


INDEX = I([[0, 2, 1], [2, 0, 0]])

SCATTERS: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("src", lambda t, i, s: t.scatter(0, i, s), (x(3, 4), INDEX, x(3, 5) + 20)),
    ("value", lambda t, i: t.scatter(1, i, 7.5), (x(3, 4), INDEX)),
    ("value_int", lambda t, i: t.scatter(1, i, 7.9), (x(3, 4, dtype=torch.int64), INDEX)),
    ("scalar", lambda t, i, s: t.scatter(0, i, s), (x(), I(0), I(5.0))),
    ("empty", lambda t, i, s: t.scatter(0, i, s), (x(3), torch.zeros(0, dtype=torch.int64), x(3))),
    ("add", lambda t, i, s: t.scatter_add(0, i, s), (x(3, 4), INDEX, x(2, 3))),
    ("multiply", lambda t, i, s: t.scatter(0, i, s, reduce="multiply"), (x(3, 4), INDEX, x(2, 3))),
    ("value_add", lambda t, i: t.scatter(0, i, 2, reduce="add"), (x(3, 4), INDEX)),
    ("index_add", lambda t, i, s: t.index_add(1, i, s, alpha=2), (x(3, 4), I([0, 0, 3]), x(3, 3))),
    ("index_add_first", lambda t, i, s: t.index_add(0, i, s), (x(3, 4), I([2, 2]), x(2, 4))),
    ("index_copy", lambda t, i, s: t.index_copy(1, i, s), (x(3, 4), I([2, 0]), -x(3, 2))),
    ("index_copy_scalar", lambda t, i, s: t.index_copy(0, i, s), (x(), I(0), I(4.0))),
    ("index_fill", lambda t, i: t.index_fill(1, i, 9), (x(3, 4), I([2, 0]))),
    ("index_fill_tensor", lambda t, i, v: t.index_fill(0, i, v), (x(3, 4), I([2, 0]), I(-1.0))),
    ("put", lambda t, i, s: t.put(i, s), (x(3, 4), I([[0, -1]]), I([7.0, 8.0]))),
    ("put_add", lambda t, i, s: t.put(i, s, accumulate=True), (x(3, 4), I([1, 1]), I([7.0, 8.0]))),
]


@pytest.mark.parametrize(("function", "args"), [pytest.param(f, a, id=n) for n, f, a in SCATTERS])
def test_scatters(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8, torch.int16])
@pytest.mark.parametrize("include_self", [True, False])
def test_reductions(dtype: torch.dtype, include_self: bool) -> None:
    def reduced(t: torch.Tensor, i: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        modes = ["sum", "prod", "mean", "amax", "amin"]
        results = [t.scatter_reduce(1, i, s, mode, include_self=include_self) for mode in modes]
        return results + [
            t.index_reduce(0, i[:, 0], s, mode, include_self=include_self) for mode in modes if mode != "sum"
        ]

    source = x(2, 3, dtype=dtype) + 1
    export_and_compare(reduced, ((x(3, 3) % 4).to(dtype), INDEX, source if dtype == torch.uint8 else -source))


def test_reductions_of_bool() -> None:
    def reduced(t: torch.Tensor, i: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        return [t.scatter_reduce(1, i, s, mode) for mode in ("sum", "prod", "amax", "amin")]

    export_and_compare(reduced, (x(3, 3) % 2 == 0, INDEX, x(2, 3) % 2 == 1))


@pytest.mark.parametrize("mode", ["amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_reductions_keep_nan(mode: str, include_self: bool) -> None:
    """onnxruntime's ScatterElements forgets a NaN that a number follows."""
    export_and_compare(
        lambda t, i, s: t.scatter_reduce(0, i, s, mode, include_self=include_self),
        (I([NAN, 1, 2, NAN]), I([0, 1, 1, 2, 2]), I([1.0, NAN, 3, 5, NAN])),
    )


def put(t: torch.Tensor, key: Any, v: torch.Tensor) -> torch.Tensor:
    """`t[key] = v` on a copy: keys with slices can't be given to index_put itself."""
    t = t.clone()
    t[key] = v
    return t


A = slice(None)
PUTS: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("one", lambda t, i, v: t.index_put((i,), v), (I([0, -1]), I(5.0))),
    ("one_rows", lambda t, i, v: t.index_put((i,), v), (I([0, 3]), x(2, 4, 3))),
    ("inner", lambda t, i, v: put(t, (A, i), v), (I([0, -1]), x(2, 3))),
    ("inner_matrix", lambda t, i, v: put(t, (A, i), v), (I([[0, 1], [3, 2]]), x(3))),
    ("last", lambda t, i, v: put(t, (A, A, i), v), (I([0, -1]), x(5, 4, 2))),
    ("pair", lambda t, i, v: t.index_put((i, i), v), (I([0, 1]), x(2, 3))),
    ("pair_inner", lambda t, i, v: put(t, (A, i, i), v), (I([0, 1]), x(5, 2))),
    ("apart", lambda t, i, v: put(t, (i, A, i), v), (I([0, 1]), x(2, 4))),
    ("broadcast", lambda t, i, j, v: t.index_put((i, j), v), (I([[0], [1]]), I([0, 2]), x(1, 2, 1))),
    ("accumulate", lambda t, i, v: t.index_put((i,), v, accumulate=True), (I([0, 0, 1]), I(2.0))),
    ("mask", lambda t, m, v: t.index_put((m,), v), (x(5) > 2, I(7.0))),
    ("mask_full", lambda t, m, v: t.index_put((m,), v), (x(5, 4, 3) % 2 == 0, I(7.0))),
    ("mask_full_values", lambda t, m, v: t.index_put((m,), v), (x(5, 4, 3) % 2 == 0, x(30))),
    ("mask_rows", lambda t, m, v: t.index_put((m,), v), (x(5) > 2, x(2, 4, 3))),
    ("mask_one_row", lambda t, m, v: t.index_put((m,), v), (x(5) > 2, x(1, 4, 3))),
    ("mask_two", lambda t, m, v: t.index_put((m,), v), (x(5, 4) % 5 == 0, x(4, 3))),
    ("mask_two_one", lambda t, m, v: t.index_put((m,), v), (x(5, 4) % 5 == 0, x(1, 3))),
    ("mask_inner", lambda t, m, v: put(t, (A, m), v), (x(4) > 2, x(1, 3))),
    ("mask_inner_values", lambda t, m, v: put(t, (A, m), v), (x(4) > 1, x(5, 2, 1))),
    ("mask_and_index", lambda t, m, i, v: t.index_put((m, i), v), (x(5) > 2, I([0, 3]), x(3))),
    ("mask_accumulate", lambda t, m, v: t.index_put((m,), v, accumulate=True), (x(5) > 2, I(7.0))),
    ("mask_none", lambda t, m, v: t.index_put((m,), v), (x(5) > 9, x(3))),
]


@pytest.mark.parametrize(("function", "args"), [pytest.param(f, a, id=n) for n, f, a in PUTS])
def test_index_put(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, (-x(5, 4, 3), *args))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.uint8])
def test_index_put_dtypes(dtype: torch.dtype) -> None:
    def put(t: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        return [t.index_put((i,), v), t.index_put((i,), v, accumulate=True), t.index_put((i > 1,), v[0])]

    export_and_compare(put, ((x(4) % 2).to(dtype), I([0, 3, 3, 1]), torch.ones(4).to(dtype)))


VIEWS: list[tuple[str, Callable[..., Any], tuple[int, ...]]] = [
    ("slice", lambda t, s: t.slice_scatter(s, 1, 1, 3), (5, 2, 3)),
    ("slice_end", lambda t, s: t.slice_scatter(s, 1, -2), (5, 2, 3)),
    ("slice_whole", lambda t, s: t.slice_scatter(s, 1), (5, 4, 3)),
    ("slice_step", lambda t, s: t.slice_scatter(s, 0, 1, None, 2), (2, 4, 3)),
    ("slice_empty", lambda t, s: t.slice_scatter(s, 0, 3, 3), (0, 4, 3)),
    ("select", lambda t, s: t.select_scatter(s, 0, -1), (4, 3)),
    ("select_inner", lambda t, s: t.select_scatter(s, 2, 1), (5, 4)),
    ("diagonal", lambda t, s: t.diagonal_scatter(s, -2, 0, 1), (3, 3)),
    ("diagonal_above", lambda t, s: t.diagonal_scatter(s, 1, 2, 1), (5, 3)),
    ("as_strided", lambda t, s: t.as_strided_scatter(s, (2, 3), (5, 2), 1), (2, 3)),
    ("copy", lambda t, s: torch.ops.aten.copy.default(t, s), (3,)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int16])
@pytest.mark.parametrize(("function", "shape"), [pytest.param(f, s, id=n) for n, f, s in VIEWS])
def test_views(function: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    export_and_compare(function, ((-x(5, 4, 3)).to(dtype), (x(*shape) % 2).to(dtype)))


def test_views_dynamic() -> None:
    def written(t: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        n = s.shape[0]
        return [
            t.slice_scatter(s, 0, 0, n),
            t.slice_scatter(s, 0, 1, 1 + n),
            t.slice_scatter(s, 0, t.shape[0] - n),
            t.select_scatter(s[0], 0, -2),
            t.select_scatter(t[:, 0], 1, 1),
            t.index_fill(0, torch.tensor([1]), 3),
            t.diagonal_scatter(t.diagonal() + 1),
        ]

    export_and_compare(
        written,
        (-x(6, 4), x(3, 4)),
        dynamic_shapes=(({0: AUTO}, {0: AUTO}),),
        other_args=(-x(9, 4), x(2, 4)),
    )


def test_scatter_dynamic() -> None:
    def written(t: torch.Tensor, i: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        return [
            t.index_add(0, i, s), t.index_copy(0, i, s), t.index_put((i,), s), put(t, (A, i % 4), t[:, :1]),
            t.scatter_add(0, i[:, None].expand(-1, 4), s), t.scatter(0, i[:, None], 2.0),
            t.scatter_reduce(0, i[:, None].expand(-1, 4), s, "mean", include_self=False),
            t.index_put((t > 3,), s[0, 0]),
        ]  # fmt: skip

    export_and_compare(
        written,
        (-x(6, 4), I([0, 3, 5]), x(3, 4)),
        dynamic_shapes=(({0: AUTO}, {0: "k"}, {0: "k"}),),
        other_args=(-x(4, 4), I([2, 1]), x(2, 4)),
    )


MASKS: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("fill", lambda t, m: t.masked_fill(m, float("-inf")), (x(3, 4), I([True, False, True, False]))),
    ("fill_bool", lambda t, m: t.masked_fill(m, True), (x(3, 4) > 5, x(3, 4) % 2 == 0)),
    ("fill_int16", lambda t, m: t.masked_fill(m, -3), (x(3, 4, dtype=torch.int16), x(3, 4) % 2 == 0)),
    ("fill_tensor", lambda t, m, v: t.masked_fill(m, v), (x(3, 4), x(3, 1) > 0, I(4))),
    ("scatter", lambda t, m, s: t.masked_scatter(m, s), (x(3, 4), x(3, 4) % 3 == 1, -x(2, 4))),
    ("scatter_broadcast", lambda t, m, s: t.masked_scatter(m, s), (x(3, 4), x(4) % 3 == 1, -x(3, 4))),
    ("scatter_none", lambda t, m, s: t.masked_scatter(m, s), (x(3, 4), x(4) < 0, -x(3))),
]


@pytest.mark.parametrize(("function", "args"), [pytest.param(f, a, id=n) for n, f, a in MASKS])
def test_masks(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, args)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize("initial", [None, 2.0])
def test_segment_reduce(reduce: str, initial: float | None) -> None:
    def segments(t: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.segment_reduce(t, reduce, lengths=lengths, axis=0, initial=initial, unsafe=True)

    export_and_compare(segments, (x(6, 2) - 4, I([2, 0, 3, 1])))


def test_few_nodes() -> None:
    program = export_and_compare(lambda t, m: t.index_put((m > 1,), I(0.0)), (x(4, 3), x(4, 3)))
    assert op_types(program) == ["Greater", "Where"]
    program = export_and_compare(lambda t, s: t.select_scatter(s, 1, 1), (x(4, 3), x(4)))
    assert op_types(program) == ["Unsqueeze", "Where"]
    program = export_and_compare(lambda t, i, s: t.index_add(0, i, s), (x(4, 3), I([0, 0]), x(2, 3)))
    assert op_types(program) == ["Unsqueeze", "ScatterND"]
