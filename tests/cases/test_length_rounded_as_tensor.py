"""A length that forward computes of a size by way of tensors follows the size, through slices, checks and views."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import expect_equal


class Module(torch.nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cuts at the length, checks the length of what is left and gives it another shape."""
        y = x[..., : self.function(x.shape[-1])]
        if y.shape[-1] < 8:
            raise ValueError("too short")
        return y.reshape(-1)[: y.shape[-1]] * 2 + y.shape[-1]


def tensor(number: Any) -> torch.Tensor:
    return torch.tensor(number)


def _counted_down(n: Any) -> torch.Tensor:
    length = torch.tensor(n)
    length -= 3
    length //= 2
    return length


LENGTHS: dict[str, Callable[[Any], Any]] = {
    "ceil": lambda n: torch.ceil(torch.as_tensor(2 * n / 3)).long(),
    "ceil of a rate": lambda n: torch.ceil(torch.as_tensor(16000 * n / 44100)).long(),
    "floor": lambda n: torch.floor(tensor(2 * n / 3)).to(torch.int64),
    "round": lambda n: torch.round(tensor(3 * n / 4)).long(),
    "round of halves": lambda n: torch.round(tensor(n / 2)).int(),
    "trunc": lambda n: torch.trunc(tensor(n / 3)).long(),
    "cast": lambda n: tensor(n / 3).long(),
    "item": lambda n: torch.ceil(tensor(2 * n / 3)).long().item(),
    "int": lambda n: int(torch.ceil(tensor(2 * n / 3))),
    "item of a float": lambda n: int(torch.ceil(tensor(2 * n / 3)).item()),
    "times a half": lambda n: torch.ceil(tensor(n * 0.5)).long(),
    "ceil of tensors": lambda n: torch.ceil(tensor(n) * 2 / 3).long(),
    "double": lambda n: torch.ceil(torch.tensor(2 * n / 3, dtype=torch.float64)).long(),
    "convolution": lambda n: torch.floor((tensor(n).float() + 2 * 1 - 3) / 2 + 1).long(),
    "two convolutions": lambda n: (((tensor(n) - 1) // 2 + 1) - 1) // 2 + 1,
    "div floor": lambda n: torch.div(tensor(n), 3, rounding_mode="floor"),
    "div trunc": lambda n: torch.div(tensor(n) + 1, 2, rounding_mode="trunc"),
    "list": lambda n: torch.ceil(tensor([n, n * 2]) / 3).long()[1],
    "list of Python": lambda n: torch.ceil(tensor([n, n * 2]) / 3).long().tolist()[1],
    "unbound": lambda n: (tensor([n, 2 * n]) // 3).unbind()[1],
    "maximum": lambda n: (tensor([n, 2 * n]) // 3).max(),
    "smaller": lambda n: torch.minimum(tensor(n), tensor(20)),
    "clamp": lambda n: (tensor(n) - 8).clamp(min=9),
    "sum": lambda n: torch.stack((tensor(n) // 3, tensor(n) // 4)).sum(),
    "product": lambda n: torch.tensor([n, 3]).prod() // 4,
    "Long": lambda n: torch.LongTensor([n])[0] * 3 // 4,
    "filled": lambda n: torch.full((1,), n)[0] - 2,
    "in place": _counted_down,
    "where": lambda n: torch.where(tensor(n) > 4, tensor(n) // 2, tensor(4)),
    "negative": lambda n: -(tensor(n) // 3),
    "a view": lambda n: (tensor([n]).view(1, 1).expand(2, 1).reshape(-1)[1] + 1) // 2,
}
SIZES = (40, 30, 31, 32, 33, 41, 64, 99, 151, 300, 1000, 1001, 44100)


@pytest.mark.parametrize("name", LENGTHS)
def test_length_follows_the_size(name: str) -> None:
    model = Module(LENGTHS[name])
    program = onnxport.export(model, (torch.rand(1, 40),), dynamic_shapes=({1: "time"},))
    for size in SIZES:
        x = torch.rand(1, size)
        expect_equal(program(x)[0], model(x))


def test_length_of_an_interpolation() -> None:
    class Resized(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            height, width = (torch.tensor(x.shape[-2:]) * 3 / 2).ceil().long().tolist()
            return F.interpolate(x, size=(height, width), mode="nearest")

    program = onnxport.export(Resized(), (torch.rand(1, 1, 8, 9),), dynamic_shapes=({2: "h", 3: "w"},))
    for h, w in ((8, 9), (5, 7), (10, 4)):
        x = torch.rand(1, 1, h, w)
        assert tuple(program(x)[0].shape) == (1, 1, math.ceil(h * 1.5), math.ceil(w * 1.5))
        expect_equal(program(x)[0], Resized()(x))


@pytest.mark.parametrize("factor", [1.378, 0.1, math.pi])
def test_what_floats_round_names_the_models_line(factor: float) -> None:
    """``n * 1.378`` isn't the same number in float32 and in an expression; its rounded value may differ by one."""
    model = Module(lambda n: torch.ceil(torch.tensor(n * factor / 4)).long())
    try:
        program = onnxport.export(model, (torch.rand(1, 200),), dynamic_shapes=({1: "time"},))
    except onnxport.OnnxExporterError as error:
        assert "test_length_rounded_as_tensor.py" in str(error)
        return
    for size in (200, 500, 1000):
        x = torch.rand(1, size)
        expect_equal(program(x)[0], model(x))
