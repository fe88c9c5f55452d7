"""Differences that rounding explains, and those that it doesn't."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport_zoo.rounding import explained
from torch import nn

aten = torch.ops.aten


class Net(nn.Module):
    """A layer, and a function of what it gives."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(8, 64), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.linear(x))


def parity(x: torch.Tensor) -> torch.Tensor:
    return (x * 1e5).floor() % 2  # changes with the last places of a sum


def told(function: Any, table: dict[Any, Any], changed: Any = None) -> Any:
    torch.manual_seed(0)
    model = Net(function).eval()
    x = torch.randn(16, 8)
    program = onnxport.export(model, (x,), dynamic_shapes=({0: "batch"},), custom_translation_table=table)
    if changed is not None:
        model.function = changed
    found = onnxport.verify(program, model, (x,))
    assert not found.passed
    assert set(found.departing) == {each.label for each in found.comparisons if not each.passed}
    return explained(program, model, found)


def rounded(op: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    exact = op.Add(op.MatMul(input, op.Transpose(weight, perm=[1, 0])), bias)
    return op.Mul(exact, 1.0000003)


LINEAR = {aten.linear.default: rounded}


def test_a_model_that_amplifies_roundings() -> None:
    found = told(parity, LINEAR)
    assert found and all(each["file"] == 1.0 for each in found.values())


def test_an_operator_that_is_wrong_behind_it() -> None:
    table = {aten.floor.default: lambda op, self: op.Floor(op.Add(self, 1.0))}
    assert told(parity, {**LINEAR, **table}) is None


def test_a_choice_among_equal_values() -> None:
    def backwards(op: Any, self: Any, dim: Any = -1, descending: bool = False) -> Any:
        size = self.shape[-1]
        values, places = op.TopK(op.Gather(self, list(range(size))[::-1], axis=-1), [size], largest=0, outputs=2)
        return values, op.Sub(op.Constant(value_int=size - 1), places)

    def places(x: torch.Tensor) -> torch.Tensor:
        return (x * 0).sort(-1)[1]

    assert told(places, {aten.sort.default: backwards})


@pytest.mark.parametrize("other", [lambda x: x.sigmoid() + 1e-2, lambda x: x.sigmoid()[:, 1:], lambda x: x / 0])
def test_a_model_that_the_program_does_not_have(other: Any) -> None:
    """Each operator is right, and the whole is another model: it was captured wrong."""
    assert told(lambda x: x.sigmoid(), {}, other) is None


def test_a_model_that_amplifies_less_than_the_file_differs() -> None:
    """The model changes by a step of 1 when its inputs do, and the captured program is off by 5."""
    assert told(parity, {}, lambda x: parity(x) + 5) is None
    assert told(parity, {}, lambda x: parity(x * (1 + 2e-7)))
