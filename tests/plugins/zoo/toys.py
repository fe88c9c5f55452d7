"""Toy cases of a zoo: factories as a user writes them. One crashes, one hangs, one eats memory, one is wrong."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import nn

BATCH: Any = ({0: "batch"},)


class Net(nn.Module):
    """Two layers and a function of its own between them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(4, 8), nn.Linear(8, 3), getattr(torch, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


def toy(name: str) -> dict[str, Any]:
    return {"model": Net(name).eval(), "args": (torch.randn(2, 4),), "dynamic_shapes": BATCH}


def _factory(name: str) -> Any:
    return lambda: toy(name)


PASSING = [
    *("relu", "sigmoid", "tanh", "exp", "sin", "cos", "abs", "neg", "floor", "ceil", "round", "sign", "square", "erf"),
    *("atan", "sinh"),
]
for _name in PASSING:
    globals()[_name] = _factory(_name)


def crash() -> None:
    os.abort()


def hang() -> None:
    print("waiting for nobody", flush=True)
    time.sleep(3600)


def eat() -> None:
    eaten = []
    while True:
        eaten.append(torch.ones(32 * 2**20 // 4))
        time.sleep(0.002)


def wrong() -> dict[str, Any]:
    table = {torch.ops.aten.relu.default: lambda op, self: op.Neg(self)}
    return {**toy("relu"), "custom_translation_table": table}


def killed_once() -> dict[str, Any]:
    """What happens when somebody kills the process of a case: it is no fault of the case's."""
    mark = os.environ["ZOO_MARK"]
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return toy("relu")


def killed_always() -> None:
    os.kill(os.getpid(), 9)


def no_model() -> None:
    raise RuntimeError("no weights here")


class Refused(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.zootest.strange(x)


def refused() -> dict[str, Any]:
    @torch.library.custom_op("zootest::strange", mutates_args=())
    def strange(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    strange.register_fake(torch.empty_like)
    return {"model": Refused().eval(), "args": (torch.randn(2),)}
