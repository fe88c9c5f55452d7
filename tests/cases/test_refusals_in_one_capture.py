"""What no other capture can follow is refused after one, so that a refusal takes no longer than a capture."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule

Tensor = torch.Tensor
WEIGHT = torch.randn(8, 8)


def branch(y: Tensor) -> Tensor:
    if y.sum() > 0:
        return y * 2
    return y


def while_loop(y: Tensor) -> Tensor:
    while y.abs().max() > 1:
        y = y / 2
    return y


def found(y: Tensor) -> Tensor:
    return y + 1 if (y > 3).any() else y


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "a branch on data": branch,
    "a loop on data": while_loop,
    "a choice by data": found,
    "a range of data": lambda y: sum(y[:, i] for i in range(int(y.sum()))),
    "a truth value": lambda y: y if bool(y[0, 0] > 0) else -y,
    "numbers of a reshape": lambda y: y.reshape(4, 2, 4),
    "numbers of a product": lambda y: y.mT @ torch.ones(4, 2),
    "a loop over a batch": lambda y: sum(y[i] for i in range(y.shape[0])),
    "rows of another batch": lambda y: y + torch.ones(4, 8),
    "rows of a mask": lambda y: y.masked_fill(torch.zeros(4, 1, dtype=torch.bool), 0.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_capture(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = FunctionModule(lambda x: REFUSED[name](torch.relu(x @ WEIGHT)))
    with pytest.raises(onnxport.OnnxExporterError, match=r"test_refusals_in_one_capture\.py:\d+: "):
        onnxport.export(module, (torch.randn(4, 8),), dynamic_shapes=(({0: "batch"},),), verbose=True)
    assert capsys.readouterr().out.count("capture: torch.export") == 1


def test_an_assertion_on_data_is_followed_by_a_strict_capture(tmp_path: Path) -> None:
    source = tmp_path / "asserting.py"  # pytest rewrites assertions of its own modules
    source.write_text("def forward(x):\n    assert x.sum() > -1e9\n    return x * 2\n")
    program = onnxport.export(
        FunctionModule(runpy.run_path(str(source))["forward"]), (torch.randn(4, 8),), dynamic_shapes=(({0: "batch"},),)
    )
    assert program(torch.ones(2, 8))[0].sum() == 32
