"""What authors of packs test with: `onnxport.testing` and the plugin for pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport import Unsupported, testing, translation
from pack_support import Pack

X = torch.randn(2, 3)


@translation("aten::relu")
def good_relu(op, self):
    return op.Max(self, 0)


@translation("aten::relu")
def wrong_relu(op, self):
    return op.Neg(self)


@translation("aten::relu")
def half_wrong_relu(op, self):
    return op.Relu(self) if self.dtype == onnxport.DataType.FLOAT else op.Neg(self)


@translation("aten::relu")
def right_for_two_rows(op, self):
    rows = op.Gather(op.Shape(self), op.const(0))
    return op.Add(op.Relu(self), op.CastLike(op.Sub(rows, op.const(2)), self))


@translation("case_testing::nothing")
def refusing(op, x):
    raise Unsupported("only on Sundays")


def test_every_combination_is_compared():
    cases = testing.compare_with_eager(
        torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GELU()),
        (X,),
        dtypes=[torch.float32, torch.float64],
        opsets=[18, 20],
        dynamic_shapes={"input": {0: "rows"}},
        other_inputs=[((torch.randn(5, 3),), None)],
    )
    assert [case.label for case in cases] == [
        f"{dtype}, opset {opset}" for dtype in ("float32", "float64") for opset in (18, 20)
    ]
    inputs = [case.program.model.graph.inputs[0] for case in cases]
    assert [value.dtype.name for value in inputs] == ["FLOAT", "FLOAT", "DOUBLE", "DOUBLE"]
    assert [case.program.model.opset_imports[""] for case in cases] == [18, 20, 18, 20]
    assert not isinstance(inputs[0].shape[0], int)


def test_what_is_wrong_is_told_with_its_combination():
    with pytest.raises(AssertionError, match="1 of 2 combinations fail:\n  float64: AssertionError"):
        testing.compare_with_eager(
            torch.relu, (X,), dtypes=[torch.float32, torch.float64], plugins=[Pack(half_wrong_relu)]
        )
    with pytest.raises(AssertionError, match="Mismatched elements"):
        testing.compare_with_eager(torch.relu, (X,), plugins=[Pack(wrong_relu)])
    with pytest.raises(onnxport.OpsetError):  # the only combination raises what the export does
        testing.compare_with_eager(torch.relu, (X,), opsets=[3])


def test_generated_and_other_sizes_are_compared():
    """A translation that is right at the example's size alone is found by each of them."""
    shapes = {"input": {0: "rows"}}
    plugins = [Pack(right_for_two_rows)]
    testing.compare_with_eager(torch.nn.ReLU(), (X,), plugins=plugins)
    with pytest.raises(onnxport.VerificationError, match="rows="):
        testing.compare_with_eager(torch.nn.ReLU(), (X,), dynamic_shapes=shapes, plugins=plugins)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        others = [((torch.randn(5, 3),), None)]
        testing.compare_with_eager(torch.nn.ReLU(), (X,), dynamic_shapes=shapes, other_inputs=others, plugins=plugins)
    testing.compare_with_eager(torch.nn.ReLU(), (X,), dynamic_shapes=shapes, plugins=[Pack(good_relu)])


def test_which_translation_served():
    pack = Pack(good_relu)
    program = testing.expect_served(torch.nn.ReLU(), (X,), "aten::relu", by="Pack", plugins=[pack])
    assert isinstance(program, onnxport.ONNXProgram)
    testing.expect_served(torch.nn.ReLU(), (X,), "aten::relu", by=good_relu, plugins=[pack])
    testing.expect_served(torch.nn.ReLU(), (X,), "aten::relu", by="builtin", plugins=())
    with pytest.raises(AssertionError, match="not served by builtin alone, but by"):
        testing.expect_served(torch.nn.ReLU(), (X,), "aten::relu", by="builtin", plugins=[pack])
    with pytest.raises(AssertionError, match="No node of aten::gelu was translated"):
        testing.expect_served(torch.nn.ReLU(), (X,), "aten::gelu", by="builtin")
    (case,) = testing.compare_with_eager(lambda x: x + x * 2, (X,))
    case.expect_served("aten::add", by="builtin")  # the name of all overloads
    assert {one.operator: one.nodes for one in case.served} == {"aten::add.Tensor": 1, "aten::mul.Tensor": 1}


@torch.library.custom_op("case_testing::nothing", mutates_args=())
def nothing(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@nothing.register_fake
def _(x):
    return torch.empty_like(x)


def test_refusals():
    model = testing.as_module(nothing)
    refusal = testing.expect_refused(model, (X,), "case_testing::nothing", reason="Sundays", plugins=[Pack(refusing)])
    assert refusal.count == 1
    with pytest.raises(AssertionError, match="but not for 'Mondays'"):
        testing.expect_refused(model, (X,), "case_testing::nothing", reason="Mondays", plugins=[Pack(refusing)])
    with pytest.raises(AssertionError, match="aten::relu was not refused, but case_testing::nothing was"):
        testing.expect_refused(model, (X,), "aten::relu")
    with pytest.raises(AssertionError, match="the model was exported"):
        testing.expect_refused(torch.nn.ReLU(), (X,), "aten::relu")


def test_goldens(tmp_path, monkeypatch):
    monkeypatch.delenv("ONNXPORT_UPDATE_GOLDENS", raising=False)
    program = onnxport.export(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()).eval(), (X,))
    counts = testing.node_counts(program)
    assert counts["Relu"] == 1 and sum(counts.values()) == len(program.model.graph)
    path = tmp_path / "goldens" / "net.json"
    with pytest.raises(AssertionError, match="has no entry 'net'"):
        testing.expect_node_counts(program, path, "net")
    testing.expect_node_counts(program, path, "net", update=True)
    testing.expect_node_counts(program, path, "net")
    assert json.loads(path.read_text()) == {"net": counts}
    other = onnxport.export(torch.nn.ReLU(), (X,))
    with pytest.raises(AssertionError, match="Gemm: 1 in the golden, 0 now"):
        testing.expect_node_counts(other, path, "net")
    monkeypatch.setenv("ONNXPORT_UPDATE_GOLDENS", "1")
    testing.expect_node_counts(other, path, "other")
    assert sorted(json.loads(path.read_text())) == ["net", "other"]


TESTS = """
import onnxport, torch

def test_net(node_counts_golden):
    node_counts_golden(onnxport.export(torch.nn.ReLU(), (torch.randn(2),)))

def test_torch_is_not_loaded_by_the_plugin(request):
    assert request.config.pluginmanager.has_plugin("onnxport_testing.pytest_plugin")
"""


def test_the_plugin_of_pytest(tmp_path: Path):
    (tmp_path / "test_net.py").write_text(TESTS)

    def run(*arguments: str) -> tuple[int, str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "onnxport_testing.pytest_plugin",
            "-p",
            "no:cacheprovider",
        ]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
        return done.returncode, done.stdout

    status, output = run()
    assert status == 1 and "has no entry 'test_net'" in output, output
    assert run("--update-goldens")[0] == 0
    assert json.loads((tmp_path / "goldens" / "test_net.json").read_text()) == {"test_net": {"Relu": 1}}
    assert run()[0] == 0


def test_the_plugin_does_not_load_torch():
    code = "import sys, onnxport_testing.pytest_plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
