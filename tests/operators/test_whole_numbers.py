"""Sums and products of integers are exact modulo 2**64, as torch's are, whatever their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

DYNAMIC = torch.export.Dim.DYNAMIC
BIG = torch.tensor([[2**62 + 1, -(2**61) + 3, 2**53 + 1], [2**62 - 1, 2**60 + 5, -1], [7, 2**63 - 1, -(2**63)]])
OTHER = torch.tensor([[2**62 + 3, 2**62 + 5], [2**54 + 1, 2**61 - 9], [-3, 11], [5, 2**59 + 1], [2**55 - 1, 13]])

FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum": torch.sum,
    "sum_of_rows": lambda x: x.sum(1),
    "sum_of_columns": lambda x: x.sum(0),
    "sum_kept": lambda x: (x.sum(1, keepdim=True), x.sum(0, keepdim=True), x.sum((0, 1), keepdim=True)),
    "sum_of_outer_axes": lambda x: x.unsqueeze(1).expand(-1, 2, -1).sum((0, 2)),
    "sum_of_a_middle_axis": lambda x: x.unsqueeze(2).expand(-1, -1, 2).sum(1),
    "sum_that_wraps_to_int32": lambda x: x.sum(1, dtype=torch.int32),
    "sum_of_int32": lambda x: x.to(torch.int32).sum(1),
    "nansum": lambda x: x.nansum(1),
    "sum_to_size": lambda x: x.sum_to_size((x.shape[0], 1)),
    "einsum": lambda x: torch.einsum("ij->j", x),
    "prod": torch.prod,
    "prod_of_rows": lambda x: x.prod(1),
    "prod_of_columns_kept": lambda x: x.prod(0, keepdim=True),
    "prod_of_uint8": lambda x: (x % 256).to(torch.uint8).prod(0),
    "prod_in_int8": lambda x: x.prod(0, dtype=torch.int8),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_exact(name: str, dynamic: bool) -> None:
    shapes = (({0: DYNAMIC, 1: DYNAMIC},),) if dynamic else None
    export_and_compare(FUNCTIONS[name], (BIG,), dynamic_shapes=shapes, other_args=(OTHER,) if dynamic else None)


def test_trace() -> None:
    export_and_compare(torch.trace, (BIG,))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (1, 1), (17,), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = torch.randint(-(2**62), 2**62, shape)
    export_and_compare(lambda x: (x.sum(), x.prod(), x.sum(-1), x.prod(-1)), (x,))


def test_nothing_left_at_run_time() -> None:
    """Sums and products over no elements, which only the run shows."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picked = x.masked_select(x > 0)
        return picked.sum(), picked.prod()

    export_and_compare(function, (torch.tensor([3, -1, 2**61 + 1]),))
    export_and_compare(function, (torch.tensor([-3, -1, -(2**61)]),))


def test_many_addends() -> None:
    """The ones aren't stored in the file; a million addends are as exact as three."""
    x = torch.arange(2**55 + 1, 2**55 + 1 + 3 * 20000, 3)
    program = export_and_compare(torch.sum, (x,))
    assert len(program.model_proto.SerializeToString()) < 20_000


def test_what_cannot_get_large_is_reduced() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x > 0).sum(), (x > 0).long().sum(1), x.to(torch.int32).sum(), x.argmax(1).sum(), (x > 0).prod(1)

    program = export_and_compare(function, (BIG,))
    assert "MatMul" not in op_types(program)
    assert op_types(program).count("ReduceSum") == 4


def test_one_node_for_the_last_axis() -> None:
    assert op_types(export_and_compare(lambda x: x.sum(-1), (BIG,))) == ["MatMul"]
