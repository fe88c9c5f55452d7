"""LSTM, GRU and RNN: directions, layers, layouts, states, dynamic time, projections, packed sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import export_and_compare, op_types
from torch import nn
from torch.export import Dim

BOTH = {0: Dim.AUTO, 1: Dim.AUTO}
KINDS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **kwargs: nn.RNN(*args, nonlinearity="relu", **kwargs),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "batch_first": True},
    {"bidirectional": True, "batch_first": True, "bias": False},
]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_dynamic_time_and_batch(kind: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    module = KINDS[kind](4, 5, **options).to(dtype)
    program = export_and_compare(
        module, (values(7, 3, 4, dtype=dtype),), other_args=(values(9, 2, 4, dtype=dtype),), dynamic_shapes=(BOTH,)
    )
    if dtype == torch.float32:
        nodes = {"lstm": "LSTM", "gru": "GRU"}.get(kind, "RNN")
        assert op_types(program).count(nodes) == options.get("num_layers", 1)
        assert "ConstantOfShape" not in op_types(program)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states(kind: str) -> None:
    module = KINDS[kind](4, 5, num_layers=2, bidirectional=True)
    state = values(4, 3, 5)
    export_and_compare(module, (values(7, 3, 4), (state, values(4, 3, 5)) if kind == "lstm" else state))


@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_projections(options: dict[str, Any]) -> None:
    module = nn.LSTM(4, 5, proj_size=2, **options)
    export_and_compare(module, (values(7, 3, 4),), other_args=(values(9, 2, 4),), dynamic_shapes=(BOTH,))


def test_without_a_batch() -> None:
    export_and_compare(nn.LSTM(4, 5), (values(7, 4),), other_args=(values(9, 4),), dynamic_shapes=({0: Dim.AUTO},))


def test_weights_that_are_inputs() -> None:
    def network(x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, b: torch.Tensor) -> Any:
        return torch.gru(x, torch.zeros(1, 3, 5), [w, r, b, b], True, 1, 0.0, False, False, False)

    export_and_compare(network, (values(7, 3, 4), values(15, 4), values(15, 5), values(15)))


@pytest.mark.parametrize(
    "module", [nn.LSTMCell(4, 5), nn.GRUCell(4, 5), nn.RNNCell(4, 5), nn.RNNCell(4, 5, nonlinearity="relu")]
)
def test_cells(module: nn.Module) -> None:
    export_and_compare(module, (values(3, 4),), other_args=(values(2, 4),), dynamic_shapes=({0: Dim.AUTO},))


@pytest.mark.parametrize("projection", [0, 3])
def test_packed_sequences(projection: int) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.LSTM(4, 5, 2, bidirectional=True, proj_size=projection)

        def forward(self, data: torch.Tensor, sizes: torch.Tensor) -> Any:
            y, state = self.network(nn.utils.rnn.PackedSequence(data, sizes))
            return y.data, state

    packed = nn.utils.rnn.pack_sequence([values(n, 4) for n in (5, 3, 3, 1)])
    export_and_compare(Packed(), (packed.data, packed.batch_sizes))
