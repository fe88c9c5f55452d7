"""check: everything that keeps a model from being exported or run, without weights and without onnxruntime."""

from __future__ import annotations

import json
import subprocess
import sys

import importlib_metadata
import onnx
import onnx_ir as ir
import onnxport
import onnxruntime
import pytest
import torch
from onnxport_workbench import kernels
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@torch.library.custom_op("checked::strange", mutates_args=())
def strange(x: torch.Tensor) -> torch.Tensor:
    return x * 2


strange.register_fake(lambda x: torch.empty_like(x))


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.ops.checked.strange(layer(x))
        return torch.ops.checked.strange(x) + torch.relu(x)


def test_every_refusal_has_its_count_lines_and_reasons() -> None:
    result = onnxport.check(Strange().eval(), (torch.randn(4, 4),))
    assert not result.passed
    by_target = {refusal.target: refusal for refusal in result.refusals}
    refusal = by_target["checked::strange"]
    assert refusal.count == 4 and len(refusal.sources) == 2
    assert refusal.source == refusal.sources[0] and refusal.source.endswith("strange(layer(x))")
    assert "strange(x) + torch" in refusal.sources[1] and refusal.reasons
    assert result.operators["aten::linear"] == 3
    text = str(result)
    assert "checked::strange (4 calls)" in text and "and: " in text
    data = json.loads(result.to_json())
    assert data["passed"] is False
    assert {"target", "count", "sources", "reasons", "advice"} <= set(data["refusals"][0])


def test_the_pack_that_would_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib_metadata.EntryPoint("checked", "onnxport_checked", "onnxport.packs")
    original = importlib_metadata.entry_points

    def entry_points(**wanted):
        known = importlib_metadata.EntryPoints([entry, *original(group="onnxport")])
        return known.select(**wanted)

    monkeypatch.setattr(importlib_metadata, "entry_points", entry_points)
    result = onnxport.check(Strange().eval(), (torch.randn(4, 4),))
    advice = {refusal.target: refusal.advice for refusal in result.refusals}
    assert advice["checked::strange"] == "pip install onnxport_checked"


def test_a_refusal_as_export_says_it_is_one_as_check_says_it() -> None:
    model, args = Strange().eval(), (torch.randn(4, 4),)
    with pytest.raises(onnxport.UnsupportedOperatorsError) as caught:
        onnxport.export(model, args)
    assert caught.value.refusals == onnxport.check(model, args).refusals


@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_weights_need_no_data(kind: str) -> None:
    with torch.device("meta") if kind == "meta" else FakeTensorMode():
        model = nn.Sequential(nn.Linear(30_000, 30_000), nn.GELU()).eval()
        args = (torch.randn(1, 30_000),)
        inside = onnxport.check(model, args)
    assert inside.passed and inside.operators == {"aten::linear": 1, "aten::gelu": 1}
    assert onnxport.check(model, args) == inside


def test_onnxruntime_need_not_be_installed() -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
import onnxport, torch
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()).eval().to(torch.bfloat16)
result = onnxport.check(model, (torch.randn(2, 4, dtype=torch.bfloat16),))
assert result.passed
print(sorted({missing.operator for missing in result.missing_kernels}))
print(onnxport.export(torch.nn.Tanh(), (torch.randn(2),)).model.graph.num_nodes())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Gemm" in done.stdout and "Tanh" in done.stdout


def test_missing_kernels_are_told_with_types_and_lines() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x) + torch.tanh(x * 2)

    result = onnxport.check(Model(), (torch.randn(3, dtype=torch.bfloat16),))
    assert result.passed
    (missing,) = (m for m in result.missing_kernels if m.operator == "Tanh" and m.provider == kernels.CPU)
    assert missing.types == {"T": "tensor(bfloat16)"} and missing.count == 2
    assert missing.source.endswith("return torch.tanh(x) + torch.tanh(x * 2)")
    assert "CPUExecutionProvider has no kernel for:" in str(result)
    assert not [m for m in onnxport.check(Model(), (torch.randn(3),)).missing_kernels if m.provider == kernels.CPU]


def _single(operator: str, opset: int, dtype: ir.DataType, count: int = 1) -> ir.Model:
    values = [ir.Value(name=f"x{i}", shape=ir.Shape([2, 2]), type=ir.TensorType(dtype)) for i in range(count)]
    node = ir.Node("", operator, values, num_outputs=1)
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(dtype)
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": opset}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT32", "INT8", "UINT64", "BOOL"])
def test_the_table_says_what_onnxruntime_does(dtype: str, opset: int) -> None:
    wrong = []
    operators = dict.fromkeys(("Acos", "Abs", "Round", "Sign", "Softplus", "Tanh", "Transpose", "Relu", "Mish"), 1)
    operators |= dict.fromkeys(("Add", "Mod", "Pow", "MatMul", "BitwiseAnd", "Equal", "Max"), 2)
    for operator, count in operators.items():
        kind = ir.DataType[dtype]
        allowed = onnx.defs.get_schema(operator, opset).type_constraints[0].allowed_type_strs
        if kernels._text(ir.TensorType(kind)) not in allowed:
            continue
        model = _single(operator, opset, kind, count)
        if operator == "Equal":
            model.graph.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
        lacking = any(missing.provider == kernels.CPU for missing in kernels.missing_kernels(model))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(ir.serde.serialize_model(model).SerializeToString(), options)
            loads = True
        except Exception as error:
            loads = "NOT_IMPLEMENTED" not in str(error) and "Could not find an implementation" not in str(error)
        if loads == lacking:
            wrong.append((operator, loads))
    assert not wrong


def test_the_file_agrees_with_the_installed_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = kernels.tables()[kernels.CPU]
    kernels.tables.cache_clear()
    monkeypatch.setattr(kernels, "installed_kernels", dict)
    try:
        written = kernels.tables()[kernels.CPU]
    finally:
        kernels.tables.cache_clear()
    for (domain, operator), rows in installed.items():
        if domain == "" and operator in ("Cast", "Loop", "LayerNormalization", "Softmax", "GridSample"):
            newest = [(first, last, {k: sorted(v) for k, v in t.items()}) for first, last, t in rows if last > 2**30]
            assert all(row in written[domain, operator] for row in newest), operator


class Wide(nn.Module):
    """A tied weight, a view, and values of which two are needed at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(64, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()
        y = y.view(-1, 64).unsqueeze(0)
        return (self.second(y) * self.scale).float().sum()


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("shapes", [None, ({0: "batch"},)])
def test_the_memory_that_a_model_takes(fake: bool, shapes: object) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else torch.no_grad():
        model, x = Wide().eval(), torch.randn(100, 64)
    result = onnxport.check(model, (x,), dynamic_shapes=shapes)
    weights, row = (64 * 64 + 64) * 4 + 64 * 8, 100 * 64
    assert result.memory.weights == weights
    assert result.memory.values == row * (4 + 4 + 8)  # the input stays; a product in float64 beside its factor
    assert json.loads(result.to_json())["memory"] == {"weights": weights, "values": 16 * row, "outputs": 4}
