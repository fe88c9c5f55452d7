"""Symbolic sizes: every form that torch's shape environment makes, computed by onnxruntime at two sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types

_FORMS: dict[str, Callable[[torch.Tensor], Any]] = {
    "size": lambda x: torch.zeros(x.shape[0]),
    "sum": lambda x: torch.zeros(x.shape[0] + x.shape[1] + 3),
    "difference": lambda x: torch.zeros(x.shape[1] * 3 - 2),
    "product": lambda x: x.reshape(x.shape[0] * x.shape[1]),
    "floor_division": lambda x: x[: (x.shape[0] + 1) // 2],
    "modulo": lambda x: torch.zeros(x.shape[0] % 3 + 1),
    "maximum": lambda x: torch.zeros(torch.sym_max(x.shape[0], x.shape[1])),
    "minimum": lambda x: torch.zeros(torch.sym_min(x.shape[0], x.shape[1])),
    "true_division": lambda x: x * (x.shape[0] / 3),
    "as_a_number": lambda x: x + x.shape[1],
    "square": lambda x: torch.zeros(x.shape[0] ** 2),
    "square_root": lambda x: x * torch.sym_sqrt(x.shape[0]),
    "negative_slice": lambda x: x[-(x.shape[0] // 2) :],
    "range": lambda x: torch.arange(x.shape[1]),
    "flattened": lambda x: x.flatten(),
}


@pytest.mark.parametrize("form", _FORMS)
def test_form(form: str) -> None:
    export_and_compare(
        _FORMS[form],
        (torch.randn(4, 6),),
        dynamic_shapes=(({0: "rows", 1: "columns"},),),
        other_args=(torch.randn(7, 5),),
    )


def test_one_read_of_a_size_serves_all_its_uses() -> None:
    program = export_and_compare(
        lambda x: (torch.zeros(x.shape[0], 3), torch.ones(x.shape[0], 4), x.new_zeros(x.shape[0] * 2)),
        (torch.randn(4, 2),),
        dynamic_shapes=(({0: "batch"},),),
        other_args=(torch.randn(5, 2),),
    )
    assert op_types(program).count("Shape") == 1


def test_requested_names_are_written_expressions_included() -> None:
    program = export_and_compare(
        lambda x: torch.cat([x, x]),
        (torch.randn(4, 2),),
        dynamic_shapes=(({0: "batch"},),),
        other_args=(torch.randn(3, 2),),
    )
    assert [str(d) for d in program.model.graph.inputs[0].shape] == ["batch", "2"]
    assert [str(d) for d in program.model.graph.outputs[0].shape] == ["2*batch", "2"]


def test_data_dependent_sizes_are_read_from_their_tensor() -> None:
    export_and_compare(
        lambda x: torch.nonzero(x > 0) * 2,
        (torch.tensor([1.0, -1.0, 2.0]),),
        other_args=(torch.tensor([1.0, 1.0, 2.0]),),
    )


def test_derived_dimensions_are_solved_for_their_symbol() -> None:
    dim = torch.export.Dim("half", min=1, max=64)
    export_and_compare(
        lambda x, y: x[::2] + y,
        (torch.randn(8), torch.randn(4)),
        dynamic_shapes=(({0: 2 * dim}, {0: dim}),),
        other_args=(torch.randn(12), torch.randn(6)),
    )
