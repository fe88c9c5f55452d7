"""``custom_translation_table``: traced functions, script functions, functions of ``op``, sequences, bad tables."""

from __future__ import annotations

import operator
from typing import Any

import onnxport
import onnxscript
import pytest
import torch
from onnxscript import opset18 as onnx_op
from support import export_and_compare, op_types, run_model

_GELU = torch.ops.aten.gelu.default
_DOMAIN = onnxscript.values.Opset("tests.functions", 1)


@onnxscript.script(_DOMAIN)
def sigmoid_gelu(x):
    return onnx_op.Mul(x, onnx_op.Sigmoid(x))


class Gelu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x)


X = torch.randn(2, 3)


def _export(functions: Any) -> onnxport.ONNXProgram:
    return onnxport.export(Gelu(), (X,), custom_translation_table={_GELU: functions})


def _expect_silu(program: onnxport.ONNXProgram) -> None:
    torch.testing.assert_close(run_model(program, (X,))[0], torch.nn.functional.silu(X))


def test_traced_function_over_an_opset() -> None:
    def silu(self: Any, approximate: str = "none") -> Any:
        return onnx_op.Mul(self, onnx_op.Sigmoid(self))

    program = _export(silu)
    assert op_types(program) == ["Sigmoid", "Mul"]
    _expect_silu(program)


def test_traced_function_with_names_of_its_own_and_arithmetic() -> None:
    program = _export(lambda x: x * onnx_op.Sigmoid(x))
    _expect_silu(program)


def test_script_function_stays_a_local_function() -> None:
    program = _export(sigmoid_gelu)
    assert op_types(program) == ["sigmoid_gelu"]
    assert ("tests.functions", "sigmoid_gelu", "") in program.model.functions
    _expect_silu(program)


def test_function_of_the_builder() -> None:
    def silu(op: Any, self: Any, *, approximate: str) -> Any:
        return op.Mul(self, op.Sigmoid(self))

    _expect_silu(_export(silu))


def test_sequence_is_tried_in_order() -> None:
    def declines(op: Any, self: Any, *, approximate: str) -> Any:
        op.Neg(self)
        raise onnxport.Unsupported("not today")

    program = _export([declines, sigmoid_gelu])
    assert op_types(program) == ["sigmoid_gelu"]


def test_python_callables_can_be_keys() -> None:
    def doubled(op: Any, a: Any, b: Any) -> Any:
        return op.cast(op.Mul(op.tensor(a), op.tensor(b)), torch.int64)

    export_and_compare(
        lambda x: torch.zeros(x.shape[0] * x.shape[1]),
        (torch.randn(2, 3),),
        dynamic_shapes=(({0: "a", 1: "b"},),),
        other_args=(torch.randn(4, 5),),
        custom_translation_table={operator.mul: doubled},
    )


def test_ops_of_the_table_are_not_decomposed() -> None:
    def declines(op: Any, self: Any, *, approximate: str) -> Any:
        raise onnxport.Unsupported("never")

    program = _export(declines)  # the built-in translation is the next candidate
    torch.testing.assert_close(run_model(program, (X,))[0], Gelu()(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({torch.ops.aten.gelu: sigmoid_gelu}, "packet of overloads: name one of torch.ops.aten.gelu.default"),
        ({"aten::gelu": sigmoid_gelu}, "is no operator"),
        ({torch.nn.GELU: sigmoid_gelu}, "is no operator"),
        ({_GELU: []}, "is empty"),
        ({_GELU: 3}, "is no function"),
        ([1], "must be a dict"),
    ],
)
def test_bad_tables_are_refused(table: Any, message: str) -> None:
    with pytest.raises(onnxport.TableError, match=message):
        onnxport.export(Gelu(), (X,), custom_translation_table=table)
