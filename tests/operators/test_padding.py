"""Padding in every mode and sign, at opsets with and without wrapping."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare, op_types
from torch.export import Dim

DYNAMIC = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int16, torch.uint8, torch.bool]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 2, shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant(dtype: torch.dtype) -> None:
    value = 1.0 if dtype == torch.bool else 3.0
    export_and_compare(lambda x: torch.constant_pad_nd(x, (1, -1, 0, 2), value), (values(2, 3, 4, dtype=dtype),))


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("pads", [(1, 2, 2, 1), (1, -2, -1, 2), (-1, 3, 0, 0)])
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_modes(mode: str, pads: tuple[int, ...], opset: int) -> None:
    export_and_compare(
        lambda x: F.pad(x, pads, mode),
        (values(2, 3, 5, 6),),
        other_args=(values(3, 3, 7, 8),),
        dynamic_shapes=((DYNAMIC,),),
        opset_version=opset,
    )


def test_one_node() -> None:
    for mode in ("constant", "reflect", "replicate", "circular"):
        assert op_types(export_and_compare(lambda x, m=mode: F.pad(x, (1, 1), m), (values(2, 3, 5),))) == ["Pad"]


def test_pads_of_symbolic_size() -> None:
    export_and_compare(
        lambda x, y: F.pad(x, (0, y.shape[1] - x.shape[1])),
        (values(2, 3), values(2, 7)),
        other_args=(values(2, 4), values(2, 9)),
        dynamic_shapes=(({1: Dim.AUTO}, {1: Dim.AUTO}),),
    )


def test_nothing_to_pad() -> None:
    export_and_compare(lambda x: F.pad(x, (0, 0)) + 1, (values(2, 3),))
    export_and_compare(lambda x: F.pad(x, (1, 2), "circular"), (values(0, 3, 3),))
