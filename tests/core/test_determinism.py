"""The same model gives the same bytes: again, in other processes, and in several threads at once."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from torch import nn

HERE = Path(__file__).parent


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu_().flatten(1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("query", "key", "value")})
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: torch.Tensor, mask: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.steps.add_(1)
        q, k, v = (self.layers[name](x) for name in ("query", "key", "value"))
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask["keep"][:, None, :].bool())
        return {"y": y, "spectrum": torch.fft.rfft(y).abs(), "g": torch.ops.aten.silu_backward(y, y)}


class Control(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.lstm(x)[0]
        z = torch.cond(y.sum() > 0, lambda y: y.sin() + 1, lambda y: y.cos(), (y,))
        return z * torch.rand_like(z), z.topk(2)[0]


def _convolutions() -> tuple[nn.Module, tuple[Any, ...], Any]:
    return Convolutions(), (torch.randn(2, 3, 6, 6),), ({0: "batch"},)


def _attention() -> tuple[nn.Module, tuple[Any, ...], Any]:
    axes = {0: "batch", 1: "length"}
    return Attention(), (torch.randn(2, 5, 8), {"keep": torch.ones(2, 5)}), (axes, {"keep": axes})


def _control() -> tuple[nn.Module, tuple[Any, ...], Any]:
    return Control(), (torch.randn(2, 3, 4),), ({0: "batch"},)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...], Any]]] = {
    "convolutions": _convolutions,
    "attention": _attention,
    "control": _control,
}


def digest(name: str) -> str:
    """The hash of the file of one case, weights included."""
    torch.manual_seed(0)
    return saved(*CASES[name]())


def saved(model: nn.Module, args: tuple[Any, ...], shapes: Any) -> str:
    """The hash of a model's file."""
    file = io.BytesIO()
    onnxport.export(model.eval(), args, dynamic_shapes=shapes).save(file)
    return hashlib.sha256(file.getvalue()).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_again_in_one_process(name: str) -> None:
    assert digest(name) == digest(name)


def test_in_another_process() -> None:
    here = [digest(name) for name in CASES]
    code = "import test_determinism as t; print(*(t.digest(name) for name in t.CASES))"
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == here


def test_in_several_threads_at_once() -> None:
    alone = {}
    made = {}
    for name, build in CASES.items():
        torch.manual_seed(0)
        made[name] = build()
        alone[name] = saved(*made[name])
    together: dict[tuple[str, int], str] = {}
    errors: list[BaseException] = []
    barrier = threading.Barrier(2 * len(CASES))

    def work(name: str, number: int) -> None:
        try:
            barrier.wait(timeout=60)
            together[name, number] = saved(*made[name])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name, number)) for name in CASES for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert together == {(name, number): alone[name] for name in CASES for number in range(2)}
