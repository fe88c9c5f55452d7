"""Names and places of passes: what is taken, missing or contradictory is an error that names plugin and pass."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from onnxport import Pass, PluginError, hookimpl
from onnxport.host.order import ordered
from onnxport_builtin.passes.order import PASSES
from pack_support import X

RELU = torch.nn.ReLU()


def nothing(_subject: Any) -> int:
    return 0


def plugin(*passes: Pass, kind: str = "ir", name: str = "Passes") -> Any:
    cls = type(name, (), {f"onnxport_{kind}_passes": hookimpl(lambda self: list(passes))})
    return cls()


def refused(*chosen: Any, **options: Any) -> str:
    with pytest.raises(PluginError) as caught:
        onnxport.export(RELU, (X,), plugins=chosen, **options)
    with pytest.raises(PluginError):
        onnxport.check(RELU, (X,), plugins=chosen)
    assert caught.value.plugins
    return str(caught.value)


@pytest.mark.parametrize("name", list(PASSES))
def test_names_of_the_cores_own_are_taken(name: str) -> None:
    assert f"The pass {name!r} of plugin 'Passes' can't be added: onnxport itself has" in refused(
        plugin(Pass(name, nothing))
    )


@pytest.mark.parametrize("kind", ["ir", "fx"])
def test_names_are_unique_among_plugins(kind: str) -> None:
    one, two = (plugin(Pass("case.same", nothing), kind=kind, name=name) for name in ("One", "Two"))
    message = refused(one, two)
    assert "'case.same' of plugin 'Two' can't be added: plugin 'One' has a pass of this name" in message
    twice = plugin(Pass("case.same", nothing), Pass("case.same", len), kind=kind)
    assert "plugin 'Passes' has a pass of this name" in refused(twice)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["ir", "fx"])
def test_places_that_are_not_there(place: str, kind: str) -> None:
    message = refused(plugin(Pass("case.mine", nothing, **{place: "nowhere"}), kind=kind))
    assert f"The pass 'case.mine' of plugin 'Passes' has {place}='nowhere', and there is no pass of that" in message
    if kind == "ir":
        assert "casts" in message


def test_an_onnx_pass_is_no_place_for_an_fx_pass() -> None:
    assert "before='casts'" in refused(plugin(Pass("case.mine", nothing, before="casts"), kind="fx"))


@pytest.mark.parametrize(
    "passes",
    [
        (Pass("a", nothing, before="b"), Pass("b", nothing, before="a")),
        (Pass("a", nothing, after="b"), Pass("b", nothing, after="c"), Pass("c", nothing, after="a")),
        (Pass("a", nothing, after="a"),),
    ],
)
def test_circles(passes: tuple[Pass, ...]) -> None:
    message = refused(plugin(*passes))
    assert "Passes wait for each other" in message and "'a' of plugin 'Passes'" in message


def test_places_that_contradict_each_other() -> None:
    message = refused(plugin(Pass("case.mine", nothing, before="dead_code", after="casts")))
    assert "'case.mine' of plugin 'Passes' has before='dead_code' and after='casts'" in message


def test_passes_that_are_not_needed_are_not_asked_for() -> None:
    onnxport.export(RELU, (X,), plugins=[plugin(Pass("casts", nothing))], optimize=False)


def test_order() -> None:
    def names(*added: Pass) -> list[str]:
        return [each.name for each in ordered([Pass(name, nothing) for name in "pqr"], added)]

    assert names() == ["p", "q", "r"]
    assert names(Pass("a", nothing), Pass("b", nothing)) == ["p", "q", "r", "a", "b"]
    assert names(Pass("a", nothing, before="q"), Pass("b", nothing, before="q")) == ["p", "a", "b", "q", "r"]
    assert names(Pass("a", nothing, after="p"), Pass("b", nothing, after="p")) == ["p", "a", "b", "q", "r"]
    assert names(Pass("a", nothing, after="p", before="r")) == ["p", "q", "a", "r"]
    assert names(Pass("a", nothing, before="b"), Pass("b", nothing, before="p")) == ["a", "b", "p", "q", "r"]
    assert names(Pass("a", nothing, after="b"), Pass("b", nothing)) == ["p", "q", "r", "b", "a"]


def test_passes_run_where_they_say_in_each_kind() -> None:
    ran: list[str] = []

    def step(name: str, **place: str) -> Pass:
        return Pass(name, lambda _subject: ran.append(name) or 0, **place)

    fx = plugin(step("late"), step("early", before="late"), kind="fx", name="Fx")
    ir = plugin(step("last"), step("first", before="dead_code"), kind="ir", name="Ir")
    onnxport.export(RELU, (X,), plugins=[fx, ir])
    assert ran == ["early", "late", "first", "last"]


@pytest.mark.parametrize("kind", ["ir", "fx"])
def test_passes_that_fail_or_return_nonsense(kind: str) -> None:
    def fails(_subject: Any) -> int:
        raise ZeroDivisionError("oh")

    with pytest.raises(PluginError) as caught:
        export_with(Pass("case.fails", fails), kind)
    assert "The pass 'case.fails' of plugin 'Passes' failed: ZeroDivisionError: oh" in str(caught.value)
    with pytest.raises(PluginError) as caught:
        export_with(Pass("case.text", lambda _: "done"), kind)
    assert "'case.text' of plugin 'Passes' returned 'done'" in str(caught.value)
    assert export_with(Pass("case.none", lambda _: None), kind)


def export_with(each: Pass, kind: str) -> onnxport.ONNXProgram:
    return onnxport.export(RELU, (X,), plugins=[plugin(each, kind=kind)])


def test_fx_passes_that_break_the_graph() -> None:
    def without_fake(module: torch.fx.GraphModule) -> int:
        (node,) = (n for n in module.graph.nodes if n.op == "call_function")
        with module.graph.inserting_after(node):
            node.replace_all_uses_with(
                module.graph.call_function(torch.ops.aten.neg.default, (node,)),
                delete_user_cb=lambda user: user.op == "output",
            )
        return 1

    def another_output(module: torch.fx.GraphModule) -> int:
        output = module.graph.output_node()
        output.args = ((*output.args[0], output.args[0][0]),)
        return 1

    with pytest.raises(PluginError) as caught:
        export_with(Pass("case.fake", without_fake), "fx")
    assert "'case.fake' of plugin 'Passes' made the node neg_default without a fake result" in str(caught.value)
    with pytest.raises(PluginError) as caught:
        export_with(Pass("case.more", another_output), "fx")
    assert "'case.more' of plugin 'Passes' changed the inputs or the number of outputs" in str(caught.value)
