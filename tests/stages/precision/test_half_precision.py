"""``export(dtype=...)``: which parts become half precision, what they compute, and what is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxport
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from models.test_opsets import CASES, NEEDS, captured_case
from onnxport import DataType, InputError
from onnxport_workbench.comparing import TOLERANCES
from support import as_module, flat_tensors, op_types
from torch import nn

HALF, FLOAT = DataType.FLOAT16, DataType.FLOAT


def exported(model: Any, *args: Any, **options: Any) -> onnxport.ONNXProgram:
    """A valid float16 program."""
    module = model if isinstance(model, nn.Module) else as_module(model)
    program = onnxport.export(module.eval(), args, **{"dtype": "float16", "verbose": False, **options})
    onnx.checker.check_model(program.model_proto, full_check=True)
    return program


def expect_near(program: onnxport.ONNXProgram, model: Callable[..., Any], *args: Any) -> None:
    with torch.no_grad():
        expected = flat_tensors(model(*copy.deepcopy(args)))
    for found, want in zip(program(*args), expected, strict=True):
        near(found, want)


def near(found: torch.Tensor, want: torch.Tensor) -> None:
    rtol, atol = TOLERANCES[torch.float16] if want.is_floating_point() else (0.0, 0.0)
    size = want.double().nan_to_num(0, 0, 0).abs()
    scale = max(1.0, size.mean().item()) if want.numel() else 1.0
    torch.testing.assert_close(found.double(), want.double(), rtol=rtol, atol=atol * scale, equal_nan=True)


def types_of(program: onnxport.ONNXProgram, op_type: str) -> set[DataType]:
    """The types in which the operator's nodes give their results."""
    return {node.outputs[0].dtype for node in program.model.graph.all_nodes() if node.op_type == op_type}


class Net(nn.Module):
    """A product, a norm of single steps, an activation, a second product, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.lm_head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.body(x))
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-12)
        return self.lm_head(F.gelu(y)).softmax(-1)


X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


# Operators -----------------------------------------------------------------------------------------------------------

OFTEN = ("batch_norm", "group_norm", "masked attention", "topk", "cond", "while_loop", "scan",
         "interpolate bilinear", "scatter_reduce", "fmod", "fft", "to half and back")  # fmt: skip


def check_operator(name: str, opset: int) -> None:
    program, args, expected = captured_case(name)
    if opset < NEEDS.get(name, 0):
        return
    half = onnxport.export(program, opset_version=opset, dtype="float16", verbose=False)
    onnx.checker.check_model(half.model_proto, full_check=True)
    for found, want in zip(half(*args), expected, strict=True):
        assert found.dtype is (torch.float16 if want.dtype is torch.float32 else want.dtype)
        near(found, want)


@pytest.mark.parametrize("name", OFTEN)
def test_operator(name: str) -> None:
    check_operator(name, 20)


@pytest.mark.grid
@pytest.mark.parametrize("opset", [13, 18, 20, 23])
@pytest.mark.parametrize("name", CASES)
def test_operator_everywhere(name: str, opset: int) -> None:
    check_operator(name, opset)


# Which nodes are in which precision ----------------------------------------------------------------------------------


def test_products_are_half_and_steep_operators_are_float32() -> None:
    model = net()
    program = exported(model, X)
    expect_near(program, model, X)
    assert {value.dtype for value in (*program.model.graph.inputs, *program.model.graph.outputs)} == {HALF}
    assert types_of(program, "Gemm") | types_of(program, "LayerNormalization") | types_of(program, "Gelu") == {HALF}
    for op_type in ("ReduceMean", "Sqrt", "Reciprocal", "Softmax"):
        assert types_of(program, op_type) == {FLOAT}, op_type
    weights = {n: v.dtype for n, v in program.model.graph.initializers.items() if n in model.state_dict()}
    assert set(weights.values()) == {HALF} and len(weights) == 6


def test_a_plain_session_runs_it() -> None:
    proto = exported(net(), X).model_proto
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy().astype(np.float16)})
    assert found.dtype == np.float16
    near(torch.from_numpy(found), net()(X))


@pytest.mark.parametrize("options", [{"optimize": False}, {"opset_version": 13}, {"opset_version": 23},
                                     {"metadata": "none"}, {"dynamic_shapes": {"x": {0: "batch"}}}])  # fmt: skip
def test_options_of_an_export(options: dict[str, Any]) -> None:
    model = net()
    program = exported(model, X, **options)
    expect_near(program, model, X)
    if "dynamic_shapes" in options:
        expect_near(program, model, X.repeat(3, 1))
        program.fix(batch=4)
        expect_near(program, model, X.repeat(2, 1))


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_the_dtype_by_name_or_as_torch_has_it(dtype: Any) -> None:
    assert exported(net(), X, dtype=dtype).model.graph.outputs[0].dtype is HALF


def test_float32_changes_nothing() -> None:
    plain = onnxport.export(net(), (X,), verbose=False).model_proto
    assert exported(net(), X, dtype="float32").model_proto == plain


def test_inputs_and_outputs_can_stay() -> None:
    model = net()
    program = exported(model, X, keep_io=True)
    assert {value.dtype for value in (*program.model.graph.inputs, *program.model.graph.outputs)} == {FLOAT}
    assert types_of(program, "Gemm") == {HALF}
    expect_near(program, model, X)
    assert [str(value.name) for value in program.model.graph.outputs] == ["softmax"]


def test_an_input_that_is_an_output_and_a_weight_that_is_one() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.5, 2.5]))

        def forward(self, x: torch.Tensor) -> Any:
            y = x.exp()
            return x, self.weight, y, y, torch.tensor(3.0)

    for keep_io in (False, True):
        program = exported(Same(), X, keep_io=keep_io)
        assert {value.dtype for value in program.model.graph.outputs} == {FLOAT if keep_io else HALF}
        expect_near(program, Same(), X)


# What stays in float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["lm_head", "lm_*", "aten::linear"])
def test_modules_and_operators_are_kept(pattern: str) -> None:
    model = net()
    program = exported(model, X, keep={pattern: "float32"})
    expect_near(program, model, X)
    assert program.model.graph.initializers["lm_head.weight"].dtype is FLOAT
    others = FLOAT if pattern == "aten::linear" else HALF
    assert program.model.graph.initializers["body.weight"].dtype is others


def test_all_inside_a_module_is_kept() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = net(), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.inner(x))

    program = exported(Outer(), X, keep={"inner": torch.float32})
    dtypes = {name: value.dtype for name, value in program.model.graph.initializers.items()}
    assert dtypes["inner.body.weight"] is dtypes["inner.lm_head.weight"] is FLOAT
    assert dtypes["last.weight"] is HALF


def test_a_shared_weight_is_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.body, self.lm_head = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 10, bias=False)
            self.lm_head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.lm_head(self.body(self.table(ids)))

    torch.manual_seed(0)
    model, ids = Tied().eval(), torch.tensor([[1, 2, 3]])
    for keep, dtype in (({}, HALF), ({"lm_head": "float32"}, FLOAT)):
        program = exported(model, ids, keep=keep, verify=True)
        tables = [value.dtype for value in program.model.graph.initializers.values() if value.shape[0] == 10]
        assert tables == [dtype]
        twice = {name: weight * 2 for name, weight in model.state_dict().items()}
        program.apply_weights(twice)
        other = copy.deepcopy(model)
        other.load_state_dict(twice)
        expect_near(program, other, ids)


# Numbers that half precision lacks -----------------------------------------------------------------------------------


class RMS(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _by_hand(x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-12)


@pytest.mark.parametrize("function", [
    RMS(), _by_hand, lambda x: x / (x * x).sum(-1, keepdim=True).sqrt(), F.normalize, lambda x: x.var(-1).sqrt(),
    lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
])  # fmt: skip
@pytest.mark.parametrize("scale", [1e-3, 2e3])
def test_squares_are_in_range(function: Any, scale: float) -> None:
    expect_near(exported(function, X * scale), function, X * scale)


@pytest.mark.parametrize("function", [
    lambda x: x.logsumexp(-1), lambda x: x.exp().sum(-1).log(), lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
])  # fmt: skip
def test_exponentials_are_in_range(function: Any) -> None:
    expect_near(exported(function, X * 15), function, X * 15)


def test_a_row_of_zeros_stays_zero() -> None:
    x = torch.zeros(2, 8)
    for function in (_by_hand, F.normalize, RMS()):
        assert not exported(function, x)(x)[0].any()


def test_positions_beyond_the_integers_of_half_precision() -> None:
    def rotary(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        frequencies = 1.0 / 10000 ** (torch.arange(0, 8, 2) / 8)
        angles = positions[:, None].float() @ frequencies[None].float()
        return x * torch.cat([angles.cos(), angles.sin()], -1)

    positions = torch.tensor([4097, 30001])
    expect_near(exported(rotary, X, positions), rotary, X, positions)
    expect_near(exported(lambda n: (n.float() + 1).long(), positions), lambda n: n + 1, positions)


@pytest.mark.parametrize("large", [torch.finfo(torch.float32).min, -1e9, -math.inf])
def test_masks_of_large_numbers(large: float) -> None:
    keep = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0]])

    def filled(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(keep == 0, large).softmax(-1)

    def added(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return (x + torch.where(keep == 0, large, 0.0)).softmax(-1)

    def scaled(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return (x + (1.0 - keep.float()) * large).softmax(-1)

    for function in (filled, added) if math.isinf(large) else (filled, added, scaled):
        program = exported(function, X, keep)
        expect_near(program, function, X, keep)


def test_a_row_that_a_mask_fills_has_no_nan() -> None:
    def function(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        bias = (1.0 - keep.float()) * torch.finfo(torch.float32).min
        return F.relu(x + bias), (x + bias).softmax(-1)  # type: ignore[return-value]

    keep = torch.zeros(2, 8, dtype=torch.int64)
    assert all(torch.isfinite(found).all() for found in exported(function, X, keep)(X, keep))


def test_bounds_beyond_the_range() -> None:
    expect_near(exported(lambda x: x.clamp(-1e6, 1e6), X), lambda x: x.clamp(-1e6, 1e6), X)
    expect_near(exported(lambda x: x > 1e5, X), lambda x: x > 1e5, X)
    expect_near(exported(lambda x: x / 1e5 * 1e5, X), lambda x: x, X)
    expect_near(exported(lambda x: x * 1e-9 / 1e-9, X), lambda x: x, X)


def test_a_weight_beyond_the_range_stays() -> None:
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight[0, 0] = 1e5
    program = exported(model, X * 1e-3)
    assert {value.dtype for value in program.model.graph.initializers.values()} == {FLOAT}
    expect_near(program, model, X * 1e-3)


# Overflow ------------------------------------------------------------------------------------------------------------


class Overflowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.large, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.large.weight.mul_(2e5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.large(self.first(x))  # too large
        return self.last(y / 1e5)


def test_overflow_is_named() -> None:
    torch.manual_seed(0)
    model = Overflowing().eval()
    with pytest.raises(
        InputError, match=r"aten::linear: .*\n    module: large\n    line: .*# too large\n.*keep={"
    ) as e:
        exported(model, X)
    assert "keep={'large': 'float32'}" in str(e.value)
    expect_near(exported(model, X, keep={"large": "float32"}), model, X)


def test_overflow_in_the_root_names_the_operator() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * 300) * (x * 300 + 1) / 10

    x = torch.ones(2, 3)
    with pytest.raises(InputError, match=r"keep={'aten::mul': 'float32'}"):
        exported(function, x)
    with pytest.raises(InputError, match=r"keep={'aten::mul': 'float32', 'aten::div': 'float32'}"):
        exported(function, x, keep={"aten::mul": "float32"})
    expect_near(exported(function, x, keep={"aten::mul": "float32", "aten::div": "float32"}), function, x)


def test_infinities_of_the_model_are_no_overflow() -> None:
    expect_near(exported(lambda x: 1 / (x - x), X), lambda x: 1 / (x - x), X)


def test_without_data_nothing_is_run() -> None:
    with torch.device("meta"):
        model, x = Net().eval(), torch.empty(2, 8)
    program = onnxport.export(model, (x,), dtype="float16", verbose=False)
    program.apply_weights(net().state_dict())
    expect_near(program, net(), X)


# Structures ----------------------------------------------------------------------------------------------------------


def test_functions() -> None:
    model = net()
    program = exported(model, X, functions=[nn.Linear])
    assert op_types(program).count("Linear") == 2
    expect_near(program, model, X)
    kept = exported(model, X, functions=[nn.Linear], keep={"body": "float32", "lm_head": "float32"})
    expect_near(kept, model, X)
    assert types_of(kept, "Linear") == {FLOAT}


def test_a_function_of_kept_and_other_calls_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    with pytest.raises(InputError, match=r"the function Linear is called by modules that are kept and by others"):
        exported(Twice(), X, functions=[nn.Linear], keep={"a": "float32"})


@pytest.mark.parametrize("quantize", ["int8", "int4", {"lm_head": None, "*": "int8"}])
def test_rounded_weights_have_scales_in_half_precision(quantize: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("body", nn.Linear(64, 64))
    model.add_module("lm_head", nn.Linear(64, 64))
    x = torch.randn(2, 64)
    program = onnxport.export(model.eval(), (x,), dtype="float16", quantize=quantize, verbose=False, verify=True)
    nodes = [node for node in program.model.graph if node.op_type == "DequantizeLinear"]
    assert len(nodes) == (1 if isinstance(quantize, dict) else 2)
    assert {node.inputs[1].dtype for node in nodes} == {HALF} and {node.outputs[0].dtype for node in nodes} == {HALF}


def test_integer_models_stay_as_they_are() -> None:
    ids = torch.tensor([1, 2])
    program = exported(lambda i: i * 2 + 1, ids)
    expect_near(program, lambda i: i * 2 + 1, ids)
    assert "onnxport.dtype" not in program.model.metadata_props


@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16])
def test_models_of_another_precision_are_refused(other: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"converts models of float32; .* is \w+. Call model.float\(\)"):
        exported(net().to(other), X.to(other))


def test_a_model_of_the_dtype_stays_so() -> None:
    model = net().half()
    program = exported(model, X.half())
    (found,) = program(X.half())
    assert found.dtype is torch.float16
    near(found, model(X.half()))


def test_the_dimensions_of_a_file_and_a_copy_are_its_own() -> None:
    program = exported(net(), X)
    copied = copy.deepcopy(program)
    expect_near(copied, net(), X)


# Requests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"dtype": "half"}, r"dtype='half': give 'float16' or 'bfloat16'"),
    ({"dtype": 16}, r"dtype=16: give"),
    ({"dtype": torch.float64}, r"dtype=torch.float64: give"),
    ({"dtype": None, "keep": {"lm_head": "float32"}}, r"keep= needs dtype="),
    ({"dtype": None, "keep_io": True}, r"keep_io= needs dtype="),
    ({"keep": {"lm_head": "int8"}}, r"can stay in 'float32' only"),
    ({"keep": ["lm_head"]}, r"give a dict such as"),
    ({"keep": {"": "float32"}}, r"keep has the key"),
    ({"keep": {"lm_haed": "float32"}}, r"'lm_haed' matches nothing .* Near it are lm_head"),
    ({"keep": {"aten::gelo": "float32"}}, r"Near it are aten::gelu"),
    ({"keep_io": "yes"}, r"keep_io='yes': give True or False"),
])  # fmt: skip
def test_what_is_not_understood(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        exported(net(), X, **options)


def test_a_plugin_goes_first() -> None:
    class Mine:
        class Plan:
            opset = 19

            def apply(self, program: onnxport.ONNXProgram) -> Any:
                program.model.metadata_props["mine"] = "1"

        def plan(self, request: Any, opset: Any, names: Any) -> Any:
            return self.Plan() if request["dtype"] == "float8" else None

        @onnxport.hookimpl
        def onnxport_precisions(self) -> list[Any]:
            return [self]

    program = onnxport.export(net(), (X,), dtype="float8", plugins=[Mine()], verbose=False)
    assert program.model.metadata_props["mine"] == "1"
    assert exported(net(), X, plugins=[Mine()]).model.graph.outputs[0].dtype is HALF


# Verification and files ----------------------------------------------------------------------------------------------


def test_verification_says_what_it_compares_with(tmp_path: Path) -> None:
    model = net()
    program = exported(model, X, verify=True, report=True, artifacts_dir=tmp_path)
    program.save(tmp_path / "net.onnx")
    result = onnxport.verify(tmp_path / "net.onnx", model, (X,))
    assert result.passed and result.dtype == "float16"
    assert "compared with the float32 model, within the tolerances of float16" in result.table()
    assert not result.weights.problem
    assert onnxport.find_mismatch(program).passed
    page = next(tmp_path.glob("*.md")).read_text()
    assert "| float16 |" in page and "none of" in page


def test_a_wrong_model_in_half_precision_is_found() -> None:
    program = exported(net(), X)
    weight = program.model.graph.initializers["body.bias"]
    weight.const_value = ir.tensor(np.full(16, 3.0, np.float16), name="body.bias")
    program.release()
    assert not onnxport.verify(program).passed
    assert not onnxport.find_mismatch(program).passed
