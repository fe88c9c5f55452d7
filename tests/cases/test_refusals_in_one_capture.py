"""What no other capture can follow is refused after one, so that a refusal takes no longer than a capture."""

from __future__ import annotations

import dataclasses
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from support import FunctionModule

Tensor = torch.Tensor
WEIGHT = torch.randn(8, 8)


def branch(y: Tensor) -> Tensor:
    if y.sum() > 0:
        return y * 2
    return y


def while_loop(y: Tensor) -> Tensor:
    while y.abs().max() > 1:
        y = y / 2
    return y


def found(y: Tensor) -> Tensor:
    return y + 1 if (y > 3).any() else y


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "a branch on data": branch,
    "a loop on data": while_loop,
    "a choice by data": found,
    "a range of data": lambda y: sum(y[:, i] for i in range(int(y.sum()))),
    "a truth value": lambda y: y if bool(y[0, 0] > 0) else -y,
    "numbers of a reshape": lambda y: y.reshape(4, 2, 4),
    "numbers of a product": lambda y: y.mT @ torch.ones(4, 2),
    "a loop over a batch": lambda y: sum(y[i] for i in range(y.shape[0])),
    "rows of another batch": lambda y: y + torch.ones(4, 8),
    "a text made of a size": lambda y: y * 2 if "%d" % y.shape[0] == "4" else y,  # noqa: UP031
    "a table by a text of a size": lambda y: y * {"4": 2.0}["%d" % y.shape[0]],  # noqa: UP031
    "a table by a formatted size": lambda y: y * {"4": 2.0}[f"{y.shape[0]}"],
    "a number read from a text": lambda y: y * float(f"{y.shape[0]}"),
    "a table by a size": lambda y: y * {4: 2.0}[y.shape[0]],
    "a set of sizes": lambda y: y * 2 if y.shape[0] in {4, 8} else y,
    "rows of a mask": lambda y: y.masked_fill(torch.zeros(4, 1, dtype=torch.bool), 0.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_capture(name: str, caplog: pytest.LogCaptureFixture) -> None:
    module = FunctionModule(lambda x: REFUSED[name](torch.relu(x @ WEIGHT)))
    caplog.set_level("INFO", logger="onnxport")
    with pytest.raises(onnxport.OnnxExporterError, match=r"test_refusals_in_one_capture\.py:\d+: "):
        onnxport.export(module, (torch.randn(4, 8),), dynamic_shapes=(({0: "batch"},),))
    assert caplog.text.count("capture: torch.export") == 1


class Plain:
    """A class that pytree doesn't know."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclasses.dataclass
class Part:
    """One that is registered where a model returns it."""

    value: Any


def asserts(y: Tensor) -> Tensor:
    assert y.shape[1] == 5, "five columns"
    return y


def raises(y: Tensor) -> Tensor:
    if y.shape[0] != 5:
        raise ValueError("five rows")
    return y


def tells(y: Tensor) -> Tensor:
    torch._check(y.shape[0] == 5, lambda: "five rows")
    return y


#: What forward does with the example itself, without a capture as well.
FAILING: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "an assertion": (asserts, "five columns"),
    "a check": (raises, "five rows"),
    "torch's check": (tells, "five rows"),
    "sizes that do not fit": (lambda y: y @ torch.ones(3, 3), "tensor|reduction|shape"),
    "a missing key": (lambda y: {"a": y}["b"], "KeyError"),
    "a missing attribute": (lambda y: y.nothing, "nothing"),
    "a text added": (lambda y: y + "a", "str"),
    "a missing file": (lambda y: Path("/nowhere/at/all").read_text(), "No such file"),
    "too few arguments": (lambda y: torch.nn.functional.linear(y), "missing|weight"),
}


def refused(function: Callable[[Tensor], Any], shapes: Any, caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level("INFO", logger="onnxport")
    module = FunctionModule(lambda x: function(torch.relu(x @ WEIGHT)))
    with pytest.raises(onnxport.CaptureError) as caught:
        onnxport.export(module, (torch.randn(4, 8),), dynamic_shapes=shapes)
    assert caplog.text.count("capture: torch.export") == 1
    return str(caught.value)


@pytest.mark.parametrize("shapes", [None, (({0: "batch"},),)], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", FAILING)
def test_what_fails_on_the_example_itself(name: str, shapes: Any, caplog: pytest.LogCaptureFixture) -> None:
    function, words = FAILING[name]
    text = refused(function, shapes, caplog)
    assert re.search(words, text) and re.search(r"test_refusals_in_one_capture\.py:\d+: ", text)
    assert "Without an export, the model raises this as well: give example inputs that it takes." in text


@pytest.mark.parametrize("output", [Plain, lambda y: [Part(y), Plain(y)], lambda y: (part for part in [y])])
@pytest.mark.parametrize("shapes", [None, (({0: "batch"},),)], ids=["static", "dynamic"])
def test_outputs_that_pytree_does_not_know(output: Any, shapes: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = refused(output, shapes, caplog)
    assert "return a dict or register a Container" in text


def test_the_example_is_run_on_copies() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(1))
            self.table: Any = None

        def forward(self, x: Tensor) -> Any:
            self.steps += 1
            x.add_(1)
            self.table = x.shape[0] if self.table is None else self.table
            return Plain(x)

    model, x = Counting().eval(), torch.zeros(2, 3)
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(model, (x,))
    assert not isinstance(model.table, Tensor)
    assert model.steps.tolist() == [0] and x.tolist() == torch.zeros(2, 3).tolist()


def test_types_that_only_a_strict_capture_has() -> None:
    """Without a capture these don't fail, so the strict one is tried."""

    def whole(x: Tensor) -> Tensor:
        if not isinstance(x.shape[0], int) or type(x) is not torch.Tensor:
            raise TypeError("a whole number is wanted")
        return x + x.shape[0]

    program = onnxport.export(FunctionModule(whole), (torch.ones(4, 8),), dynamic_shapes=(({0: "batch"},),))
    assert program(torch.ones(2, 8))[0].tolist() == (torch.ones(2, 8) + 2).tolist()


def test_hints_let_sizes_become_numbers() -> None:
    table = FunctionModule(lambda x: x * {4: 2.0}[x.shape[0]])
    program = onnxport.export(table, (torch.ones(4, 8),), dynamic_shapes=(({0: torch.export.Dim.AUTO},),))
    assert program(torch.ones(4, 8))[0].sum() == 64


def test_functions_of_numpy_are_followed() -> None:
    model = FunctionModule(lambda x: x + torch.from_numpy(np.tanh(x.numpy())))
    program = onnxport.export(model, (torch.ones(4, 8),), dynamic_shapes=(({0: "batch"},),))
    given = torch.randn(2, 8)
    torch.testing.assert_close(program(given)[0], given + given.tanh())


def test_a_failed_export_leaves_no_marks_on_the_example() -> None:
    """Or the next export, of the same example, has dynamic axes that nobody asked for."""
    x, table = torch.ones(4, 8), FunctionModule(lambda x: x * {4: 2.0}[x.shape[0]])
    with pytest.raises(onnxport.CaptureError):
        onnxport.export(table, (x,), dynamic_shapes=(({0: "batch"},),))
    assert not vars(x)
    assert onnxport.export(table, (x,))(x)[0].sum() == 64


def test_an_assertion_on_data_is_followed_by_a_strict_capture(tmp_path: Path) -> None:
    source = tmp_path / "asserting.py"  # pytest rewrites assertions of its own modules
    source.write_text("def forward(x):\n    assert x.sum() > -1e9\n    return x * 2\n")
    program = onnxport.export(
        FunctionModule(runpy.run_path(str(source))["forward"]), (torch.randn(4, 8),), dynamic_shapes=(({0: "batch"},),)
    )
    assert program(torch.ones(2, 8))[0].sum() == 32
