"""Affine quantization: quantized_decomposed, fake quantization, and products with quantized operands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.ao.quantization as ao
import torch.ao.quantization.fx._decomposed
from support import MOVING, FunctionModule, computing_types, export_and_compare, op_types
from torch.ao.quantization import FakeQuantize, FusedMovingAvgObsFakeQuantize

Q = torch.ops.quantized_decomposed
A = torch.ops.aten
Dim = torch.export.Dim

PAIR = ["QuantizeLinear", "DequantizeLinear"]
SPECIAL = torch.tensor([0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 300.0, -300.0, math.nan, 1e10, -1e10])


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 8, 32) * 3, torch.randn(3, 8, 32) * 3


def check(function: Any, opset: int = 20, **options: Any) -> list[str]:
    """Export with a dynamic batch, compare at two sizes; the operators of the graph."""
    x, other = inputs()
    shapes = (({0: Dim("batch")},),) if not isinstance(function, torch.nn.Module) else ({0: Dim("batch")},)
    program = export_and_compare(
        function, (x,), dynamic_shapes=shapes, other_args=(other,), opset_version=opset, **options
    )
    return op_types(program)


# quantized_decomposed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [18, 20, 21])
@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.int8, -128, 127), (torch.uint8, 0, 255)], ids=["int8", "uint8"]
)
def test_per_tensor(dtype: torch.dtype, low: int, high: int, opset: int) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q = Q.quantize_per_tensor(x, 0.03, 5, low, high, dtype)
        return q, Q.dequantize_per_tensor(q, 0.03, 5, low, high, dtype)

    assert check(function, opset) == PAIR


@pytest.mark.parametrize(
    ("dtype", "low", "high", "ops"),
    [
        (torch.int8, -127, 127, ["QuantizeLinear", "Clip", "DequantizeLinear"]),
        (torch.int8, -8, 7, ["QuantizeLinear", "Clip", "DequantizeLinear"]),
        (torch.uint8, 0, 127, ["Min", *PAIR]),  # the pair stays together
    ],
)
def test_ranges_narrower_than_the_type(dtype: torch.dtype, low: int, high: int, ops: list[str]) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        q = Q.quantize_per_tensor(x, 0.03, 5, low, high, dtype)
        return Q.dequantize_per_tensor(q, 0.03, 5, low, high, dtype)

    assert check(function) == ops


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.int32], ids=str)
def test_wide_integers(dtype: torch.dtype, opset: int) -> None:
    """DequantizeLinear takes int32 at every opset, both take 16 bits from 21 on."""
    bounds = torch.iinfo(dtype)

    def function(x: torch.Tensor) -> torch.Tensor:
        q = Q.quantize_per_tensor(x, 2**-10, 5, bounds.min, bounds.max, dtype)
        return Q.dequantize_per_tensor(q, 2**-10, 5, bounds.min, bounds.max, dtype)

    found = check(function, opset)
    assert found == PAIR if opset == 21 and dtype is not torch.int32 else "DequantizeLinear" in found


def test_rounding_is_half_to_even() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return Q.quantize_per_tensor(x, 0.5, 0, -128, 127, torch.int8)

    export_and_compare(function, (torch.arange(-40, 40) * 0.25,))


def test_real_scales_agree_but_for_ties() -> None:
    """torch multiplies by the reciprocal, ONNX divides: a value a rounding error from a half may fall either way."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return Q.quantize_per_tensor(x, 0.0173, 3, -128, 127, torch.int8)

    x = torch.randn(200_000)
    (got,) = onnxport.export(FunctionModule(function), (x,))(x)
    wrong = got != function(x)
    fraction = (x[wrong].double() / 0.0173) % 1
    assert int(wrong.sum()) <= 20
    assert bool(((fraction - 0.5).abs() < 1e-4).all())


@pytest.mark.parametrize("axis", [1, -2, 0])
def test_per_channel(axis: int) -> None:
    count = (5, 8, 32)[axis]
    scale, zero = torch.rand(count) * 0.1 + 0.01, torch.randint(-5, 5, (count,))

    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q = Q.quantize_per_channel(x, scale, zero, axis, -128, 127, torch.int8)
        return q, Q.dequantize_per_channel(q, scale, zero, axis, -128, 127, torch.int8)

    program = export_and_compare(function, (inputs()[0],))
    assert op_types(program) == PAIR


def test_scales_and_zero_points_of_other_types() -> None:
    scale, zero = torch.rand(8).double() * 0.1 + 0.01, torch.randint(-5, 5, (8,)).float()

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q = Q.quantize_per_channel(x, scale, zero.long(), 1, -128, 127, torch.int8)
        return q, Q.dequantize_per_channel(q, scale, zero, 1, -128, 127, torch.int8)

    assert check(function) == PAIR
    assert check(lambda x: Q.dequantize_per_channel(x.to(torch.int8), scale, None, 1, -128, 127, torch.int8)) == [
        "Cast",
        "DequantizeLinear",
    ]


def test_zero_points_that_are_no_integers() -> None:
    """``torch.per_channel_affine_float_qparams``, of embeddings: no DequantizeLinear takes them."""
    scale, zero = torch.rand(8), torch.rand(8) * 7

    def function(x: torch.Tensor) -> torch.Tensor:
        return Q.dequantize_per_channel(x.to(torch.int8), scale, zero, 1, -128, 127, torch.int8)

    assert check(function) == ["Cast", "Cast", "Sub", "Mul"]


def test_groups_of_zero_points_that_are_no_integers_are_refused() -> None:
    weight, scale = torch.zeros(4, 8, dtype=torch.int8), torch.ones(4, 2)

    def function(x: torch.Tensor) -> torch.Tensor:
        real = Q.dequantize_per_channel_group(weight, scale, scale / 2, -8, 7, torch.int8, 4, torch.float32)
        return x[0, :1, :8] @ real.t()

    with pytest.raises(onnxport.UnsupportedOperatorsError, match="zero points that are no integers"):
        onnxport.export(FunctionModule(function), inputs()[:1])


def test_tensor_scales() -> None:
    def function(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        q = Q.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
        return Q.dequantize_per_tensor.tensor(q, scale, zero, -128, 127, torch.int8)

    args = (inputs()[0], torch.tensor([0.05]), torch.tensor([3]))
    program = export_and_compare(function, args, other_args=(inputs()[0], torch.tensor([0.5]), torch.tensor([-9])))
    assert op_types(program)[-2:] == PAIR


def test_half_precision() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        q = Q.quantize_per_tensor(x.half(), 0.03, 5, -128, 127, torch.int8)
        return Q.dequantize_per_tensor(q, 0.03, 5, -128, 127, torch.int8, out_dtype=torch.float16)

    check(function)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=str)
def test_dynamic(dtype: torch.dtype, symmetric: bool) -> None:
    bounds = torch.iinfo(dtype)
    choose = Q.choose_qparams_symmetric.tensor if symmetric else Q.choose_qparams.tensor

    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero = choose(x, bounds.min, bounds.max, 1e-5, dtype)
        q = Q.quantize_per_tensor.tensor(x, scale, zero, bounds.min, bounds.max, dtype)
        return q, Q.dequantize_per_tensor.tensor(q, scale, zero, bounds.min, bounds.max, dtype)

    assert check(function)[-1] == "DequantizeLinear"


def test_what_was_quantized_before_falls_on_halves() -> None:
    """Of a range that begins at 0. Dividing and multiplying with the reciprocal differ there for 1 in 1,000."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for _ in range(2):
            scale, zero = Q.choose_qparams.tensor(x, 0, 255, 1e-7, torch.uint8)
            q = Q.quantize_per_tensor.tensor(x, scale, zero, 0, 255, torch.uint8)
            x = Q.dequantize_per_tensor.tensor(q, scale, zero, 0, 255, torch.uint8).relu()
        return x, q

    program = onnxport.export(FunctionModule(function), (torch.randn(64, 64),))
    for seed in range(10):
        x = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
        for got, expected in zip(program(x), function(x)):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("choose", [Q.choose_qparams_per_token, Q.choose_qparams_per_token_asymmetric], ids=str)
def test_per_token(choose: Any, opset: int) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero = choose(x, torch.int8)
        q = Q.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
        return q, Q.dequantize_per_token(q, scale, zero, -128, 127, torch.int8, torch.float32)

    found = check(function, opset)
    assert ("Reshape" in found) == (opset < 21)  # rows are blocks from 21 on
    assert found.count("QuantizeLinear") == found.count("DequantizeLinear") == 1


class Grouped(torch.nn.Module):
    """A linear layer with weights of 4 bits, quantized in groups of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.randint(-8, 8, (16, 32), dtype=torch.int8))
        self.register_buffer("s", torch.rand(16, 4))
        self.register_buffer("z", torch.randint(-3, 3, (16, 4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = Q.dequantize_per_channel_group(self.w, self.s, self.z, -8, 7, torch.int8, 8, torch.float32)
        return x @ w.t()


@pytest.mark.parametrize(("opset", "dtype"), [(20, "INT8"), (21, "INT4")])
def test_groups(opset: int, dtype: str) -> None:
    x, other = inputs()
    shapes = ({0: Dim("batch")},)
    program = export_and_compare(
        Grouped(), (x,), dynamic_shapes=shapes, other_args=(other,), opset_version=opset, rtol=1e-3, atol=1e-4
    )
    stored = next(node for node in program.model.graph if node.op_type == "DequantizeLinear").inputs[0]
    assert stored is not None and stored.dtype is not None and stored.dtype.name == dtype
    if opset == 21:
        assert computing_types(program) == ["DequantizeLinear", "MatMul"]
        assert len(stored.const_value.tobytes()) == 16 * 32 // 2


def test_quantized_groups() -> None:
    scale, zero = torch.full((8, 4), 0.03), torch.full((8, 4), 2)
    found = check(lambda x: Q.quantize_per_channel_group(x[0], scale, zero, -128, 127, torch.int8, 8), 21)
    assert found == ["Gather", "QuantizeLinear"]


def test_new_weights_reach_what_was_made_of_them() -> None:
    model, other = Grouped(), Grouped()
    program = onnxport.export(model.eval(), (inputs()[0],), opset_version=21)
    program.apply_weights(other.state_dict())
    x = inputs()[0]
    torch.testing.assert_close(program(x)[0], other(x), rtol=1e-3, atol=1e-4)


# Fake quantization -----------------------------------------------------------------------------------------------

RANGES = [(-128, 127, 3), (0, 255, 100), (-127, 127, 0), (0, 127, 60), (-8, 7, 1), (0, 15, 2), (-32768, 32767, 5)]


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize(("low", "high", "zero"), [*RANGES, (-(2**31), 2**31 - 1, 0)])
def test_fake_quantize(low: int, high: int, zero: int, opset: int) -> None:
    found = check(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, zero, low, high), opset)
    own = (low, high) in ((-128, 127), (0, 255)) or (opset == 21 and (low, high) in ((-8, 7), (0, 15), (-32768, 32767)))
    assert (found == PAIR) == own


@pytest.mark.parametrize(("low", "high", "zero"), RANGES)
def test_fake_quantize_of_special_values(low: int, high: int, zero: int) -> None:
    """Halves go to even, NaN to the least number."""
    export_and_compare(lambda x: torch.fake_quantize_per_tensor_affine(x, 1.0, zero, low, high), (SPECIAL,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16], ids=str)
def test_fake_quantize_of_other_types(dtype: torch.dtype) -> None:
    check(lambda x: torch.fake_quantize_per_tensor_affine(x.to(dtype), 0.05, 3, -128, 127), rtol=1e-3, atol=1e-6)


def test_fake_quantize_by_tensors() -> None:
    scale, zero = torch.tensor([0.05]), torch.tensor([3], dtype=torch.int32)
    assert check(lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)) == PAIR
    assert check(lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 127)) == ["Min", *PAIR]
    # A zero point that is learnt is rounded first.
    assert check(lambda x: torch._fake_quantize_learnable_per_tensor_affine(x, scale, scale * 50, -128, 127)) == PAIR


def test_fake_quantize_per_channel() -> None:
    scale, zero = torch.rand(8) * 0.1 + 0.01, torch.randint(-5, 5, (8,), dtype=torch.int32)
    fake = torch.fake_quantize_per_channel_affine
    assert check(lambda x: fake(x, scale, zero, 1, -128, 127)) == PAIR
    assert check(lambda x: fake(x, scale, zero, 1, -127, 127)) == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    assert "QuantizeLinear" not in check(lambda x: fake(x, scale, zero + 0.25, 1, -127, 127))
    learnable = torch._fake_quantize_learnable_per_channel_affine
    assert check(lambda x: learnable(x, scale, zero + 0.3, 1, -128, 127)) == PAIR


def test_masks() -> None:
    scale, zero = torch.rand(8) * 0.1 + 0.01, torch.randint(-5, 5, (8,), dtype=torch.int32)
    check(lambda x: A.fake_quantize_per_tensor_affine_cachemask(x, 0.02, 3, -128, 127))
    check(lambda x: A.fake_quantize_per_channel_affine_cachemask(x, scale, zero, 1, -128, 127))


class FakeWeights(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.randn(16, 32)), torch.nn.Parameter(torch.randn(16))
        self.register_buffer("s", torch.rand(16) * 0.05 + 0.01)
        self.register_buffer("z", torch.zeros(16, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = torch.fake_quantize_per_channel_affine(self.w, self.s, self.z, 0, -127, 127)
        return torch.nn.functional.linear(x, w, torch.fake_quantize_per_tensor_affine(self.b, 0.01, 0, -8, 7))


def test_weights_are_stored_as_integers() -> None:
    x = inputs()[0]
    program = export_and_compare(FakeWeights(), (x,), rtol=1e-3, atol=1e-4)
    assert sorted(computing_types(program)) == ["Add", "DequantizeLinear", "DequantizeLinear", "MatMul"]
    stored = {value.dtype.name for value in program.model.graph.initializers.values() if value.const_value.size >= 16}
    assert stored == {"INT8", "FLOAT"}
    other = FakeWeights()
    program.apply_weights(other.state_dict())
    torch.testing.assert_close(program(x)[0], other(x), rtol=1e-3, atol=1e-4)


class Faked(torch.nn.Module):
    def __init__(self, fake: torch.nn.Module) -> None:
        super().__init__()
        self.fake, self.linear = fake, torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.fake(x))


MODULES: list[Callable[[], torch.nn.Module]] = [
    FusedMovingAvgObsFakeQuantize,
    FakeQuantize,
    lambda: FakeQuantize(
        ao.MovingAveragePerChannelMinMaxObserver,
        ch_axis=1,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    ),
]


@pytest.mark.parametrize("make", MODULES, ids=["fused", "plain", "per channel"])
def test_modules(make: Callable[[], torch.nn.Module]) -> None:
    model = Faked(make())
    model(inputs()[0])
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="disable_observer"):
        onnxport.export(model.eval(), (inputs()[0],))
    model.apply(ao.disable_observer)
    assert check(model, rtol=1e-3, atol=1e-5)[:2] == PAIR
    model.apply(ao.disable_fake_quant)
    assert "QuantizeLinear" not in check(model)


@pytest.mark.filterwarnings("ignore")
def test_quantization_aware_training() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).train()
    model.qconfig = ao.get_default_qat_qconfig("x86")
    trained = ao.prepare_qat(model)
    trained(inputs()[0])
    trained.eval().apply(ao.disable_observer)
    found = check(trained, rtol=1e-3, atol=1e-5)
    layer = ["DequantizeLinear", "MatMul", "Add", "Min", *PAIR]
    assert [op_type for op_type in found if op_type not in MOVING] == [*layer, "Relu", *layer]
    # A program that was captured without onnxport says that the modules write their statistics.
    program = onnxport.export(torch.export.export(trained, (inputs()[0],)))
    x = inputs()[0]
    torch.testing.assert_close(program(x)[0], trained(x), rtol=1e-3, atol=1e-5)


# Products --------------------------------------------------------------------------------------------------------


def int8(*shape: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def test_int_mm() -> None:
    b = int8(32, 16)
    program = export_and_compare(
        torch._int_mm,
        (int8(20, 32), b),
        dynamic_shapes=(({0: Dim("m", min=17)}, None),),
        other_args=(int8(33, 32), b),
    )
    assert op_types(program) == ["MatMulInteger"]


class Packed8(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", int8(32, 64))
        self.register_buffer("s", torch.rand(32) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return A._weight_int8pack_mm(x, self.w, self.s)


class Packed4(torch.nn.Module):
    def __init__(self, rows: int, width: int, group: int, inside: bool) -> None:
        super().__init__()
        weight = torch.randint(0, 16, (rows, width), dtype=torch.int32)
        self.register_buffer("w", weight if inside else A._convert_weight_to_int4pack_for_cpu(weight, 2))
        scale_and_zero = torch.stack([torch.rand(width // group, rows), torch.rand(width // group, rows)], -1)
        self.register_buffer("s", scale_and_zero)
        self.group, self.inside = group, inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = A._convert_weight_to_int4pack_for_cpu(self.w, 2) if self.inside else self.w
        return A._weight_int4pack_mm_for_cpu(x, weight, self.group, self.s)


@pytest.mark.parametrize("opset", [20, 21])
def test_packed_bytes(opset: int) -> None:
    program = export_and_compare(
        Packed8(),
        (torch.randn(5, 64),),
        dynamic_shapes=({0: Dim("m")},),
        other_args=(torch.randn(3, 64),),
        opset_version=opset,
        rtol=1e-3,
        atol=1e-3,
    )
    assert computing_types(program) == ["DequantizeLinear", "MatMul"]


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize(("rows", "width", "group"), [(32, 64, 32), (64, 128, 64), (16, 256, 128), (48, 32, 32)])
def test_packed_nibbles(rows: int, width: int, group: int, opset: int) -> None:
    """Their order is the processor's; the exported weights are in the model's."""
    for inside in (False, True):
        program = export_and_compare(
            Packed4(rows, width, group, inside),
            (torch.randn(5, width),),
            dynamic_shapes=({0: Dim("m")},),
            other_args=(torch.randn(3, width),),
            opset_version=opset,
            rtol=1e-3,
            atol=1e-3,
        )
        assert "DequantizeLinear" in op_types(program)
        types = {value.dtype.name for value in program.model.graph.initializers.values()}
        assert ("INT4" in types) == (opset == 21)


F8 = torch.float8_e4m3fn


@pytest.mark.parametrize("out", [torch.float32, torch.bfloat16, torch.float16, None], ids=str)
def test_scaled_mm(out: torch.dtype | None) -> None:
    b = torch.randn(48, 32)

    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        product = torch._scaled_mm(a.to(F8), b.to(F8).t(), torch.tensor(0.5), torch.tensor(2.0), out_dtype=out)
        return product.float() if out is None else product

    step = 2**-3 if out is None else None  # of float8: sums in another order may fall to either side of a boundary
    export_and_compare(
        function,
        (torch.randn(16, 32), b),
        dynamic_shapes=(({0: Dim("m")}, None),),
        other_args=(torch.randn(32, 32), b),
        rtol=step,
        atol=None if step is None else 2**-9,
    )


def test_scaled_mm_by_rows_and_with_a_bias() -> None:
    a, b, bias = torch.randn(16, 32), torch.randn(48, 32), torch.randn(48)
    rows, columns = torch.rand(16, 1), torch.rand(1, 48)
    one, two = torch.tensor(0.5), torch.tensor(2.0)

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = a.to(F8), b.to(F8).t()
        return torch._scaled_mm(a, b, rows, columns, out_dtype=torch.bfloat16), torch._scaled_mm(
            a, b, one, two, bias=bias, out_dtype=torch.float32
        )

    try:
        function(a, b)
    except RuntimeError as error:
        if "only supports per-tensor scaling" in str(error):
            pytest.skip("this torch has no kernel for it on the CPU: 2.11")
        raise
    program = export_and_compare(function, (a, b))
    assert op_types(program).count("DequantizeLinear") == 4


@pytest.mark.filterwarnings("ignore")
def test_a_captured_program_with_quantized_tensors_is_refused() -> None:
    """ONNX has no such type; a capture of the module has their integers instead."""
    model = FunctionModule(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize())
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="PT2E"):
        onnxport.export(torch.export.export(model, (torch.ones(2),)))
    export_and_compare(model, (torch.tensor([-0.2, 0.3, 20.0]),))
