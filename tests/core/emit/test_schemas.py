"""Operator schemas as the builder sees them, at the opset that is written."""

from __future__ import annotations

import onnx
import pytest
from onnx_ir import DataType
from onnxport import Unsupported
from onnxport.emit import schemas
from onnxport.vocabulary import opsets


def test_the_newest_version_not_above_the_opset() -> None:
    assert schemas.spec_of("Gelu", 19) is None
    assert schemas.spec_of("Gelu", 20).since == 20
    assert schemas.spec_of("ReduceSum", 18).since == 13


def test_types_variadic_inputs_and_result_counts() -> None:
    assert schemas.spec_of("Shape", 20).outputs == (DataType.INT64,)
    concat = schemas.spec_of("Concat", 20)
    assert concat.variadic
    assert concat.homogeneous
    assert not schemas.spec_of("Loop", 20).homogeneous
    assert schemas.spec_of("TopK", 20).min_outputs == 2
    assert schemas.spec_of("LSTM", 20).min_outputs == 1


def test_operators_that_an_opset_lacks() -> None:
    assert isinstance(schemas.missing("Gelu", 19), Unsupported)
    for name, words in {"Gellu": "did you mean 'Gelu'?", "Nonsense": "op.call", "Upsample": "has removed it"}.items():
        error = schemas.missing(name, 20)
        assert isinstance(error, AttributeError) and words in str(error)


def test_the_opset_that_gave_an_operator_an_attribute() -> None:
    assert schemas.first_opset_of_attribute("Cast", "saturate") == 19
    assert schemas.first_opset_of_attribute("Cast", "colour") is None


@pytest.mark.parametrize("opset", range(opsets.MIN_OPSET, opsets.MAX_OPSET + 1))
def test_the_ir_version_is_enough_for_the_opset(opset: int) -> None:
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    assert schemas.ir_version(opset) >= needed
