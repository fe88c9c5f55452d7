"""Rotary position embeddings that models write themselves: RotaryEmbedding from opset 23 on, where that is sure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

WIDTH = 8
Pair = tuple[torch.Tensor, torch.Tensor]


def half_turn(x: torch.Tensor) -> torch.Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def half_turn_of_chunks(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def turn_of_pairs(x: torch.Tensor) -> torch.Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def doubled(angles: torch.Tensor) -> torch.Tensor:
    return torch.cat((angles, angles), dim=-1)


def interleaved(angles: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(angles, 2, dim=-1)


def stacked(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack((angles, angles), dim=-1).flatten(-2)


class Rotary(nn.Module):
    """Queries (B, H, S, D) and keys, turned by their positions.

    Args:
        turn: the turned vector.
        whole: a table of the vector's width from one of half its width.
        scale: of the tables.
        by_batch: each row of the batch has positions of its own.
    """

    def __init__(
        self,
        turn: Callable[[torch.Tensor], torch.Tensor],
        whole: Callable[[torch.Tensor], torch.Tensor],
        scale: float = 1.0,
        *,
        by_batch: bool = False,
        head_axis: int | None = 1,
    ) -> None:
        super().__init__()
        self.turn, self.whole, self.scale, self.by_batch, self.head_axis = turn, whole, scale, by_batch, head_axis
        self.register_buffer("frequencies", 0.5 ** torch.arange(WIDTH // 2).float(), persistent=False)

    def tables(self, x: torch.Tensor) -> Pair:
        positions = torch.arange(x.shape[2]).float()
        if self.by_batch:
            positions = positions + x[:, 0, :1, 0].round()
        elif self.head_axis is not None:
            positions = positions[None]
        angles = self.whole(positions[..., None] * self.frequencies)
        cos, sin = (angles.cos() * self.scale).to(x.dtype), (angles.sin() * self.scale).to(x.dtype)
        return (cos, sin) if self.head_axis is None else (cos.unsqueeze(self.head_axis), sin.unsqueeze(self.head_axis))

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> Pair:
        cos, sin = self.tables(q)
        return q * cos + self.turn(q) * sin, (k * cos) + (self.turn(k) * sin)


FORMS = {
    "halves": (half_turn, doubled),
    "chunks": (half_turn_of_chunks, doubled),
    "pairs": (turn_of_pairs, interleaved),
    "stacked pairs": (turn_of_pairs, stacked),
}
AXES = {0: Dim.AUTO, 2: Dim.AUTO}


def compare(
    module: nn.Module, opset: int = 23, dtype: torch.dtype = torch.float32, *, static: bool = False
) -> list[str]:
    """The operators of the file, after a comparison at two sizes."""
    pair = torch.randn(2, 4, 5, WIDTH).to(dtype), torch.randn(2, 2, 5, WIDTH).to(dtype)
    other = torch.randn(3, 4, 1, WIDTH).to(dtype), torch.randn(3, 2, 1, WIDTH).to(dtype)
    program = export_and_compare(
        module,
        pair,
        other_args=None if static else other,
        dynamic_shapes=None if static else (AXES, AXES),
        opset_version=opset,
        **({"rtol": 1e-5, "atol": 1e-6} if dtype is torch.float64 else {}),  # the tables are of float32
    )
    return op_types(program)


@pytest.mark.parametrize("options", [{}, {"scale": 1.25}, {"by_batch": True}, {"head_axis": None}], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_one_node(form: str, options: dict[str, object]) -> None:
    kinds = compare(Rotary(*FORMS[form], **options))
    assert kinds.count("RotaryEmbedding") == 2
    assert not {"Neg", "Split", "Add", "Slice"} & set(kinds) - ({"Add", "Slice"} if "by_batch" in options else set())
    assert kinds.count("Cos") == kinds.count("Sin") == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("opset", [23, 24])
def test_sizes_that_are_known(opset: int, dtype: torch.dtype) -> None:
    assert compare(Rotary(half_turn, doubled), opset, dtype, static=True).count("RotaryEmbedding") == 2


def test_other_opsets_and_float64() -> None:
    """Float64 isn't a type of the operator."""
    assert "RotaryEmbedding" not in compare(Rotary(half_turn, doubled), 20)
    assert "RotaryEmbedding" not in compare(Rotary(half_turn, doubled), 23, torch.float64)


class OfHalves(Rotary):
    """Both halves by tables of half the width."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> Pair:
        cos, sin = self.tables(q)
        return self.rotated(q, cos, sin), self.rotated(k, cos, sin)

    def rotated(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def test_tables_of_half_the_width() -> None:
    assert compare(OfHalves(half_turn, lambda angles: angles)).count("RotaryEmbedding") == 2


class Partial(Rotary):
    """The first half of each vector is turned, as GPT-NeoX and Phi do."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> Pair:
        cos, sin = self.tables(q)
        cos, sin = cos[..., :WIDTH], sin[..., :WIDTH]
        return tuple(
            torch.cat((x[..., :WIDTH] * cos + self.turn(x[..., :WIDTH]) * sin, x[..., WIDTH:]), -1) for x in (q, k)
        )


def test_a_part_of_the_vector() -> None:
    program = export_and_compare(
        Partial(half_turn, doubled),
        (torch.randn(2, 4, 5, 2 * WIDTH), torch.randn(2, 2, 5, 2 * WIDTH)),
        other_args=(torch.randn(3, 4, 7, 2 * WIDTH), torch.randn(3, 2, 7, 2 * WIDTH)),
        dynamic_shapes=(AXES, AXES),
        opset_version=23,
    )
    assert op_types(program).count("RotaryEmbedding") == 2


class Given(nn.Module):
    """Tables of the caller: nothing says that their halves are equal."""

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return x * cos + half_turn(x) * sin


def test_tables_that_may_differ() -> None:
    program = export_and_compare(
        Given(),
        (torch.randn(2, 4, 5, WIDTH), torch.randn(2, 1, 5, WIDTH), torch.randn(2, 1, 5, WIDTH)),
        opset_version=23,
    )
    assert "RotaryEmbedding" not in op_types(program)


def backwards(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((second, -first), dim=-1)


def swapped(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


def unequal(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((-x[..., 2:], x[..., :2]), dim=-1)


def different(angles: torch.Tensor) -> torch.Tensor:
    return torch.cat((angles, 2 * angles), dim=-1)


def in_a_row(angles: torch.Tensor) -> torch.Tensor:
    return torch.cat((angles, angles), dim=-2).reshape(*angles.shape[:-1], -1)


@pytest.mark.parametrize(
    ("turn", "whole"),
    [
        (backwards, doubled),
        (swapped, doubled),
        (unequal, doubled),
        (half_turn, different),
        (half_turn, interleaved),
        (turn_of_pairs, doubled),
        (half_turn, in_a_row),
    ],
)
def test_what_is_no_such_rotation(turn: Callable[..., torch.Tensor], whole: Callable[..., torch.Tensor]) -> None:
    assert "RotaryEmbedding" not in compare(Rotary(turn, whole))


class OfPlaces(nn.Module):
    """(B, S, H, D), with tables (S, 1, D)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(x.shape[1]).float()[:, None, None] * 0.5 ** torch.arange(WIDTH // 2)
        angles = doubled(angles)
        return x * angles.cos() + half_turn(x) * angles.sin()


def test_heads_behind_places() -> None:
    export_and_compare(
        OfPlaces(),
        (torch.randn(2, 5, 5, WIDTH),),
        other_args=(torch.randn(3, 2, 5, WIDTH),),
        dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},),
        opset_version=23,
    )
    export_and_compare(OfPlaces(), (torch.randn(2, 5, 5, WIDTH),), opset_version=23)
