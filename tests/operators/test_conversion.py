"""Conversions between element types, and operators that change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from support import export_and_compare

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_to(source: torch.dtype, target: torch.dtype) -> None:
    values = (
        torch.tensor([0, 1, -1, 100, 127, -128])
        if not source.is_floating_point
        else torch.tensor([0.0, 1, -1.7, 100.9])
    )
    export_and_compare(lambda a: a.to(target), (values.to(source),))


def test_large_integers_wrap() -> None:
    a = torch.tensor([2**31, -(2**31) - 1, 2**40 + 5, 300, -300])
    export_and_compare(lambda a: (a.int(), a.short(), a.byte(), a.char(), a.bool()), (a,))


def test_floats_to_integers_on_long_tensors() -> None:
    a = (torch.rand(1000) - 0.5) * 200
    export_and_compare(lambda a: (a.byte(), a.char(), a.int(), a.long(), a.bool()), (a,))


def test_special_floats() -> None:
    a = torch.tensor([math.inf, -math.inf, math.nan, 1e-8, 7e4])
    export_and_compare(lambda a: (a.half(), a.double(), a.bool()), (a,))


def test_other_spellings() -> None:
    a, b = torch.randn(2, 3), torch.arange(3)

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            a.to(b),
            a.type_as(b),
            b.to("cpu", torch.float16),
            b.to(dtype=torch.float64, copy=True),
            a.to(memory_format=torch.contiguous_format),
            torch.ops.aten._to_copy(b, dtype=torch.int32),
        )

    export_and_compare(function, (a, b))


def test_what_changes_nothing_costs_nothing() -> None:
    def function(a: torch.Tensor) -> torch.Tensor:
        b = a.clone().contiguous().detach().float()
        b = torch.nn.functional.dropout(b, 0.5, training=False).real.conj().resolve_conj()
        return torch.positive(b) + 1

    program = export_and_compare(function, (torch.randn(3),))
    assert [node.op_type for node in program.model.graph] == ["Add"]


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout2d"])
def test_dropout_in_eval_mode(name: str) -> None:
    function = getattr(torch.nn.functional, name)
    export_and_compare(lambda a: function(a, 0.4, False) * 2, (torch.randn(2, 3, 4, 4),))


def test_native_dropout() -> None:
    export_and_compare(lambda a: torch.native_dropout(a, 0.4, False), (torch.randn(3, 4),))


def test_same_width_views() -> None:
    a = torch.tensor([0, 1, 127, -1], dtype=torch.int8)
    export_and_compare(lambda a: a.view(torch.uint8), (a,))
    export_and_compare(lambda a: a.view(torch.int32), (torch.tensor([1.5, -0.0]),), opset_version=26)
