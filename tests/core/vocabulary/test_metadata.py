"""Provenance as text: relative paths, module paths, the documented keys at each level."""

from __future__ import annotations

import functools
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport.vocabulary import provenance
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
        ("/elsewhere/project/models/net.py", "net.py"),
    ],
)
def test_paths_never_tell_the_machines_folders(path: str, expected: str) -> None:
    assert provenance.relative(path) == provenance.portable(path) == expected


def test_paths_below_the_working_directory_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert provenance.relative(str(tmp_path / "pkg" / "net.py")) == "pkg/net.py"


def test_module_paths_and_source_lines() -> None:
    program = torch.export.export(Model(), (torch.randn(2, 3),), strict=False)
    nodes = [node for node in program.graph.nodes if "sin" in str(node.target)]
    assert [provenance.module_path(node) for node in nodes] == ["blocks.0", "blocks.1"]
    assert provenance.source_line(nodes[0]).endswith("return self.linear(x).sin()")
    assert provenance.target_name(nodes[0].target) == "aten.sin.default"


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


def test_a_file_tells_no_folder_of_the_machine(tmp_path: Path) -> None:
    import torchvision

    for model, x in ((Model(), torch.randn(2, 3)), (torchvision.models.alexnet(), torch.randn(1, 3, 64, 64))):
        onnxport.export(model.eval(), (x,), tmp_path / "m.onnx", external_data=True)
        text = (tmp_path / "m.onnx").read_bytes()
        folders = [Path(torch.__file__).parents[1], Path(__file__).parent, Path.home(), tmp_path]
        assert not [folder for folder in folders if f"{folder}/".encode() in text]
        assert b"test_metadata.py" in text or b"torchvision/models/alexnet.py" in text


def test_nothing_of_the_capture_is_left_at_none() -> None:
    graph = onnxport.export(Model().eval(), (torch.randn(2, 3),), metadata="none").model.graph
    assert not graph.metadata_props and all(not node.metadata_props for node in graph)


def test_values_tell_their_fx_node() -> None:
    class Several(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            low, high = x.split(2)
            return low, torch.ops.aten.silu_backward(high, high), x, low

    program = onnxport.export(Several(), (torch.randn(4),), output_names=["a", "b", "c", "d"], optimize=False)
    graph, key = program.model.graph, "pkg.torch.onnx.original_node_name"
    assert [value.metadata_props.get(key) for value in graph.outputs] == ["split", "silu_backward", "x", "split"]
    assert graph.inputs[0].metadata_props[key] == "x"
    names = {node.name for node in program.exported_program.graph.nodes}
    told = {v.metadata_props[key] for node in graph for v in node.outputs if key in v.metadata_props}
    assert told <= names  # no step of a decomposition


class Relu:
    def __call__(self, op, self_):
        return op.Relu(self_)

    def method(self, op, self_):
        return op.Relu(self_)


def scaled(scale, op, self_):
    return op.Relu(self_)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (functools.partial(scaled, 2), "scaled"),
        (functools.partial(functools.partial(scaled), 2), "scaled"),
        (Relu(), "Relu"),
        (Relu().method, "Relu.method"),
    ],
    ids=["partial", "partial of partial", "object", "method"],
)
def test_whatever_can_be_called_is_named(function, name: str, tmp_path: Path) -> None:
    class Pack:
        @onnxport.hookimpl
        def onnxport_resolve(self, target, opset):
            return [onnxport.Translation(target, function)] if "rare_relu" in str(target) else None

    with torch.library._scoped_library("metadata_test", "DEF") as library:
        library.define("rare_relu(Tensor self_) -> Tensor")
        library.impl("rare_relu", torch.relu, "CompositeExplicitAutograd")
        torch.library.register_fake("metadata_test::rare_relu", torch.empty_like, lib=library)

        class Uses(nn.Module):
            def forward(self, x):
                return torch.ops.metadata_test.rare_relu(x)

        program = onnxport.export(Uses(), (torch.randn(3),), tmp_path / "m.onnx", plugins=[Pack()], verbose=False)
    (node,) = program.model.graph
    assert node.metadata_props["onnxport.translation"] == f"{__name__}.{name}"
