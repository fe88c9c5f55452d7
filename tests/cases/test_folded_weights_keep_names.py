"""A folded batch norm leaves the convolution its weights' names, and nobody takes the folded values for them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import expect_equal


class Network(torch.nn.Module):
    def __init__(self, seed: int = 0, *, has_bias: bool = True, is_transposed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layer = torch.nn.ConvTranspose2d if is_transposed else torch.nn.Conv2d
        self.conv, self.bn = layer(3, 4, 3, bias=has_bias), torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 4)
        with torch.no_grad():
            for tensor in (self.bn.weight, self.bn.bias, self.bn.running_mean, self.bn.running_var):
                tensor.uniform_(0.5, 2)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


X = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("has_bias", [True, False])
def test_names(tmp_path: Path, has_bias: bool, is_transposed: bool) -> None:
    model = Network(has_bias=has_bias, is_transposed=is_transposed)
    program = onnxport.export(model, (X,))
    expect_equal(program(X)[0], model(X), atol=1e-4)
    program.save(tmp_path / "model.onnx")
    names = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    bias = "conv.bias" if has_bias else "bn.bias"
    assert {"conv.weight", bias} <= names
    assert not any("fused" in name or name.startswith("bn.running") for name in names)
    (marked,) = [v for name, v in program.model.graph.initializers.items() if name == "conv.weight"]
    assert marked.metadata_props["onnxport.folded_from"].split(", ") == ["conv.weight", "bn.weight", "bn.running_var"]


def test_weights_are_folded_again_where_the_program_is_known() -> None:
    program, other = onnxport.export(Network(0), (X,)), Network(1)
    program.apply_weights(other.state_dict())
    expect_equal(program(X)[0], other(X), atol=1e-4)


def test_a_file_takes_no_unfolded_weight_for_a_folded_one(tmp_path: Path) -> None:
    model = Network()
    onnxport.export(model, (X,)).save(tmp_path / "model.onnx")
    loaded = onnxport.ONNXProgram.load(tmp_path / "model.onnx")
    assert onnxport.verify(loaded, model, (X,)).passed
    for name in ("conv.weight", "conv.bias", "bn.weight"):
        with pytest.raises(onnxport.WeightError, match=rf"{name}: computed into constants at export"):
            loaded.apply_weights({name: model.state_dict()[name]}, strict=False)
    expect_equal(loaded(X)[0], model(X), atol=1e-4)
    loaded.apply_weights({"fc.bias": model.fc.bias + 1}, strict=False)
    expect_equal(loaded(X)[0], model(X) + 1, atol=1e-4)


def test_a_weight_that_is_read_elsewhere_keeps_its_name() -> None:
    class Twice(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(self.bn(self.conv(x)).mean((2, 3)), self.fc.weight, self.bn.bias)

    model = Twice(has_bias=False)
    program = onnxport.export(model, (X,))
    expect_equal(program(X)[0], model(X), atol=1e-4)
    assert "onnxport.folded_from" not in program.model.graph.initializers["bn.bias"].metadata_props
    assert "bn.bias.fused" in program.model.graph.initializers
