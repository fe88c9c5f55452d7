"""Two packs of equal rank: shown by explain and check, refused by export, settled by prefer= or by plugins=."""

from __future__ import annotations

import json
import operator
import sys
from typing import Any

import onnxport
import pytest
import torch
from onnxport import InputError, PluginConflictError, PluginError, Translation, hookimpl, translation
from onnxport.host import discovery
from onnxport_workbench import cli
from pack_support import Pack, Unary, X
from typer.testing import CliRunner

GELU = torch.nn.GELU()
SOURCE = """
from onnxport import collect, hookimpl, translation

@translation({target!r})
def {name}(op, self, approximate="none"):
    return op.{op}(self)

@hookimpl
def onnxport_translations():
    return collect({name})
"""
MODEL = """
import torch
def make():
    return torch.nn.GELU().eval(), (torch.ones(2, 3),)
"""


@pytest.fixture
def two(packs: Any) -> None:
    packs("cases_first", SOURCE.format(target="aten::gelu", name="cases_first", op="Tanh"))
    packs("cases_second", SOURCE.format(target="aten::gelu", name="cases_second", op="Sigmoid"))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def nodes(**options: Any) -> list[str]:
    return [node.op_type for node in onnxport.export(GELU, (X,), **options).model.graph]


def expect_conflict(text: str) -> None:
    for word in (
        "conflict",
        "cases_first",
        "cases_second",
        "prefer={'aten::gelu': ",
        "--prefer aten::gelu=",
        "plugins=",
    ):
        assert word in text


@pytest.mark.usefixtures("two")
def test_explain_shows_it() -> None:
    told = run("explain", "aten::gelu")
    assert told.exit_code == 0
    expect_conflict(told.stdout)
    found = run("explain", "aten::gelu", "--json")
    data = json.loads(found.stdout)
    assert found.exit_code == 0
    assert {record["plugin"] for record in data["candidates"]} == {"cases_first", "cases_second", "builtin"}
    assert set(data["conflict"]["plugins"]) == {"cases_first", "cases_second"}
    assert json.loads(run("explain", "aten::relu", "--json").stdout)["conflict"] is None


@pytest.mark.usefixtures("two")
def test_explain_shows_how_it_is_settled() -> None:
    told = run("explain", "aten::gelu", "--prefer", "aten::gelu=cases_second")
    assert told.exit_code == 0
    assert "settled by prefer=" in told.stdout and "--prefer" not in told.stdout
    assert told.stdout.index("cases_second.cases_second") < told.stdout.index("cases_first.cases_first")
    told = run("explain", "aten::gelu", "--plugin", "cases_second", "--plugin", "cases_first")
    assert (
        "the conflict of the plugins 'cases_second' and 'cases_first' is settled by the order of plugins="
        in told.stdout
    )
    assert told.stdout.index("cases_second.cases_second") < told.stdout.index("cases_first.cases_first")


@pytest.mark.usefixtures("two")
def test_check_shows_it(tmp_path: Any) -> None:
    result = onnxport.check(GELU, (X,))
    assert not result.refusals and not result.passed
    expect_conflict(str(result))
    (conflict,) = result.conflicts
    assert conflict.target == "aten::gelu" and set(conflict.plugins) == {"cases_first", "cases_second"}
    assert json.loads(result.to_json())["conflicts"][0]["target"] == "aten::gelu"
    assert onnxport.check(torch.nn.ReLU(), (X,)).passed, "only operators of the model count"
    (tmp_path / "cases_model.py").write_text(MODEL)
    model = f"{tmp_path / 'cases_model.py'}:make"
    told = run("check", model)
    assert told.exit_code == 0
    expect_conflict(told.stdout)
    assert json.loads(run("check", model, "--json").stdout)["conflicts"]
    told = run("check", model, "--prefer", "aten::gelu=cases_first")
    assert told.exit_code == 0 and "conflict" not in told.stdout


@pytest.mark.usefixtures("two")
def test_export_is_refused_until_it_is_settled(tmp_path: Any) -> None:
    with pytest.raises(PluginConflictError) as caught:
        onnxport.export(GELU, (X,))
    expect_conflict(str(caught.value))
    assert set(caught.value.plugins) == {"cases_first", "cases_second"} and caught.value.target == "aten::gelu"
    assert onnxport.export(torch.nn.ReLU(), (X,)), "an export that doesn't need them goes on"
    for key in ("aten::gelu", "aten::gelu.default", torch.ops.aten.gelu.default):
        assert nodes(prefer={key: "cases_first"}) == ["Tanh"]
        assert nodes(prefer={key: "cases_second"}) == ["Sigmoid"]
        assert nodes(prefer={key: "builtin"}) == ["Gelu"]
    assert onnxport.check(GELU, (X,), prefer={"aten::gelu": "cases_first"}).passed
    assert nodes(plugins=["cases_first", "cases_second"]) == ["Tanh"]
    assert nodes(plugins=["cases_second", "cases_first"]) == ["Sigmoid"]
    assert nodes(plugins=["cases_second", "cases_first"], prefer={"aten::gelu": "cases_first"}) == ["Tanh"]
    assert nodes(plugins=["cases_second"]) == ["Sigmoid"]
    (tmp_path / "cases_model.py").write_text(MODEL)
    model, file = f"{tmp_path / 'cases_model.py'}:make", tmp_path / "model.onnx"
    assert run("export", model, "-o", str(file)).exit_code == 2
    done = run("export", model, "-o", str(file), "--prefer", "aten::gelu=cases_second")
    assert done.exit_code == 0
    assert [node.op_type for node in onnxport.ONNXProgram.load(file).model.graph] == ["Sigmoid"]


@pytest.mark.usefixtures("two")
def test_the_order_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.ENVIRONMENT_VARIABLE, "cases_second,cases_first")
    discovery.forget()
    assert nodes() == ["Sigmoid"]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("text", ["aten::gelu", "=cases_first", "aten::gelu=", ""])
def test_a_preference_that_is_not_one(text: str) -> None:
    told = run("explain", "aten::gelu", "--prefer", text)
    assert told.exit_code == 2 and "OPERATOR=PLUGIN" in told.output


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("prefer", "error", "words"),
    [
        (
            {"aten::gelu": "nobody"},
            PluginError,
            "names the plugin 'nobody', which doesn't take part; there are: builtin",
        ),
        ({"aten::relu": "cases_first"}, PluginError, "has no translation of aten::relu; builtin has one"),
        ({"aten::gelus": "cases_first"}, PluginError, "has no translation of aten::gelus; no plugin has one"),
        ({"aten::add": "builtin"}, PluginError, "names several operators: name one of aten::add.Scalar"),
        ({"gelou": "cases_first"}, PluginError, "'gelou' is no operator name"),
        ({torch.ops.aten.gelu: "cases_first"}, PluginError, "packet of overloads"),
        ({"aten::gelu": 3}, InputError, "give a dict of plugin names"),
        ({"aten::gelu": None}, InputError, "give a dict of plugin names"),
        ("aten::gelu=cases_first", InputError, "give a dict of plugin names"),
        ([("aten::gelu", "cases_first")], InputError, "give a dict of plugin names"),
    ],
)
def test_preferences_that_cannot_be_followed(prefer: Any, error: type[Exception], words: str) -> None:
    for call in (onnxport.export, onnxport.check):
        with pytest.raises(error, match=words):
            call(GELU, (X,), prefer=prefer)


def of(name: str, op_type: str, *targets: Any, **options: Any) -> Any:
    @translation(*targets, **options)
    def mine(op, self, approximate="none"):
        return getattr(op, op_type)(self)

    return type(name, (Pack,), {})(mine)


def test_what_is_no_conflict() -> None:
    one, two = of("One", "Tanh", "aten::gelu"), of("Two", "Sigmoid", "aten::gelu", priority=1)
    assert nodes(plugins=[one, two]) == ["Sigmoid"], "a priority goes before the order"
    newer = of("Newer", "Sigmoid", "aten::gelu", opset=19)
    assert nodes(plugins=[one, newer]) == ["Sigmoid"]
    assert nodes(plugins=[one, newer], opset_version=18) == ["Tanh"]


@pytest.mark.usefixtures("two")
def test_a_table_goes_before_both() -> None:
    table = {torch.ops.aten.gelu.default: lambda op, self, approximate="none": op.Abs(self)}
    assert nodes(custom_translation_table=table) == ["Abs"]
    assert nodes(custom_translation_table=table, prefer={"aten::gelu": "cases_first"}) == ["Abs"]

    def refuses(op, self, approximate="none"):
        raise onnxport.Unsupported("not today")

    table = {torch.ops.aten.gelu.default: refuses}
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="two translations of equal rank, a conflict"):
        onnxport.export(GELU, (X,), custom_translation_table=table)
    assert nodes(custom_translation_table=table, prefer={"aten::gelu": "cases_first"}) == ["Tanh"]


def test_two_of_one_plugin() -> None:
    @translation("aten::gelu")
    def one(op, self, approximate="none"):
        return op.Tanh(self)

    @translation("aten::gelu")
    def two(op, self, approximate="none"):
        return op.Sigmoid(self)

    with pytest.raises(PluginConflictError, match="Give one a priority, or remove one"):
        onnxport.export(GELU, (X,), plugins=[Pack(one, two)])


def test_three_of_them(packs: Any) -> None:
    for name in ("cases_a", "cases_b", "cases_c"):
        packs(name, SOURCE.format(target="aten::gelu", name=name, op="Tanh"))
    with pytest.raises(PluginConflictError, match="has 3 translations of equal rank") as caught:
        onnxport.export(GELU, (X,))
    assert sorted(caught.value.plugins) == ["cases_a", "cases_b", "cases_c"]
    assert nodes(prefer={"aten::gelu": "cases_b"}) == ["Tanh"]
    assert not onnxport.check(GELU, (X,)).passed


def test_python_functions_and_resolved_targets() -> None:
    def one(op, a, b):
        return a

    class Resolves:
        @hookimpl
        def onnxport_resolve(self, target):
            return [Translation(target, lambda op, self: op.Abs(self))] if "cases_prefer" in str(target) else None

    registry = discovery.load([Pack_of(one), Resolves()]).preferring({"operator.add": "Pack"}, 20)
    assert registry.candidates(operator.add)[0].plugin == "Pack"
    with torch.library._scoped_library("cases_prefer", "DEF") as library:
        library.define("op(Tensor self) -> Tensor")
        preferred = discovery.load([Resolves()]).preferring({"cases_prefer::op": "Resolves"}, 20)
        assert preferred.candidates(torch.ops.cases_prefer.op.default)[0].plugin == "Resolves"


def Pack_of(function: Any) -> Pack:
    translation(operator.add)(function)
    return Pack(function)


def test_find_mismatch_takes_it(packs: Any, tmp_path: Any) -> None:
    packs("cases_first", SOURCE.format(target="aten::relu", name="cases_first", op="Relu"))
    packs("cases_second", SOURCE.format(target="aten::relu", name="cases_second", op="Neg"))
    (tmp_path / "cases_model.py").write_text(MODEL.replace("GELU", "ReLU"))
    model = f"{tmp_path / 'cases_model.py'}:make"
    assert run("find-mismatch", model, "--prefer", "aten::relu=cases_first").exit_code == 0
    assert run("find-mismatch", model, "--prefer", "aten::relu=cases_second").exit_code == 1


def test_without_conflict_nothing_is_said() -> None:
    told = run("explain", "aten::gelu")
    assert told.exit_code == 0 and "conflict" not in told.stdout
    assert onnxport.check(Unary(torch.relu), (X,)).conflicts == []
    assert "cases_first" not in sys.modules
