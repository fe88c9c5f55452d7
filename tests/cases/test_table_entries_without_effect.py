"""Entries of a table that do nothing are warned about, with the reason and what the model calls."""

from __future__ import annotations

import warnings
from typing import Any

import onnxport
import pytest
import torch
from pack_support import Unary, X, said

aten = torch.ops.aten


def relu(op, self):
    return op.Max(self, 0)


def gelu_without_approximate(op, self):
    return op.Gelu(self)


def refuses(op, self, *, approximate="none"):
    raise onnxport.Unsupported("not today")


def heard_of(model: torch.nn.Module, table: dict[Any, Any], **options: Any) -> list[str]:
    with said() as heard:
        onnxport.export(model.eval(), (X,), custom_translation_table=table, **options)
    return heard


@pytest.mark.parametrize(
    ("key", "model", "words"),
    [
        (aten.addmm.default, torch.nn.Linear(3, 3), "they call aten::linear"),
        (aten.relu_.default, torch.nn.ReLU(), "Did you mean aten::relu?"),
        (aten.relu6.default, torch.nn.ReLU(), "Did you mean aten::relu?"),
        (aten.add.Scalar, Unary(lambda x: x + x), "Did you mean aten::add.Tensor?"),
        (torch.sym_max, torch.nn.ReLU(), "they call aten::relu"),
        (aten.relu.default, Unary(lambda x: x), "they call nothing"),
    ],
)
def test_keys_that_no_node_has(key: Any, model: torch.nn.Module, words: str) -> None:
    for optimize in (True, False):
        (text,) = heard_of(model, {key: lambda op, *args, **kwargs: None}, optimize=optimize)
        assert "has no effect" in text and words in text


@pytest.mark.parametrize("function", [gelu_without_approximate, refuses])
def test_functions_that_were_passed_over(function: Any) -> None:
    (text,) = heard_of(torch.nn.Sequential(*[torch.nn.GELU("tanh")] * 2), {aten.gelu.default: function})
    assert "custom_translation_table[aten::gelu] was passed over" in text and function.__name__ in text
    assert "took its place" in text


def test_entries_that_serve_say_nothing() -> None:
    assert not heard_of(torch.nn.ReLU(), {aten.relu.default: relu})
    assert not heard_of(
        torch.nn.GELU("tanh"), {aten.gelu.default: [refuses, lambda op, self, approximate: op.Gelu(self)]}
    )
    wraps = {aten.relu.default: lambda op, self: op.translate("aten::relu", self)}
    assert not heard_of(torch.nn.ReLU(), wraps)


def silu_by_sigmoid(op, self):
    return op.Mul(self, op.translate("aten::sigmoid", self))


def test_entries_that_another_function_calls() -> None:
    silu, gelu = Unary(torch.nn.functional.silu), Unary(lambda x: torch.nn.functional.gelu(x, approximate="tanh"))
    both = {aten.silu.default: silu_by_sigmoid, aten.sigmoid.default: lambda op, self: op.HardSigmoid(self)}
    program = onnxport.export(silu, (X,), custom_translation_table=both)
    assert [node.op_type for node in program.model.graph] == ["HardSigmoid", "Mul"]
    assert not heard_of(silu, both)
    calls = lambda op, self, approximate: op.translate("aten::tanh", self)  # noqa: E731
    wraps = {aten.gelu.default: calls, aten.tanh.default: lambda op, self: op.translate("aten::tanh", self)}
    assert not heard_of(gelu, wraps)
    (text,) = heard_of(silu, {aten.silu.default: silu_by_sigmoid, aten.sigmoid.default: refuses_all})
    assert "custom_translation_table[aten::sigmoid] was passed over" in text and "not today" in text


def refuses_all(op, self):
    raise onnxport.Unsupported("not today")


def test_check_warns_too_at_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        onnxport.check(torch.nn.ReLU(), (X,), custom_translation_table={aten.tanh.default: relu})
    assert [warning.filename for warning in told] == [__file__]
