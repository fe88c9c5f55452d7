"""The record of an export: markdown and JSON for people and machines, honest about what didn't run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from page_support import data_of
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
    markdown = next(folder.glob("onnx_export_*_success.md")).read_text()
    return markdown, json.loads(next(folder.glob("onnx_export_*_success.json")).read_text())


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
    assert "| translate |" in next((tmp_path / "new").glob("onnx_export_*_profile.md")).read_text()
    program = torch.export.load(next((tmp_path / "new").glob("*.pt2")))
    assert program.graph.nodes


def test_times_of_nodes_on_onnxruntime(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path, profile=True)
    names = [node["node"] for node in data["latency"]["nodes"]]
    page = data_of(next(tmp_path.glob("*.html")).read_text("utf-8"))
    assert data["latency"]["runs"] >= 1 and data["latency"]["seconds"] > 0
    assert sum(one["nodes"] for one in data["latency"]["operators"]) == len(names)
    linear = next(node for node in data["latency"]["nodes"] if node["torch_operator"] == "aten.linear.default")
    assert (linear["module"], linear["operator"]) in (("layer", "Gemm"), ("layer", "FusedGemm"))
    assert "## Slowest operators" in markdown and "| node | operator |" in markdown and linear["node"] in markdown
    assert page["latency"] and page["about"]["unmatched"] >= 0


def test_times_that_cannot_be_measured_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("onnxport_workbench.report.measured", refused)
    markdown, data = _reports(tmp_path, profile=True)
    assert data["succeeded"] and data["latency"] is None
    assert "Not measured: RuntimeError: no kernel" in markdown


def test_times_are_measured_only_with_a_profile(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path)
    assert data["latency"] is None
    assert "Not measured: export with report=True and profile=True." in markdown


def test_rounded_weights_are_measured_as_they_run(tmp_path: Path) -> None:
    model = nn.Linear(64, 64).eval()
    onnxport.export(
        model, (torch.randn(2, 64),), quantize="int4", report=True, profile=True, artifacts_dir=tmp_path, verbose=False
    )
    data = json.loads(next(tmp_path.glob("onnx_export_*_success.json")).read_text())
    assert "MatMulNBits" in [node["operator"] for node in data["latency"]["nodes"]]


def test_verbose_prints_the_stages_and_calls_an_observer(capsys: pytest.CaptureFixture[str]) -> None:
    onnxport.export(Model().eval(), (torch.randn(2, 3),), verbose=True)
    assert "[onnxport] translate:" in capsys.readouterr().out
    stages: list[str] = []
    onnxport.export(Model().eval(), (torch.randn(2, 3),), verbose=stages.append)
    assert stages[0] == "capture"
    assert not capsys.readouterr().out


class Everything(nn.Module):
    """A bit of all that a report tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor, options: dict[str, Any], scale: float = 1.0) -> dict[str, torch.Tensor]:
        self.count.add_(1)
        torch._assert(x.shape[0] > 0, "rows")
        gradient = torch.ops.aten.silu_backward(x, x)
        return {"y": self.layer(x + options["shift"]).relu() * scale, "g": gradient.sum(-1) + options["mode"]}


def test_every_field_is_there(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    program = onnxport.export(
        Everything().eval(),
        (x, {"shift": torch.randn(3), "mode": 3}, 2.0),
        dynamic_shapes=({0: "batch"}, {"shift": None, "mode": None}, None),
        report=True,
        verify=True,
        artifacts_dir=tmp_path,
    )
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    inputs = {leaf["path"]: leaf for leaf in data["inputs"]}
    assert inputs["x"] | {"axes": {}} == {
        "name": "x", "path": "x", "kind": "tensor", "value": "None", "axes": {}, "dtype": "float", "shape": "[batch, 3]"
    }  # fmt: skip
    assert inputs["options.shift"]["shape"] == "[3]"
    assert data["baked_constants"] == {"options.mode": "3", "scale": "2.0"}
    outputs = {out["path"]: (out["name"], out["kind"], out["dtype"], out["shape"]) for out in data["outputs"]}
    assert outputs["y"][1:] == ("USER_OUTPUT", "float", "[batch, 4]")
    assert outputs["g"][1:] == ("USER_OUTPUT", "float", "[batch]")
    assert outputs["count"][1:] == ("BUFFER_MUTATION", "float", "[1]")
    assert [out["name"] for out in data["outputs"]] == [value.name for value in program.model.graph.outputs]
    linear = next(entry for entry in data["translations"] if entry["operator"] == "aten::linear")
    assert linear["plugin"] == "builtin" and linear["nodes"] == 1
    assert data["decomposed"] == {"aten::silu_backward": 1}
    assert data["opset"] == 20 and {"torch", "onnx", "onnxport", "python"} <= set(data["versions"])
    assert sum(data["operators_after_passes"].values()) == program.model.graph.num_nodes()
    assert data["verification"]["passed"] and data["refusals"] == [] and "dead_code" in data["passes"]
    assert all(stage["seconds"] >= 0 and stage["peak_growth_bytes"] >= 0 for stage in data["stages"])
    markdown = next(tmp_path.glob("*.md")).read_text()
    for text in (
        "## Checks", "- onnx.checker: ok", "- numbers: ok", "## Stages", "| x | x | tensor | float | [batch, 3] |",
        "| count | BUFFER_MUTATION | float | [1] |", "| aten::linear | onnxport_builtin", "| builtin | 1 |",
        "| aten::silu_backward | 1 |", "| options.mode | 3 |", "## Dropped assertions", "## Versions",
    ):  # fmt: skip
        assert text in markdown, text


def test_nothing_is_ticked_that_did_not_run(tmp_path: Path) -> None:
    markdown, _ = _reports(tmp_path / "plain", optimize=False)
    assert "- capture: ok" in markdown and "- optimize: not run" in markdown
    assert "- onnx.checker: not run" in markdown and "- numbers: not run" in markdown

    class Unserved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.report.unserved(x)

    with pytest.raises(onnxport.UnsupportedOperatorsError):
        onnxport.export(Unserved(), (torch.randn(3),), report=True, artifacts_dir=tmp_path / "refused")
    markdown = next((tmp_path / "refused").glob("*.md")).read_text()
    assert "- translate: failed" in markdown and "- optimize: not run" in markdown
    assert "report::unserved (1 call)" in markdown and "source:" in markdown

    with pytest.raises(onnxport.CaptureError):
        onnxport.export(
            Model().eval(), (torch.randn(2, 4),), report=True, profile=True, artifacts_dir=tmp_path / "captured"
        )
    markdown = next((tmp_path / "captured").glob("*_pt_export.md")).read_text()
    assert "- capture: failed" in markdown and "- translate: not run" in markdown
    assert "| capture |" in next((tmp_path / "captured").glob("*profile*.md")).read_text()


def test_an_artifacts_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for options in ({"report": True}, {"profile": True}, {"dump_exported_program": True}):
        with pytest.raises(onnxport.SaveError, match="Give another artifacts_dir"):
            onnxport.export(Model().eval(), (torch.randn(2, 3),), artifacts_dir=blocked, **options)
    with pytest.raises(onnxport.CaptureError):  # the error that the report is about comes first
        onnxport.export(Model().eval(), (torch.randn(2, 4),), report=True, artifacts_dir=blocked)


def test_two_reports_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for _ in range(2):
        _reports(tmp_path)
    assert len(list(tmp_path.glob("*.md"))) == len(list(tmp_path.glob("*.json"))) == 2


def test_it_tells_model_options_weights_and_graph(tmp_path: Path) -> None:
    markdown, data = _reports(tmp_path, opset_version=21, dynamic_shapes=({0: "batch"}, None))
    assert data["model"]["weights"] == [{"dtype": "float32", "tensors": 2, "elements": 16, "bytes": 64}]
    assert data["model"]["class"].endswith(".Model")
    assert sorted(data["options"]) == ["artifacts_dir", "dynamic_shapes", "opset_version", "report"]
    assert data["options"]["opset_version"] == "21"
    assert "| float32 | 2 | 16 | 64 |" in markdown and "| opset_version | 21 |" in markdown
    graph = markdown.partition("## Captured graph")[2].partition("\n## ")[0]
    assert "<details>" in graph and "torch.ops.aten.relu.default" in graph


def test_a_failed_capture_tells_the_inputs_that_were_given(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
            return x if x.sum() > 0 else options["y"]

    inputs = (torch.randn(2, 3), {"n": 3, "y": torch.ones(4, dtype=torch.int64)})
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(Branch(), inputs, report=True, artifacts_dir=tmp_path)
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert data["inputs"] == []
    assert [(i["path"], i["dtype"], i["shape"], i["value"]) for i in data["given_inputs"]] == [
        ("args[0]", "float32", "[2, 3]", ""),
        ("args[1]['n']", "int", "", "3"),
        ("args[1]['y']", "int64", "[4]", ""),
    ]
    markdown = next(tmp_path.glob("*.md")).read_text()
    assert "| args[1]['y'] | int64 | [4] |" in markdown
    assert str(Path(torch.__file__).parents[1]) not in markdown


def test_a_refusal_comes_with_a_translation_to_start_from(tmp_path: Path) -> None:
    class Unserved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.report.unserved(x)

    args = (torch.randn(3, 3),)
    with pytest.raises(onnxport.UnsupportedOperatorsError):
        onnxport.export(Unserved(), args, report=True, artifacts_dir=tmp_path)
    markdown = next(tmp_path.glob("*.md")).read_text()
    code = markdown.partition("```python\n")[2].partition("```")[0]
    assert "report::unserved(Tensor x) -> Tensor" in code
    operator = torch.ops.report.unserved.default
    made: dict[str, Any] = {}
    exec(code, made)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="write its ONNX nodes"):
        onnxport.export(Unserved(), args, custom_translation_table={operator: made["unserved"]})
    exec(code.replace("raise Unsupported(", "return op.Add(x, x)  # "), made)
    onnxport.export(Unserved(), args, custom_translation_table={operator: made["unserved"]}, verify=True)
