"""Packed sequences whose lengths are inputs: pack_padded_sequence, recurrent networks, pad_packed_sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import export_and_compare, op_types
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

DYNAMIC = torch.export.Dim.DYNAMIC
KINDS: dict[str, Any] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": lambda *args, **named: nn.RNN(*args, nonlinearity="relu", **named),
}


class Network(nn.Module):
    def __init__(self, kind: str = "LSTM", *, first: bool = True, in_order: bool = True, **named: Any) -> None:
        super().__init__()
        self.rnn = KINDS[kind](4, 5, batch_first=first, **named)
        self.first, self.in_order = first, in_order

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, state: Any = None) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=self.in_order)
        y, last = self.rnn(packed, state)
        return *pad_packed_sequence(y, batch_first=self.first), last


def inputs(lengths: list[int], steps: int = 6, first: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(len(lengths), steps, 4)
    return x if first else x.transpose(0, 1).contiguous(), torch.tensor(lengths)


BOTH = ({0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC})


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_as_input(kind: str, in_order: bool, first: bool) -> None:
    lengths, others = ([6, 4, 2], [8, 8, 3, 1]) if in_order else ([2, 6, 4], [3, 1, 7, 5])
    options = {"num_layers": 2, "bidirectional": True} if in_order else {}
    program = export_and_compare(
        Network(kind, in_order=in_order, first=first, **options),
        inputs(lengths, first=first),
        dynamic_shapes=BOTH,
        other_args=inputs(others, 9, first),
    )
    nodes = [node for node in program.model.graph if node.op_type == kind]
    assert len(nodes) == options.get("num_layers", 1)
    assert all(node.inputs[4] is not None for node in nodes), "no sequence_lens"
    assert op_types(program).count("Compress") == 0  # nothing is packed where it is padded again


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states(kind: str) -> None:
    def state(batch: int) -> Any:
        made = torch.randn(2, batch, 5), torch.randn(2, batch, 5)
        return made if kind == "LSTM" else made[0]

    sizes: Any = ({1: DYNAMIC},) * 2 if kind == "LSTM" else {1: DYNAMIC}
    export_and_compare(
        Network(kind, in_order=False, bidirectional=True),
        (*inputs([2, 6, 4]), state(3)),
        dynamic_shapes=(*BOTH, sizes),
        other_args=(*inputs([3, 3, 8, 2], 8), state(4)),
    )


@pytest.mark.parametrize("named", [{"proj_size": 3}, {"dtype": torch.float64}], ids=str)
def test_networks_that_onnx_has_not(named: dict[str, Any]) -> None:
    x, lengths = inputs([2, 6, 4])
    other, others = inputs([3, 3, 8, 2], 8)
    dtype = named.get("dtype", torch.float32)
    export_and_compare(
        Network(in_order=False, bidirectional=True, **named),
        (x.to(dtype), lengths),
        dynamic_shapes=BOTH,
        other_args=(other.to(dtype), others),
    )


def test_total_length_and_padding_value() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 5, batch_first=True)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            y, _ = self.rnn(pack_padded_sequence(x, lengths, batch_first=True))
            same, _ = pad_packed_sequence(y, batch_first=True, padding_value=-1.5, total_length=x.shape[1])
            return same + x.sum(-1, keepdim=True)

    export_and_compare(Padded(), inputs([5, 4, 2]), dynamic_shapes=BOTH, other_args=inputs([8, 2], 8))


def test_total_length_beyond_the_steps() -> None:
    def padded(x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths)
        return *pad_packed_sequence(packed, total_length=8), pad_packed_sequence(packed, padding_value=1.0)[0]

    export_and_compare(padded, inputs([5, 4, 2], first=False), other_args=inputs([6, 2, 2], first=False))


def test_layers_on_the_packed_data() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.rnn, self.after = nn.Linear(4, 4), nn.LSTM(4, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, _ = self.rnn(packed._replace(data=self.before(packed.data).relu()))
            padded, _ = pad_packed_sequence(y._replace(data=self.after(y.data)), batch_first=True)
            return padded, y.data, y.batch_sizes

    export_and_compare(Mixed(), inputs([2, 6, 4]), dynamic_shapes=BOTH, other_args=inputs([1, 8], 8))


def test_lengths_in_the_code() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 5)

        def forward(self, x: torch.Tensor) -> Any:
            y, h = self.rnn(pack_padded_sequence(x, [2, 6, 4], batch_first=True, enforce_sorted=False))
            return *pad_packed_sequence(y), h

    export_and_compare(Fixed(), (torch.randn(3, 6, 4),), other_args=(torch.randn(3, 6, 4),))


def test_packed_sequence_as_input() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 5, bidirectional=True)

        def forward(self, data: torch.Tensor, batch_sizes: torch.Tensor) -> Any:
            y, last = self.rnn(PackedSequence(data, batch_sizes))
            return y.data, last, *pad_packed_sequence(y, padding_value=2.0)

    packed, other = (pack_sequence([torch.randn(n, 4) for n in lengths]) for lengths in ((5, 3, 3, 1), (7, 2)))
    export_and_compare(
        Packed(), packed[:2], dynamic_shapes=({0: DYNAMIC}, {0: DYNAMIC}), other_args=other[:2], verify=True
    )
