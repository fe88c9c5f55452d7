"""The command line: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnxport_workbench import cli
from typer.testing import CliRunner

MODELS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, y=None):
        x = torch.relu(self.linear(x))
        return x if y is None else x + y

@torch.library.custom_op("clitest::strange", mutates_args=())
def strange(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@strange.register_fake
def _(x):
    return torch.empty_like(x)

class Strange(torch.nn.Module):
    def forward(self, x):
        return torch.ops.clitest.strange(x)

def net():
    torch.manual_seed(0)
    return Net().eval(), (torch.randn(2, 4),)

def other_net():
    torch.manual_seed(1)
    return Net().eval(), (torch.randn(2, 4),)

def with_kwargs():
    return Net().eval(), (torch.randn(2, 4),), {"y": torch.randn(2, 3)}

def as_dict():
    return {"model": Net().eval(), "args": (torch.randn(2, 4),), "dynamic_shapes": ({0: "batch"}, None),
            "input_names": ["image"]}

def wrong_relu():
    table = {torch.ops.aten.relu.default: lambda op, self: op.Neg(self)}
    return {"model": Net().eval(), "args": (torch.randn(2, 4),), "custom_translation_table": table}

def refused():
    return Strange().eval(), (torch.randn(2, 4),)

def raises():
    raise ZeroDivisionError("in the factory")

def wrong():
    return 5

class Holder:
    make = staticmethod(net)

number = 5
"""


@pytest.fixture
def models(tmp_path, monkeypatch) -> str:
    (tmp_path / "cli_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "cli_models"


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_export(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx")
    assert result.exit_code == cli.OK, result.output
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert "net.onnx" in result.stdout


def test_export_json_and_options_of_the_factory(models, tmp_path):
    result = run("export", f"{models}:as_dict", "-o", "net.onnx", "--opset", 21, "--json", "--verify")
    assert result.exit_code == cli.OK, result.output
    summary = json.loads(result.stdout)
    assert summary["opset"] == 21
    assert list(summary["inputs"]) == ["image"]
    assert "batch" in summary["inputs"]["image"]
    assert (tmp_path / "net.onnx").exists()


def test_export_with_functions(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx", "--functions", "Linear", "--functions", "Net", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["functions"] == {"Linear": 1, "Net": 2}
    assert [f.name for f in onnx.load(tmp_path / "net.onnx").functions] == ["Linear", "Net"]
    assert run("check", f"{models}:net", "--functions", "Linear").exit_code == cli.OK
    unknown = run("check", f"{models}:net", "--functions", "Lynear")
    assert unknown.exit_code == cli.USAGE and "Did you mean" in unknown.stderr


def test_export_with_rounded_weights(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx", "--quantize", "linear=uint4", "--verify", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["opset"] == 21
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert types["linear.weight.uint4"] == onnx.TensorProto.UINT4
    for given, message in [("int5", "no format of weights"), ("=int4", "NAME=FORMAT"), ("liner=int4", "Did you mean")]:
        wrong = run("export", f"{models}:net", "-o", "net.onnx", "--quantize", given)
        assert wrong.exit_code == cli.USAGE and message in wrong.stderr


@pytest.mark.parametrize("spec", ["cli_models:with_kwargs", "cli_models:Holder.make", "cli_models.py:net"])
def test_ways_to_name_a_model(models, spec):
    assert run("export", spec, "-o", "net.onnx").exit_code == cli.OK


def test_saved_program(models, tmp_path):
    model, args = torch.nn.Linear(4, 3).eval(), (torch.randn(2, 4),)
    torch.export.save(torch.export.export(model, args), tmp_path / "net.pt2")
    assert run("export", "net.pt2", "-o", "net.onnx").exit_code == cli.OK
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    for spec in ("broken.pt2", "missing.pt2"):
        result = run("export", spec, "-o", "other.onnx")
        assert result.exit_code == cli.USAGE
        assert spec in result.stderr
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere:net", "can't be imported"),
        ("nowhere.py:net", "no file"),
        ("cli_models", "MODULE:FACTORY"),
        ("cli_models:nothing", "has no nothing"),
        ("cli_models:number", "isn't callable"),
        ("cli_models:wrong", "must return"),
        ("cli_models:raises", "ZeroDivisionError: in the factory"),
    ],
)
def test_bad_models(models, tmp_path, spec, message):
    for command in (["export", spec, "-o", "bad.onnx"], ["check", spec]):
        result = run(*command)
        assert result.exit_code == cli.USAGE
        assert message in result.stderr
    assert not (tmp_path / "bad.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "cli_models:net"],
        ["export", "cli_models:net", "-o", "x.onnx", "--opset", "nine"],
        ["export", "cli_models:net", "-o", "x.onnx", "--opset", "5"],
        ["export", "cli_models:net", "-o", "x.onnx", "--plugin", "nowhere"],
        ["unknown"],
        ["plugins", "--plugin", "nowhere"],
        ["explain", "no_such_thing"],
        ["verify", "missing.onnx", "cli_models:net"],
    ],
)
def test_bad_usage(models, tmp_path, arguments):
    assert run(*arguments).exit_code == cli.USAGE
    assert not (tmp_path / "x.onnx").exists()


def test_refusal(models, tmp_path):
    result = run("export", f"{models}:refused", "-o", "refused.onnx")
    assert result.exit_code == cli.REFUSED
    assert "clitest::strange" in result.stderr
    assert not list(tmp_path.glob("*.onnx*"))


def test_check(models):
    assert run("check", f"{models}:net").exit_code == cli.OK
    assert run("check", f"{models}:as_dict").exit_code == cli.OK
    result = run("check", f"{models}:refused", "--json")
    assert result.exit_code == cli.REFUSED
    assert json.loads(result.stdout)["refusals"][0]["target"] == "clitest::strange"


def test_verify(models):
    assert run("export", f"{models}:net", "-o", "net.onnx").exit_code == cli.OK
    assert run("verify", "net.onnx", f"{models}:net").exit_code == cli.OK
    result = run("verify", "net.onnx", f"{models}:other_net", "--json")
    assert result.exit_code == cli.REFUSED
    assert json.loads(result.stdout)["passed"] is False


def test_find_mismatch(models, tmp_path):
    result = run("find-mismatch", f"{models}:as_dict", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["passed"] is True
    result = run("find-mismatch", f"{models}:wrong_relu", "--repro", "repro")
    assert result.exit_code == cli.REFUSED
    assert "aten::relu" in result.stdout and (tmp_path / "repro" / "node.onnx").exists()


def test_internal_errors(models, monkeypatch):
    import onnxport

    def broken(*args, **kwargs):
        raise RuntimeError("a defect")

    monkeypatch.setattr(onnxport, "export", broken)
    result = run("export", f"{models}:net", "-o", "net.onnx")
    assert result.exit_code == cli.INTERNAL
    assert "a defect" in result.stderr
    assert "report it" in result.stderr


def test_ops():
    result = run("ops", "aten::gelu", "--json")
    assert result.exit_code == cli.OK
    entries = json.loads(result.stdout)
    assert entries
    assert {entry["plugin"] for entry in entries} == {"builtin"}
    assert all(entry["target"].startswith("aten::gelu") for entry in entries)
    assert "aten::gelu" in run("ops", "gelu").stdout


def test_explain():
    result = run("explain", "aten::add.Tensor", "--plugin", "builtin", "--json")
    assert result.exit_code == cli.OK
    first = json.loads(result.stdout)["candidates"][0]
    assert (first["target"], first["plugin"]) == ("aten::add.Tensor", "builtin")
    path, _, line = first["location"].rpartition(":")
    assert path.startswith("onnxport_builtin/") and int(line) > 0
    assert "plugin builtin" in run("explain", "aten::add.Tensor", "--plugin", "builtin").stdout
    result = run("explain", "nosuch::op")
    assert result.exit_code == cli.REFUSED
    assert "no translation" in result.stdout


def test_plugins():
    result = run("plugins", "--plugin", "builtin", "--json")
    assert result.exit_code == cli.OK
    (entry,) = json.loads(result.stdout)
    assert entry["name"] == "builtin" and entry["translations"] > 0 and not entry["error"]


def test_version_and_help():
    assert run("--version").stdout.startswith("onnxport ")
    assert "explain" in run("--help").stdout


def test_help_does_not_import_torch():
    code = "import sys; sys.argv = ['onnxport', 'ops', '--help']; from onnxport_workbench.cli import main\n"
    code += "try: main()\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_module_is_the_console_script(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "onnxport", "nonsense"], check=False, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == cli.USAGE
