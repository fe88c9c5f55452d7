"""Provenance as text: relative paths, module paths, the documented keys at each level."""

from __future__ import annotations

from pathlib import Path

import onnxport
import pytest
import torch
from onnxport import metadata
from torch import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).sin()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/env/lib/python3.11/site-packages/mypkg/model.py", "mypkg/model.py"),
        ("/elsewhere/project/models/net.py", "models/net.py"),
    ],
)
def test_paths_never_tell_the_machines_folders(path: str, expected: str) -> None:
    assert metadata.relative(path) == expected


def test_paths_below_the_working_directory_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert metadata.relative(str(tmp_path / "pkg" / "net.py")) == "pkg/net.py"


def test_module_paths_and_source_lines() -> None:
    program = torch.export.export(Model(), (torch.randn(2, 3),), strict=False)
    nodes = [node for node in program.graph.nodes if "sin" in str(node.target)]
    assert [metadata.module_path(node) for node in nodes] == ["blocks.0", "blocks.1"]
    assert metadata.source_line(nodes[0]).endswith("return self.linear(x).sin()")
    assert metadata.target_name(nodes[0].target) == "aten.sin.default"


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        (
            "full",
            {
                "namespace",
                "pkg.torch.onnx.class_hierarchy",
                "pkg.torch.onnx.name_scopes",
                "pkg.torch.onnx.fx_node",
                "pkg.torch.onnx.stack_trace",
                "onnxport.plugin",
                "onnxport.translation",
            },
        ),
        ("module", {"namespace", "pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.name_scopes"}),
        ("none", set()),
    ],
)
def test_levels(level: str, keys: set[str]) -> None:
    model = onnxport.export(Model().eval(), (torch.randn(2, 3),), metadata=level).model
    assert all(set(node.metadata_props) == keys for node in model.graph)


def test_graph_inputs_and_outputs_say_what_they_are() -> None:
    graph = onnxport.export(Model().eval(), (torch.randn(2, 3),)).model.graph
    prefix = "pkg.torch.export.graph_signature"
    assert graph.inputs[0].metadata_props[f"{prefix}.InputSpec.kind"] == "USER_INPUT"
    assert graph.outputs[0].metadata_props[f"{prefix}.OutputSpec.kind"] == "USER_OUTPUT"
    assert graph.initializers["blocks.0.linear.bias"].metadata_props[f"{prefix}.InputSpec.kind"] == "PARAMETER"
    assert "pkg.torch.export.ExportedProgram.graph_signature" in graph.metadata_props
