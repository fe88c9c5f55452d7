"""Equal constants are in the file once; weights that a user names stay apart, however equal they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxport
import pytest
import torch
from support import export_and_compare, flat_tensors
from torch import nn


class Spectrograms(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("a", torch.hann_window(64))
        self.register_buffer("b", torch.hann_window(64))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self.a), self.function(x, self.b)


class Table(nn.Module):
    """Tables that forward makes anew at each layer: of ranges, numpy arrays and tensors of the code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            steps = torch.arange(600, dtype=torch.float32)
            x = torch.softmax(x * (steps[:, None] * steps).cos().sum(0), -1) @ torch.eye(600).roll(1, 0)
            x = x + torch.tensor([[1.0, 2.0, 3.0]] * 200).flatten()
        return x


def _stft(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.stft(x, 64, 16, window=window, return_complex=True).abs()


def _fft(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft(x.unfold(-1, 64, 16) * window).abs()


def _back(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.istft(torch.stft(x, 64, 16, window=window, return_complex=True), 64, 16, window=window)


def copies(model: ir.Model) -> int:
    """How many constants are in the file more than once."""
    found: Counter[Any] = Counter()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not getattr(tensor, "is_weight", False):
            found[tensor.dtype, tuple(tensor.shape), tensor.tobytes()] += 1
    return sum(count - 1 for count in found.values())


@pytest.mark.parametrize(
    ("model", "args"),
    [
        (Spectrograms(_stft), (torch.rand(1, 400),)),
        (Spectrograms(_fft), (torch.rand(1, 400),)),
        (Spectrograms(_back), (torch.rand(1, 400),)),
        (Table(), (torch.rand(2, 600),)),
    ],
    ids=["stft", "rfft", "istft", "tables"],
)
def test_once(model: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    program = export_and_compare(model, args)
    assert copies(program.model) == 0
    if isinstance(model, Spectrograms):
        assert {"a", "b"} <= set(program.model.graph.initializers)


def test_equal_weights_stay_apart_unless_tied() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(40, 40, bias=False) for _ in range(3))
            self.two.load_state_dict(self.one.state_dict())
            self.three.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.three(self.two(self.one(x).relu()).relu())

    model, x = Layers().eval(), torch.rand(3, 40)
    program = onnxport.export(model, (x,))
    assert len(program.model.graph.initializers) == 2
    model.two.weight.data *= 2
    program.apply_weights(model.state_dict())
    torch.testing.assert_close(flat_tensors(program(x))[0], model(x))


def test_other_types_shapes_and_zeros_stay_apart() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    zeros = torch.zeros(4)
    tensors = [zeros, zeros.clone(), -zeros, zeros.view(torch.int32), zeros.reshape(2, 2), zeros.clone()]
    x = model.graph.inputs[0]
    for i, tensor in enumerate(tensors):
        value = ir.Value(name=f"c{i}", const_value=ir.Tensor(tensor.numpy(), name=f"c{i}"))
        model.graph.initializers[f"c{i}"] = value
        model.graph.append(ir.Node("", "Use", [x, value]))
    from onnxport_builtin.passes import equal_constants

    assert equal_constants.run(model) == 2
    assert list(model.graph.initializers) == ["c0", "c2", "c3", "c4"]
    assert [node.inputs[1].name for node in model.graph if node.op_type == "Use"] == [
        "c0",
        "c0",
        "c2",
        "c3",
        "c4",
        "c0",
    ]


def test_in_functions() -> None:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return _stft(x, torch.ones(64)) + _stft(x.flip(-1), torch.ones(64))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Layer(), Layer()])

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [layer(x) for layer in self.layers]

    model, x = Model().eval(), torch.rand(1, 200)
    program = onnxport.export(model, (x,), functions=[Layer], verify=True)
    (function,) = program.model.functions.values()
    nodes = [n.attributes["value"].value for n in function if n.op_type == "Constant"]
    weights = [value.const_value for value in program.model.graph.initializers.values()]
    assert len([tensor for tensor in (*nodes, *weights) if tensor.nbytes > 1024]) == 1
