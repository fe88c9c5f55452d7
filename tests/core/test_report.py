"""The record of an export: markdown and JSON for people and machines, honest about what didn't run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from torch import nn


@torch.library.custom_op("report::unserved", mutates_args=())
def unserved(x: torch.Tensor) -> torch.Tensor:
    return x * 2


unserved.register_fake(lambda x: torch.empty_like(x))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.layer(x).relu() * scale


def _reports(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    onnxport.export(Model().eval(), (torch.randn(2, 3), 2.0), report=True, artifacts_dir=folder, **options)
    markdown = next(folder.glob("onnxport_report_*.md")).read_text()
    return markdown, json.loads(next(folder.glob("onnxport_report_*.json")).read_text())


def test_report_says_what_happened(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path, dynamic_shapes=({0: "batch"}, None))
    assert data["succeeded"]
    assert [stage["name"] for stage in data["stages"]] == ["capture", "functionalize", "translate", "optimize"]
    assert {leaf["path"]: leaf["kind"] for leaf in data["inputs"]} == {"x": "tensor", "scale": "baked"}
    assert data["inputs"][0]["axes"] == {"0": "batch"}
    served = {entry["operator"]: entry["translation"] for entry in data["translations"]}
    assert served["aten::linear"] == "onnxport_builtin.aten.matmul.linear"
    assert "| aten::relu |" in markdown


def test_a_check_that_did_not_run_has_no_tick(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path)
    assert data["verification"] is None
    assert "Not run." in markdown


def test_verification_is_reported(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path, verify=True)
    assert data["verification"] is not None
    assert "Not run." not in markdown


def test_a_failed_export_is_reported_with_its_refusals(tmp_path: Path) -> None:
    class Unserved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.report.unserved(x)

    with pytest.raises(onnxport.UnsupportedOperatorsError):
        onnxport.export(Unserved(), (torch.randn(3, 3),), report=True, artifacts_dir=tmp_path)
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert not data["succeeded"]
    assert [refusal["target"] for refusal in data["refusals"]] == ["report::unserved"]


def test_profile_and_captured_program_are_written(tmp_path: Path) -> None:
    onnxport.export(
        Model().eval(), (torch.randn(2, 3),), profile=True, dump_exported_program=True, artifacts_dir=tmp_path / "new"
    )
    assert "| translate |" in next((tmp_path / "new").glob("onnxport_profile_*.md")).read_text()
    program = torch.export.load(next((tmp_path / "new").glob("*.pt2")))
    assert program.graph.nodes


def test_verbose_prints_the_stages_and_calls_an_observer(capsys: pytest.CaptureFixture[str]) -> None:
    onnxport.export(Model().eval(), (torch.randn(2, 3),), verbose=True)
    assert "[onnxport] translate:" in capsys.readouterr().out
    stages: list[str] = []
    onnxport.export(Model().eval(), (torch.randn(2, 3),), verbose=stages.append)
    assert stages[0] == "capture"
    assert not capsys.readouterr().out
