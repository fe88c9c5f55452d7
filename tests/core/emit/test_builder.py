"""Emission of nodes: binding, constants, sizes, rollback, subgraphs, names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnxport import Builder, DataType, Tensor, Unsupported
from onnxport.kit import load
from onnxport.records.emission import Emission


def make(opset: int = 20) -> Builder:
    return Builder(opset, emission=Emission(load(()).items("onnxport_emission")))


def value(name: str = "x", dtype: DataType = DataType.FLOAT, shape: tuple[int, ...] = (2, 3)) -> Tensor:
    return Tensor(name, dtype, ir.Shape(shape))


def test_numbers_take_the_operands_type() -> None:
    op = make()
    x = value(dtype=DataType.FLOAT16)
    node = op.Add(x, 2).producer()
    assert node.inputs[1].dtype == DataType.FLOAT16
    assert float(node.inputs[1].const_value.numpy()) == 2.0
    assert op.Mul(3, x).producer().inputs[0].dtype == DataType.FLOAT16


def test_equal_constants_are_shared() -> None:
    op = make()
    assert op.const([1, 2]) is op.const([1, 2])
    assert op.const(1) is not op.const(1.0)
    assert op.const(True).dtype == DataType.BOOL


@pytest.mark.parametrize(("number", "dtype", "expected"), [(-1, DataType.UINT8, 255), (300, DataType.INT8, 44)])
def test_integers_out_of_range_wrap_as_torch_does(number: int, dtype: DataType, expected: int) -> None:
    assert int(make().const(number, dtype).const_value.numpy()) == expected


def test_trailing_absent_inputs_are_dropped() -> None:
    op = make()
    assert len(op.Clip(value(), None, None).producer().inputs) == 1
    assert len(op.Clip(value(), None, 1.0).producer().inputs) == 3


def test_output_types_follow_the_schema() -> None:
    op = make()
    x = value()
    assert op.Shape(x).dtype == DataType.INT64
    assert op.Equal(x, x).dtype == DataType.BOOL
    assert op.Cast(x, to=torch.int32).dtype == DataType.INT32
    values, indices = op.TopK(x, [1])
    assert (values.dtype, indices.dtype) == (DataType.FLOAT, DataType.INT64)
    assert len(op.Split(x, [1, 1], axis=0, outputs=2)) == 2


def test_unknown_operators_and_attributes_are_named() -> None:
    op = make(18)
    with pytest.raises(Unsupported, match="needs opset 20: Gelu"):
        op.Gelu(value())
    with pytest.raises(AttributeError, match="no operator 'Nonsense'"):
        op.Nonsense(value())
    with pytest.raises(TypeError, match="no attribute 'colour'"):
        op.Relu(value(), colour=1)
    with pytest.raises(TypeError, match="at most 1 inputs"):
        op.Relu(value(), value("y"))


@pytest.mark.parametrize(
    ("emit", "shape"),
    [
        (lambda op, x: op.Add(x, 1.0), [2, 3]),
        (lambda op, x: op.Reshape(x, [3, -1]), [3, 2]),
        (lambda op, x: op.Reshape(x, [0, -1]), [2, 3]),
        (lambda op, x: op.Transpose(x, perm=[1, 0]), [3, 2]),
        (lambda op, x: op.Unsqueeze(x, [0, -1]), [1, 2, 3, 1]),
        (lambda op, x: op.ReduceSum(x, [1], keepdims=0), [2]),
        (lambda op, x: op.ReduceSum(x, keepdims=1), [1, 1]),
        (lambda op, x: op.Concat(x, x, axis=-1), [2, 6]),
        (lambda op, x: op.Gather(x, op.const(0), axis=1), [2]),
        (lambda op, x: op.MatMul(x, op.Transpose(x, perm=[1, 0])), [2, 2]),
        (lambda op, x: op.Shape(x, start=1), [1]),
        (lambda op, x: op.ArgMax(x, axis=1, keepdims=0), [2]),
    ],
)
def test_shapes_known_at_a_glance(emit: object, shape: list[int]) -> None:
    op = make()
    assert list(emit(op, value()).shape) == shape  # type: ignore[operator]


def test_rollback_leaves_no_trace() -> None:
    op = make()
    x = value()
    kept = op.Relu(x)
    mark = op.mark()
    constant = op.const([7, 8, 9])
    op.Add(op.Mul(x, kept), kept)
    graph = op.subgraph(lambda: op.Neg(x))
    op.If(op.const(True), then_branch=graph, else_branch=graph)
    op.rollback(mark)
    assert [node.op_type for node in op.frame.nodes] == ["Relu"]
    assert constant.name not in op.frame.initializers
    assert len(x.uses()) == 1
    assert not kept.uses()


def test_subgraphs_see_outer_values_and_have_outputs_of_their_own() -> None:
    op = make()
    x = value()
    graph = op.subgraph(lambda a: (a, op.Add(a, x), x), inputs=[(DataType.FLOAT, (2, 3))])
    assert [output.producer().op_type for output in graph.outputs] == ["Identity", "Add", "Identity"]
    assert not op.frame.nodes
    assert len({*(o.name for o in graph.outputs), *(i.name for i in graph.inputs), x.name}) == 5


def test_names_are_unique() -> None:
    op = make()
    assert [op.unique("mean") for _ in range(3)] == ["mean", "mean_1", "mean_2"]
    assert op.unique("mean_1") not in ("mean", "mean_1", "mean_2")


def test_calls_of_other_domains_are_imported() -> None:
    op = make()
    out = op.call("com.microsoft", "BiasGelu", value(), 1.0, version=1, flag=True, name_="text")
    assert out.producer().domain == "com.microsoft"
    assert op.domains == {"": 20, "com.microsoft": 1}
    assert out.producer().attributes["flag"].as_int() == 1


def test_torch_tensors_become_constants_without_a_copy() -> None:
    op = make()
    weight = torch.randn(64, 64)
    tensor = op.const(weight)
    assert tensor.const_value.raw.data_ptr() == weight.data_ptr()
    assert op.const(np.arange(3, dtype=np.int32)).dtype == DataType.INT32


def test_complex_values_carry_their_logical_shape() -> None:
    op = make()
    z = op.complex(value("re"), value("im"))
    assert z.is_complex
    assert list(z.shape) == [2, 3]
    assert list(op.real(z).shape) == [2, 3]
    assert not op.real(z).is_complex


def test_an_operator_without_its_inputs_is_the_translations_mistake():
    with pytest.raises(TypeError, match="Relu needs 1 inputs, 0 were given"):
        Builder(20).Relu()
    with pytest.raises(TypeError, match="Add needs 2 inputs, 1 were given"):
        Builder(20).Add(1.0)
