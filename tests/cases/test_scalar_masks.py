"""Masks of no axes in indices are read and written as in eager, whether they are true or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal, flat_tensors

Tensor = torch.Tensor


def assigned(index: Callable[[Tensor], Any], value: Any, make: Callable[[Tensor], Tensor] = Tensor.clone) -> Any:
    def forward(a: Tensor) -> Tensor:
        written = make(a)
        written[index(a)] = value(a) if callable(value) else value
        return written

    return forward


def rows(a: Tensor) -> Tensor:
    return torch.stack([a, a * 2, a - 1, a * a]).reshape(2, 2)


def through_a_view(a: Tensor) -> Tensor:
    written = rows(a)
    written[0, 1][written[0, 1] > 0] = 7.0
    written.T[1][a > 0] -= 3
    return written


def read_and_written(a: Tensor) -> Tensor:
    written = a.clone()
    written[a > 0] = -written[a > 0]
    written[~(a > 0)] *= 5
    return written


def in_place(a: Tensor) -> Tensor:
    written = rows(a)
    written[a > 0, 0] += 1
    return written


CASES: dict[str, Callable[[Tensor], Any]] = {
    "a number": assigned(lambda a: a > 0, 1.0),
    "a tensor": assigned(lambda a: a > 0, lambda a: a * 2),
    "nan": assigned(lambda a: a.isnan() | (a < 0), 0),
    "integers": assigned(lambda a: a > 0, 2, lambda a: a.long()),
    "booleans": assigned(lambda a: a > 0, False, lambda a: a > -100),
    "all rows": assigned(lambda a: a > 0, 0.0, rows),
    "all rows, each its own": assigned(lambda a: a > 0, lambda a: rows(a) + 1, rows),
    "of columns": assigned(lambda a: (slice(None), a > 0), 5.0, rows),
    "behind an ellipsis": assigned(lambda a: (..., a > 0, 1), 5.0, rows),
    "beside another mask": assigned(lambda a: (a > 0, rows(a) > 1), 9.0, rows),
    "uint8": assigned(lambda a: (a > 0).to(torch.uint8), 3.0),
    "of literals": assigned(lambda a: torch.tensor(True), 3.0),
    "through a view": through_a_view,
    "read and written": read_and_written,
    "in place": in_place,
    "read": lambda a: (a[a > 0], a[a > 0].sum(), a[a > 0] * 2),
    "read rows": lambda a: (
        rows(a)[a > 0],
        rows(a)[a > 0, :1],
        rows(a)[:, a > 0],
        rows(a)[..., a > 0],
        rows(a)[None, a > 0],
    ),
    "where": lambda a: (*torch.where(a > 0), torch.nonzero(a > 0), torch.masked_select(rows(a), a > 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_masks_without_axes(name: str) -> None:
    program = onnxport.export(FunctionModule(CASES[name]), (torch.tensor(2.0),))
    for number in (2.0, -3.0, 0.0):
        a = torch.tensor(number)
        for got, want in zip(program(a), flat_tensors(CASES[name](a)), strict=True):
            expect_equal(got, want)
