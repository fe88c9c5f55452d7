"""Types that an opset's operator doesn't take: the file is valid at every opset, by a wider type and casts."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import FunctionModule, expect_equal

Tensor = torch.Tensor
DYNAMIC = ({0: "n"},)

MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "full_like": lambda x: torch.full_like(x, 2),
    "ones": lambda x: torch.ones(x.shape[0], 2, dtype=x.dtype),
    "new_zeros": lambda x: x.new_zeros(x.shape[0], 3),
    "full of a size": lambda x: torch.full((x.shape[0],), x.shape[0], dtype=x.dtype),
    "eye": lambda x: torch.eye(x.shape[0], dtype=x.dtype),
    "arange": lambda x: torch.arange(x.shape[0], dtype=x.dtype),
    "cumsum": lambda x: x.cumsum(0, dtype=x.dtype),
    "amax": lambda x: x.amax(0),
    "sum": lambda x: x.sum(0, dtype=x.dtype),
    "maximum": lambda x: torch.maximum(x, x * 2),
    "relu": lambda x: x.relu(),
    "clamp": lambda x: x.clamp(1, 2),
    "topk": lambda x: x.topk(2, 1).values,
    "max_pool": lambda x: F.max_pool1d(x, 2),
    "tril": lambda x: x.tril(),
    "pad": lambda x: F.pad(x, (1, 1)),
}
TYPES = [torch.bfloat16, torch.float16, torch.int8, torch.int16, torch.uint8, torch.int32]


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_file_is_valid(dtype: torch.dtype, opset: int) -> None:
    def every(x: Tensor) -> list[Tensor]:
        return [function(x) for name, function in MADE.items() if name != "max_pool" or x.dtype.is_floating_point]

    example, other = torch.tensor([[1, 2, 3], [3, 0, 1]]).to(dtype), torch.tensor([[4, 1, 2]] * 3).to(dtype)
    program = onnxport.export(FunctionModule(every), (example,), dynamic_shapes=(DYNAMIC,), opset_version=opset)
    onnx.checker.check_model(program.model_proto, full_check=True)
    if dtype is torch.bfloat16:  # onnxruntime's CPU has few kernels for it
        return
    for got, want in zip(program(other), every(other), strict=True):
        expect_equal(got, want)


@pytest.mark.parametrize("opset", range(18, 24))
def test_fills_are_right(opset: int) -> None:
    def fills(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(x, 0.5, dtype=torch.bfloat16), torch.ones(x.shape[0], 2, dtype=torch.bfloat16)

    program = onnxport.export(
        FunctionModule(fills), (torch.randn(2, 3),), dynamic_shapes=(DYNAMIC,), opset_version=opset
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    x = torch.randn(4, 3)
    for got, want in zip(program(x), fills(x), strict=True):
        expect_equal(got, want)


def test_random_numbers_of_a_type_that_the_operator_lacks() -> None:
    program = onnxport.export(
        FunctionModule(lambda x: torch.randn_like(x) * 0 + x), (torch.ones(2, dtype=torch.bfloat16),), opset_version=18
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
