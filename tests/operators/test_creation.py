"""Tensors made of sizes and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

CASES: list[tuple[str, Callable[[torch.Tensor], Any]]] = [
    ("full", lambda t: t.new_full((2, 3), 7.5)),
    ("full_bool", lambda t: torch.full((2,), True)),
    ("full_large", lambda t: torch.full((40, 50), 3, dtype=torch.uint8)),
    ("zeros", lambda t: t.new_zeros((0, 3))),
    ("zeros_like", lambda t: torch.zeros_like(t, dtype=torch.float16)),
    ("ones_int", lambda t: torch.ones(3, dtype=torch.int32)),
    ("arange", lambda t: torch.arange(2, 20, 3)),
    ("arange_down", lambda t: torch.arange(5, -5, -2)),
    ("arange_float_step", lambda t: torch.arange(0.1, 2.0, 0.1)),
    ("arange_float_dtype", lambda t: torch.arange(7, dtype=torch.float16)),
    ("arange_long", lambda t: torch.arange(5000)),
    ("linspace", lambda t: torch.linspace(-1, 1, 7)),
    ("linspace_int", lambda t: torch.linspace(0, 10, 4, dtype=torch.int64)),
    ("logspace", lambda t: torch.logspace(0, 3, 5, base=2.0)),
    ("eye", lambda t: torch.eye(3, 5, dtype=torch.float64)),
    ("eye_large", lambda t: torch.eye(40, dtype=torch.bool)),
    ("tril_indices", lambda t: torch.tril_indices(3, 4, -1)),
    ("triu_indices", lambda t: torch.triu_indices(3, 4, 1)),
    ("hann", lambda t: torch.hann_window(9)),
    ("hamming", lambda t: torch.hamming_window(9, False, 0.5, 0.4)),
    ("blackman", lambda t: torch.blackman_window(8, periodic=False)),
    ("bartlett", lambda t: torch.bartlett_window(7)),
    ("kaiser", lambda t: torch.kaiser_window(7, True, 9.0)),
    ("scalar_tensor", lambda t: torch.scalar_tensor(3, dtype=torch.int64)),
]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in CASES])
def test_values(function: Callable[[torch.Tensor], Any], optimize: bool) -> None:
    export_and_compare(lambda t: (function(t), t + 1), (torch.ones(2, 3),), optimize=optimize)


DYNAMIC: list[tuple[str, Callable[[torch.Tensor], Any]]] = [
    ("full_like", lambda t: torch.full_like(t, 2, dtype=torch.int64)),
    ("new_zeros", lambda t: t.new_zeros(t.shape[1], 4)),
    ("full_of_size", lambda t: torch.full((2, t.shape[0]), t.shape[1])),
    ("arange", lambda t: torch.arange(t.shape[1])),
    ("arange_int32", lambda t: torch.arange(1, t.shape[1] + 1, 2, dtype=torch.int32)),
    ("arange_uint8", lambda t: torch.arange(t.shape[1], dtype=torch.uint8)),
    ("arange_float", lambda t: torch.arange(t.shape[1], dtype=torch.float32)),
    ("arange_step", lambda t: torch.arange(0.5, t.shape[1], 0.25)),
    ("arange_down", lambda t: torch.arange(t.shape[1], 0, -1)),
    ("eye", lambda t: torch.eye(t.shape[0], t.shape[1])),
    ("eye_bool", lambda t: torch.eye(t.shape[0], dtype=torch.bool)),
    ("scalar", lambda t: torch.scalar_tensor(t.shape[1], dtype=torch.float32)),
]


@pytest.mark.parametrize("function", [pytest.param(f, id=n) for n, f in DYNAMIC])
def test_dynamic(function: Callable[[torch.Tensor], Any]) -> None:
    auto = torch.export.Dim.DYNAMIC
    export_and_compare(
        lambda t: (function(t), t + 1),
        (torch.ones(3, 5),),
        dynamic_shapes=(({0: auto, 1: auto},),),
        other_args=(torch.ones(4, 7),),
    )


def test_linspace_of_tensors() -> None:
    def between(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.linspace(a, b, 9), torch.linspace(a, 4, 1), torch.linspace(0, b, 6, dtype=torch.int64),
            torch.logspace(a, b, 5), torch.linspace(a, b, 0),
        ]  # fmt: skip

    export_and_compare(between, (torch.tensor(-1.5), torch.tensor(3.25)))


def test_one_hot() -> None:
    labels = torch.tensor([[0, 2], [4, 1]])
    export_and_compare(lambda t: torch.nn.functional.one_hot(t, 6), (labels,))


def test_arange_is_a_range() -> None:
    auto = torch.export.Dim.DYNAMIC
    program = export_and_compare(
        lambda t: torch.arange(t.shape[0]),
        (torch.ones(3),),
        dynamic_shapes=(({0: auto},),),
        other_args=(torch.ones(5),),
    )
    assert op_types(program)[-1] == "Range"
    assert len(op_types(program)) <= 3
