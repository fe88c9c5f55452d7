"""Dimensions are written as simply as integers allow: ``h``, and not ``(((32*h-1)//32))+1``."""

from __future__ import annotations

import itertools
from typing import Any

import onnxport
import pytest
import sympy
import torch
from onnxport_builtin.emission.dimension_text import expression_of, simplified
from support import expect_equal
from torch import nn
from torch.utils._sympy.functions import CeilDiv, FloorDiv, Mod

n, m = sympy.symbols("n m", integer=True, positive=True)
TWO, FOUR, EIGHT = map(sympy.Integer, (2, 4, 8))


@pytest.mark.parametrize(
    ("expr", "plain", "even"),
    [
        (FloorDiv(32 * n - 1, sympy.Integer(32)) + 1, "n", "n"),
        (2 * FloorDiv(n, TWO), "2*((n//2))", "n"),
        (FloorDiv(n - 1, TWO) + 1, "((n + 1)//2)", "(n//2)"),
        (3 * FloorDiv(n - 1, TWO) + 3, "3*(((n + 1)//2))", "3*((n//2))"),
        (CeilDiv(n, TWO), "((n + 1)//2)", "(n//2)"),
        (CeilDiv(8 * n, EIGHT), "n", "n"),
        (FloorDiv(8 * n + 4 * m + 3, EIGHT), "n + ((m//2))", "n + ((m//2))"),
        (FloorDiv(6 * n + 3, FOUR), "((3*n + 1)//2)", "3*((n//2))"),
        (FloorDiv(FloorDiv(n - 1, TWO) + 2, TWO), "((n + 3)//4)", "((n + 3)//4)"),
        (FloorDiv(n * m, m), "n", "n"),
        (FloorDiv(n, FloorDiv(n, TWO)), "(n//((n//2)))", "2"),
        (Mod(8 * n, EIGHT) + Mod(n, TWO), "Mod(n, 2)", "0"),
        (m * FloorDiv(n, TWO), "m*((n//2))", "m*((n//2))"),
    ],
)
def test_expressions(expr: sympy.Expr, plain: str, even: str) -> None:
    found, found_even = simplified(expr), simplified(expr, [Mod(n, TWO)])
    assert (str(found), str(found_even)) == (plain, even)
    for size, other in itertools.product(range(2, 40), (1, 2, 5, 8)):
        values = {n: sympy.Integer(size), m: sympy.Integer(other)}
        assert expr.xreplace(values) == found.xreplace(values)
        assert size % 2 or expr.xreplace(values) == found_even.xreplace(values)


def test_names_that_are_arithmetic() -> None:
    assert str(expression_of("32*h - 1")) == "32*h - 1"
    for name in ("batch size", "h//2", "sum(x)", "2 3", "a.b", ""):
        assert expression_of(name) == sympy.Symbol(name, integer=True)


class Sizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.down = nn.Conv2d(3, 4, 32, stride=32), nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        down = self.down(x)
        return [self.patches(x), down, down[:, :, ::2], x[:, :, : x.shape[2] // 2].repeat(1, 1, 2, 1)]


class Rows(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        size = x.shape[0]
        return [x.repeat_interleave(8, 0)[::8], x[: (size + 1) // 1] * 2]


@pytest.mark.parametrize(
    ("model", "args", "other", "shapes", "expected"),
    [
        (Sizes(), torch.rand(1, 3, 64, 96), torch.rand(1, 3, 96, 32), {2: "32*h", 3: "32*w"},
         ["1,4,h,w", "1,4,16*h,16*w", "1,4,8*h,16*w", "1,3,32*h,32*w"]),
        (Sizes(), torch.rand(1, 3, 64, 96), torch.rand(1, 3, 75, 40), {2: "h", 3: "w"},
         ["1,4,(h//32),(w//32)", "1,4,((h+1)//2),((w+1)//2)", "1,4,((h+3)//4),((w+1)//2)", "1,3,2*((h//2)),w"]),
        (Rows(), torch.rand(8, 4), torch.rand(13, 4), {0: "n"}, ["n,4"] * 2),
    ],
    ids=["multiples", "any", "rows"],
)  # fmt: skip
def test_dims_in_the_file(model: nn.Module, args: Any, other: Any, shapes: dict[int, str], expected: list[str]) -> None:
    program = onnxport.export(model.eval(), (args,), dynamic_shapes=(shapes,), verify=True)
    assert [",".join(map(str, value.shape)) for value in program.model.graph.outputs] == expected
    for got, wanted in zip(program(other), model(other), strict=True):
        expect_equal(got, wanted.detach())
