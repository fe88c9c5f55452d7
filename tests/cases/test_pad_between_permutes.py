"""Operators on channels-last data, between two permutes: onnxruntime's optimizer moves the permutes past them.

It takes no notice of some optional inputs on the way. A file runs, and gives eager's values, under default options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import onnxruntime
import pytest
import torch
from onnxport_builtin.program import runtime
from torch.nn import functional

SIZES = (2, 5, 6, 7)
"""Batch, channels, height and width of what stands between the permutes."""


class Between(torch.nn.Module):
    """A function of a permuted input, permuted back where it kept the number of axes."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], order: tuple[int, ...] = (0, 3, 1, 2)) -> None:
        super().__init__()
        self.function, self.order = function, order

    def example(self) -> torch.Tensor:
        shape = [0] * len(self.order)
        for place, axis in enumerate(self.order):
            shape[axis] = SIZES[place]
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.function(x.permute(self.order))
        return y.permute([self.order.index(i) for i in range(4)]) if y.dim() == 4 else y


def compare(model: torch.nn.Module, x: torch.Tensor, *more: torch.Tensor, dynamic_shapes: object = None) -> None:
    """Export, and compare in a session with default options, bit by bit where nothing is computed."""
    program = onnxport.export(model.eval(), (x,), dynamic_shapes=dynamic_shapes)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    for given in (x, *more):
        (found,) = runtime.run(session, {name: given}, [session.get_outputs()[0].name])
        torch.testing.assert_close(found, model(given), rtol=1e-5, atol=1e-5)


PADS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "constant": lambda x: functional.pad(x, (1, 1, 2, 2), value=0.5),
    "one axis": lambda x: functional.pad(x, (1, 0)),
    "cropped": lambda x: functional.pad(x, (-1, 1, 1, -2)),
    "channels": lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2)),
    "batch": lambda x: functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)),
    "reflect": lambda x: functional.pad(x, (1, 1, 2, 2), mode="reflect"),
    "replicate": lambda x: functional.pad(x, (1, 2, 0, 1), mode="replicate"),
    "circular": lambda x: functional.pad(x, (1, 1, 2, 2), mode="circular"),
    "bool": lambda x: functional.pad(x > 0, (1, 1), value=True),
    "integers": lambda x: functional.pad((x * 9).int(), (1, 1), value=3),
    "pooled": lambda x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "largest": lambda x: functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3),
    "convolved": lambda x: functional.conv2d(functional.pad(x, (1, 1, 1, 1), value=2.0), torch.ones(4, 5, 3, 3)),
    "convolved, reflected": lambda x: functional.conv2d(
        functional.pad(x, (1, 1, 1, 1), mode="reflect"), torch.ones(4, 5, 3, 3)
    ),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", PADS)
def test_pads(name: str, dynamic: bool) -> None:
    model = Between(PADS[name])
    x = model.example()
    if dynamic:
        compare(model, x, x[:, :5].repeat(2, 1, 1, 1), dynamic_shapes=({0: "batch", 1: "height", 2: "width"},))
    else:
        compare(model, x)


@pytest.mark.parametrize("opset", [18, 21, 23, 25])
def test_pads_at_other_opsets(opset: int) -> None:
    model = Between(PADS["reflect"])
    program = onnxport.export(model, (model.example(),), opset_version=opset)
    torch.testing.assert_close(program(model.example())[0], model(model.example()))


OTHERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda x: x.sum(1, keepdim=True),
    "mean of several": lambda x: x.mean((-1, 1), keepdim=True),
    "norm": lambda x: x.norm(dim=(1, 3)),
    "argmax": lambda x: x.argmax(-1),
    "flip": lambda x: x.flip(1, 2),
    "steps": lambda x: x[:, ::2, 1:, -2:],
    "index": lambda x: x[:, [1, 0], None],
    "split": lambda x: x.split(2, dim=1)[1],
    "tile": lambda x: x.repeat(1, 2, 1, 3),
    "softmax": lambda x: x.softmax(1),
    "cumulated": lambda x: x.cumsum(-1),
    "joined": lambda x: torch.cat([x, x * 2], 1),
    "a channel's factor": lambda x: x * torch.arange(5.0)[:, None, None] + torch.arange(7.0),
    "parametric": lambda x: functional.prelu(x, torch.arange(5.0) / 10),
    "normalized": lambda x: functional.group_norm(x[:, :4], 2),
    "layer norm": lambda x: functional.layer_norm(x, (6, 7)),
    "squeezed": lambda x: x[:1].squeeze(0),
    "shuffled": lambda x: functional.pixel_shuffle(x[:, :4], 2),
    "same elements, other shape": lambda x: x.reshape(2, 1, 5, 42),
}


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 1, 0)], ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, order: tuple[int, ...]) -> None:
    model = Between(OTHERS[name], order)
    compare(model, model.example())


RESIZES: dict[str, dict[str, Any]] = {
    **{mode: {"size": (9, 14), "mode": mode} for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")},
    **{f"{mode}, smaller": {"size": (4, 5), "mode": mode} for mode in ("nearest", "bilinear", "bicubic")},
    "corners": {"size": (9, 5), "mode": "bilinear", "align_corners": True},
    "antialiased": {"size": (4, 3), "mode": "bicubic", "antialias": True},
    "scaled": {"scale_factor": (1.5, 0.7), "mode": "bilinear"},
    "doubled": {"scale_factor": 2, "mode": "bicubic"},
}


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 3, 1)], ids=str)
@pytest.mark.parametrize("name", RESIZES)
def test_resizes(name: str, order: tuple[int, ...]) -> None:
    model = Between(lambda x: functional.interpolate(x, **RESIZES[name]), order)
    compare(model, model.example())
    if name in ("nearest", "bilinear", "bicubic"):
        x = model.example()
        compare(model, x, x.repeat(2, 1, 1, 1), dynamic_shapes=({i: f"axis{i}" for i in range(4)},))


@pytest.mark.parametrize("shape", [(1, 6, 7, 1), (2, 6, 7, 1), (1, 6, 7, 5)], ids=str)
def test_resizes_of_one_image_or_channel(shape: tuple[int, ...]) -> None:
    model = Between(lambda x: functional.interpolate(x, size=(9, 3), mode="bicubic"))
    compare(model, torch.rand(shape))


def test_a_spectrum_of_columns() -> None:
    """Pads inside of other operators: of the frames of a spectrogram, and of a transform to another length."""
    window = torch.hann_window(8)

    class Columns(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            frames = torch.stft(x.t(), 8, 4, window=window, return_complex=True).abs()
            return frames.transpose(0, 1) + torch.fft.rfft(x.t(), n=8).abs().t()[..., None]

    compare(Columns(), torch.rand(20, 3), torch.rand(33, 3), dynamic_shapes=({0: "time"},))
