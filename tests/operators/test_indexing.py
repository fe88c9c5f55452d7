"""Taking elements out: slices, selections, advanced indexing, gathers, places of elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

AUTO = torch.export.Dim.DYNAMIC


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Distinct values."""
    return torch.arange(int(torch.tensor(shape).prod()) if shape else 1).reshape(shape).to(dtype)


I = torch.tensor  # noqa: E741

SLICES: list[tuple[str, Callable[[torch.Tensor], Any]]] = [
    ("step", lambda t: t[1::2]),
    ("negative", lambda t: t[:, -3:-1]),
    ("huge", lambda t: t[:, 1 : 10**12]),
    ("beyond", lambda t: t[10:]),
    ("crossed", lambda t: t[3:1]),
    ("far_negative", lambda t: t[:, -100:2]),
    ("select", lambda t: t[-1, :, 0]),
    ("ellipsis", lambda t: t[..., None, 1:]),
    ("narrow", lambda t: t.narrow(1, -2, 2)),
    ("index_select", lambda t: t.index_select(-1, I([0, 0, 2]))),
    ("index_select_scalar", lambda t: t.index_select(1, I(1))),
]


@pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in SLICES])
def test_slices(function: Callable[[torch.Tensor], Any]) -> None:
    dims = {0: AUTO, 1: AUTO}
    export_and_compare(function, (x(5, 4, 3),))
    export_and_compare(function, (x(5, 4, 3),), dynamic_shapes=((dims,),), other_args=(x(6, 7, 3),))


ADVANCED: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("one", lambda t, i: t[i], (I([[0, -1], [2, 2]]),)),
    ("one_inner", lambda t, i: t[:, :, i], (I([[0, -1], [2, 2]]),)),
    ("int32", lambda t, i: t[:, i], (I([3, 0], dtype=torch.int32),)),
    ("scalar", lambda t, i: t[i], (I(2),)),
    ("pair", lambda t, i, j: t[i, j], (I([0, 1, -1]), I([3, -2, 0]))),
    ("pair_inner", lambda t, i, j: t[:, i, j], (I([0, 1, -1]), I([1, -2, 0]))),
    ("pair_broadcast", lambda t, i, j: t[:, i, j], (I([[0], [1]]), I([[1, -2, 0]]))),
    ("outer", lambda t, i, j: t[:, i[:, None], j], (I([0, 3, 1]), I([2, 0]))),
    ("outer_reversed", lambda t, i, j: t[:, i, j[:, None]], (I([0, 3, 1]), I([2, 0]))),
    ("apart", lambda t, i, j: t[i, :, j], (I([0, 4]), I([2, 1]))),
    ("apart_and_before", lambda t, i, j: t[None][:, i, :, j], (I([0, 4]), I([2, 1]))),
    ("matrix_and_vector", lambda t, i, j: t[i, j], (I([[0, 1], [4, 2]]), I([1, 3]))),
    ("none", lambda t, i: t[i, None, 1:], (I([0, 1]),)),
    ("empty", lambda t, i: t[i, i], (torch.zeros(0, dtype=torch.int64),)),
    ("three", lambda t, i: t[i, i, i], (I([0, 2, 1]),)),
    ("mask", lambda t, m: t[m], (x(5) % 2 == 0,)),
    ("mask_inner", lambda t, m: t[:, m], (x(4) > 1,)),
    ("mask_full", lambda t: t[t > 20], ()),
    ("mask_two", lambda t, m: t[m], (x(5, 4) % 3 == 0,)),
    ("mask_two_inner", lambda t, m: t[:, m], (x(4, 3) % 3 == 0,)),
    ("mask_and_scalar", lambda t, m, i: t[m, i], (x(5) % 2 == 0, I(1))),
    ("mask_apart", lambda t, m, i: t[m, :, i], (x(5) % 2 == 0, I([0]))),
    ("mask_none", lambda t, m: t[m], (x(5) > 10,)),
]


@pytest.mark.parametrize(("function", "indices"), [pytest.param(f, i, id=n) for n, f, i in ADVANCED])
def test_advanced(function: Callable[..., Any], indices: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, (x(5, 4, 3), *indices))


def test_advanced_dynamic() -> None:
    def taken(t: torch.Tensor, i: torch.Tensor, j: torch.Tensor, m: torch.Tensor) -> list[torch.Tensor]:
        return [t[:, i], t[i, j], t[:, i, j], t[i, :, j], t[m], t[m, :, 1], t[:, i[:, None], j]]

    def args(n: int, k: int) -> tuple[torch.Tensor, ...]:
        return x(n, 4, 4), torch.arange(k) % 4, torch.arange(k) % 3, torch.arange(n) % 2 == 0

    export_and_compare(
        taken,
        args(5, 3),
        dynamic_shapes=(({0: AUTO}, {0: "k"}, {0: "k"}, {0: AUTO}),),
        other_args=args(6, 2),
    )


GATHERS: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("gather", lambda t, i: t.gather(1, i), (x(3, 4), I([[0, 3], [1, 1]]))),
    ("gather_scalar", lambda t, i: t.gather(0, i), (x(), I(0))),
    ("gather_empty", lambda t, i: t.gather(0, i), (x(3), torch.zeros(0, dtype=torch.int64))),
    ("take", lambda t, i: t.take(i), (x(3, 4), I([[0, -1], [5, 11]]))),
    ("take_along", lambda t, i: torch.take_along_dim(t, i, 1), (x(3, 4), I([[0, 3, 2]]))),
    ("take_along_flat", lambda t, i: torch.take_along_dim(t, i), (x(3, 4), I([0, 11]))),
    ("masked_select", lambda t, m: t.masked_select(m), (x(3, 4), I([True, False, False, True]))),
    ("nonzero", lambda t: t.nonzero(), (x(3, 4) % 3,)),
    ("nonzero_double", lambda t: t.nonzero(), (x(3, 4, dtype=torch.float64) % 2,)),
    ("nonzero_scalar", lambda t: t.nonzero(), (I(3),)),
    ("nonzero_tuple", lambda t: t.nonzero(as_tuple=True), (x(3, 4) % 3,)),
    ("argwhere", lambda t: torch.argwhere(t), (x(3, 4) % 3 == 1,)),
    ("nonzero_static", lambda t: torch.nonzero_static(t, size=5, fill_value=-7), (I([[0, 1], [1, 1]]),)),
    ("nonzero_static_cut", lambda t: torch.nonzero_static(t, size=2), (I([[0, 1], [1, 1]]),)),
    ("repeat_interleave", lambda t, r: t.repeat_interleave(r, 1), (x(2, 3), I([2, 0, 3]))),
    ("repeat_interleave_one", lambda t, r: t.repeat_interleave(r), (x(2, 3), I([2]))),
    ("repeat_interleave_index", lambda r: torch.repeat_interleave(r), (I([2, 0, 3]),)),
    ("repeat_interleave_int", lambda t: t.repeat_interleave(3, -1), (x(2, 3),)),
]


@pytest.mark.parametrize(("function", "args"), [pytest.param(f, a, id=n) for n, f, a in GATHERS])
def test_gathers(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, args)


LEAN: list[tuple[str, Callable[[torch.Tensor, torch.Tensor], Any], list[str]]] = [
    ("one", lambda t, i: t[:, i], ["Gather"]),
    ("pair", lambda t, i: t[i, i], ["Unsqueeze", "Concat", "GatherND"]),
    ("mask", lambda t, i: t[:, i > 1], ["Greater", "Compress"]),
    ("mask_full", lambda t, i: t[t > 1], ["Greater", "Reshape", "Compress"]),
]


@pytest.mark.parametrize(("function", "expected"), [pytest.param(f, e, id=n) for n, f, e in LEAN])
def test_few_nodes(function: Callable[..., Any], expected: list[str]) -> None:
    program = export_and_compare(function, (x(4, 4), I([0, 1, 2, 3])))
    assert sorted(op_types(program)) == sorted(expected)


SYMBOLIC: list[tuple[str, Callable[[torch.Tensor, torch.Tensor], Any]]] = [
    ("last", lambda t, s: t[t.shape[0] - 1]),
    ("tail", lambda t, s: t[-s.shape[0] :]),
    ("between", lambda t, s: t[s.shape[0] - 1 : s.shape[0] + 1]),
    ("half", lambda t, s: t[: t.shape[0] // 2]),
    ("narrow", lambda t, s: t.narrow(0, 1, s.shape[0])),
    ("split", lambda t, s: t.split([s.shape[0], t.shape[0] - s.shape[0]])),
    ("roll", lambda t, s: t.roll(s.shape[0], 0)),
    ("repeat", lambda t, s: s.repeat_interleave(t.shape[0])),
    ("tril", lambda t, s: t.tril(s.shape[0])),
    ("fill", lambda t, s: torch.full((s.shape[0], 2), t.shape[0])),
    ("arange", lambda t, s: torch.arange(s.shape[0], t.shape[0])),
    ("where", lambda t, s: torch.where(t > s.shape[0])),
]


@pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in SYMBOLIC])
def test_symbolic_bounds(function: Callable[..., Any]) -> None:
    export_and_compare(
        function,
        (x(7, 4), x(3)),
        dynamic_shapes=(({0: AUTO}, {0: AUTO}),),
        other_args=(x(9, 4), x(2)),
    )


def test_data_dependent_sizes() -> None:
    """What is counted at run time goes on through other operators; nothing found is no error."""

    def found(t: torch.Tensor, m: torch.Tensor) -> list[torch.Tensor]:
        rows = t[m]
        places = m.nonzero()
        return [
            rows.sum(0), rows.reshape(-1, 2, 2), torch.cat([rows, t]), rows[:, None].expand(-1, 3, -1),
            rows.flip(0), rows.transpose(0, 1), torch.zeros_like(rows), t[places[:, 0]], places.squeeze(1).repeat(2),
            torch.arange(rows.shape[0]), rows.new_ones(rows.shape[0], 2),
        ]  # fmt: skip

    export_and_compare(
        found,
        (x(5, 4), x(5) > 2),
        dynamic_shapes=(({0: "n"}, {0: "n"}),),
        other_args=(x(6, 4), x(6) > 100),
    )


def test_size_from_a_value() -> None:
    def cut(t: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        length = n.item()
        torch._check(length >= 0)
        torch._check(length <= t.shape[0])
        return t[:length] + 1

    export_and_compare(cut, (x(5, 4), I(3)), other_args=(x(5, 4), I(1)))
