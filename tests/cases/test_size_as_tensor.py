"""A tensor that forward makes of dynamic sizes follows them, whatever function of torch makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal, flat_tensors

as_tensor = torch.as_tensor

NUMBERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "as_tensor of a shape": lambda x: torch.as_tensor(x.shape[-2:]) * 2,
    "as_tensor of a list": lambda x: torch.as_tensor([x.shape[0], x.shape[1]]) * 2,
    "as_tensor of a number": lambda x: x / torch.as_tensor(x.shape[1]),
    "as_tensor of a quotient": lambda x: x / torch.as_tensor(x.shape[1] / 3, dtype=x.dtype, device=x.device),
    "as_tensor, imported": lambda x: as_tensor(x.size()),
    "nested, integers and floats": lambda x: torch.as_tensor([[x.shape[0], x.shape[1]], [3, 2.5]]),
    "dtype and device": lambda x: torch.as_tensor((x.shape[1],), dtype=torch.float16, device=x.device),
    "a number of the data": lambda x: torch.as_tensor([x.abs().sum().long().item(), x.shape[1]]),
    "stacked": lambda x: torch.stack([torch.as_tensor(size) for size in x.shape]),
    "as_tensor of a length": lambda x: torch.as_tensor(len(x)),
    "asarray": lambda x: (torch.asarray([x.shape[1], 3]), torch.asarray(x.shape[1] / 2)),
    "tensor": lambda x: (torch.tensor(x.shape), torch.tensor([x.shape[0], 1.5]), torch.tensor([True, x.shape[1] > 7])),
    "tensor of pairs": lambda x: torch.tensor([tuple(x.shape)] * 2, dtype=torch.int32),
    "LongTensor": lambda x: torch.LongTensor([x.shape[1]]) + 0,
    "FloatTensor": lambda x: torch.FloatTensor([[x.shape[1], 2]]) + 0,
    "IntTensor": lambda x: torch.IntTensor(list(x.shape)) + 0,
    "BoolTensor": lambda x: torch.BoolTensor([x.shape[1] > 7]),
    "Tensor": lambda x: torch.Tensor([x.shape[1], 0.5]) + 0,
    "Tensor of that size": lambda x: (torch.Tensor(x.shape[1], 2).zero_(), torch.LongTensor(x.shape).zero_()),
    "new_tensor": lambda x: (x.new_tensor([x.shape[1]]), x.new_tensor(x.shape[0])),
    "new_tensor of a shape": lambda x: x.new_tensor(x.shape, dtype=torch.int64).prod(),
    "new": lambda x: x.new([x.shape[1], 3]) + 0,
    "_shape_as_tensor": lambda x: x / torch._shape_as_tensor(x)[1:].max().to(x.dtype),
    "_shape_as_tensor of a number": lambda x: torch._shape_as_tensor(x.sum()),
    "an array": lambda x: torch.from_numpy(np.array([x.shape[0], x.shape[1]])) * 2,
    "arithmetic on an array": lambda x: torch.tensor(np.asarray(x.shape) / 2),
    "as_tensor of an array": lambda x: torch.as_tensor(np.array(x.shape), dtype=torch.float32),
    "scalar_tensor": lambda x: torch.scalar_tensor(x.shape[1]),
    "full": lambda x: (torch.full((), x.shape[1]), x.new_full((x.shape[1],), x.shape[1])),
    "full of a float": lambda x: torch.full((2,), float(x.shape[1])),
    "ones times a size": lambda x: torch.ones(()) * x.shape[1],
    "numbers of elements": lambda x: (torch.tensor(x.numel()), torch.as_tensor(x.nelement() / 2)),
}


def export(function: Callable[[torch.Tensor], Any]) -> onnxport.ONNXProgram:
    return onnxport.export(FunctionModule(function), (torch.randn(2, 8),), dynamic_shapes=(({0: "b", 1: "t"},),))


@pytest.mark.parametrize("name", NUMBERS)
def test_tensors_follow_the_size(name: str) -> None:
    program = export(NUMBERS[name])
    for shape in ((2, 8), (3, 11), (5, 4)):
        x = torch.randn(shape)
        for got, want in zip(program(x), flat_tensors(NUMBERS[name](x)), strict=True):
            expect_equal(got, want)


def test_types_stay_types_in_forward() -> None:
    def convert(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        table = {torch.LongTensor: 2, torch.FloatTensor: 3}
        scale = table[torch.FloatTensor] if isinstance(x, torch.FloatTensor) else 1
        return x.type(torch.LongTensor), x * scale, torch.LongTensor([1, 2]), torch.Tensor([0.5]) * x.shape[1]

    program, x = export(convert), torch.randn(3, 11)
    for got, want in zip(program(x), convert(x), strict=True):
        expect_equal(got, want)


def test_functions_are_torchs_own_after_a_failed_capture() -> None:
    names = ("LongTensor", "FloatTensor", "as_tensor", "from_numpy")
    before = [getattr(torch, name) for name in names]

    def fails(x: torch.Tensor) -> torch.Tensor:
        assert torch.LongTensor is not before[0]
        raise ValueError("on purpose")

    with pytest.raises(onnxport.CaptureError, match="on purpose"):
        export(fails)
    assert [getattr(torch, name) for name in names] == before
    assert all(now is own for now, own in zip((getattr(torch, name) for name in names), before))
    assert "__new__" not in vars(torch.Tensor)


def test_sizes_that_are_fixed_are_constants() -> None:
    program = onnxport.export(FunctionModule(lambda x: x * torch.as_tensor(x.shape)), (torch.randn(3, 2),))
    assert [node.op_type for node in program.model.graph] == ["Mul"]
