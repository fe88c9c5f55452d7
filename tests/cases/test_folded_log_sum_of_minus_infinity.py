"""What is folded has the values that eager torch computes, and optimizing changes no result."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import onnxport
import onnxruntime
import pytest
import torch
from onnxport_builtin.passes.order import PASSES
from support import FunctionModule, expect_equal

INF, NAN = float("inf"), float("nan")


def _filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.full_like(x, value)


def _row(*values: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.tensor(values, dtype=x.dtype)


ROWS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "-inf": _filled(-INF),
    "inf": _filled(INF),
    "nan": _filled(NAN),
    "new_full": lambda x: x.new_full((4,), -INF),
    "filled in place": lambda x: x.clone().fill_(-INF),
    "masked": lambda x: torch.zeros_like(x).masked_fill(torch.ones(4, dtype=torch.bool), -INF),
    "infinities": _row(-INF, 1.0, INF, 2.0),
    "nan among numbers": _row(1.0, NAN, 3.0, -INF),
    "numbers": _row(-2.5, 0.5, 1.5, 3.25),
    "large": lambda x: torch.full_like(x, torch.finfo(x.dtype).max),
}
FUNCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "logsumexp": lambda c: c.logsumexp(0),
    "softmax": lambda c: c.softmax(0),
    "log_softmax": lambda c: c.log_softmax(0),
    "logcumsumexp": lambda c: c.logcumsumexp(0),
    "logaddexp": lambda c: torch.logaddexp(c, c.flip(0)),
    "extremes": lambda c: torch.stack([c.max(), c.min(), c.amax(0), c.amin(0)]),
    "pairs": lambda c: torch.cat([torch.maximum(c, c.flip(0)), torch.minimum(c, c.flip(0)), torch.fmax(c, c.flip(0))]),
    "clamp": lambda c: torch.cat([c.clamp(0.0, 2.0), c.clamp(3.0, 1.0), c.relu(), torch.nn.functional.hardtanh(c)]),
    "argmax": lambda c: torch.stack([c.argmax(), c.argmin()]).to(c.dtype),
    "sums": lambda c: torch.stack([c.sum(), c.mean(), c.prod(), c.norm()]),
    "spread": lambda c: torch.stack([c.var(), c.std()]),
    "rounded": lambda c: torch.cat([c.round(), c.floor(), c.ceil(), c.trunc(), c.frac(), c.sign()]),
    "remainders": lambda c: torch.cat([torch.fmod(c, -2), torch.remainder(c, -2), torch.floor_divide(c, -2)]),
    "powers": lambda c: torch.cat([c**0, c**0.5, c**-1, c**2, c**3, 2.0**c, c.sqrt(), c.rsqrt(), c.reciprocal()]),
    "elementary": lambda c: torch.cat([c.exp(), c.log(), c.log1p(), c.tanh(), c.sigmoid(), c.sin(), c.expm1()]),
    "comparisons": lambda c: torch.cat([c.isnan(), c.isinf(), c == c, c > 1, c <= -INF, c.bool()]).to(c.dtype),
    "steps": lambda c: (c.softmax(0) * c).nan_to_num(1.0, 2.0, 3.0).cumsum(0),
}


def _expect_eager(model: Callable[..., torch.Tensor], x: torch.Tensor) -> None:
    module, want = FunctionModule(model), model(x)
    for optimize in (True, False):
        expect_equal(onnxport.export(module, (x,), optimize=optimize)(x)[0], want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("row", ROWS)
def test_functions_of_a_constant_row(row: str, dtype: torch.dtype) -> None:
    """One model of all functions: what follows a row is constant, what is added isn't."""
    x, names = torch.ones(4, dtype=dtype), list(FUNCTIONS)
    module = FunctionModule(lambda x: [FUNCTIONS[name](ROWS[row](x)).reshape(-1) + x[:1] * 0 for name in names])
    wanted = module(x)
    for optimize in (True, False):
        got = onnxport.export(module, (x,), optimize=optimize)(x)
        for name, result, want in zip(names, got, wanted, strict=True):
            try:
                expect_equal(result, want)
            except AssertionError as error:
                raise AssertionError(f"{name} of {row}, optimize={optimize}: {error}") from error


WHOLE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "quotients": lambda c: torch.cat([torch.div(c, d, rounding_mode=m) for d in (3, -3) for m in ("trunc", "floor")]),
    "remainders": lambda c: torch.cat([f(c, d) for d in (3, -3) for f in (torch.fmod, torch.remainder)]),
    "shifts": lambda c: torch.cat([c << 2, c >> 1]),
    "overflow": lambda c: torch.cat([c * 2**30, c + torch.iinfo(c.dtype).max, -c, c.abs()]),
    "bits": lambda c: torch.cat([c & 6, c | 9, c ^ 5, ~c]),
    "sums": lambda c: torch.stack([c.sum(), c.prod(), c.max(), c.min(), c.argmax(), c.argmin()]),
    "powers": lambda c: torch.cat([c**2, c**3]),
    "to floats": lambda c: (c / 2).round() + c.float().sqrt(),
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(name: str, dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return WHOLE[name](torch.zeros_like(x) + torch.tensor([-7, -3, 2, 7], dtype=dtype)) + x[:1] * 0

    _expect_eager(function, torch.ones(4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool])
def test_casts_of_what_no_integer_holds(dtype: torch.dtype) -> None:
    values = [NAN, INF, -INF, 300.5, -2.5, 2.5, 0.0, 1e20]

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 1.0).mul(torch.tensor(values)).to(dtype).to(torch.float64) + x

    x = torch.zeros(8)
    expect_equal(onnxport.export(FunctionModule(function), (x,))(x)[0], function(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_each_step_is_rounded_to_its_type(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        ones = torch.full_like(x, 1.0, dtype=dtype)
        small = ones * torch.finfo(dtype).eps / 4
        return torch.cat([ones + small - 1, (ones + small).exp() - ones.exp(), ones * 2049.0 - 2048.0]).float() + x[:1]

    x = torch.zeros(4)
    assert torch.equal(onnxport.export(FunctionModule(function), (x,))(x)[0], function(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    """A double is rounded to float32 first, where this one becomes a tie, which goes to the even number."""
    number = 1 + torch.finfo(dtype).eps / 2 + 2.0**-40
    model = FunctionModule(lambda x: torch.full((x.shape[0],), number, dtype=dtype).float() * x)
    x = torch.ones(2)
    for shapes in (None, ({0: "n"},)):
        assert torch.equal(onnxport.export(model, (x,), dynamic_shapes=shapes)(x)[0], model(x))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_grid_of_a_static_size_is_bit_equal(dtype: torch.dtype, align_corners: bool) -> None:
    theta = torch.eye(2, 3, dtype=dtype)[None]
    model = FunctionModule(lambda t: torch.nn.functional.affine_grid(t, [1, 1, 7, 13], align_corners=align_corners))
    assert torch.equal(onnxport.export(model, (theta,))(theta)[0], model(theta))


FOLDED: Mapping[str, str] = {
    "division": "y = Div(a, b)",
    "remainder": "y = Mod(a, b)",
    "C remainder": "y = Mod<fmod=1>(a, b)",
    "cast": "c = Cast<to=1>(a) d = Cast<to=1>(b) e = Div(c, d) f = Round(e) y = Cast<to=7>(f)",
    "float remainder": "c = Cast<to=1>(a) d = Cast<to=1>(b) e = Mod<fmod=1>(c, d) y = Cast<to=7>(e)",
    "extremes": "c = Max(a, b) d = Min(a, b) y = Sub(c, d)",
    "moves": "c = Gather(a, i) d = Concat<axis=0>(c, a) y = Slice(d, i, k)",
    "sums": "c = ReduceSum(a, i) d = ReduceProd<keepdims=0>(b) e = ReduceMax(a, i) f = Add(c, d) y = Sub(f, e)",
    "no axes": "c = ReduceSum<noop_with_empty_axes=1>(a) d = ReduceMin(b) y = Add(c, d)",
    "choice": "c = Less(a, b) d = Equal(a, b) e = Or(c, d) f = Not(e) y = Where(f, a, b)",
    "range": "c = Squeeze(i) d = ReduceMax<keepdims=0>(a) s = Squeeze(k) y = Range(c, d, s)",
}


@pytest.mark.parametrize("name", FOLDED)
def test_exact_nodes_are_folded_to_what_the_runtime_computes(name: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (int64[1] x) => (int64[?] z)
        <int64[4] a = {{7, -7, 7, -7}}, int64[4] b = {{3, 3, -3, -3}}, int64[1] i = {{0}}, int64[1] k = {{2}}>
        {{ {FOLDED[name]} z = Add(x, y) }}"""
    models = [ir.from_onnx_text(text) for _ in range(2)]
    for model in models:
        _infer(model)
    PASSES["constants"](models[1])
    assert [node.op_type for node in models[1].graph] == ["Add"]
    results = [_run(model) for model in models]
    np.testing.assert_array_equal(results[1], results[0])


@pytest.mark.parametrize("name", ["ReduceLogSumExp", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "Sign", "Erf"])
def test_what_evaluators_compute_in_their_own_way_is_left_to_the_runtime(name: str) -> None:
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float[?] z) <float[2] a = {{1.0, 2.0}}> {{ y = {name}(a) z = Add(x, y) }}""")
    _infer(model)
    assert PASSES["constants"](model) == 0


@pytest.mark.parametrize("name", ["Div", "Mod"])
@pytest.mark.parametrize("pair", ["{5}, int64[1] b = {0}", f"{{{-(2**63)}}}, int64[1] b = {{-1}}"])
def test_a_quotient_that_no_integer_is_is_left_to_the_runtime(name: str, pair: str) -> None:
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (int64[1] x) => (int64[?] z) <int64[1] a = {pair}> {{ y = {name}(a, b) z = Add(x, y) }}""")
    _infer(model)
    assert PASSES["constants"](model) == 0


def _infer(model: ir.Model) -> None:
    import onnx

    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    types = {value.name: value.dtype for node in inferred.graph for value in node.outputs}
    for node in model.graph:
        for value in node.outputs:
            value.type = ir.TensorType(types[value.name] or ir.DataType.INT64)


def _run(model: ir.Model) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(1, np.int64)})[0]
