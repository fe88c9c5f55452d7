"""An error within an author's function names the function and its own line; its cause is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from onnxport import Pass, hookimpl
from onnxport.kit import ProgramPass
from pack_support import Unary, X, said


def divides(op, self):
    return op.Add(self, 1 / 0)


def adds(op, self):
    return self + 1


def subtracts(op, self):
    return 1 - self


def shapeless(op, self):
    y = op.call("case.domain", "Unknown", self)
    return op.Add(y, y.shape[0])


def enumerates(op, self):
    return op.Cast(self, to=99)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (divides, "raised ZeroDivisionError"),
        (adds, "write op.Add(a, b)"),
        (subtracts, "write op.Sub(a, b)"),
        (shapeless, "which isn't known: it is None"),
        (enumerates, "99 is not a valid DataType"),
    ],
)
def test_function_line_and_cause(function: Callable[..., Any], words: str) -> None:
    table = {torch.ops.aten.relu.default: function}
    with pytest.raises(onnxport.TranslationError) as raised:
        onnxport.export(torch.nn.ReLU(), (X,), custom_translation_table=table)
    text = str(raised.value)
    assert words in text and function.__name__ in text and "set_value_magic_handler" not in text
    (line,) = (line for line in text.split("\n") if "raised at:" in line)
    assert "test_errors_of_ones_own_function.py" in line
    assert isinstance(raised.value.__cause__, Exception)


def divide(*_args: Any) -> Any:
    return 1 / 0


def steps(*_args: Any) -> Any:
    return divide()


class Steps:
    """A plugin whose steps fail, or one of whose hooks does."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def given(self, hook: str, value: Any) -> Any:
        return value if hook == self.hook else []

    @hookimpl
    def onnxport_ir_passes(self) -> list[Pass]:
        return self.given("ir", [Pass("case.ir", steps)])

    @hookimpl
    def onnxport_fx_passes(self) -> list[Pass]:
        return self.given("fx", [Pass("case.fx", steps)])

    @hookimpl
    def onnxport_program_passes(self) -> list[ProgramPass]:
        return self.given("program", [ProgramPass("case.program", steps)])

    @hookimpl
    def onnxport_containers(self) -> list[Any]:
        return steps() if self.hook == "hook" else []


PLACE = "raised at tests/cases/test_errors_of_ones_own_function.py:"


@pytest.mark.parametrize("hook", ["ir", "fx", "program"])
def test_the_line_of_a_pass(hook: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(onnxport.PluginError) as raised:
        onnxport.export(torch.nn.ReLU(), (X,), plugins=[Steps(hook)])
    text = str(raised.value)
    assert f"'case.{hook}' of plugin 'Steps' failed: ZeroDivisionError: division by zero ({PLACE}" in text
    assert ": return 1 / 0)" in text and isinstance(raised.value.__cause__, ZeroDivisionError)


def test_the_line_of_a_hook(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(request.config.rootpath)
    with said() as heard:
        onnxport.export(torch.nn.ReLU(), (X,), plugins=[Steps("hook")])
    (text,) = heard
    assert f"onnxport_containers failed: ZeroDivisionError: division by zero ({PLACE}" in text


def test_the_line_of_a_decomposition(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(request.config.rootpath)
    with torch.library._scoped_library("test_lines", "DEF") as library:
        library.define("f(Tensor x) -> Tensor")
        library.impl("f", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("f", torch.empty_like, "Meta")

        class Decomposes:
            @hookimpl
            def onnxport_decompositions(self) -> dict[Any, Any]:
                return {torch.ops.test_lines.f.default: steps}

        with pytest.raises(onnxport.UnsupportedOperatorsError) as raised:
            onnxport.export(Unary(lambda x: torch.ops.test_lines.f(x)), (X,), plugins=[Decomposes()])
    assert f"decomposition: ZeroDivisionError: division by zero ({PLACE}" in str(raised.value)
