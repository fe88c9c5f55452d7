"""Discovery, isolation, restriction."""

from __future__ import annotations

import contextlib
import logging
import types

import importlib_metadata
import onnxport
import pytest
import torch
from onnxport import Container, Pass, PluginConflictError, PluginError, Translation, hookimpl
from onnxport.host import discovery
from onnxport.records.translations import THIRD_PARTY_TIER

GELU = torch.ops.aten.gelu.default


def gelu(op, self, *, approximate="none"):
    return op.Identity(self)


class Good:
    @hookimpl
    def onnxport_translations(self):
        return [Translation("aten::gelu", gelu), Translation("good::op", gelu)]


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is loaded or chosen, before and after; returns a function that sets the entry points."""
    monkeypatch.delenv(discovery.ENVIRONMENT_VARIABLE, raising=False)
    found = []
    monkeypatch.setattr(
        discovery.importlib_metadata, "entry_points", lambda group: [e for e in found if group == e.group]
    )
    discovery.forget()

    def install(name, obj):
        module = types.ModuleType(f"fake_{name}")
        monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
        module.plugin = obj
        found.append(importlib_metadata.EntryPoint(name, f"{module.__name__}:plugin", "onnxport"))
        discovery.forget()

    yield install
    monkeypatch.undo()
    discovery.forget()


def test_builtins_are_a_plugin(fresh):
    loaded = discovery.load()
    assert [info.name for info in loaded.infos] == ["builtin"]
    assert loaded.infos[0].translations == len(loaded.registry(18)) > 0
    assert not loaded.failures
    assert all(record.tier == 0 and record.plugin == "builtin" for record in loaded.registry(18).table())


def test_registries_are_compiled_once(fresh):
    assert discovery.load(None).registry(18) is discovery.load(None).registry(18)
    assert discovery.load(None).registry(18) is not discovery.load(None).registry(20)
    assert discovery.load(()).registry(20).opset == 20


def test_installed_plugins_go_before_builtins(fresh):
    fresh("good", Good())
    loaded = discovery.load()
    assert loaded.names == ["builtin", "good"]
    first, *rest = loaded.registry(18).candidates(GELU)
    assert (first.plugin, first.tier) == ("good", THIRD_PARTY_TIER)
    assert all(r.plugin == "builtin" for r in rest)


def test_choice_by_argument(fresh):
    fresh("good", Good())
    for chosen in ((), ["builtin"]):
        assert discovery.load(chosen).names == ["builtin"]
    assert discovery.load(["good"]).names == ["builtin", "good"]
    with pytest.raises(PluginError, match=r"'bad'.*builtin, good"):
        discovery.load(["bad"])
    with pytest.raises(PluginError, match="sequence"):
        discovery.load("good")


def test_a_plugin_that_is_not_installed_can_be_given(fresh):
    plugin = Good()
    loaded = discovery.load([plugin])
    assert loaded.names == ["builtin", "Good"]
    assert loaded is discovery.load([plugin])


@pytest.mark.parametrize(
    ("value", "names"),
    [("", ["builtin"]), ("()", ["builtin"]), ("builtin", ["builtin"]), ("good , builtin", ["builtin", "good"])],
)
def test_choice_by_environment(fresh, monkeypatch, value, names):
    fresh("good", Good())
    fresh("more", Good())
    monkeypatch.setenv(discovery.ENVIRONMENT_VARIABLE, value)
    assert discovery.load().names == names
    monkeypatch.setenv(discovery.ENVIRONMENT_VARIABLE, "more")
    assert discovery.load().names == names, "the variable is read once"
    assert discovery.load(["more"]).names == ["builtin", "more"]


def test_unknown_name_in_the_environment(fresh, monkeypatch):
    monkeypatch.setenv(discovery.ENVIRONMENT_VARIABLE, "nowhere")
    with pytest.raises(PluginError, match="nowhere"):
        discovery.load()


def test_failing_import_is_recorded_and_skipped(fresh, caplog):
    fresh("good", Good())
    fresh("missing", None)
    del __import__("sys").modules["fake_missing"]
    with caplog.at_level(logging.WARNING, logger="onnxport"):
        loaded = discovery.load()
    assert loaded.names == ["builtin", "good"]
    (failed,) = loaded.failures
    assert failed.name == "missing"
    assert "ModuleNotFoundError" in failed.error
    assert "missing" in caplog.text
    assert "failed" in loaded.advice("missing::op")


def test_failing_hooks_are_recorded_and_skipped(fresh):
    class Raises:
        @hookimpl
        def onnxport_translations(self):
            raise ZeroDivisionError("oh")

        @hookimpl
        def onnxport_decompositions(self):
            raise KeyError("no")

        @hookimpl
        def onnxport_resolve(self, target):
            raise IndexError("resolve")

    class Wrong:
        @hookimpl
        def onnxport_translations(self):
            return [gelu]

    class Misspelt:
        @hookimpl
        def onnxport_translation(self):
            return []

    class Twice:
        @hookimpl
        def onnxport_translations(self, nonsense):
            return []

    for name, plugin in {"raises": Raises(), "wrong": Wrong(), "misspelt": Misspelt(), "args": Twice()}.items():
        fresh(name, plugin)
    fresh("good", Good())
    loaded = discovery.load()
    errors = {info.name: info.error for info in loaded.infos}
    assert "ZeroDivisionError: oh" in errors["raises"] and "KeyError" in errors["raises"]
    assert "Translation objects" in errors["wrong"]
    assert "no hook is named 'onnxport_translation'" in errors["misspelt"]
    assert "nonsense" in errors["args"]
    assert errors["good"] == ""
    registry = loaded.registry(18)
    assert registry.candidates(GELU)[0].plugin == "good"
    assert registry.candidates(torch.ops.quantized.add.default) == ()
    assert "IndexError" in next(info.error for info in loaded.infos if info.name == "raises")


def test_reserved_and_repeated_names(fresh, caplog):
    fresh("builtin", Good())
    fresh("good", Good())
    fresh("good", Good())
    assert discovery.load().names == ["builtin", "good"]
    assert "taken" in caplog.text


def test_conflict_between_two_installed_plugins(fresh):
    fresh("one", Good())
    fresh("two", Good())
    registry = discovery.load().registry(18)
    with pytest.raises(PluginConflictError, match=r"'one'.*'two'"):
        registry.candidates(GELU)
    assert discovery.load(["one"]).registry(18).candidates(GELU)


def test_the_other_hooks(fresh):
    container = Container(dict, lambda d: (list(d.values()), tuple(d)), lambda c, k: dict(zip(k, c)))
    step = Pass("step", lambda model: 0)
    entered = []

    @contextlib.contextmanager
    def patch():
        entered.append(1)
        yield

    class All:
        @hookimpl
        def onnxport_decompositions(self):
            return {GELU: gelu}

        @hookimpl
        def onnxport_containers(self):
            return [container]

        @hookimpl
        def onnxport_patches(self):
            return [patch()]

        @hookimpl
        def onnxport_fx_passes(self):
            return [step]

        @hookimpl
        def onnxport_ir_passes(self):
            return (step,)

        @hookimpl
        def onnxport_commands(self, app):
            app.append("command")

        @hookimpl
        def onnxport_resolve(self, target):
            return [Translation(target, gelu)] if getattr(target, "namespace", "") == "quantized" else None

    fresh("all", All())
    loaded = discovery.load()
    assert loaded.registry(18).decompositions[GELU] is gelu
    assert loaded.containers()[0] == container
    assert loaded.fx_passes() == [step] and loaded.ir_passes()[-1] == step
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for manager in loaded.patches(torch.nn.Identity()):
                stack.enter_context(manager)
    assert entered == [1, 1]
    app = []
    loaded.add_commands(app)
    assert app == ["command"]
    assert loaded.registry(18).candidates(torch.ops.quantized.add.default)[0].plugin == "all"
    assert not loaded.failures


def test_advice(fresh):
    assert discovery.load().advice("torchvision::nms") == "pip install onnxport-torchvision"
    assert discovery.load().advice("aten::add") == ""
    fresh("good", Good())
    assert "left out" in discovery.load(()).advice("good::op")


def test_fx_and_ir_passes_run_in_an_export(fresh):
    seen = []

    def sin_to_cos(module):
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.sin.default:
                node.target = torch.ops.aten.cos.default
        return 1

    class Passes:
        @hookimpl
        def onnxport_fx_passes(self):
            return [Pass("sin_to_cos", sin_to_cos)]

        @hookimpl
        def onnxport_ir_passes(self):
            return [Pass("look", lambda model: seen.append([n.op_type for n in model.graph]) or 0)]

    class Sin(torch.nn.Module):
        def forward(self, x):
            return torch.sin(x)

    program = torch.export.export(Sin().eval(), (torch.ones(2),))
    assert [n.op_type for n in onnxport.export(program, plugins=[Passes()]).model.graph] == ["Cos"]
    assert seen == [["Cos"]]
    assert [n.op_type for n in onnxport.export(program, plugins=()).model.graph] == ["Sin"], "the program is left alone"


def test_stages_are_built_in() -> None:
    loaded = discovery.load(())
    assert [type(each).__module__ for each in loaded.items("onnxport_functionalizers")] == ["onnxport_functional"]
    assert [each.__module__ for each in loaded.items("onnxport_walkers")] == ["onnxport_functions"]
    assert not loaded.failures
