"""Causal convolutions, whose last places are cut off, pad one end less."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from support import export_and_compare
from torch import nn

DYNAMIC = torch.export.Dim.DYNAMIC


class Causal(nn.Module):
    def __init__(self, padding: int = 3, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(6, 6, 4, padding=padding, **{"groups": 6, **options})

    def forward(self, x: torch.Tensor) -> Any:
        return torch.nn.functional.silu(self.conv(x)[..., : x.shape[-1]])


class Ending(Causal):
    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)[..., : x.shape[-1]]


class Twice(Causal):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return y[..., : x.shape[-1]], y


class Later(Causal):
    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)[..., 1 : x.shape[-1]]


class Shorter(Causal):
    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)[..., : x.shape[-1] - 1]


class Stepped(Causal):
    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)[..., : x.shape[-1] : 2]


class Plane(nn.Module):
    """Causal along one of two axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, (3, 3), padding=(2, 1), bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x)[:, :, : x.shape[2]].relu()


TRIMMED: dict[str, tuple[nn.Module, list[int]]] = {
    "depthwise": (Causal(), [3, 0]),
    "an output": (Ending(), [3, 0]),
    "dilated": (Causal(6, dilation=2), [6, 0]),
    "partly": (Causal(2), [2, 1]),
    "no groups, no bias": (Causal(groups=1, bias=False), [3, 0]),
}
KEPT: dict[str, nn.Module] = {
    "read as a whole too": Twice(),
    "another start": Later(),
    "another end": Shorter(),
    "every second place": Stepped(),
    "strides": Causal(padding=10, stride=2),
    "more than is cut off": Causal(1),
}


def convolution(program: onnxport.ONNXProgram) -> list[int]:
    (node,) = [node for node in program.model.graph if node.op_type == "Conv"]
    return list(node.attributes["pads"].as_ints())


@pytest.mark.parametrize(("name", "is_dynamic"), [*((name, True) for name in TRIMMED), ("depthwise", False)])
def test_the_end_is_not_padded(name: str, is_dynamic: bool) -> None:
    model, pads = TRIMMED[name]
    shapes = ({0: DYNAMIC, 2: DYNAMIC},) if is_dynamic else None
    other = (torch.randn(3, 6, 2),) if is_dynamic else None
    program = export_and_compare(model.eval(), (torch.randn(2, 6, 9),), dynamic_shapes=shapes, other_args=other)
    assert convolution(program) == pads
    assert not any(node.op_type in ("Slice", "Shape") for node in program.model.graph)
    assert onnxport.find_mismatch(program, (torch.randn(2, 6, 9),)).passed


def test_one_axis_of_two() -> None:
    shapes = ({2: DYNAMIC, 3: DYNAMIC},)
    other = (torch.randn(2, 2, 3, 11),)
    program = export_and_compare(Plane().eval(), (torch.randn(2, 2, 5, 7),), dynamic_shapes=shapes, other_args=other)
    assert convolution(program) == [2, 1, 0, 1]


@pytest.mark.parametrize("name", KEPT)
def test_what_is_something_else(name: str) -> None:
    other = (torch.randn(1, 6, 17),)
    model = KEPT[name].eval()
    program = export_and_compare(
        model, (torch.randn(2, 6, 9),), dynamic_shapes=({0: DYNAMIC, 2: DYNAMIC},), other_args=other
    )
    pads = convolution(program)
    assert pads[0] == pads[1]
