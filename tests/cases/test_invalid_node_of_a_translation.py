"""A node that can't be, for what its operator or torch says of types and shapes, is an error of its translation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule, expect_equal

X = torch.randn(2, 3)
Emit = Callable[[Any, Any], Any]

INVALID: Mapping[str, Emit] = {
    "inner sizes that differ": lambda op, x: op.MatMul(x, x),
    "sizes that don't broadcast": lambda op, x: op.Add(x, op.const([1.0, 2.0])),
    "parts of other sizes": lambda op, x: op.Concat(x, op.Transpose(x, perm=[1, 0]), axis=0),
    "a permutation of another rank": lambda op, x: op.Transpose(x, perm=[0, 1, 2]),
    "an axis that isn't there": lambda op, x: op.Softmax(x, axis=5),
    "a reshape to another size": lambda op, x: op.Reshape(x, [4, 2]),
    "a transposed result": lambda op, x: op.Transpose(x, perm=[1, 0]),
    "a result of another rank": lambda op, x: op.Unsqueeze(x, [0]),
    "a result without an axis": lambda op, x: op.ReduceSum(x, keepdims=0),
    "a result of another size": lambda op, x: op.Slice(x, [0], [1], [0]),
    "a result of another type": lambda op, x: op.Cast(x, to=7),
    "operands of two types": lambda op, x: op.Add(x, op.Cast(x, to=7)),
    "a type that the operator doesn't take": lambda op, x: op.Cast(op.And(x, x), to=1),
    "behind a node of unknown shape": lambda op, x: op.Add(op.Reshape(x, op.Shape(x)), op.const([1.0, 2.0])),
}

FIT_AT_SOME_SIZE = ("inner sizes that differ", "parts of other sizes", "a result of another size")
"""With a dynamic first axis these are valid at one size of it."""


def _table(emit: Emit) -> dict[Any, Any]:
    def relu_by_hand(op: Any, self: Any) -> Any:
        return emit(op, self)

    return {torch.ops.aten.relu.default: relu_by_hand}


@pytest.mark.parametrize("name", INVALID)
def test_export_and_check_name_the_function(name: str) -> None:
    model, table = FunctionModule(torch.relu), _table(INVALID[name])
    dynamic = () if name in FIT_AT_SOME_SIZE else (({0: "n"},),)
    for shapes in (None, *dynamic):
        with pytest.raises(onnxport.OnnxExporterError, match="relu_by_hand"):
            onnxport.export(model, (X,), dynamic_shapes=shapes, custom_translation_table=table)
        try:
            result = onnxport.check(model, (X,), dynamic_shapes=shapes, custom_translation_table=table)
        except onnxport.OnnxExporterError as error:
            assert "relu_by_hand" in str(error)
        else:
            assert not result.passed
            assert "relu_by_hand" in str(result)


def test_a_valid_node_is_taken() -> None:
    program = onnxport.export(
        FunctionModule(torch.relu), (X,), custom_translation_table=_table(lambda op, x: op.Relu(x))
    )
    expect_equal(program(X)[0], X.relu())
