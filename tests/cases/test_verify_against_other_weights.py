"""The weights of file and model are compared, so that a model with others is told as such; and no others are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxport
import pytest
import torch
from torch import nn

X = torch.randn(2, 4)
RELU = torch.ops.aten.relu.default


def factory(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)).eval()


def saved(model: nn.Module, path: Path, args: tuple[Any, ...] = (X,), **options: Any) -> Path:
    onnxport.export(model, args, path / "m.onnx", **options)
    return path / "m.onnx"


def test_all_differ(tmp_path: Path) -> None:
    path, other = saved(factory(), tmp_path), factory()
    result = onnxport.verify(path, other, (X,))
    assert not result.passed and sorted(result.weights.differing) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    first = result.failures()[0]
    assert first.startswith("4 of 4 weights differ: seed the factory or load a checkpoint (")
    assert first in result.table() and result.as_dict()["weights"]["problem"] == first
    with pytest.raises(onnxport.VerificationError, match="4 of 4 weights differ") as caught:
        result.raise_on_failure()
    assert caught.value.result is result and "find_mismatch" not in str(caught.value)


def test_of_a_program_in_memory() -> None:
    model = factory()
    program = onnxport.export(model, (X,))
    assert onnxport.verify(program, model).weights.compared == 4
    assert onnxport.verify(program, factory()).weights.problem.startswith("4 of 4 weights differ")
    program.apply_weights(factory().state_dict())  # the exported program has the old ones
    result = onnxport.verify(program)
    assert not result.passed and "4 of 4 weights differ" in result.failures()[0]
    assert "Weights: 4 of 4 weights differ" in str(onnxport.find_mismatch(program))


def test_one_differs(tmp_path: Path) -> None:
    model = factory()
    path, other = saved(model, tmp_path), copy.deepcopy(model)
    with torch.no_grad():
        other[2].bias[0] += 1
    result = onnxport.verify(path, other, (X,))
    assert result.failures()[0] == "1 of 4 weights differ: seed the factory or load a checkpoint (2.bias)"


def test_another_width(tmp_path: Path) -> None:
    result = onnxport.verify(saved(factory(), tmp_path), factory(16), (X,))
    assert not result.passed
    assert result.weights.reshaped == ["0.weight", "0.bias", "2.weight"] and result.weights.differing == ["2.bias"]
    assert "3 of 4 weights have another shape" in result.failures()[0]


def test_another_depth(tmp_path: Path) -> None:
    model = factory()
    result = onnxport.verify(saved(model, tmp_path), nn.Sequential(model[0]).eval(), (X,))
    assert result.weights.unknown == ["2.weight", "2.bias"]
    assert "2 of 4 weights aren't in the model" in result.failures()[0]


def test_another_dtype(tmp_path: Path) -> None:
    model = factory()
    path = saved(copy.deepcopy(model).half(), tmp_path, (X.half(),))
    result = onnxport.verify(path, model.half(), (X.half(),))
    assert result.passed and not result.weights.problem
    result = onnxport.verify(path, factory(), (X.half(),))
    assert "weights differ" in result.weights.problem


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("offset", torch.randn(4), persistent=False)
        self.register_buffer("scale", torch.tensor(float("nan")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(self.second(self.first(x)) + self.offset) * torch.nan_to_num(self.scale, 2.0)


class Folded(nn.Module):
    """Weights that constants, transposed and fused weights are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.conv, self.norm = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4)
        self.out = nn.Parameter(torch.randn(3, 4))
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.normed(x @ (self.w * self.scale)).relu()
        return self.norm(self.conv(x[:, None])).mean(-1) @ self.out.t()


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.w).abs().relu()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x[None])[0].relu()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": factory, "tied": Tied, "folded": Folded, "complex": Complex, "recurrent": Recurrent,
    "attention": lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimize", [True, False])
def test_equal_weights_are_never_blamed(name: str, optimize: bool, tmp_path: Path) -> None:
    """Of a right file, and of one that is wrong for another reason: whatever passes made of the weights."""
    model = MODELS[name]().eval()
    path = saved(model, tmp_path, optimize=optimize)
    result = onnxport.verify(path, model, (X,))
    assert result.passed and not result.weights.problem, result.failures()
    program = onnxport.ONNXProgram.load(path)
    output = program.model.graph.outputs[0]
    shift = ir.Value(name="shift", const_value=ir.tensor([3.0], name="shift"))
    program.model.graph.register_initializer(shift)
    node = ir.node("Add", [output, shift])
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = "wrong", output.dtype, output.shape
    program.model.graph.append(node)
    program.model.graph.outputs[0] = node.outputs[0]
    program.save(tmp_path / "wrong.onnx")
    result = onnxport.verify(tmp_path / "wrong.onnx", model, (X,))
    assert not result.passed and not result.weights.problem, result.failures()


@pytest.mark.parametrize("name", MODELS)
def test_other_weights_are_told(name: str, tmp_path: Path) -> None:
    model, other = MODELS[name]().eval(), MODELS[name]().eval()
    path = saved(model, tmp_path)
    result = onnxport.verify(path, other, (X,))
    told = name != "recurrent"  # a file doesn't tell what the gates of ONNX are made of
    assert not result.passed and ("weights differ" in result.failures()[0]) is told
    assert "weights differ" in onnxport.verify(onnxport.export(model, (X,)), other).weights.problem


def test_names_that_mean_something_else(tmp_path: Path) -> None:
    """A module that holds the model, and a function: nothing can be said about weights."""

    class Holder(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    model = factory()
    path = saved(model, tmp_path)
    for reference in (Holder(factory()).eval(), lambda x: model(x) + 1):
        result = onnxport.verify(path, reference, (X,))
        assert not result.passed and not result.weights.problem
    exported = torch.export.export(factory(), (X,))
    assert "4 of 4 weights differ" in onnxport.verify(path, exported).failures()[0]


def test_differences_within_the_tolerance_are_no_failure(tmp_path: Path) -> None:
    model = factory()
    path, other = saved(model, tmp_path), copy.deepcopy(model)
    with torch.no_grad():
        other[0].bias += 1e-8
        other[0].bias[0] *= 1.000001
    result = onnxport.verify(path, other, (X,))
    assert result.passed and not result.failures()
    assert result.weights.differing == ["0.bias"] and "1 of 4 weights differ" in result.table()
