"""pluggy's options in plugins: wrappers, order, names of hooks; all as pluggy documents them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Container, Pass, PluginError, Translation, hookimpl
from onnxport.host import discovery
from pack_support import X, said

RELU = torch.nn.ReLU()


def as_max(op, self):
    return op.Max(self, 0)


def as_clip(op, self):
    return op.Clip(self, 0)


def as_neg(op, self):
    return op.Neg(op.Min(op.Neg(self), 0))


MAX, CLIP, NEG = (Translation("aten::relu", function) for function in (as_max, as_clip, as_neg))


def nodes(*chosen: Any, model: torch.nn.Module = RELU, **options: Any) -> list[str]:
    return [node.op_type for node in onnxport.export(model, (X,), plugins=chosen, **options).model.graph]


class Maxes:
    @hookimpl
    def onnxport_translations(self):
        return [MAX]


def test_a_wrapper_gets_the_results_of_the_others_and_gives_them_on() -> None:
    seen = []

    class New:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            seen.append("before")
            results = yield
            seen.append([len(items) for items in results])
            return results

    class Old:
        @hookimpl(hookwrapper=True)
        def onnxport_translations(self):
            outcome = yield
            seen.append(len(outcome.get_result()))

    class Listens:
        @hookimpl
        def onnxport_translations(self):
            seen.append("called")
            return [MAX]

    assert nodes(New(), Listens(), Old()) == ["Max"]
    assert seen[:2] == ["before", "called"]
    assert seen[2] == 2 and seen[3][0] == 1 and seen[3][1] > 1000, "one result a plugin"


def test_what_a_wrapper_adds_is_its_own() -> None:
    class Adds:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            return [*(yield), [CLIP]]

    class Forces:
        @hookimpl(hookwrapper=True)
        def onnxport_translations(self):
            outcome = yield
            outcome.force_result([*outcome.get_result(), [CLIP]])

    for plugin in (Adds(), Forces()):
        loaded = discovery.load([plugin])
        first, *rest = loaded.registry(20).candidates(torch.ops.aten.relu.default)
        assert (first.plugin, first.tier) == (type(plugin).__name__, 1)
        assert rest and all((record.plugin, record.tier) == ("builtin", 0) for record in rest)
        assert [info.translations for info in loaded.infos][1] == 1
        assert nodes(plugin) == ["Clip"]


def test_a_wrapper_takes_away_and_replaces() -> None:
    class OnlyOthers:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            return [[r for r in items if r.plugin != "Maxes"] for items in (yield)]

    class Raised:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            return [[replace(r, priority=7) if r.plugin == "Maxes" else r for r in items] for items in (yield)]

    assert nodes(OnlyOthers(), Maxes()) == ["Relu"]
    (first, *_) = discovery.load([Raised(), Maxes()]).registry(20).candidates(torch.ops.aten.relu.default)
    assert first.priority == 7 and first.function is as_max


@pytest.mark.parametrize("wrapper", ["wrapper", "hookwrapper"])
@pytest.mark.parametrize("place", ["before", "after", "twice", "never", "nonsense", "nothing"])
def test_a_wrapper_that_fails_is_left_out(wrapper: str, place: str) -> None:
    class Fails:
        @hookimpl(**{wrapper: True})
        def onnxport_translations(self):
            if place == "before":
                raise ZeroDivisionError("oh")
            if place == "never":
                return [[CLIP]]
            result = yield
            if place == "twice":
                yield
            if place == "after":
                raise ZeroDivisionError("oh")
            if place == "nonsense":
                if wrapper == "hookwrapper":
                    result.force_result([[None]])
                return [[3]]
            if wrapper == "hookwrapper":
                result.force_result(None)
            return None

    plugin = Fails()
    assert nodes(Maxes(), plugin) == ["Max"]
    failure = next(info for info in discovery.load([Maxes(), plugin]).infos if info.name == "Fails")
    with said() as heard:
        assert nodes(plugin) == ["Relu"]
    assert any("Fails" in text and "onnxport_translations failed" in text for text in heard)
    assert failure.name == "Fails"


def test_a_failing_implementation_is_left_out_and_wrappers_see_the_others() -> None:
    seen = []

    class Fails:
        @hookimpl
        def onnxport_translations(self):
            raise ZeroDivisionError("oh")

    class Wraps:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            results = yield
            seen.append(len(results))
            return results

    assert nodes(Wraps(), Fails(), Maxes()) == ["Max"]
    assert seen == [2], "the built-ins and Maxes; the wrapper isn't blamed for what went through it"
    loaded = discovery.load([Wraps(), Fails(), Maxes()])
    assert [info.name for info in loaded.failures] == ["Fails"]


def test_a_wrapper_may_deal_with_the_failure() -> None:
    class Fails:
        @hookimpl
        def onnxport_translations(self):
            raise ZeroDivisionError("oh")

    class Rescues:
        @hookimpl(wrapper=True)
        def onnxport_translations(self):
            try:
                return (yield)
            except ZeroDivisionError:
                return [[CLIP]]

    loaded = discovery.load([Rescues(), Fails()])
    (record,) = loaded.registry(20).candidates(torch.ops.aten.relu.default)
    assert record.plugin == "Rescues" and not loaded.failures


def test_order_of_calls() -> None:
    calls: list[str] = []

    def plugin(name: str, **options: Any) -> Any:
        class Each:
            @hookimpl(**options)
            def onnxport_translations(self):
                calls.append(name)
                return []

        return Each()

    chosen = [plugin("a"), plugin("last", trylast=True), plugin("b"), plugin("first", tryfirst=True)]
    discovery.load(chosen).registry(20)
    assert calls == ["first", "a", "b", "last"], "the built-ins are called behind b, and before last"


def test_the_first_answer_is_that_of_tryfirst() -> None:
    class Resolves:
        @hookimpl
        def onnxport_resolve(self, target):
            return [Translation(target, as_max)] if str(target) == "cases_pluggy.op.default" else None

    class First:
        @hookimpl(tryfirst=True)
        def onnxport_resolve(self, target, opset):
            return [Translation(target, as_clip)] if str(target) == "cases_pluggy.op.default" and opset == 20 else None

    class Wraps:
        @hookimpl(wrapper=True)
        def onnxport_resolve(self, target):
            found = yield
            return found and [replace(record, priority=3) for record in found]

    with torch.library._scoped_library("cases_pluggy", "DEF") as library:
        library.define("op(Tensor self) -> Tensor")
        target = torch.ops.cases_pluggy.op.default
        both = discovery.load([Resolves(), First()])
        assert both.registry(20).candidates(target)[0].function is as_clip
        assert both.registry(21).candidates(target)[0].function is as_max
        wrapped = discovery.load([Wraps(), Resolves()]).registry(20)
        assert wrapped.candidates(target)[0].priority == 3
        assert wrapped.candidates(torch.ops.quantized.add.default) == ()


def test_specname_and_several_implementations_of_one_hook() -> None:
    class Named:
        @hookimpl(specname="onnxport_translations")
        def my_records(self):
            return [MAX]

        @hookimpl(specname="onnxport_translations")
        def more_records(self):
            return [Translation("aten::neg", lambda op, self: op.Sub(0, self))]

        @hookimpl
        def onnxport_translations(self):
            return [Translation("aten::sin", lambda op, self: op.Cos(self))]

        @hookimpl(specname="onnxport_translations", wrapper=True)
        def watched(self):
            return (yield)

    registry = discovery.load([Named()]).registry(20)
    for name in ("relu", "neg", "sin"):
        assert registry.candidates(getattr(torch.ops.aten, name).default)[0].plugin == "Named"


def test_a_hook_of_another_project_may_be_optional() -> None:
    class Optional(Maxes):
        @hookimpl(optionalhook=True)
        def onnxport_of_tomorrow(self, nonsense):
            raise ZeroDivisionError

    assert nodes(Optional()) == ["Max"]


@pytest.mark.parametrize(
    ("options", "word"), [({"wrapper": True}, "wrapper=True"), ({"hookwrapper": True}, "hookwrapper=True")]
)
def test_a_wrapper_without_yield_is_refused(options: dict[str, Any], word: str) -> None:
    class NoGenerator:
        @hookimpl(**options)
        def onnxport_translations(self):
            return []

    with pytest.raises(PluginError, match=f"NoGenerator(.|\n)*{word}"):
        nodes(NoGenerator())


def test_specname_of_no_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl(specname="onnxport_translation")
        def records(self):
            return []

    with pytest.raises(PluginError, match="no hook is named 'onnxport_translation'"):
        nodes(Misspelt())


def test_every_hook_has_wrappers() -> None:
    seen: list[str] = []

    class State:
        pass

    class Watch:
        @hookimpl(wrapper=True)
        def onnxport_containers(self):
            results = yield
            seen.append("containers")
            return [*results, [Container(State, lambda _: ([], None), lambda *_: State())]]

        @hookimpl(hookwrapper=True)
        def onnxport_patches(self, model):
            outcome = yield
            seen.append(type(model).__name__)
            outcome.force_result([*outcome.get_result(), [contextlib.nullcontext()]])

        @hookimpl(wrapper=True)
        def onnxport_fx_passes(self):
            return [*(yield), [Pass("watch.fx", lambda module: seen.append("fx") or 0)]]

        @hookimpl(wrapper=True)
        def onnxport_ir_passes(self):
            return [*(yield), [Pass("watch.ir", lambda model: seen.append("ir") or 0, before="casts")]]

        @hookimpl(wrapper=True)
        def onnxport_decompositions(self):
            return [*(yield), {torch.ops.aten.hardswish.default: lambda x: x * 2}]

        @hookimpl(wrapper=True)
        def onnxport_commands(self, app):
            seen.append("commands")
            return (yield)

    assert nodes(Watch()) == ["Relu"]
    assert seen == ["containers", "ReLU", "fx", "ir"]
    loaded = discovery.load([Watch()])
    loaded.add_commands(object())
    assert seen[-1] == "commands" and torch.ops.aten.hardswish.default in loaded.registry(20).decompositions


def test_a_command_that_fails_leaves_the_others() -> None:
    app: list[str] = []

    def plugin(name: str, fails: bool = False) -> Any:
        class Each:
            @hookimpl
            def onnxport_commands(self, app):
                if fails:
                    raise ZeroDivisionError
                app.append(name)

        return Each()

    discovery.load([plugin("a"), plugin("b", True), plugin("c")]).add_commands(app)
    assert app == ["a", "c"], "each once"


def test_monitoring() -> None:
    calls: list[str] = []
    loaded = discovery.load([Maxes(), object_with_hooks()])
    undo = loaded.manager.add_hookcall_monitoring(
        lambda name, impls, kwargs: calls.append(name), lambda outcome, name, impls, kwargs: calls.append("done")
    )
    loaded.registry(20)
    undo()
    assert calls[:2] == ["onnxport_translations", "done"]


def object_with_hooks() -> Any:
    class Other:
        @hookimpl
        def onnxport_fx_passes(self):
            return []

    return Other()
