"""Errors come back from a pool of processes, and from pickle and copy, as what they were."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from onnxport import errors


@torch.library.custom_op("errors_through_pickle::nothing", mutates_args=())
def nothing(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


nothing.register_fake(torch.empty_like)


class Untranslatable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nothing(x) + nothing(x)


class Frozen(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 3)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x + self.seen


def negated(op, self):
    return op.Neg(self)


def failing(op, self):
    return op.Neg(self) if 1 / 0 else None


X = torch.arange(6.0).reshape(2, 3) - 2
RELU = torch.ops.aten.relu.default
CALLS: dict[str, Callable[[], Any]] = {
    "operators": lambda: onnxport.export(Untranslatable(), (X,)),
    "verification": lambda: onnxport.export(
        torch.nn.ReLU(), (X,), custom_translation_table={RELU: negated}, verify=True
    ),
    "translation": lambda: onnxport.export(torch.nn.ReLU(), (X,), custom_translation_table={RELU: failing}),
    "shapes": lambda: onnxport.export(Frozen(), (X,), dynamic_shapes=({0: "rows"},)),
    "capture": lambda: onnxport.export(Branching(), (X,)),
    "mutation": lambda: onnxport.export(Counter().eval(), (X,), mutation="error"),
    "opset": lambda: onnxport.export(torch.nn.ReLU(), (X,), opset_version=3),
    "plugin": lambda: onnxport.export(torch.nn.ReLU(), (X,), plugins=["no-such-plugin"]),
    "names": lambda: onnxport.export(torch.nn.ReLU(), (X,), input_names=["a", "b"]),
    "table": lambda: onnxport.export(torch.nn.ReLU(), (X,), custom_translation_table={RELU: []}),
    "weights": lambda: onnxport.export(torch.nn.Linear(3, 3), (X,)).apply_weights({"other": X}),
    "save": lambda: onnxport.export(torch.nn.ReLU(), (X,), Path("no such folder") / "m.onnx"),
}


def raised(name: str) -> onnxport.OnnxExporterError:
    with pytest.raises(onnxport.OnnxExporterError) as caught:
        CALLS[name]()
    return caught.value


def call(name: str) -> None:
    CALLS[name]()


@pytest.mark.parametrize("name", CALLS)
def test_pickle_and_copies(name: str) -> None:
    error = raised(name)
    kept = {key: value for key, value in vars(error).items() if key != "program"}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is type(error) and str(again) == str(error) and again.args == error.args
        assert {key: value for key, value in vars(again).items() if key != "program"} == kept
        assert getattr(again, "program", None) is None
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error) and again.as_dict() == error.as_dict() and again is not error
        assert getattr(again, "program", None) is getattr(error, "program", None)


def test_they_come_back_from_a_pool() -> None:
    local = {name: raised(name) for name in ("operators", "verification", "shapes", "save")}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, expected in local.items():
            with pytest.raises(type(expected)) as caught:
                pool.submit(call, name).result(timeout=120)
            assert str(caught.value) == str(expected)
            assert caught.value.as_dict() == expected.as_dict()


class CodedError(onnxport.InputError):
    """A user's own error: other parameters, a slot, and something that can't travel."""

    __slots__ = ("slot",)

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}", parameter="x")
        self.code, self.hint, self.slot, self.lock = code, hint, 5, threading.Lock()


class MissingError(onnxport.SaveError, FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is gone", path=path)
        self.errno, self.filename = errno.ENOENT, path


class UnloadableError(Exception):
    """As many exceptions are: pickle makes it with a call that its __init__ refuses."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("text")


def test_classes_of_users() -> None:
    again = pickle.loads(pickle.dumps(CodedError(3, hint="less")))
    assert (type(again), str(again), again.code, again.hint, again.slot, again.lock, again.parameter) == (
        CodedError, "code 3", 3, "less", 5, None, "x",
    )  # fmt: skip
    first = CodedError(3, hint="less")
    assert copy.deepcopy(first).lock is first.lock  # both have it, since it can't be copied
    gone = pickle.loads(pickle.dumps(MissingError("m.onnx")))
    assert (gone.errno, gone.filename, gone.path) == (errno.ENOENT, "m.onnx", "m.onnx")
    assert str(gone) == str(MissingError("m.onnx"))

    class LocalError(onnxport.OpsetError):
        def __str__(self) -> str:
            return f"opset {self.opset}!"

    again = pickle.loads(pickle.dumps(LocalError("told", opset=3)))  # no other process can find its class
    assert type(again) is onnxport.OpsetError and str(again) == "opset 3!" and again.opset == 3


def test_causes_and_notes() -> None:
    for cause, kept in ((ValueError("first"), True), (UnloadableError(1, 2), False)):
        with pytest.raises(onnxport.SaveError) as caught:
            raise onnxport.SaveError("second", path="p") from cause
        error = caught.value
        if sys.version_info >= (3, 11):
            error.add_note("a note")
        again = pickle.loads(pickle.dumps(error))
        assert repr(again.__cause__) == (repr(cause) if kept else "None") and again.__suppress_context__
        assert getattr(again, "__notes__", None) == getattr(error, "__notes__", None)
        assert copy.copy(error).__cause__ is cause
    refusal = pickle.loads(pickle.dumps(onnxport.Unsupported("no kernel")))
    assert refusal.reason == "no kernel" and str(refusal) == "no kernel"


def test_what_errors_say_is_in_attributes() -> None:
    here = Path(__file__).name
    shapes = raised("shapes")
    (axis,) = shapes.axes
    assert (axis.input, axis.axis, axis.name, axis.size) == ("x", 0, "rows", 2)
    assert here in axis.line and axis.line.endswith("return x.reshape(2, 3)")
    capture = raised("capture")
    assert here in capture.line and [attempt.name for attempt in capture.attempts] == ["non-strict"]
    translation = raised("translation")
    assert (translation.target, translation.plugin) == ("aten::relu", "custom_translation_table")
    assert translation.function.endswith(".failing")
    assert raised("mutation").targets == ["seen"]
    opset = raised("opset")
    assert (opset.opset, opset.lowest, opset.parameter) == (3, 13, "opset_version") and opset.highest >= 23
    assert raised("plugin").plugins == ["no-such-plugin"]
    names = raised("names")
    assert (names.parameter, names.names) == ("input_names", ["b"])
    assert (raised("table").target, raised("table").parameter) == ("aten::relu", "custom_translation_table")
    assert "other" in raised("weights").names
    assert Path(raised("save").path).name == "m.onnx"
    verification = raised("verification")
    assert not verification.result.passed and verification.program is not None
    refusal = raised("operators").as_dict()["refusals"][0]
    assert (refusal["target"], refusal["count"]) == ("errors_through_pickle::nothing", 2)


def test_conflicting_plugins() -> None:
    from onnxport.host.registry import Registry
    from onnxport.records.translations import Translation

    records = [Translation("aten::relu", negated, plugin="first"), Translation("aten::relu", failing, plugin="second")]
    with pytest.raises(onnxport.PluginConflictError) as caught:
        Registry(records).candidates(RELU)
    assert sorted(caught.value.plugins) == ["first", "second"] and caught.value.target == "aten::relu"
    assert sorted(name.rpartition(".")[2] for name in caught.value.functions) == ["failing", "negated"]


def test_every_class_has_its_attributes() -> None:
    """Attributes have defaults, so that a program may ask for them whatever raised the error."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(classes) > 15
    for cls in classes:
        if issubclass(cls, onnxport.OnnxExporterError):
            error = cls([]) if cls is onnxport.UnsupportedOperatorsError else cls("text")
            said = error.as_dict()
            assert said["type"] == cls.__name__ and said["message"] == str(error)
            assert pickle.loads(pickle.dumps(error)).as_dict() == said
    with pytest.raises(TypeError, match="no attribute 'colour'"):
        onnxport.InputError("text", colour=3)
