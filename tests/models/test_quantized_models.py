"""Models quantized by PT2E and by torchao: weights stay integers, QuantizeLinear and DequantizeLinear stay whole."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxport
import pytest
import torch
from support import computing_types, expect_equal, op_types, unfused_session
from torch.export import Dim

pytestmark = pytest.mark.filterwarnings("ignore")
torchao = pytest.importorskip("torchao.quantization")
pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
PerGroup, MappingType = torchao.PerGroup, torchao.MappingType


_CPU = Path("/proc/cpuinfo")
NEEDS_VNNI = pytest.mark.skipif(
    _CPU.exists() and "vnni" not in _CPU.read_text(),
    reason="onnxruntime's kernels for uint8 by int8 add pairs of products in 16 bits on processors without VNNI",
)


class ConvNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.depthwise, self.head = torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        y = self.depthwise(y)
        return self.head((y + y.mean()).mean((2, 3)))


class Block(torch.nn.Module):
    """A transformer's block over embedded tokens."""

    def __init__(self, dim: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.tokens, self.norm = torch.nn.Embedding(20, dim), torch.nn.LayerNorm(dim)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(dim, dim) for _ in range(4))
        self.up, self.down, self.heads = torch.nn.Linear(dim, 32), torch.nn.Linear(32, dim), heads

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids)
        y = self.norm(x)
        batch, time, dim = y.shape
        q, k, v = (f(y).view(batch, time, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(dim // self.heads), -1) @ v
        x = x + self.o(attention.transpose(1, 2).reshape(batch, time, dim))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


MODELS: dict[str, Any] = {
    "conv": (ConvNet, torch.randn(2, 3, 12, 12), torch.randn(5, 3, 12, 12), ({0: Dim("b")},)),
    "block": (Block, torch.randint(0, 20, (2, 6)), torch.randint(0, 20, (3, 9)), ({0: Dim("b"), 1: Dim("t")},)),
}


def converted(name: str, **config: bool) -> torch.nn.Module:
    """A model quantized by PT2E with X86InductorQuantizer: weights of int8 per channel."""
    make, x, _, shapes = MODELS[name]
    module = torch.export.export(make().eval(), (x,), dynamic_shapes=shapes).module(check_guards=False)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(**config))
    prepared = pt2e.prepare_pt2e(module, quantizer)
    prepared(x)
    return torchao.pt2e.move_exported_model_to_eval(pt2e.convert_pt2e(prepared))


@pytest.mark.parametrize(
    ("name", "config", "pairs", "nodes"),
    [
        ("conv", {}, 3, 17),
        ("conv", {"is_dynamic": True}, 3, 62),
        pytest.param("block", {}, 4, 44, marks=NEEDS_VNNI),
        pytest.param("block", {"is_dynamic": True}, 4, 104, marks=NEEDS_VNNI),
    ],
)
def test_pt2e(name: str, config: dict[str, bool], pairs: int, nodes: int) -> None:
    _, x, other, shapes = MODELS[name]
    model = converted(name, **config)
    program = onnxport.export(model, (x,), dynamic_shapes=shapes)
    onnx.checker.check_model(program.model_proto, full_check=True)
    for given in (x, other):  # onnxruntime's integer kernels are at most a step of a layer away
        expect_equal(program(given)[0], model(given), 1e-2, 1e-2)
    program.initialize_inference_session(session_options=unfused_session())
    for given in (x, other):
        expect_equal(program(given)[0], model(given), 1e-4, 1e-5)
    counts = Counter(op_types(program))
    layers = {"conv": 3, "block": 6}[name]
    assert counts["QuantizeLinear"] == pairs
    assert counts["DequantizeLinear"] == pairs + layers
    assert len(op_types(program)) == nodes
    if not config.get("is_dynamic"):
        assert not counts["Round"] and not counts["Cast"]
    weights = [node.inputs[0] for node in program.model.graph if node.op_type == "DequantizeLinear"]
    stored = [value for value in weights if value is not None and value.const_value is not None]
    assert [value.dtype.name for value in stored] == ["INT8"] * layers


class Sequence(torch.nn.Module):
    """What PT2E quantizes less often: an embedding, a recurrent layer, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.recurrent = torch.nn.Embedding(20, 8), torch.nn.LSTM(8, 8, batch_first=True)
        self.up, self.head = torch.nn.ConvTranspose1d(8, 6, 2, 2), torch.nn.Linear(6, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.recurrent(self.tokens(ids))[0]
        return self.head(self.up(y.transpose(1, 2)).transpose(1, 2))


@NEEDS_VNNI
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("dynamic", [False, True])
def test_symmetric_quantizer(dynamic: bool, fold: bool) -> None:
    """The one of XNNPACK and mobile runtimes: symmetric weights per channel, convolutions transposed too."""
    xnnpack = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    ids, other = torch.randint(0, 20, (2, 6)), torch.randint(0, 20, (3, 6))
    shapes = ({0: Dim("b")},)
    module = torch.export.export(Sequence().eval(), (ids,), dynamic_shapes=shapes).module(check_guards=False)
    prepared = pt2e.prepare_pt2e(module, xnnpack.XNNPACKQuantizer().set_global(config))
    prepared(ids)
    model = torchao.pt2e.move_exported_model_to_eval(pt2e.convert_pt2e(prepared, fold_quantize=fold))
    program = onnxport.export(model, (ids,), dynamic_shapes=shapes)
    for given in (ids, other):
        expect_equal(program(given)[0], model(given), 1e-4, 1e-5)
    found = Counter(op_types(program))
    assert found["LSTM"] == 1
    assert found["DequantizeLinear"] >= 2
    weights = {value.dtype.name for value in program.model.graph.initializers.values() if value.const_value.size > 8}
    assert ("INT8" in weights) == fold


def test_embedding_quantizer() -> None:
    """Its zero points are real numbers."""
    quantizer = pytest.importorskip("torchao.quantization.pt2e.quantizer.embedding_quantizer").EmbeddingQuantizer()
    ids, other = torch.randint(0, 20, (2, 6)), torch.randint(0, 20, (3, 6))
    shapes = ({0: Dim("b")},)
    module = torch.export.export(Sequence().eval(), (ids,), dynamic_shapes=shapes).module(check_guards=False)
    prepared = pt2e.prepare_pt2e(module, quantizer)
    prepared(ids)
    model = torchao.pt2e.move_exported_model_to_eval(pt2e.convert_pt2e(prepared))
    program = onnxport.export(model, (ids,), dynamic_shapes=shapes)
    for given in (ids, other):
        expect_equal(program(given)[0], model(given), 1e-4, 1e-5)


@NEEDS_VNNI
def test_pt2e_quantization_aware_training() -> None:
    """Without batch norms: fusing these takes torchao half a minute of matching patterns."""
    x, shapes = torch.randn(4, 6, 64), SHAPES
    module = torch.export.export(Mlp().train(), (x,), dynamic_shapes=shapes).module(check_guards=False)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = pt2e.prepare_qat_pt2e(module, quantizer)
    for _ in range(2):
        prepared(x)
    model = torchao.pt2e.move_exported_model_to_eval(pt2e.convert_pt2e(prepared))
    program = onnxport.export(model, (x,), dynamic_shapes=shapes)
    for given in (x, torch.randn(2, 3, 64)):
        expect_equal(program(given)[0], model(given), 1e-4, 1e-5)
    assert op_types(program).count("QuantizeLinear") == 2


class Mlp(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.a = torch.nn.Linear(64, 128, dtype=dtype)
        self.b = torch.nn.Linear(128, 32, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


Weights, Dynamic = torchao.IntxWeightOnlyConfig, torchao.Int8DynamicActivationIntxWeightConfig
LINEAR = ["DequantizeLinear", "MatMul", "Add", "Relu", "DequantizeLinear", "MatMul"]
INT4 = {"weight_dtype": torch.int4, "granularity": PerGroup(32)}
STATIC = {"act_quant_scale": torch.full((1, 1, 1), 0.03), "granularity": [torchao.PerTensor(), torchao.PerRow()]}
#: name -> configuration, opset, type of the stored weights, the operators where they are told.
SCHEMES: dict[str, tuple[Any, int, str, list[str] | None]] = {
    "int8": (torchao.Int8WeightOnlyConfig(), 20, "INT8", None),
    "int8 groups": (torchao.Int8WeightOnlyConfig(granularity=PerGroup(32)), 21, "INT8", None),
    "intx int8": (Weights(), 20, "INT8", LINEAR),
    "int4": (Weights(**INT4), 21, "INT4", LINEAR),
    "int4 below 21": (Weights(**INT4), 20, "INT8", None),
    "int4 asymmetric": (Weights(**INT4, mapping_type=MappingType.ASYMMETRIC), 21, "INT4", LINEAR),
    "int2": (Weights(weight_dtype=torch.int2, granularity=PerGroup(32)), 25, "INT2", LINEAR),
    "int2 below 25": (Weights(weight_dtype=torch.int2, granularity=PerGroup(32)), 21, "INT4", LINEAR),
    "dynamic int8, int4": (Dynamic(weight_dtype=torch.int4, weight_granularity=PerGroup(32)), 21, "INT4", None),
    "dynamic int8, int4 below 21": (
        Dynamic(weight_dtype=torch.int4, weight_granularity=PerGroup(32)),
        20,
        "INT8",
        None,
    ),
    "dynamic int8": (torchao.Int8DynamicActivationInt8WeightConfig(), 20, "INT8", None),
    "static int8": (torchao.Int8StaticActivationInt8WeightConfig(**STATIC), 20, "INT8", None),
    "float8": (torchao.Float8WeightOnlyConfig(), 21, "FLOAT8E4M3FN", LINEAR),
    "float8 below 21": (torchao.Float8WeightOnlyConfig(), 20, "FLOAT8E4M3FN", None),
}
SHAPES = ({0: Dim("b"), 1: Dim("t")},)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_torchao(scheme: str) -> None:
    """Weights are tensor subclasses; the file holds the plain tensors within."""
    config, opset, dtype, ops = SCHEMES[scheme]
    model = Mlp().eval()
    torchao.quantize_(model, config)
    x, other = torch.randn(4, 7, 64), torch.randn(2, 3, 64)
    program = onnxport.export(model, (x,), dynamic_shapes=SHAPES, opset_version=opset)
    onnx.checker.check_model(program.model_proto, full_check=True)
    for given in (x, other):
        expect_equal(program(given)[0], model(given), 1e-3, 1e-4)
    found = computing_types(program)
    assert ops is None or found == ops
    if scheme not in ("dynamic int8", "static int8") and not scheme.startswith("float8 below"):
        assert found.count("DequantizeLinear") >= 2
    large = [v for v in program.model.graph.initializers.values() if v.const_value.size >= 4096]
    assert [value.dtype.name for value in large] == [dtype] * 2


@pytest.mark.parametrize("scheme", ["intx int8", "int4", "int8"])
def test_torchao_in_half_precision(scheme: str) -> None:
    model = Mlp(torch.float16).eval()
    torchao.quantize_(model, SCHEMES[scheme][0])
    x = torch.randn(4, 7, 64).half()
    program = onnxport.export(model, (x,), opset_version=21)
    expect_equal(program(x)[0], model(x))


def test_quantized_weights_can_be_replaced() -> None:
    """A state dict with subclasses in it is what other checkpoints of the model are."""
    model, other = Mlp().eval(), Mlp().eval()
    for each in (model, other):
        torchao.quantize_(each, SCHEMES["int4"][0])
    x = torch.randn(4, 7, 64)
    program = onnxport.export(model, (x,), opset_version=21)
    program.apply_weights(other.state_dict())
    expect_equal(program(x)[0], other(x), 1e-3, 1e-4)


def test_the_captured_program_stays_as_it_is() -> None:
    model = Mlp().eval()
    torchao.quantize_(model, SCHEMES["int4"][0])
    x = torch.randn(4, 7, 64)
    captured = torch.export.export(model, (x,))
    before = str(captured.graph)
    program = onnxport.export(captured, opset_version=21, verify=True)
    assert str(captured.graph) == before
    assert sorted(program.model.graph.initializers)[0].startswith("a.")


def quantized_rows(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers of -8 to 7, and scales and zeros (K / group, N), as the library makes them that torchao needs for it."""
    parts = weight.reshape(-1, group)
    scale = (parts.amax(1, True) - parts.amin(1, True)) / 15
    zero = parts.amin(1, True) + 8 * scale
    integers = ((parts - zero) / scale).round().clamp(-8, 7).to(torch.int8).reshape(weight.shape)
    return integers, *(each.reshape(len(weight), -1).t().contiguous().bfloat16() for each in (scale, zero))


@pytest.mark.parametrize("opset", [20, 21])
def test_int4_weights_of_a_gpu_without_one(opset: int) -> None:
    """``Int4WeightOnlyConfig`` needs the library; a checkpoint that it wrote doesn't."""
    linear = torch.nn.Linear(64, 32, bias=False, dtype=torch.bfloat16)
    integers, scale, zero = quantized_rows(linear.weight.detach().float(), 32)
    packed = (integers[:, ::2] & 15) | (integers[:, 1::2] << 4)
    weight = torchao.Int4Tensor(packed, scale, zero, [1, 32], torch.Size([32, 64]))
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    x, other = torch.randn(4, 7, 64).bfloat16(), torch.randn(2, 3, 64).bfloat16()
    program = onnxport.export(linear, (x,), dynamic_shapes=SHAPES, opset_version=opset)
    real = integers.float() * scale.float().t().repeat_interleave(32, 1) + zero.float().t().repeat_interleave(32, 1)
    for given in (x, other):
        expect_equal(program(given)[0], (given.float() @ real.t()).bfloat16(), 1e-2, 1e-2)
    types = {value.dtype.name for value in program.model.graph.initializers.values() if value.const_value.size == 2048}
    assert types == ({"INT4"} if opset == 21 else {"INT8"})


def test_weights_that_are_taken_apart_by_torch() -> None:
    """A subclass that only overrides ``__torch_dispatch__`` isn't seen into while torch.export captures."""
    formats = pytest.importorskip("torchao.prototype.mx_formats.inference_workflow")
    model = Mlp().eval()
    torchao.quantize_(model, formats.NVFP4WeightOnlyConfig())
    x, other = torch.randn(4, 7, 64), torch.randn(2, 3, 64)
    program = onnxport.export(model, (x,), dynamic_shapes=SHAPES, opset_version=26, optimize=False)
    for given in (x, other):
        expect_equal(program(given)[0], model(given))
    names = {tensor.source for value in program.model.graph.initializers.values() for tensor in sources(value)}
    assert {"a.weight.qdata", "a.weight.scale", "a.bias"} <= names
    second = Mlp().eval()
    torchao.quantize_(second, formats.NVFP4WeightOnlyConfig())
    program.apply_weights(second.state_dict())
    expect_equal(program(x)[0], second(x))


def sources(value: Any) -> list[Any]:
    return list(value.const_value.leaves()) if hasattr(value.const_value, "leaves") else []


@pytest.mark.parametrize("step", ["prepare", "convert"])
@pytest.mark.parametrize("config", ["int4", "dynamic int8, int4"])
def test_torchao_quantization_aware_training(config: str, step: str) -> None:
    """Fake quantization of weights, and of activations row by row; converted, it is what ``quantize_`` makes."""
    qat = pytest.importorskip("torchao.quantization.qat")
    model = Mlp().train()
    for each in ("prepare", "convert")[: 1 + (step == "convert")]:
        torchao.quantize_(model, qat.QATConfig(SCHEMES[config][0], step=each))
    x, other = torch.randn(4, 7, 64), torch.randn(2, 3, 64)
    program = onnxport.export(model.eval(), (x,), dynamic_shapes=SHAPES, opset_version=21)
    for given in (x, other):
        expect_equal(program(given)[0], model(given), 1e-3, 1e-4)
    types = {v.dtype.name for v in program.model.graph.initializers.values() if v.const_value.size >= 4096}
    assert types == ({"INT4"} if step == "convert" else {"FLOAT"})
