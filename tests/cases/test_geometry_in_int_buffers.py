"""Integers in buffers that forward never writes are numbers, where a size or a branch of forward depends on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import expect_equal


class Geometry(torch.nn.Module):
    """Buffers of several types and shapes, in it and in a part of it, and plain tensors."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("stride", torch.tensor(2), persistent=False)
        self.register_buffer("kernel", torch.tensor(4, dtype=torch.int32))
        self.register_buffer("total", torch.tensor(2))
        self.register_buffer("small", torch.tensor(3, dtype=torch.uint8))
        self.register_buffer("short", torch.tensor(-2, dtype=torch.int16))
        self.register_buffer("is_causal", torch.tensor(True))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("pads", torch.tensor([1, 2]))
        self.register_buffer("one", torch.tensor([3]))
        self.register_buffer("count", torch.tensor(2))
        self.part = torch.nn.Module()
        self.part.register_buffer("factor", torch.tensor(3))
        self.plain = torch.tensor(3)
        self.plains = [torch.tensor(1), torch.tensor([4, 5])]

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def _frames(m: Any, x: torch.Tensor) -> torch.Tensor:
    length = x.shape[-1]
    frames = torch.ceil((length - m.kernel + m.total) / m.stride + 1).to(torch.int64) - 1
    return frames * m.stride + m.kernel - m.total - length


def _padded(m: Any, x: torch.Tensor) -> torch.Tensor:
    extra = _frames(m, x)
    if x.shape[-1] <= max(m.total, extra):
        x = F.pad(x, (0, 3))
    return F.pad(x, (m.total, extra), "reflect")


def _branches(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x + 1 if m.is_causal else x - 1
    x = x * 2 if m.stride > 1 and not m.flags[1] else x
    x = x * 3 if m.flags.any() and not m.flags.all() else x
    return x - 4 if (m.pads == 2).any() and torch.equal(m.pads, m.pads) else x


def _written_in_place(tensor: torch.Tensor) -> torch.Tensor:
    length = tensor.clone()
    length += 1
    length *= 2
    return length


FUNCTIONS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "padding": _padded,
    "branches": _branches,
    "item": lambda m, x: x[..., m.stride.item() : -m.total.item()],
    "int": lambda m, x: F.pad(x, (int(m.stride), int(m.small))),
    "float": lambda m, x: x[..., : math.ceil(x.shape[-1] / float(m.stride))],
    "bool": lambda m, x: F.pad(x, (int(bool(m.is_causal)), 0)),
    "list": lambda m, x: F.pad(x, m.pads.tolist()),
    "elements": lambda m, x: F.pad(x, (m.pads[0], m.pads[-1])),
    "unpacked": lambda m, x: F.pad(x, tuple(m.pads)),
    "one element": lambda m, x: x[..., m.one.item() :] + m.one,
    "slice": lambda m, x: x[..., m.stride : x.shape[-1] - m.pads[1]],
    "index": lambda m, x: x[..., m.stride],
    "range": lambda m, x: sum(x * i for i in range(m.kernel)),
    "arithmetic": lambda m, x: F.pad(x, (m.stride * 2 + m.total, m.kernel - 1)),
    "rounded": lambda m, x: F.pad(x, (0, torch.ceil(m.small / m.stride).long().item())),
    "divided": lambda m, x: F.pad(x, (torch.div(m.small, m.stride, rounding_mode="floor"), m.kernel // m.small)),
    "largest": lambda m, x: F.pad(x, (max(m.total, m.small), min(m.kernel, m.pads[0]))),
    "reduced": lambda m, x: F.pad(x, (m.pads.sum(), m.pads.max().item())),
    "negative": lambda m, x: x[..., m.short :],
    "written copy": lambda m, x: F.pad(x, (0, _written_in_place(m.stride))),
    "of a part": lambda m, x: x[..., :: m.part.factor.item()],
    "plain": lambda m, x: F.pad(x, (m.plain, m.plains[0])) if m.plain > 2 else x,
    "plain and buffer": lambda m, x: F.pad(x, (m.plain * m.stride, m.plains[1].tolist()[0])),
    "view": lambda m, x: x.reshape(x.shape[0], -1, m.stride)[..., : m.stride - 1],
    "split": lambda m, x: x.split([m.stride.item(), x.shape[-1] - 2], -1)[0],
    "zeros": lambda m, x: torch.zeros(m.kernel, m.stride) + x.sum(),
    "arange": lambda m, x: torch.arange(m.kernel) * x.sum(),
    "interpolate": lambda m, x: F.interpolate(x, scale_factor=float(m.stride)),
    "convolution": lambda m, x: F.conv1d(x, x[:1, :, :4] * 0 + 1, stride=int(m.stride), padding=int(m.total)),
    "frames of sizes": lambda m, x: x[..., : torch.div(x.shape[-1], m.stride, rounding_mode="floor")],
    "ceiling of sizes": lambda m, x: x[..., : ((x.shape[-1] + m.stride - 1) // m.stride).item()],
    "remainder of sizes": lambda m, x: F.pad(x, (0, (m.kernel - x.shape[-1] % m.kernel) % m.kernel)),
    "clamp of sizes": lambda m, x: x[..., : torch.clamp(x.shape[-1] - m.total, max=40)],
    "stack of sizes": lambda m, x: F.pad(x, torch.stack([m.total, x.shape[-1] // m.stride]).tolist()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_static_and_dynamic(name: str) -> None:
    model = Geometry(FUNCTIONS[name]).eval()
    program = onnxport.export(model, (torch.rand(1, 1, 100),))
    x = torch.rand(1, 1, 100)
    expect_equal(program(x)[0], model(x), rtol=1e-5)
    program = onnxport.export(model, (torch.rand(1, 1, 100),), dynamic_shapes=({2: "time"},))
    for length in (100, 58, 130) if name == "view" else (100, 57, 64):
        x = torch.rand(1, 1, length)
        expect_equal(program(x)[0], model(x), rtol=1e-5)


class Writing(torch.nn.Module):
    """A buffer of one integer that forward reads and writes, one way or another."""

    def __init__(self, function: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("count", torch.tensor(2))
        self.register_buffer("counts", torch.tensor([1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def _counted(write: Callable[[Any], Any], is_first: bool) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        if is_first:
            write(m)
        count = m.count.item()
        if not is_first:
            write(m)
        return x * count

    return forward


WRITES: dict[str, Callable[[Any], Any]] = {
    "add_": lambda m: m.count.add_(1),
    "by a view": lambda m: m.count.view(1).add_(1),
    "copy_": lambda m: m.count.copy_(m.count + 1),
    "fill_": lambda m: m.count.fill_(5),
    "set": lambda m: m.count.__setitem__((), 7),
    "assigned": lambda m: setattr(m, "count", m.count + 1),
    "out": lambda m: torch.add(m.count, 1, out=m.count),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("is_first", [True, False], ids=["write first", "read first"])
def test_what_forward_writes_is_data(name: str, is_first: bool) -> None:
    """The output follows the buffer that the file is given, as in eager."""
    model, x = Writing(_counted(WRITES[name], is_first)).eval(), torch.rand(3)
    program = onnxport.export(model, (x,))
    assert "count_out" in [output.name for output in program.model.graph.outputs]
    expect_equal(program(x)[0], Writing(_counted(WRITES[name], is_first))(x))
    is_overwritten = is_first and name in ("fill_", "set")
    for count in () if is_overwritten else (2, 11):
        weights = {"count": torch.tensor(count)}
        program.apply_weights({**dict(model.named_buffers()), **weights})
        model.load_state_dict({**model.state_dict(), **weights})
        expect_equal(program(x)[0], model(x))
