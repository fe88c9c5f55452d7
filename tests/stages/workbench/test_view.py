"""The page that shows a model: its data, its size, what differs between two models; nothing in it is an order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxport
import pytest
import torch
from onnxport import hookimpl
from onnxport_workbench.view import page_of
from onnxport_workbench.view.contents import Contents, in_parts
from onnxport_workbench.view.differences import merged
from onnxport_workbench.view.reading import contents_of
from onnxport_workbench.view.repeats import repeats_of
from page_support import data_of, layered, properties, value
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(self.norm(x)).relu()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(8) for _ in range(4))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture(scope="module")
def program() -> onnxport.ONNXProgram:
    torch.manual_seed(0)
    return onnxport.export(Model().eval(), (torch.randn(2, 8),), dynamic_shapes=({0: "batch"},))


def names(contents: Contents, groups: list[int]) -> list[str]:
    return [contents.groups[group].path for group in groups]


def test_every_node_once_with_its_origin(program: onnxport.ONNXProgram) -> None:
    data = data_of(page_of(program.model, ""))
    text = data["strings"].__getitem__
    nodes = data["nodes"]
    graph = list(program.model.graph)
    assert [text(n) for n in nodes["name"]] == [node.name for node in graph]
    assert [text(n) for n in nodes["op"]] == [node.op_type for node in graph]
    assert all(text(n).startswith("onnxport_builtin.") for n in nodes["translation"])
    assert {text(n) for n in nodes["plugin"]} == {"builtin"}
    assert {text(n) for n in nodes["torch"]} == {
        "aten.layer_norm.default", "aten.linear.default", "aten.relu.default", "aten.add.Tensor",
    }  # fmt: skip
    firsts = np.cumsum(nodes["first"])
    value_names = [text(n) for n in data["values"]["name"]]
    for node, first, steps in zip(graph, firsts, nodes["inputs"]):
        assert value_names[first] == node.outputs[0].name
        assert [value_names[first - step] for step in steps] == [each.name for each in node.inputs]
    paths = [text(n) for n in data["groups"]["path"]]
    groups = np.cumsum(nodes["group"])
    for node, group in zip(graph, groups):
        assert paths[group] == json.loads(node.metadata_props["pkg.torch.onnx.name_scopes"].replace("'", '"'))[-2]


def test_weights_bytes_and_dynamic_dims(program: onnxport.ONNXProgram) -> None:
    contents = contents_of(program.model)
    weights = {contents.values[i].name: contents.values[i].weight_bytes for i in contents.weights}
    assert weights == {name: t.const_value.nbytes for name, t in program.model.graph.initializers.items()}
    assert [contents.values[i].type for i in (*contents.inputs, *contents.outputs)] == [
        "float32[batch, 8]",
        "float32[batch, 3]",
    ]


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [(ir.DataType.FLOAT, [3, 5], 60), (ir.DataType.INT4, [3, 3], 5), (ir.DataType.BOOL, [], 1),
     (ir.DataType.BFLOAT16, [0, 4], 0), (ir.DataType.COMPLEX128, [2], 32), (ir.DataType.STRING, [2], 0)],
)  # fmt: skip
def test_bytes_of_types(dtype: ir.DataType, shape: list[int], size: int) -> None:
    weight = value("w", *shape, weight=True)
    weight.const_value = ir.LazyTensor(lambda: None, dtype, ir.Shape(shape), name="w")  # type: ignore[arg-type,return-value]
    graph = ir.Graph([], [], nodes=[], initializers=[weight], opset_imports={"": 20})
    contents = contents_of(ir.Model(graph, ir_version=10))
    assert contents.values[contents.weights[0]].weight_bytes == size


def test_equal_layers_are_found(program: onnxport.ONNXProgram) -> None:
    contents = contents_of(program.model)
    (layers,) = repeats_of(contents)
    assert names(contents, layers) == ["layers.0", "layers.1", "layers.2", "layers.3"]


def test_a_layer_that_differs_is_not_equal() -> None:
    model = layered(6, 8)
    list(model.graph)[2 * 8 + 3].attributes["axis"] = ir.AttrInt64("axis", 1)
    contents = contents_of(model)
    assert [names(contents, group) for group in repeats_of(contents)] == [
        ["layers.l0", "layers.l1"],
        ["layers.l3", "layers.l4", "layers.l5"],
    ]


def test_layers_with_other_connections_or_types_are_not_equal() -> None:
    model = layered(3, 8)
    nodes = list(model.graph)
    nodes[8 + 4].replace_input_with(0, nodes[8 + 2].outputs[0])
    assert repeats_of(contents_of(model)) == []
    model = layered(3, 8)
    list(model.graph)[8 + 4].outputs[0].dtype = ir.DataType.DOUBLE
    assert repeats_of(contents_of(model)) == []


def test_layers_of_two_kinds_that_take_turns() -> None:
    model = layered(6, 8)
    for layer in (1, 3, 5):
        list(model.graph)[layer * 8 + 3].attributes["axis"] = ir.AttrInt64("axis", 1)
    contents = contents_of(model)
    assert [names(contents, group) for group in repeats_of(contents)] == [
        ["layers.l0", "layers.l2", "layers.l4"],
        ["layers.l1", "layers.l3", "layers.l5"],
    ]


def test_sizes_that_only_the_graph_names_do_not_matter() -> None:
    """Other exporters number the sizes that they don't know."""
    model = layered(4, 8)
    for i, node in enumerate(model.graph):
        node.outputs[0].shape = ir.Shape([ir.SymbolicDim(f"unk__{i}"), 64])
    assert len(repeats_of(contents_of(model))[0]) == 3  # the first one gets the input, which has names


def test_five_thousand_nodes_are_less_than_300_kb() -> None:
    page = page_of(layered(100, 50), "big.onnx")
    assert len(page.encode()) < 300_000
    data = data_of(page)
    assert len(data["nodes"]["name"]) == 5000
    assert [len(group) for group in data["repeats"] if len(group) > 2] == [100]


def test_nodes_without_modules_are_shown_in_parts() -> None:
    x = start = value("input", "n")
    nodes = []
    for i in range(1030):
        x = value(f"v{i}", "n")
        nodes.append(ir.Node("", "Relu", [nodes[-1].outputs[0] if nodes else start], outputs=[x], name=f"Relu_{i}"))
    graph = ir.Graph([start], [x], nodes=nodes, name="flat", opset_imports={"": 20})
    contents = contents_of(ir.Model(graph, ir_version=10))
    in_parts(contents)
    counts = Counter(contents.groups[node.group].name for node in contents.nodes)
    assert max(counts.values()) <= 100
    assert sum(counts.values()) == 1030
    assert contents.groups[contents.nodes[-1].group].name == "nodes 1001–1030"


def test_modules_from_the_names_of_other_exporters() -> None:
    x, y, z = value("x", 2), value("y", 2), value("z", 2)
    nodes = [ir.Node("", "Relu", [x], outputs=[y], name="/encoder/layers.0/act/Relu"),
             ir.Node("", "Neg", [y], outputs=[z], name="Neg_1")]  # fmt: skip
    model = ir.Model(ir.Graph([x], [z], nodes=nodes, name="g", opset_imports={"": 20}), ir_version=10)
    contents = contents_of(model)
    assert [contents.groups[node.group].path for node in contents.nodes] == ["encoder/layers.0/act", ""]
    chain = [contents.groups[group].name for group in contents.ancestors(contents.nodes[0].group)]
    assert chain == ["act", "layers.0", "encoder", "model"]
    assert contents.nodes[0].torch_operator == "" == contents.nodes[0].translation


class Shared(nn.Module):
    """One module that is called after the other, and one whose calls don't depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.act, self.both = Block(8), nn.Sigmoid(), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.both(x), self.both(x + 1)
        for _ in range(3):
            x = self.block(x)
        return self.act(self.act(x) * 2) + left + right


def test_calls_of_one_module_are_groups_of_their_own_where_they_depend_on_each_other() -> None:
    model = onnxport.export(Shared().eval(), (torch.randn(2, 8),)).model
    contents = contents_of(model)
    calls = Counter(group.name for group in contents.groups if group.path)
    expected = ["both", "block", "act", "act, call 2", "norm", "norm, call 2", "norm, call 3"]
    assert calls == dict.fromkeys([*expected, "linear", "linear, call 2", "linear, call 3"], 1)
    assert [len(groups) for groups in repeats_of(contents)] == [3, 3]
    groups = {node.name: contents.groups[node.group].name for node in contents.nodes if node.operator == "Sigmoid"}
    assert sorted(groups.values()) == ["act", "act, call 2"]


def test_constants_without_a_module_are_where_they_are_used() -> None:
    one, other, x, y, z = (value(name, 2) for name in ("one", "other", "x", "y", "z"))
    nodes = [ir.Node("", "Constant", [], outputs=[one], name="Constant_1"),
             ir.Node("", "Constant", [], outputs=[other], name="Constant_2"),
             ir.Node("", "Add", [x, one], outputs=[y], name="/a/b/Add"),
             ir.Node("", "Mul", [y, other], outputs=[z], name="/a/c/Mul")]  # fmt: skip
    nodes[2].replace_input_with(0, other)
    model = ir.Model(ir.Graph([x], [z], nodes=nodes, name="g", opset_imports={"": 20}), ir_version=10)
    contents = contents_of(model)
    assert [contents.groups[node.group].path for node in contents.nodes] == ["a/b", "a", "a/b", "a/c"]


def test_constants_without_a_module_do_not_change_the_order_of_layers() -> None:
    """torch's older exporter lists weights that are shared first, in any order."""
    model = layered(4, 8)
    weight = model.graph.initializers["layers.l0.attn.w0"]
    for i, node in enumerate([*model.graph][::-8]):
        shared = value(f"shared{i}", 64)
        source = ir.Node("", "Identity", [weight], outputs=[shared], name=f"Identity_{i}")
        model.graph.insert_before(model.graph[0], source)
        node.resize_inputs(2)
        node.replace_input_with(1, shared)
    contents = contents_of(model)
    assert [contents.groups[node.group].path for node in contents.nodes if node.operator == "Identity"] == [
        f"layers.l{i}.mlp" for i in range(4)
    ]
    assert [names(contents, groups) for groups in repeats_of(contents)] == [[f"layers.l{i}" for i in range(4)]]


class Branches(nn.Module):
    def forward(self, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
        return torch.cond(flag, lambda x: x.sin() + 1, lambda x: x.cos(), (x,))


def test_branches_and_functions_are_groups_of_their_own() -> None:
    made = onnxport.export(Branches(), (torch.randn(3), torch.tensor(True)))
    contents = contents_of(made.model)
    everything = [node.name for node in made.model.graph.all_nodes()]
    assert Counter(node.name for node in contents.nodes) == Counter(everything)
    (branch,) = (node for node in contents.nodes if node.operator == "If")
    assert sorted(contents.groups[body].name.rpartition(".")[2] for body in branch.bodies) == [
        "else_branch",
        "then_branch",
    ]
    inside = {contents.groups[node.group].kind for node in contents.nodes if node.operator in ("Sin", "Cos")}
    assert inside == {"graph"}


def test_functions_and_their_calls() -> None:
    made = onnxport.export(Model().eval(), (torch.randn(2, 8),), functions=[Block])
    contents = contents_of(made.model)
    expected = [*made.model.graph, *(node for function in made.model.functions.values() for node in function)]
    assert len(contents.nodes) == len(expected)
    calls = [node for node in contents.nodes if node.function >= 0]
    assert len(calls) == 4
    assert [contents.groups[node.group].path for node in calls] == [f"layers.{i}" for i in range(4)]
    assert contents.groups[calls[0].function].kind == "function"
    assert [len(group) for group in repeats_of(contents)] == [4]


# Two models ----------------------------------------------------------------------------------------------------------


def chain(*steps: tuple[str, str], attribute: int = 0) -> ir.Model:
    """A model of one node after the other, of (module, operator)."""
    x = start = value("x", 2)
    nodes = []
    for i, (path, operator) in enumerate(steps):
        out = value(f"v{i}", 2)
        node = ir.Node("", operator, [x], outputs=[out], name=f"n{i}")
        node.metadata_props.update(properties(path, f"v{i}", f"aten.{operator.lower()}.default"))
        if operator == "Softmax":
            node.attributes["axis"] = ir.AttrInt64("axis", attribute)
        nodes.append(node)
        x = out
    return ir.Model(ir.Graph([start], [x], nodes=nodes, name="g", opset_imports={"": 20}), ir_version=10)


def states(before: ir.Model, after: ir.Model) -> list[tuple[str, str, str]]:
    contents = merged(contents_of(before), contents_of(after))
    return [(contents.groups[node.group].path, node.operator, node.status) for node in contents.nodes]


def test_a_model_does_not_differ_from_itself(program: onnxport.ONNXProgram) -> None:
    contents = merged(contents_of(program.model), contents_of(program.model))
    assert {node.status for node in contents.nodes} == {""}
    assert len(contents.nodes) == len(program.model.graph)


def test_added_removed_and_changed_nodes_by_module() -> None:
    before = chain(("a", "Relu"), ("a", "Neg"), ("b", "Softmax"), ("b", "Abs"))
    after = chain(("a", "Relu"), ("b", "Softmax"), ("b", "Abs"), ("c", "Sin"), attribute=1)
    assert states(before, after) == [
        ("a", "Relu", ""), ("a", "Neg", "removed"), ("b", "Softmax", "changed"), ("b", "Abs", ""),
        ("c", "Sin", "added"),
    ]  # fmt: skip
    changed = merged(contents_of(before), contents_of(after)).nodes[2]
    assert changed.changes == ["input 0: from v1 → from v0", "attribute axis: 0 → 1"][::-1]


def test_a_removed_module_stays_to_be_seen() -> None:
    contents = merged(contents_of(chain(("a", "Relu"), ("b.c", "Neg"))), contents_of(chain(("a", "Relu"))))
    (removed,) = (node for node in contents.nodes if node.status == "removed")
    assert [contents.groups[group].path for group in contents.ancestors(removed.group)] == ["b.c", "b", ""]
    assert removed.inputs == contents.nodes[0].outputs


def test_a_changed_type_and_a_changed_translation() -> None:
    before, after = chain(("a", "Relu"), ("a", "Neg")), chain(("a", "Relu"), ("a", "Neg"))
    node = after.graph[1]
    node.outputs[0].shape = ir.Shape([3])
    node.metadata_props["onnxport.plugin"] = "mypack"
    for model in (before, after):
        model.graph[1].metadata_props["onnxport.translation"] = "onnxport_builtin.neg"
    (changed,) = (n for n in merged(contents_of(before), contents_of(after)).nodes if n.status)
    assert changed.changes == [
        "output 0: float32[2] → float32[3]",
        "translation: onnxport_builtin.neg (builtin) → onnxport_builtin.neg (mypack)",
    ]


# The page ------------------------------------------------------------------------------------------------------------

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m"


def test_the_page_asks_for_nothing(program: onnxport.ONNXProgram) -> None:
    page = page_of(program.model, "")
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"\w+://[^\s\"')<]*", page)) - {"http://www.w3.org/2000/svg"}  # the name of SVG
    assert not addresses
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b|@import|url\((?!#)|sourceMappingURL|\bfetch\(", page)
    assert "Permission is hereby granted, free of charge" in page


def hostile() -> ir.Model:
    model = chain((HOSTILE.replace(".", ""), "Relu"), ("b", "Neg"))
    node = model.graph[1]
    node.name = node.op_type = HOSTILE
    node.metadata_props["onnxport.translation"] = HOSTILE
    node.metadata_props["pkg.torch.onnx.stack_trace"] = f'File "{HOSTILE}", line 1, in x\n    {HOSTILE}'
    node.attributes["note"] = ir.AttrString("note", HOSTILE)
    model.metadata_props["from"] = HOSTILE
    model.graph.inputs[0].name = HOSTILE
    return model


def test_names_are_text() -> None:
    page = page_of(hostile(), HOSTILE)
    assert "alert" not in page.replace("&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;", "")
    assert page.count("<script") == 3
    texts = data_of(page)["strings"]
    assert any("alert(1)" in text for text in texts)
    assert not [text for text in texts if "\x1b" in text or "\u202e" in text]


def test_a_page_beside_the_report(tmp_path: Path) -> None:
    onnxport.export(Model().eval(), (torch.randn(2, 8),), report=True, verify=True, artifacts_dir=tmp_path)
    (page,) = tmp_path.glob("onnx_export_*_success.html")
    data = data_of(page.read_text("utf-8"))
    assert data["about"]["verification"]["passed"]
    assert data["about"]["name"] == "Model"


def test_find_mismatch_marks_the_node(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    result = onnxport.find_mismatch(program)
    page = onnxport.view(program, tmp_path / "page.html", mismatch=result)
    assert data_of(page.read_text("utf-8"))["about"]["mismatch"]["passed"]


def test_times_of_nodes(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    first, second = program.model.graph[0].name, program.model.graph[1].name
    times = ((f"{first}_kernel_time", 10), (f"{first}_kernel_time", 30), ("fused_kernel_time", 5), ("other", 7))
    events = [{"cat": "Session", "name": "run", "dur": 9}]
    events += [{"cat": "Node", "name": name, "dur": duration} for name, duration in times]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    page = onnxport.view(program, tmp_path / "page.html", latencies=tmp_path / "profile.json")
    data = data_of(page.read_text("utf-8"))
    assert data["latency"] == {"0": 20.0}
    assert data["about"]["unmatched"] == 5.0
    page = onnxport.view(program, tmp_path / "page.html", latencies={str(second): 2e-6})
    assert data_of(page.read_text("utf-8"))["latency"] == {"1": 2.0}


def test_times_of_a_profile_with_runs(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    """The median of the runs; a node that runs twice in one, as in a loop, counts twice. Fused nodes are found."""
    nodes = list(program.model.graph)[:3]
    first, second, value = nodes[0].name, nodes[1].name, nodes[2].outputs[0].name
    events: list[dict[str, Any]] = []
    for duration in (10, 30, 1000):
        events += [{"cat": "Node", "name": f"{first}_kernel_time", "dur": duration, "args": {"op_name": "Add"}}] * 2
        events += [{"cat": "Node", "name": f"{second}/MatMulAddFusion_kernel_time", "dur": 7}]
        events += [{"cat": "Node", "name": f"{value}_nchwc_kernel_time", "dur": 3}]
        events += [{"cat": "Node", "name": "ReorderOutput_kernel_time", "dur": 2}]
        events += [{"cat": "Node", "name": f"fused {second}_kernel_time", "dur": 1}]
        events += [{"cat": "Session", "name": "model_run", "dur": 2000}]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    page = onnxport.view(program, tmp_path / "page.html", latencies=tmp_path / "profile.json")
    data = data_of(page.read_text("utf-8"))
    assert data["latency"] == {"0": 60.0, "1": 8.0, "2": 3.0}
    assert data["about"]["unmatched"] == 2.0


def test_a_file_without_its_data(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    program.save(tmp_path / "model.onnx", external_data=True)
    for data in tmp_path.glob("*.data"):
        data.unlink()
    page = onnxport.view(tmp_path / "model.onnx")
    assert page == tmp_path / "model.html"
    assert len(data_of(page.read_text("utf-8"))["nodes"]["name"]) == len(program.model.graph)


def test_errors_say_what_is_wrong(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    with pytest.raises(onnxport.InputError, match="pass `output`"):
        onnxport.view(program)
    with pytest.raises(onnxport.MissingFileError):
        onnxport.view(tmp_path / "none.onnx")
    with pytest.raises(onnxport.SaveError, match="Give another path"):
        onnxport.view(program, tmp_path / "none" / "page.html")
    with pytest.raises(onnxport.InputError, match="VerificationResult"):
        onnxport.view(program, tmp_path / "page.html", verification="passed")  # type: ignore[arg-type]
    (tmp_path / "profile.json").write_text("[]")
    with pytest.raises(onnxport.FileError, match="enable_profiling"):
        onnxport.view(program, tmp_path / "page.html", latencies=tmp_path / "profile.json")


def test_the_command(program: onnxport.ONNXProgram, tmp_path: Path) -> None:
    onnx.save(program.model_proto, tmp_path / "a.onnx")
    command = [sys.executable, "-m", "onnxport", "view", "a.onnx", "a.onnx", "-o", "both.html", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"page": "both.html"}
    assert data_of((tmp_path / "both.html").read_text("utf-8"))["about"]["before"] == "a.onnx"


# Notebooks -----------------------------------------------------------------------------------------------------------


def test_results_are_tables_in_notebooks(program: onnxport.ONNXProgram) -> None:
    for result, words in (
        (program, ("ONNXProgram", "float32[batch, 8]", f"{len(program.model.graph)}")),
        (onnxport.verify(program), ("Verification passed", "example", "ok")),
        (onnxport.find_mismatch(program), ("No mismatch",)),
        (onnxport.check(Model().eval(), (torch.randn(2, 8),)), ("Every operator can be translated",)),
    ):
        shown = result._repr_html_()
        assert shown.startswith("<div>")
        assert all(word in shown for word in words), shown


def test_notebooks_show_names_as_text() -> None:
    shown = onnxport.ONNXProgram(hostile())._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_a_plugin_shows_its_own_results(program: onnxport.ONNXProgram) -> None:
    class Pack:
        @hookimpl
        def onnxport_html(self, subject: Any) -> Any:
            return "<b>mine</b>" if isinstance(subject, onnxport.ONNXProgram) else None

    x = torch.randn(2)
    made = onnxport.export(nn.ReLU(), (x,), plugins=[Pack()])
    assert made._repr_html_() == "<b>mine</b>"
    assert program._repr_html_() != "<b>mine</b>"
