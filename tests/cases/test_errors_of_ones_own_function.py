"""An error within an author's function names the function and its own line; its cause is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from pack_support import X


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
