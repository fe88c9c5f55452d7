"""What a hook returns that it may not is its plugin's fault alone: it is recorded, told, and the export goes on."""

from __future__ import annotations

import contextlib
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Container, Pass, Translation, hookimpl
from onnxport.host import discovery
from pack_support import X, said

RELU = torch.nn.ReLU()
HOOKS = (
    "onnxport_translations",
    "onnxport_decompositions",
    "onnxport_containers",
    "onnxport_patches",
    "onnxport_fx_passes",
    "onnxport_ir_passes",
)


def relu(op, self):
    return op.Max(self, 0)


def half_way():
    yield
    raise ZeroDivisionError("half-way")


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError("repr")


class Plugin:
    """A plugin whose one hook gives a value."""

    def __init__(self, hook: str, value: Any) -> None:
        def call() -> Any:
            return value() if callable(value) and not isinstance(value, (type, Translation)) else value

        setattr(self, hook, hookimpl(call))


def exported(*chosen: object) -> tuple[list[str], list[str]]:
    """The nodes of an export that needs nothing of the plugins, and what was said."""
    with said() as heard:
        program = onnxport.export(RELU, (X,), plugins=chosen)
    return [node.op_type for node in program.model.graph], heard


WRONG = [
    [None],
    (None,),
    [[]],
    3,
    "abc",
    b"abc",
    {"a": 1},
    {1, 2},
    [3.5],
    half_way,
    object(),
    [Unprintable()],
    True,
    int,
]


@pytest.mark.parametrize("hook", HOOKS)
def test_wrong_items(hook: str) -> None:
    wrong = [Plugin(hook, value) for value in WRONG]
    chosen = [*wrong, Plugin("onnxport_translations", [good()])]
    nodes, heard = exported(*chosen)
    assert nodes == ["Max"], "what another plugin gives is used"
    *failed, fine = discovery.load(chosen).infos[1:]
    assert len(failed) == len(WRONG) and all(f"{hook} failed" in info.error for info in failed)
    assert fine.translations == 1 and not fine.error
    assert len([text for text in heard if f"{hook} failed" in text]) == len(WRONG), "each is told once"


@pytest.mark.parametrize("value", [None, [], (), iter([])], ids=["None", "list", "tuple", "iterator"])
def test_nothing_is_no_mistake(value: Any) -> None:
    hooks = [*HOOKS, "onnxport_resolve", "onnxport_commands"]
    nodes, heard = exported(*(Plugin(hook, value) for hook in hooks if hook != "onnxport_decompositions"))
    assert nodes == ["Relu"] and not heard
    nodes, heard = exported(Plugin("onnxport_decompositions", None), Plugin("onnxport_decompositions", {}))
    assert nodes == ["Relu"] and not heard


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_that_raise(hook: str) -> None:
    def raising(error: BaseException) -> Any:
        def call() -> Any:
            raise error

        return call

    errors = [ValueError("x"), SystemExit(3), RecursionError(), StopIteration(), MemoryError(), UserWarning()]
    nodes, heard = exported(*(Plugin(hook, raising(error)) for error in errors))
    assert nodes == ["Relu"]
    for error in errors:
        assert any(f"{hook} failed: {type(error).__name__}" in text for text in heard)


def good() -> Translation:
    return Translation("aten::relu", relu)


RECORDS = [
    (lambda: Translation("aten::relu", None), "function is None"),
    (lambda: Translation("aten::relu", "relu"), "function is 'relu'"),
    (lambda: Translation("relu", relu), "'relu' is no operator name"),
    (lambda: Translation(None, relu), "neither an operator name"),
    (lambda: Translation(torch.ops.aten.relu, relu), "packet of overloads"),
    (lambda: Translation("aten::relu", relu, opset="20"), "opset is '20'"),
    (lambda: Translation("aten::relu", relu, opset=17), "opset is 17"),
    (lambda: Translation("aten::relu", relu, opset=99), "opset is 99"),
    (lambda: Translation("aten::relu", relu, priority="high"), "priority is 'high'"),
    (lambda: Translation("aten::relu", relu, complex=1), "complex is 1"),
]


def test_records_that_cannot_be() -> None:
    chosen = [Plugin("onnxport_translations", lambda record=record: [good(), record()]) for record, _ in RECORDS]
    nodes, _ = exported(*chosen)
    assert nodes == ["Relu"], "such a hook is skipped as a whole"
    for info, (_, words) in zip(discovery.load(chosen).infos[1:], RECORDS, strict=True):
        assert words in info.error and not info.translations


def test_a_single_record_is_told_to_be_put_into_a_list() -> None:
    _, heard = exported(Plugin("onnxport_translations", good()))
    assert any("return a list of Translation objects" in text for text in heard)


def test_an_overload_is_as_good_as_its_name() -> None:
    record = Translation(torch.ops.aten.relu.default, relu)
    nodes, heard = exported(Plugin("onnxport_translations", [record]))
    assert nodes == ["Max"] and not heard


FIELDS = [
    ("onnxport_ir_passes", lambda: Pass("p", None), "function is None"),
    ("onnxport_ir_passes", lambda: Pass(None, len), "name is None"),
    ("onnxport_ir_passes", lambda: Pass("", len), "name is ''"),
    ("onnxport_fx_passes", lambda: Pass("p", len, before=3), "before is 3"),
    ("onnxport_fx_passes", lambda: Pass("p", len, after=len), "after is <built-in"),
    ("onnxport_containers", lambda: Container("State", len, len), "cls is 'State'"),
    ("onnxport_containers", lambda: Container(Plugin, None, len), "flatten is None"),
    ("onnxport_containers", lambda: Container(Plugin, len, 3), "unflatten is 3"),
    ("onnxport_containers", lambda: Container(Plugin, len, len, names=["a"]), r"names is ['a']"),
    ("onnxport_containers", lambda: Container(Plugin, len, len, serialized_name=3), "serialized_name is 3"),
]


def test_fields_that_cannot_be() -> None:
    chosen = [Plugin(hook, lambda item=item: [item()]) for hook, item, _ in FIELDS]
    nodes, _ = exported(*chosen)
    assert nodes == ["Relu"]
    for info, (hook, _, words) in zip(discovery.load(chosen).infos[1:], FIELDS, strict=True):
        assert words in info.error and hook in info.error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"aten::relu": relu}, "is no OpOverload"),
        ({torch.ops.aten.relu: relu}, "packet of overloads"),
        ({torch.ops.aten.relu.default: None}, "the function is None"),
        ([(torch.ops.aten.relu.default, relu)], "expected a dict"),
    ],
)
def test_decompositions_that_cannot_be(value: Any, words: str) -> None:
    nodes, heard = exported(Plugin("onnxport_decompositions", value))
    assert nodes == ["Relu"]
    assert any(words in text for text in heard), heard


@pytest.mark.parametrize("answer", [[None], 3, "abc", [relu], {"a": good()}, good(), half_way])
def test_answers_for_one_target(answer: Any) -> None:
    class Answers:
        @hookimpl
        def onnxport_resolve(self, target):
            return answer() if answer is half_way else answer

    class Knows:
        @hookimpl
        def onnxport_resolve(self, target):
            return [Translation("what it says", relu)] if "no_items" in str(target) else None

    with torch.library._scoped_library("no_items", "DEF") as library:
        library.define("op(Tensor self) -> Tensor")
        loaded = discovery.load([Answers(), Knows()])
        with said() as heard:
            (record,) = loaded.registry(20).candidates(torch.ops.no_items.op.default)
    assert (record.plugin, record.target) == ("Knows", "no_items::op")
    assert any("onnxport_resolve failed" in text for text in heard)
    nodes, _ = exported(Answers())
    assert nodes == ["Relu"]


@pytest.mark.parametrize("place", ["enter", "leave"])
def test_context_managers_that_fail(place: str) -> None:
    inside: list[str] = []

    @contextlib.contextmanager
    def broken():
        if place == "enter":
            raise ZeroDivisionError("oh")
        inside.append("in")
        yield
        raise ZeroDivisionError("oh")

    @contextlib.contextmanager
    def fine():
        inside.append("fine")
        yield
        inside.append("undone")

    class Patches:
        @hookimpl
        def onnxport_patches(self):
            return [broken(), fine()]

    nodes, heard = exported(Patches())
    assert nodes == ["Relu"] and inside[-2:] == ["fine", "undone"]
    assert any("a context manager of onnxport_patches failed: ZeroDivisionError" in text for text in heard)


def test_a_context_manager_sees_the_error_of_a_capture_and_does_not_hide_it() -> None:
    seen: list[type] = []

    class Swallows:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, traceback):
            seen.append(kind)
            return True

    class Patches:
        @hookimpl
        def onnxport_patches(self):
            return [Swallows()]

    class Fails(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("of the model")

    with pytest.raises(onnxport.CaptureError, match="of the model"):
        onnxport.export(Fails(), (X,), plugins=[Patches()])
    assert seen and all(kind is not None for kind in seen)


def test_what_is_wrong_is_listed_and_the_rest_is_used(packs) -> None:
    packs(
        "cases_partly",
        "from onnxport import Pass, Translation, hookimpl\n"
        "def relu(op, self): return op.Max(self, 0)\n"
        "@hookimpl\ndef onnxport_translations(): return [Translation('aten::relu', relu)]\n"
        "@hookimpl\ndef onnxport_ir_passes(): return [None]\n"
        "@hookimpl\ndef onnxport_containers(): return 'abc'\n",
    )
    program = onnxport.export(RELU, (X,))
    assert [node.op_type for node in program.model.graph] == ["Max"], "the translation is used all the same"
    info = next(info for info in discovery.load().infos if info.name == "cases_partly")
    assert "onnxport_ir_passes failed: TypeError: expected Pass objects, got None" in info.error
    assert "onnxport_containers failed: TypeError: expected a list of Container objects, got 'abc'" in info.error
    assert info.translations == 1
