"""Weights that models bring as integers keep their numbers under ``quantize=``."""

from __future__ import annotations

import onnx
import onnxport
import onnxruntime
import pytest
import torch
from onnxport import InputError
from onnxport.kit import saving
from torch import nn


def random_int32(*shape: int, nibble: int | None = None) -> torch.Tensor:
    if nibble is not None:
        return torch.full(shape, int.from_bytes(bytes([nibble * 17] * 4), "little", signed=True), dtype=torch.int32)
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int32)


class GPTQ(nn.Module):
    """A linear layer of GPTQ: integers packed along K, zero points less one along N, and the group of each row."""

    def __init__(self, rows=128, columns=48, group=32, zero: int | None = 7, order: str = "rows") -> None:
        super().__init__()
        self.group = group
        self.register_buffer("qweight", random_int32(rows // 8, columns))
        self.register_buffer("qzeros", random_int32(rows // group, columns // 8, nibble=zero))
        self.register_buffer("scales", torch.rand(rows // group, columns) * 0.01 + 0.001)
        places = torch.arange(rows) // group
        self.register_buffer("g_idx", places[torch.randperm(rows)] if order == "activations" else places)
        self.register_buffer("shifts", torch.arange(0, 32, 4, dtype=torch.int32))
        self.bias = nn.Parameter(torch.randn(columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = self.qzeros.unsqueeze(2).expand(-1, -1, 8) >> self.shifts.view(1, 1, -1)
        zeros = ((zeros.to(torch.int8) & 15) + 1).reshape(self.scales.shape)
        weight = self.qweight.unsqueeze(1).expand(-1, 8, -1) >> self.shifts.view(1, -1, 1)
        weight = (weight.to(torch.int8) & 15).reshape(-1, self.scales.shape[1])
        weight = self.scales[self.g_idx] * (weight - zeros[self.g_idx])
        return x @ weight + self.bias


class GroupedGPTQ(GPTQ):
    """The same by groups."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = self.qzeros.unsqueeze(2) >> self.shifts.view(1, 1, -1)
        zeros = (zeros & 15).reshape(len(self.scales), 1, -1)
        weight = self.qweight.unsqueeze(1) >> self.shifts.view(1, -1, 1)
        weight = (weight & 15).reshape(-1, self.group, self.scales.shape[1])
        weight = (weight - zeros).float() * self.scales.unsqueeze(1)
        return torch.nn.functional.linear(x, weight.reshape(-1, self.scales.shape[1]).t(), self.bias)


class AWQ(nn.Module):
    """A linear layer of AWQ: integers packed along N, in an order of their own."""

    def __init__(self, rows=128, columns=64, group=32) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("qweight", random_int32(rows, columns // 8))
        self.register_buffer("qzeros", random_int32(rows // group, columns // 8))
        self.register_buffer("scales", torch.rand(rows // group, columns) * 0.01 + 0.001)

    def unpacked(self, packed: torch.Tensor) -> torch.Tensor:
        parts = (packed.unsqueeze(-1) >> torch.arange(0, 32, 4)).to(torch.int8) & 15
        return parts[..., [0, 4, 1, 5, 2, 6, 3, 7]].flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.unpacked(self.qweight) - self.unpacked(self.qzeros).repeat_interleave(self.group, 0)
        return x @ (weight * self.scales.repeat_interleave(self.group, 0))


def kernels(program: onnxport.ONNXProgram, path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path / "out.onnx")
    onnxruntime.InferenceSession(saving.to_bytes(program.model), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path / "out.onnx").graph.node]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: GPTQ(), "int4"),  # zero points of 8: the middle
        (lambda: GPTQ(zero=4), "uint4"),
        (lambda: GPTQ(zero=None), "int8"),  # some zero points are 16, which 4 bits don't have
        (lambda: GroupedGPTQ(zero=5), "uint4"),
        (lambda: AWQ(), "uint4"),
        (lambda: AWQ(group=64), "uint4"),
        (lambda: GPTQ(group=128), "int4"),
    ],
)
@pytest.mark.parametrize("shape", [(2, 5, 128), (3, 128)])
def test_packed_integers_are_kept(make, kind, shape, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    program = onnxport.export(model, (torch.randn(shape),), quantize="int8", verify=True)
    assert [node.op_type for node in program.model.graph][:2] in (
        ["DequantizeLinear", "MatMul"],
        ["DequantizeLinear", "Gemm"],
    )
    codes = program.model.graph.initializers[f"qweight.{kind}"]
    assert codes.shape.numpy() == (128, model.scales.shape[1])
    assert program.model.graph.node(0).attributes["block_size"].value == model.group
    names = set(program.model.graph.initializers)
    assert not {"qweight", "qzeros", "scales", "g_idx", "shifts"} & names
    assert "MatMulNBits" in kernels(program, tmp_path)


def test_scales_are_the_checkpoints_own():
    torch.manual_seed(0)
    model = AWQ().eval()
    program = onnxport.export(model, (torch.randn(2, 3, 128),), quantize="int4")
    values = {
        n: torch.from_numpy(v.const_value.numpy().astype("float32"))
        for n, v in program.model.graph.initializers.items()
    }
    assert torch.equal(values["qweight.scale"], model.scales)
    weight = (model.unpacked(model.qweight) - model.unpacked(model.qzeros).repeat_interleave(32, 0)).float()
    assert torch.equal(values["qweight.uint4"] - values["qweight.zero_point"].repeat_interleave(32, 0), weight)


def test_other_integers_are_kept_too(tmp_path):
    torch.manual_seed(0)
    model, other, x = AWQ().eval(), AWQ().eval(), torch.randn(2, 3, 128)
    program = onnxport.export(model, (x,), tmp_path / "model.onnx", quantize="int4")
    assert onnxport.verify(tmp_path / "model.onnx", model, (x,)).passed
    assert not onnxport.verify(tmp_path / "model.onnx", other, (x,)).passed
    assert onnxport.find_mismatch(program).passed
    program.apply_weights(other.state_dict())
    assert onnxport.verify(program, other, (x,)).passed
    program.optimize()
    assert onnxport.verify(program, other, (x,)).passed


def test_what_has_no_blocks_stays():
    torch.manual_seed(0)
    ordered = nn.Sequential(GPTQ(order="activations"), nn.Linear(48, 64)).eval()
    x = torch.randn(2, 128)
    program = onnxport.export(ordered, (x,), quantize="int4", verify=True)
    assert {"0.qweight", "1.weight.int4"} <= set(program.model.graph.initializers)
    with pytest.raises(InputError, match=r"0\.qweight: its integers have no scales in blocks"):
        onnxport.export(ordered, (x,), quantize={"0": "int4"})
    named = onnxport.export(nn.Sequential(AWQ()).eval(), (x,), quantize={"0": "int4"}, verify=True)
    assert "0.qweight.uint4" in named.model.graph.initializers


def test_without_quantize_nothing_changes(tmp_path):
    torch.manual_seed(0)
    program = onnxport.export(GPTQ().eval(), (torch.randn(2, 3, 128),), opset_version=21, verify=True)
    assert "MatMulNBits" not in kernels(program, tmp_path)
    assert "qweight" in program.model.graph.initializers


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_integers_of_torchao(kind, tmp_path):
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.SiLU(), nn.Linear(48, 64)).eval()
    granularity = PerGroup(32) if kind == "int4" else PerAxis(0)
    config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, kind), granularity=granularity)
    quantize_(model, config, filter_fn=lambda module, name: name == "0")
    program = onnxport.export(model, (torch.randn(2, 3, 64),), quantize="uint4", verify=True)
    assert kernels(program, tmp_path).count("MatMulNBits") == 2
    types = sorted(v.dtype.name for n, v in program.model.graph.initializers.items() if "qdata" in n and "int" in n)
    assert kind.upper() in types
