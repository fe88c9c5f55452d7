"""Narrow element types: float8 and its relatives, 4- and 2-bit integers, wide unsigned integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxport
import pytest
import torch
from onnxport.emit.weights import TorchTensor
from support import FunctionModule, expect_equal, export_and_compare, op_types

FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
SPECIAL = [0.0, -0.0, 1.0, -1.7, 448.0, 464.0, 465.0, 480.0, 1e6, -1e6, math.inf, -math.inf, math.nan, 57344.0, 65536.0]
SMALL = [1e-3, 2.0**-9, 2.0**-10, 2.0**-11, 240.0, 248.0, 247.9, 256.0, 1e-40]


def values() -> torch.Tensor:
    return torch.cat([torch.tensor(SPECIAL + SMALL), torch.randn(200) * 100, torch.randn(200) * 1e-3])


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes, with one pattern for all NaNs."""
    return torch.where(tensor.float().isnan(), 255, tensor.view(torch.uint8))


@pytest.mark.parametrize("opset", [19, 20, 21, 24])
@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_casts_overflow_as_torch_does(dtype: torch.dtype, opset: int) -> None:
    x = values()
    model = FunctionModule(lambda x: (x.to(dtype), x.to(dtype).float()))
    narrow, wide = onnxport.export(model, (x,), opset_version=opset)(x)
    expected = x.to(dtype)
    assert narrow.dtype is dtype
    assert torch.equal(bits_of(narrow), bits_of(expected))
    expect_equal(wide, expected.float(), 0, 0)


@pytest.mark.parametrize("source", [torch.float16, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_casts_from_and_to_other_types(dtype: torch.dtype, source: torch.dtype) -> None:
    x = (torch.randn(50) * 20).to(source)
    export_and_compare(lambda x: x.to(dtype).to(source), (x,))


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_moving_float8(dtype: torch.dtype, opset: int) -> None:
    """Where onnxruntime can't move float8, it is moved as float32."""

    def function(x: torch.Tensor) -> Any:
        x = x.to(dtype)
        return x.t(), x.reshape(-1), x[1:3, ::2], x.unsqueeze(0), torch.cat([x, x]), x.expand(2, 4, 6).contiguous()

    x = torch.randn(4, 6) * 100
    program = onnxport.export(FunctionModule(function), (x,), opset_version=opset)
    for got, expected in zip(program(x), function(x)):
        assert got.shape == expected.shape
        assert torch.equal(bits_of(got), bits_of(expected.contiguous()))


def test_float8_needs_opset_19() -> None:
    for function in (lambda x: x.to(torch.float8_e5m2).float(), lambda x: x.to(torch.float8_e5m2)):
        with pytest.raises(onnxport.UnsupportedOperatorsError, match="needs opset 19"):
            onnxport.export(FunctionModule(function), (torch.ones(2),), opset_version=18)
    narrow = torch.ones(2).to(torch.float8_e5m2)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="needs opset 19"):
        onnxport.export(FunctionModule(lambda x: x), (narrow,), opset_version=18)


class Weighted(torch.nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(8, 4).to(dtype))
        self.register_buffer("scale", torch.rand(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.to(torch.float32) * self.scale).t()


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_float8_weights_are_stored_as_such(dtype: torch.dtype) -> None:
    model = Weighted(dtype)
    program = export_and_compare(model, (torch.randn(3, 4),), opset_version=21)
    assert op_types(program) == ["DequantizeLinear", "MatMul"]
    stored = [value for value in program.model.graph.initializers.values() if value.const_value.nbytes == 32]
    assert len(stored) == 2  # the weight, and the scale of 8 floats
    program.apply_weights(Weighted(dtype).state_dict())


def test_float8_inputs_and_outputs() -> None:
    x = torch.randn(5).to(torch.float8_e4m3fn)
    program = onnxport.export(FunctionModule(lambda x: x), (x,))
    assert torch.equal(bits_of(program(x)[0]), bits_of(x))


@pytest.mark.parametrize("opset", [23, 24])
def test_powers_of_two(opset: int) -> None:
    """float8_e8m0fnu holds the exponent; torch drops the sign."""
    x = torch.cat([torch.randn(300), torch.tensor([1.0, 1.5, 3.0, 6.0, 0.75, 0.74, 1.49, 2.0**-127, 1e-40, 1e38, 0.0])])
    model = FunctionModule(lambda x: x.to(torch.float8_e8m0fnu).float())
    if opset < 24:
        with pytest.raises(onnxport.OnnxExporterError, match="needs opset 24"):
            onnxport.export(model, (x,), opset_version=opset)
        return
    expect_equal(onnxport.export(model, (x,), opset_version=opset)(x)[0], model(x), 0, 0)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(torch.int4, -8, 8), (torch.uint4, 0, 16), (torch.int2, -2, 2), (torch.uint2, 0, 4)],
    ids=["int4", "uint4", "int2", "uint2"],
)
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (7,), (0,)])
def test_narrow_integers_are_packed(dtype: torch.dtype, low: int, high: int, shape: tuple[int, ...]) -> None:
    numbers = torch.randint(low, high, shape, dtype=torch.int8)
    for whole in (numbers, numbers.t() if numbers.dim() == 2 else numbers):
        tensor = TorchTensor(whole.view(dtype), "w")
        assert tensor.dtype is ir.DataType[str(dtype).removeprefix("torch.").upper()]
        assert (tensor.numpy().astype(np.int8) == whole.numpy()).all()
        assert tensor.tobytes() == ir.Tensor(tensor.numpy(), dtype=tensor.dtype).tobytes()
        assert len(tensor.tobytes()) == tensor.nbytes


def test_float4_is_packed() -> None:
    pairs = torch.tensor([[0x21, 0x43], [0x65, 0x87]], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    tensor = TorchTensor(pairs, "w")
    assert tensor.dtype is ir.DataType.FLOAT4E2M1
    assert tuple(tensor.shape) == (2, 4)
    assert tensor.numpy().astype(np.float32).tolist() == [[0.5, 1, 1.5, 2], [3, 4, 6, -0.0]]
    assert tensor.tobytes() == bytes([0x21, 0x43, 0x65, 0x87])


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_other_integers(dtype: torch.dtype) -> None:
    """What torch computes of them: conversions and moves."""

    def function(x: torch.Tensor) -> Any:
        return x.to(torch.int64), x.to(torch.float32), x.reshape(-1), x.t(), x[1:]

    export_and_compare(function, (torch.randint(0, 1000, (4, 3)).to(dtype),))
    export_and_compare(lambda x: x.to(dtype), (torch.tensor([0, 1, 30000]),))
