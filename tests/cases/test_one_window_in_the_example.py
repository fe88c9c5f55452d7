"""A map that is one window in the example and several elsewhere: each view has the shape that was asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare


def windows(x: torch.Tensor, side: int = 7) -> torch.Tensor:
    """Rows are mixed within windows of a padded width, and the padding is cut off."""
    b, w, c = x.shape
    x = F.pad(x, (0, 0, 0, -w % side))
    count = x.shape[1] // side
    groups = x.reshape(b, count, side, c).transpose(2, 3).reshape(b, count, side * c)
    mixed = torch.softmax(groups, -1).reshape(b, count, c, side).transpose(2, 3)
    return mixed.reshape(b, count * side, c)[:, :w]


def attention(x: torch.Tensor) -> torch.Tensor:
    b, h, w, c = x.shape
    high, wide = -(-h // 4), -(-w // 4)
    x = F.pad(x, (0, 0, 0, wide * 4 - w, 0, high * 4 - h))
    tokens = x.view(b, high, 4, wide, 4, c).transpose(2, 3).reshape(b, high * wide, 16, 1, c).transpose(2, 3)
    tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
    x = tokens.transpose(2, 3).reshape(b, high, wide, 4, 4, c).transpose(2, 3)
    return x.reshape(b, high * 4, wide * 4, c)[:, :h, :w].contiguous()


@pytest.mark.parametrize(("size", "others"), [(4, (8, 17, 3)), (10, (4, 23))])
def test_windows_of_an_axis(size: int, others: tuple[int, ...]) -> None:
    for other in others:
        export_and_compare(
            windows,
            (torch.randn(2, size, 3),),
            dynamic_shapes=({0: "b", 1: "w"},),
            other_args=(torch.randn(3, other, 3),),
        )


def test_windows_of_a_map() -> None:
    program = export_and_compare(
        attention,
        (torch.randn(2, 3, 4, 5),),
        dynamic_shapes=({0: "b", 1: "h", 2: "w"},),
        other_args=(torch.randn(1, 9, 6, 5),),
    )
    for shape in ((1, 4, 9, 5), (2, 13, 3, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(program(x)[0], attention(x))
