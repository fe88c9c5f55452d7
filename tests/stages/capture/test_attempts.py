"""How often a capture that fails is tried, and what is told meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule


@pytest.fixture(scope="module")
def without_shapes() -> Any:
    library = torch.library.Library("onnxport_attempts", "FRAGMENT")
    library.define("opaque(Tensor x) -> Tensor")
    library.impl("opaque", lambda x: x.clone(), "CPU")
    yield torch.ops.onnxport_attempts.opaque
    library._destroy()


def tried(model: Callable[..., Any], caplog: pytest.LogCaptureFixture, **options: Any) -> list[str]:
    with caplog.at_level(logging.INFO, logger="onnxport"), pytest.raises(onnxport.OnnxExporterError):
        onnxport.export(FunctionModule(model), (torch.randn(3, 4),), **options)
    return [record.message for record in caplog.records if record.message.startswith("capture: torch.export")]


@pytest.mark.parametrize("axes", [None, (({0: "n"},),)], ids=["static", "dynamic"])
def test_an_operator_without_shapes_is_tried_once(without_shapes: Any, axes: Any, caplog: Any) -> None:
    assert len(tried(lambda x: without_shapes(x) + 1, caplog, dynamic_shapes=axes)) == 1


def test_a_branch_on_values_is_tried_twice_at_most(caplog: Any) -> None:
    assert len(tried(lambda x: x + 1 if x.sum() > 0 else x - 1, caplog)) <= 2


def test_a_missing_translation_needs_one_capture(caplog: Any) -> None:
    assert len(tried(lambda x: torch.linalg.eig(x @ x.T)[0].sort()[0], caplog)) <= 1


def test_what_failed_is_told_with_its_time(capsys: Any) -> None:
    def unfit(x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            raise ValueError("not now")
        return x + 1

    with pytest.raises(onnxport.CaptureError):
        onnxport.export(FunctionModule(unfit), (torch.randn(3, 4),), verbose=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "capture: torch.export, strict" in line]
    assert len(lines) == 1 and "(non-strict took " in lines[0]

    stages: list[str] = []
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(FunctionModule(unfit), (torch.randn(3, 4),), verbose=stages.append)
    assert any("non-strict took " in stage for stage in stages)
