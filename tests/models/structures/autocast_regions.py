"""Regions of other precision or without gradient, and casts in models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import BUFFER, floats, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)
LOOSE: dict[str, Any] = {"dynamic": ROWS, "other": (OTHER,), "rtol": 2e-2, "atol": 2e-2}


@structure(X, **LOOSE)
class LinearLayersInHalfPrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            y = self.a(x).relu_()
            with torch.autocast("cpu", enabled=False):
                y = F.layer_norm(y.float(), (6,))
            return self.b(y)


@structure(X, **LOOSE)
def attention_in_half_precision_with_float_softmax(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.float16):
        scores = (x @ x.t()).float().softmax(-1)
        return scores @ x


@structure(X, buffers={"total": torch.zeros(6)}, mutates={"total": BUFFER}, **LOOSE)
def buffer_written_without_gradient_in_a_region(self: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        y = x @ x.t()
        self.total.add_(x.sum(0))
    return y.float().sum(1)


@structure(X, dynamic=ROWS, other=(OTHER,))
def inference_mode_and_enabled_gradients_nested(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.clone()
        with torch.enable_grad():
            y[0].mul_(2)
            z = y.detach() + 1
        y.sub_(z)
    return y * z


@structure(X.half(), dynamic=ROWS, other=(OTHER.half(),))
class HalfPrecisionModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).clamp(-60000, 60000)


@structure(X.double(), dynamic=ROWS, other=(OTHER.double(),))
class DoublePrecisionModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@structure(X, (X * 9).int(), dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER, (OTHER * 9).int()))
def mixed_dtypes_promoted(x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x + n, n / 2, n // 2, n * 1.5, (n > 0) + n, x.double() + n, n.long() + True, n.clamp(max=2.5)


@structure(X, dynamic=ROWS, other=(OTHER,))
def default_dtype_set_inside(x: torch.Tensor) -> torch.Tensor:
    table = torch.ones(6, dtype=torch.float64)
    return x * table.to(x.dtype) + torch.tensor(2, dtype=torch.float16)


@structure((X * 100).to(torch.uint8), dynamic=ROWS, other=((OTHER * 90).to(torch.uint8),))
def bytes_of_an_image_normalized(x: torch.Tensor) -> torch.Tensor:
    y = x.float().div_(255).sub_(0.5).div_(0.25)
    return (y * 64 + 128).round_().clamp_(0, 255).to(torch.uint8) + (x >> 1)


@structure(X, dynamic=ROWS, other=(OTHER,), rtol=0.05, atol=0.05)
def fake_quantized_by_hand(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax() / 127
    return (x / scale).round().clamp(-128, 127).to(torch.int8).float() * scale


@structure(X, dynamic=ROWS, other=(OTHER,))
class AutogradFunctionWithAnInPlaceForward(nn.Module):
    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, slope: float) -> torch.Tensor:
            y = x.clone()
            y[x < 0] *= slope
            ctx.save_for_backward(x)
            return y

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return grad, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.Step.apply(x * 2, 0.1) + 1


@structure(X, dynamic=ROWS, other=(OTHER,))
def straight_through_estimator(x: torch.Tensor) -> torch.Tensor:
    return x + (x.round() - x).detach()
