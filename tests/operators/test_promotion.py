"""Promotion agrees with torch.result_type."""

from __future__ import annotations

import itertools

import onnx_ir as ir
import pytest
import torch
from onnxport import Tensor, onnx_dtype, promote

_DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
_NUMBERS = [True, 3, 2.5]


def _value(tensor: torch.Tensor) -> Tensor:
    return Tensor("x", onnx_dtype(tensor.dtype), ir.Shape(tensor.shape))


@pytest.mark.parametrize("ranks", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_tensors_promote_as_in_torch(ranks: tuple[int, int]) -> None:
    for first, second in itertools.product(_DTYPES, _DTYPES):
        a, b = torch.ones([2] * ranks[0], dtype=first), torch.ones([2] * ranks[1], dtype=second)
        assert promote(_value(a), _value(b)) is onnx_dtype(torch.result_type(a, b)), (first, second)


@pytest.mark.parametrize("number", _NUMBERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_numbers_promote_as_in_torch(number: float, rank: int) -> None:
    for dtype in _DTYPES:
        a = torch.ones([2] * rank, dtype=dtype)
        assert promote(_value(a), number) is onnx_dtype(torch.result_type(a, number)), dtype


def test_integers_become_float_where_asked() -> None:
    assert promote(torch.int64, int_to_float=True) is onnx_dtype(torch.float32)
    assert promote(torch.float16, int_to_float=True) is onnx_dtype(torch.float16)
    assert promote(2, 3.0) is onnx_dtype(torch.float32)
    with pytest.raises(ValueError, match="at least one operand"):
        promote(None)
