"""The hooks of a capture and of what operators mean, used by a third party's plugin object, and its mistakes."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Container, hookimpl
from onnxport.host import discovery
from onnxport.kit import (
    Assertion,
    Explanation,
    Fill,
    Folding,
    Form,
    FunctionWriter,
    Inference,
    NodeCheck,
    ProgramPass,
    Region,
    Replacement,
    SizeFunction,
    SizeText,
    Strategy,
    Ties,
    Turn,
    View,
    Widening,
    Write,
)
from onnxport.vocabulary import patching
from support import FunctionModule
from torch import nn

X = torch.randn(2, 3)


def plugin(**hooks: Any) -> Any:
    """A plugin object whose hooks return these values, or are these functions."""
    made = types.SimpleNamespace()
    for name, value in hooks.items():
        function = value if isinstance(value, types.FunctionType) else lambda value=value: value
        setattr(made, name, hookimpl(function))
    return made


def errors_of(made: Any, ask: Any) -> str:
    loaded = discovery.Plugins([made])
    ask(loaded)
    (failed,) = loaded.failures
    return failed.error


# Replacements


class Library:
    @staticmethod
    def scale(x: torch.Tensor) -> torch.Tensor:
        return x * 2


def tripled(original: Any) -> Any:
    return lambda x: original(x) + x


def test_a_replacement_stands_while_a_model_is_captured() -> None:
    made = plugin(onnxport_patches=[Replacement(Library, "scale", tripled, why="twice isn't enough")])
    before = Library.__dict__["scale"]
    model = FunctionModule(lambda x: Library.scale(x))
    program = onnxport.export(model, (X,), plugins=[made])
    torch.testing.assert_close(program(X)[0], X * 3)
    assert Library.__dict__["scale"] is before and not patching._standing
    (record,) = [r for r in discovery.load([made]).replacements(model) if r.plugin != "builtin"]
    assert str(record) == f"{__name__}.Library.scale: twice isn't enough" and record.plugin == "SimpleNamespace"


def test_replacements_are_counted() -> None:
    record = Replacement(Library, "scale", tripled)
    with patching.applied(record):
        with patching.applied(record):
            torch.testing.assert_close(Library.scale(X), X * 3)
            assert len(patching._standing) == 1
        torch.testing.assert_close(Library.scale(X), X * 3)
    torch.testing.assert_close(Library.scale(X), X * 2)


@pytest.mark.parametrize(
    ("condition", "version", "expected"),
    [
        ("", "2.14.0", True),
        ("<2.16", "2.14.0+cpu", True),
        ("<2.14", "2.14.0", False),
        (">=2.12,<2.15", "2.14.1", True),
        (">=2.12,<2.15", "2.11", False),
        ("==2.14", "2.14.0", True),
        ("!=2.14", "2.14.0", False),
        ("<2.9", "2.14.0", False),
    ],
)
def test_releases_of_torch(condition: str, version: str, expected: bool) -> None:
    assert patching.holds(condition, version) is expected


def test_a_replacement_for_another_release_or_a_library_that_is_not_loaded_does_nothing() -> None:
    assert "onnxport_no_library" not in sys.modules
    records = [
        Replacement(Library, "scale", tripled, torch="<2.0"),
        Replacement("onnxport_no_library:Layer", "forward", tripled),
    ]
    made = plugin(onnxport_patches=records)
    program = onnxport.export(FunctionModule(lambda x: Library.scale(x)), (X,), plugins=[made])
    torch.testing.assert_close(program(X)[0], X * 2)
    assert not [r for r in discovery.load([made]).replacements(nn.Identity()) if r.plugin != "builtin"]
    assert not discovery.load([made]).failures


def test_a_replacement_by_name_of_a_library_that_is_loaded() -> None:
    made = plugin(onnxport_patches=[Replacement(f"{__name__}:Library", "scale", tripled)])
    program = onnxport.export(FunctionModule(lambda x: Library.scale(x)), (X,), plugins=[made])
    torch.testing.assert_close(program(X)[0], X * 3)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (Replacement(Library, "scale", tripled), "return a list"),
        ([Replacement(Library, "", tripled)], "name is ''"),
        ([Replacement(Library, "scale", 3)], "wrapper is 3, it must be a function"),
        ([Replacement(Library, "scale", tripled, torch="before 3")], "no condition on a version"),
        ([Replacement("my library", "scale", tripled)], "owner is 'my library'"),
        ([tripled], "expected Replacement objects and context managers"),
        ([Replacement(Library, "scales", tripled)], "there is no .*Library.scales to replace"),
        ([Replacement(Library, "scale", lambda original: original.oh)], "has no attribute 'oh'"),
    ],
)
def test_a_replacement_that_can_not_be_made_is_its_plugins_fault(records: Any, said: str) -> None:
    made = plugin(onnxport_patches=records)
    program = onnxport.export(FunctionModule(lambda x: Library.scale(x)), (X,), plugins=[made])
    torch.testing.assert_close(program(X)[0], X * 2)
    (failed,) = discovery.load([made]).failures
    assert re.search(said, failed.error), failed.error
    assert not patching._standing


# Program passes


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def halves(tensors: Any) -> dict[str, Any]:
    return {name: nn.Parameter(tensor / 2) for name, tensor in tensors.items()}


def halved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    return torch.export.ExportedProgram(
        program.graph_module,
        program.graph,
        program.graph_signature,
        halves(program.state_dict),
        program.range_constraints,
        program.module_call_graph,
        program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def test_a_program_pass_changes_the_program_and_the_weights_that_are_given_later() -> None:
    made = plugin(onnxport_program_passes=[ProgramPass("mypack.halved", halved, weights=halves)])
    model = Doubled().eval()
    program = onnxport.export(model, (X,), plugins=[made])
    torch.testing.assert_close(program(X)[0], X / 2)
    program.apply_weights({"weight": torch.full((3,), 8.0)})
    torch.testing.assert_close(program(X)[0], X * 4)
    torch.testing.assert_close(model(X), X)


def test_a_program_pass_may_refuse() -> None:
    def refuse(program: Any) -> Any:
        raise onnxport.CaptureError("not this one")

    made = plugin(onnxport_program_passes=[ProgramPass("mypack.refuse", refuse)])
    with pytest.raises(onnxport.CaptureError, match="not this one"):
        onnxport.export(nn.Linear(3, 2), (X,), plugins=[made])


@pytest.mark.parametrize("function", [lambda program: None, lambda program: program.oh])
def test_a_program_pass_that_fails_is_told_with_its_plugin(function: Any) -> None:
    made = plugin(onnxport_program_passes=[ProgramPass("mypack.broken", function)])
    with pytest.raises(onnxport.PluginError, match=r"pass 'mypack.broken' of plugin 'SimpleNamespace'"):
        onnxport.export(nn.Linear(3, 2), (X,), plugins=[made])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([ProgramPass("", halved)], "name is ''"),
        ([ProgramPass("a", 3)], "function is 3"),
        ([ProgramPass("a", halved, weights=3)], "weights is 3, it must be a function or None"),
        ([halved], "expected ProgramPass objects"),
    ],
)
def test_mistakes_in_program_passes(items: Any, said: str) -> None:
    assert said in errors_of(plugin(onnxport_program_passes=items), lambda loaded: loaded.program_passes())


def test_a_program_pass_in_a_place_that_does_not_exist() -> None:
    made = plugin(onnxport_program_passes=[ProgramPass("mypack.late", halved, after="nowhere")])
    with pytest.raises(onnxport.PluginError, match=r"after='nowhere'.*assumptions, plain_weights"):
        onnxport.export(nn.Linear(3, 2), (X,), plugins=[made])


# Strategies


def test_a_strategy_captures_what_the_usual_ways_do_not() -> None:
    def branch(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 1e9 else x * 2

    def by_cond(model: Any, args: Any, kwargs: Any, shapes: Any) -> torch.export.ExportedProgram:
        return torch.export.export(FunctionModule(lambda x: x * 2), args, kwargs, dynamic_shapes=shapes)

    def turn(error: Exception) -> Turn:
        return Turn.LAST if "data-dependent" in str(error).lower() else Turn.NEVER

    def refused(error: Exception) -> Turn:
        return Turn.INSTEAD

    never = plugin(onnxport_strategies=[Strategy("mine", by_cond, turn)])
    with pytest.raises(onnxport.CaptureError, match=r"Use torch\.cond"):  # values are no reason to try others last
        onnxport.export(FunctionModule(branch), (X,), plugins=[never])
    made = plugin(onnxport_strategies=[Strategy("mine", by_cond, refused)])
    torch.testing.assert_close(onnxport.export(FunctionModule(branch), (X,), plugins=[made])(X)[0], X * 2)


def test_a_strategy_may_call_for_its_turn_and_refuse_the_programs_of_others() -> None:
    def refuse(program: Any) -> None:
        raise ValueError("mine alone")

    def capture(model: Any, args: Any, kwargs: Any, shapes: Any) -> torch.export.ExportedProgram:
        return torch.export.export(FunctionModule(lambda x: x * 5), args, kwargs, dynamic_shapes=shapes)

    strategy = Strategy("mine", capture, lambda e: Turn.NOW if "mine alone" in str(e) else Turn.NEVER, refuse)
    program = onnxport.export(FunctionModule(lambda x: x), (X,), plugins=[plugin(onnxport_strategies=[strategy])])
    torch.testing.assert_close(program(X)[0], X * 5)


def test_a_strategy_that_fails_is_told_among_the_attempts() -> None:
    def capture(*_: Any) -> Any:
        raise ValueError("nor this way")

    def forward(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way")

    made = plugin(onnxport_strategies=[Strategy("mine", capture, lambda error: Turn.LAST)])
    with pytest.raises(onnxport.CaptureError, match="mine: ValueError: nor this way") as caught:
        onnxport.export(FunctionModule(forward), (X,), plugins=[made])
    assert [attempt.name for attempt in caught.value.attempts] == ["non-strict", "strict", "mine"]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([Strategy("mine", 3, lambda e: Turn.LAST)], "capture is 3"),
        ([Strategy("mine", lambda: None, None)], "turn is None"),
        ([Strategy("mine", lambda: None, lambda e: Turn.LAST, "x")], "check is 'x'"),
    ],
)
def test_mistakes_in_strategies(items: Any, said: str) -> None:
    assert said in errors_of(plugin(onnxport_strategies=items), lambda loaded: loaded.items("onnxport_strategies"))


# Advice


def test_advice_for_an_operator_that_nothing_serves() -> None:
    library = torch.library.Library("onnxport_hooks", "FRAGMENT")
    library.define("opaque(Tensor x) -> Tensor")
    library.impl("opaque", lambda x: x.clone(), "CompositeExplicitAutograd")
    asked: list[Any] = []

    def advice(subject: Any, place: str) -> str | None:
        asked.append(subject)
        return "Leave it out." if subject == "onnxport_hooks::opaque" else None

    try:
        with pytest.raises(onnxport.UnsupportedOperatorsError, match=r"Leave it out\."):
            model = FunctionModule(lambda x: torch.ops.onnxport_hooks.opaque(x))
            onnxport.export(model, (X,), plugins=[plugin(onnxport_advice=advice)])
    finally:
        library._destroy()
    assert asked == ["onnxport_hooks::opaque"]


def test_advice_for_a_capture_that_failed_has_its_error_and_line() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way")

    def advice(subject: Any, place: str) -> str:
        return f"Not at {place.rpartition(': ')[2]}" if "no way" in str(subject) else ""

    with pytest.raises(onnxport.CaptureError, match=r'Not at raise RuntimeError\("no way"\)$'):
        onnxport.export(FunctionModule(forward), (X,), plugins=[plugin(onnxport_advice=advice)])


def test_advice_for_a_size_that_became_a_number() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3) + 1

    def advice(subject: Any, place: str) -> str | None:
        return "Say -1" if isinstance(subject, onnxport.DynamicShapesError) and "reshape" in place else None

    with pytest.raises(onnxport.DynamicShapesError, match="Say -1, or leave the axis out"):
        onnxport.export(
            FunctionModule(forward), (X,), dynamic_shapes=(({0: "n"},),), plugins=[plugin(onnxport_advice=advice)]
        )


@pytest.mark.parametrize("value", [3, "two\nlines", ["a"]])
def test_advice_is_one_line(value: Any) -> None:
    made = plugin(onnxport_advice=lambda subject: value)
    assert "expected one line of text" in errors_of(made, lambda loaded: loaded.advice("mypack::op"))


# What operators mean


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (Assertion("a::b"), "returned an Assertion: return a list"),
        ([Assertion("relu")], "op is 'relu', it must be a qualified name"),
        ([View("a::b", None)], "the View of a::b: inverse is None"),
        ([Write("a::b", "b")], "value is 'b'"),
        ([Write("a::b", "a::c", when=3)], "when is 3"),
        ([Region("a::b", body=-1)], "body is -1"),
        ([Ties("a::b", is_itself=None)], "is_itself is None"),
        ([Fill("a::b", 1)], "value is 1"),
        ([Folding("a::b", when=True)], "when is True"),
        ([3], "expected records of the kinds View, Write"),
    ],
)
def test_mistakes_in_semantics(items: Any, said: str) -> None:
    assert said in errors_of(plugin(onnxport_semantics=items), lambda loaded: loaded.semantics)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (Inference("Relu"), "returned an Inference: return a list"),
        ([Form("Relu", "14", print)], "the Form of Relu: below is '14', it must be an opset"),
        ([Inference("")], "an Inference: op_type is '', it must be the name of an ONNX operator"),
        ([Inference("Relu", dims=3)], "the Inference of Relu: dims is 3"),
        ([Inference("Relu", dtypes="float")], "dtypes is 'float'"),
        ([Inference("Relu", domain=None)], "domain is None"),
        ([SizeFunction("FloorDiv", None)], "the SizeFunction of FloorDiv: emit is None"),
        ([SizeText("n")], "a SizeText: write is 'n', it must be a function"),
        ([FunctionWriter(None)], "a FunctionWriter: make is None"),
        ([Widening({})], "a Widening: types is {}"),
        ([NodeCheck(3)], "a NodeCheck: make is 3"),
        ([Explanation("no")], "an Explanation: explain is 'no'"),
        ([3], "expected records of the kinds Inference, Form, SizeFunction"),
    ],
)
def test_mistakes_in_emission(items: Any, said: str) -> None:
    assert said in errors_of(plugin(onnxport_emission=items), lambda loaded: loaded.items("onnxport_emission"))


# Containers by name


class State:
    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


class Derived(State):
    pass


def test_a_container_by_name_with_its_subclasses() -> None:
    name = f"{__name__}:State"
    container = Container(
        name, lambda s: ([s.hidden], type(s)), lambda c, cls: cls(*c), lambda s: ["hidden"], subclasses=True
    )
    made = plugin(onnxport_containers=[container, Container("onnxport_no_library:State", id, id)])
    model = FunctionModule(lambda state: state.hidden + 1)
    program = onnxport.export(model, (Derived(X),), plugins=[made])
    assert [value.name for value in program.model.graph.inputs] == ["args_0_hidden"]
    torch.testing.assert_close(program(Derived(X))[0], X + 1)
    assert "onnxport_no_library" not in sys.modules


@pytest.mark.parametrize(
    ("container", "said"),
    [
        (Container("State", id, id), "cls is 'State', it must be a class, or its name"),
        (Container(State, id, id, subclasses=1), "subclasses is 1"),
        (Container(State, id, id, counters="seen"), "counters is 'seen'"),
    ],
)
def test_mistakes_in_containers(container: Any, said: str) -> None:
    assert said in errors_of(plugin(onnxport_containers=[container]), lambda loaded: loaded.containers())


# Built-in stages


@pytest.fixture
def broken_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def fail() -> Any:
        raise ValueError("the stage is broken")

    name = "onnxport_broken_stage"
    module = types.ModuleType(name)
    module.onnxport_walkers = hookimpl(fail)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(discovery, "STAGE_PACKAGES", (*discovery.STAGE_PACKAGES, name))
    discovery.forget()
    yield name
    discovery.forget()


def test_a_failing_hook_of_a_built_in_stage_is_listed(broken_stage: str) -> None:
    loaded = discovery.load(())
    torch.testing.assert_close(onnxport.export(nn.ReLU(), (X,), plugins=())(X)[0], X.relu())
    assert [(info.name, info.error) for info in loaded.failures] == [
        (broken_stage, "onnxport_walkers failed: ValueError: the stage is broken")
    ]


def test_verification_without_a_plugin_is_refused_before_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("captured all the same")

    monkeypatch.setattr(discovery, "STAGE_PACKAGES", ())
    discovery.forget()
    try:
        with pytest.raises(onnxport.InputError, match="verify=True needs a plugin"):
            onnxport.export(FunctionModule(forward), (X,), plugins=(), verify=True)
    finally:
        discovery.forget()
