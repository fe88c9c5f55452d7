"""With --json the standard output has one JSON object, whatever fails; explain takes every spelling of an operator."""

from __future__ import annotations

import json
import math
import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from onnxport_workbench import cli, spelling
from onnxport_workbench.cli_output import print_json
from onnxport_workbench.explaining import explain
from typer.testing import CliRunner

MODELS = """
import sys
import torch

print("imported")


class Refused(torch.nn.Module):
    def forward(self, x):
        print("traced")
        return torch.ops.case_cli.nothing(x)


@torch.library.custom_op("case_cli::nothing", mutates_args=())
def nothing(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


nothing.register_fake(torch.empty_like)


class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += 1
        return x + self.seen


X = torch.ones(2, 3)
RELU = torch.ops.aten.relu.default


def good():
    print("made")
    return torch.nn.ReLU(), (X,)


def seeded():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 3).eval(), (X,)


def unseeded():
    torch.manual_seed(1)
    return torch.nn.Linear(3, 3).eval(), (X,)


def refused():
    return Refused(), (X,)


def branching():
    return Branching(), (X,)


def counter():
    return {"model": Counter().eval(), "args": (X,), "mutation": "error"}


def frozen():
    return {"model": torch.nn.Flatten(0), "args": (X,), "dynamic_shapes": ({5: "n"},)}


def wrong():
    return {"model": torch.nn.ReLU(), "args": (X - 2,),
            "custom_translation_table": {RELU: lambda op, self: op.Neg(self)}}


def buggy():
    return {"model": torch.nn.ReLU(), "args": (X,), "custom_translation_table": {RELU: lambda op, self: 1 / 0}}


def no_plugin():
    return {"model": torch.nn.ReLU(), "args": (X,), "plugins": ["nowhere"]}


def fails():
    raise ValueError("no weights here")


def leaves():
    sys.exit("usage: something else")


def nothing_at_all():
    return None


def defect():
    class Hostile(dict):
        def items(self):
            raise LookupError("a defect")

    return {"model": torch.nn.ReLU(), "args": (X,), "custom_translation_table": Hostile(a=1)}
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case_cli_models.py").write_text(MODELS)
    return tmp_path


def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the object on the standard output, and standard error."""
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    return done.exit_code, json.loads(done.stdout, parse_constant=pytest.fail), done.stderr


def model(name: str) -> str:
    return f"case_cli_models.py:{name}"


FAILURES: dict[str, tuple[list[str], int, str, Callable[[dict[str, Any]], bool]]] = {
    "refused": (["export", model("refused"), "-o", "m.onnx"], cli.REFUSED, "UnsupportedOperatorsError",
                lambda e: e["refusals"][0]["target"] == "case_cli::nothing" and e["refusals"][0]["count"] == 1),
    "capture": (["export", model("branching"), "-o", "m.onnx"], cli.REFUSED, "CaptureError",
                lambda e: "x.sum() > 0" in e["line"] and len(e["attempts"]) == 1),
    "capture, check": (["check", model("branching")], cli.REFUSED, "CaptureError", lambda e: bool(e["line"])),
    "mutation": (["export", model("counter"), "-o", "m.onnx"], cli.REFUSED, "MutationError",
                 lambda e: e["targets"] == ["seen"]),
    "shapes": (["export", model("frozen"), "-o", "m.onnx"], cli.USAGE, "DynamicShapesError",
               lambda e: e["axes"][0]["axis"] == 5 and e["parameter"] == "dynamic_shapes"),
    "opset": (["check", model("good"), "--opset", "3"], cli.USAGE, "OpsetError", lambda e: e["opset"] == 3),
    "opset of ops": (["ops", "--opset", "3", "--plugin", "nowhere"], cli.USAGE, "PluginError",
                     lambda e: e["plugins"] == ["nowhere"]),
    "verification": (["export", model("wrong"), "-o", "m.onnx", "--verify"], cli.REFUSED, "VerificationError",
                     lambda e: e["result"]["passed"] is False and "program" not in e),
    "translation": (["export", model("buggy"), "-o", "m.onnx"], cli.INTERNAL, "TranslationError",
                    lambda e: e["target"] == "aten::relu" and e["plugin"] == "custom_translation_table"),
    "plugin": (["find-mismatch", model("no_plugin")], cli.USAGE, "PluginError", lambda e: e["plugins"] == ["nowhere"]),
    "folder": (["export", model("good"), "-o", "nowhere/m.onnx"], cli.USAGE, "SaveError",
               lambda e: e["path"].endswith("nowhere/m.onnx")),
    "factory": (["check", model("fails")], cli.USAGE, "UsageError", lambda e: "no weights here" in e["message"]),
    "exit": (["check", model("leaves")], cli.USAGE, "UsageError", lambda e: "something else" in e["message"]),
    "no model": (["check", model("nothing_at_all")], cli.USAGE, "UsageError", lambda e: "must return" in e["message"]),
    "no factory": (["check", model("absent")], cli.USAGE, "UsageError", lambda e: "absent" in e["message"]),
    "no file": (["verify", "absent.onnx", model("good")], cli.USAGE, "UsageError", lambda e: "absent" in e["message"]),
    "tolerance": (["find-mismatch", model("good"), "--rtol", "nan"], cli.USAGE, "InputError",
                  lambda e: e["parameter"] == "rtol"),
    "name": (["explain", "no_such_thing"], cli.USAGE, "PluginError", lambda e: e["target"] == "no_such_thing"),
    "plugins": (["plugins", "--plugin", "nowhere"], cli.USAGE, "PluginError", lambda e: e["plugins"] == ["nowhere"]),
    "defect": (["export", model("defect"), "-o", "m.onnx"], cli.INTERNAL, "LookupError",
               lambda e: e["message"] == "a defect"),
    "no model given": (["export"], cli.USAGE, "MissingParameter", lambda e: "FACTORY" in e["message"]),
    "no option": (["check", model("good"), "--nowhere"], cli.USAGE, "NoSuchOption",
                  lambda e: "nowhere" in e["message"]),
    "no number": (["check", model("good"), "--opset", "x"], cli.USAGE, "BadParameter",
                  lambda e: "--opset" in e["message"]),
    "no command": (["nowhere"], cli.USAGE, "", lambda e: "nowhere" in e["message"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_failures(models: Path, name: str) -> None:
    arguments, code, kind, says = FAILURES[name]
    status, told, stderr = run(*arguments)
    assert status == code == told["exit_code"], stderr
    assert set(told) == {"error", "exit_code"}
    error = told["error"]
    assert error["message"].strip() and (not kind or error["type"] == kind), error
    assert says(error), error
    assert stderr.strip() and not list(models.glob("*.onnx"))


def test_results_that_are_no_failure_of_the_command(models: Path) -> None:
    """They keep their own objects; what the model's module prints isn't among them."""
    status, told, stderr = run("check", model("refused"))
    assert status == cli.REFUSED and told["refusals"][0]["target"] == "case_cli::nothing"
    assert "imported" in stderr and "traced" in stderr
    status, told, stderr = run("export", model("good"), "-o", "m.onnx")
    assert status == cli.OK and told["nodes"] == 1 and "made" in stderr
    assert run("export", model("seeded"), "-o", "seeded.onnx")[0] == cli.OK
    status, told, _ = run("verify", "seeded.onnx", model("unseeded"))
    assert status == cli.REFUSED and not told["passed"] and told["weights"]["problem"].startswith("2 of 2 weights")
    status, told, _ = run("find-mismatch", model("wrong"))
    assert status == cli.REFUSED and told["mismatch"]["operator"] == "aten::relu"
    status, told, _ = run("explain", "nosuch::op")
    assert status == cli.REFUSED and not told["candidates"]


def test_without_json_nothing_of_it_is_printed(models: Path) -> None:
    done = CliRunner().invoke(cli.app, ["export", model("refused"), "-o", "m.onnx"])
    assert done.exit_code == cli.REFUSED and "case_cli::nothing" in done.stderr and "{" not in done.stdout


def test_the_console_script(models: Path) -> None:
    for arguments, kind in ((["check", "absent:factory"], "UsageError"), (["nowhere"], "")):
        command = [sys.executable, "-m", "onnxport", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=models)
        assert done.returncode == cli.USAGE, done.stderr
        error = json.loads(done.stdout)["error"]
        assert error["message"] and (not kind or error["type"] == kind)


def test_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf}, 3: (1,)})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"a": ["nan", "inf", 1.5], "b": {"c": "-inf"}, "3": [1]}


# explain -------------------------------------------------------------------------------------------------------------


def printed() -> dict[str, str]:
    """What torch prints of an operator, in its graphs and errors; and the target that it is."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, flag: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.gelu(x).reshape(x.shape[0] * x.shape[1])
            return torch.cond(flag, torch.sin, torch.cos, (y,))

    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}, None)
    exported = torch.export.export(Model(), (torch.ones(2, 3), torch.tensor(True)), dynamic_shapes=shapes)
    found: dict[str, str] = {}
    for node in exported.graph.nodes:
        if node.op == "call_function":
            name = onnxport.records.translations.name_of(node.target)  # type: ignore[attr-defined]
            found |= {str(node.target): name, str(node.format_node()): name}
            if not isinstance(node.target, torch._ops.HigherOrderOperator):
                found[repr(node.target)] = name
    assert {"aten::gelu", "operator.mul", "higher_order::cond"} <= set(found.values())
    return found


SPELLINGS = {
    "aten.gelu.default": "aten::gelu", "torch.ops.aten.gelu.default": "aten::gelu", "aten::gelu": "aten::gelu",
    "aten::gelu.default": "aten::gelu", "aten.gelu": "aten::gelu", "torch.ops.aten.gelu": "aten::gelu",
    "gelu": "aten::gelu", "torch.nn.functional.gelu": "aten::gelu", "F.gelu": "aten::gelu",
    "'aten::gelu'": "aten::gelu",
    "<OpOverload(op='aten.gelu', overload='default')>": "aten::gelu",
    "<OpOverloadPacket(op='aten.gelu')>": "aten::gelu",
    "aten::gelu(Tensor self, *, str approximate='none') -> Tensor": "aten::gelu",
    "torch.ops.aten.gelu.default(x, approximate='tanh')": "aten::gelu",
    "aten.add.Tensor": "aten::add.Tensor", "<OpOverload(op='aten.add', overload='Tensor')>": "aten::add.Tensor",
    "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor": "aten::add.Tensor",
    "call_function[target=torch.ops.aten.add.Tensor](args = (%x, 1), kwargs = {})": "aten::add.Tensor",
    "%y : [num_users=1] = call_function[target=operator.mul](args = (%a, %b), kwargs = {})": "operator.mul",
    "aten._softmax.default": "aten::_softmax", "_softmax": "aten::_softmax", "prims.add.default": "prims::add",
    "operator.add": "operator.add", "_operator.add": "operator.add", "<built-in function add>": "operator.add",
    "math.ceil": "math.ceil", "<built-in function floor>": "math.floor", "torch.sym_max": "torch.sym_max",
    f"{torch.sym_max}": "torch.sym_max", "higher_order.cond": "higher_order::cond", "cond": "higher_order::cond",
    "torch.ops.higher_order.cond": "higher_order::cond", "higher_order::cond": "higher_order::cond",
}  # fmt: skip


def test_every_spelling() -> None:
    for text, target in {**SPELLINGS, **printed()}.items():
        status, told, stderr = run("explain", text, "--plugin", "builtin")
        assert (status, told["target"]) == (cli.OK, target), (text, stderr)
        assert bool(told["candidates"]) is not told["of_sizes"] and told["of_sizes"] is ("::" not in target)


@pytest.mark.parametrize("text", ["add", "aten::add", "aten.add", "torch.add", "<OpOverloadPacket(op='aten.add')>"])
def test_a_name_without_its_overload(text: str) -> None:
    status, told, _ = run("explain", text, "--plugin", "builtin")
    assert status == cli.OK and told["target"] == "aten::add"
    assert [each["target"] for each in told["overloads"]] == ["aten::add.Scalar", "aten::add.Tensor"]
    assert all(each["candidates"] for each in told["overloads"])
    shown = CliRunner().invoke(cli.app, ["explain", text, "--plugin", "builtin"]).stdout
    assert "aten::add.Scalar at opset" in shown and "aten::add.Tensor at opset" in shown


@pytest.mark.parametrize(("text", "near"), [("gleu", "aten::gelu"), ("nn.Linear", "aten::linear"),
                                            ("aten.adaptive_pool.default", "aten::adaptive_max_pool2d"),
                                            ("torch.ops.aten.soft_max.int", "aten::softmax.int")])  # fmt: skip
def test_near_matches(text: str, near: str) -> None:
    status, told, stderr = run("explain", text)
    assert status == cli.USAGE and "Did you mean" in told["error"]["message"]
    assert near in stderr, stderr


@pytest.mark.parametrize("text", ["", " ", "::", "a::", "aten::", "<>", "()", "\0", "a b", "."])
def test_what_is_no_name(text: str) -> None:
    status, told, _ = run("explain", text)
    assert status == cli.USAGE and told["error"]["type"] == "PluginError"


def test_operators_of_torch_without_a_translation() -> None:
    for text in ("aten.native_batch_norm_backward.default", "aten::native_batch_norm_backward"):
        status, told, _ = run("explain", text, "--plugin", "builtin")
        assert status == cli.REFUSED and told["target"] == "aten::native_batch_norm_backward"
        assert "names that look like it" in told["hints"][0]


def test_functions_of_python_that_have_a_translation() -> None:
    """A plugin's translation of one comes first; the name of the other stays what it is."""
    registry = onnxport.host.registry.Registry(  # type: ignore[attr-defined]
        [onnxport.Translation(operator.add, lambda op, a, b: a), onnxport.Translation("mine::add", lambda op, a: a)]
    )
    for text in ("operator.add", "<built-in function add>", "_operator.add"):
        assert [c.target for c in explain(registry, text).candidates] == [operator.add]
    told = explain(registry, "add")
    assert told.target == "mine::add" and "operator.add" in told.hints[0]
    assert spelling.named("operator.mul", registry.targets()) == ([operator.mul], [])
