"""Recurrent networks as they are used: states, lengths, bidirections, loops over cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from models.structures.structure import BUFFER, floats, ints, structure

X, OTHER = floats(3, 5, 4), floats(2, 9, 4)
FRAMES = ({0: "batch", 1: "time"},)


class Recurrent(nn.Module):
    kind: Any = nn.LSTM
    options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.rnn = self.kind(4, 6, batch_first=True, **self.options)

    def forward(self, x: torch.Tensor) -> Any:
        return self.rnn(x)


@structure(X, dynamic=FRAMES, other=(OTHER,), ops=("LSTM",))
class BidirectionalLstmOfTwoLayers(Recurrent):
    options = {"num_layers": 2, "bidirectional": True}  # noqa: RUF012


@structure(X, dynamic=FRAMES, other=(OTHER,), ops=("GRU",))
class GruWithoutBias(Recurrent):
    kind, options = nn.GRU, {"bias": False}


@structure(X, dynamic=FRAMES, other=(OTHER,), ops=("RNN",))
class ReluRnn(Recurrent):
    kind, options = nn.RNN, {"nonlinearity": "relu"}


@structure(X, dynamic=FRAMES, other=(OTHER,))
class LstmWithProjection(Recurrent):
    options = {"proj_size": 2, "num_layers": 2}  # noqa: RUF012


@structure(X, buffers={"h": torch.zeros(1, 3, 6), "c": torch.zeros(1, 3, 6)}, mutates={"h": BUFFER, "c": BUFFER})
class LstmThatKeepsItsState(Recurrent):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, (h, c) = self.rnn(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return y


@structure(X, floats(1, 3, 6), dynamic=({0: "batch", 1: "time"}, {1: "batch"}), other=(OTHER, floats(1, 2, 6)))
class EncoderAndDecoderWithAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(4, 6, batch_first=True), nn.GRUCell(6, 6)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        memory, h = self.encoder(x, h)
        state, outputs = h[0], []
        for _ in range(3):
            weights = (memory @ state[:, :, None]).softmax(1)
            state = self.decoder((weights * memory).sum(1), state)
            outputs.append(state)
        return torch.stack(outputs, 1)


@structure(X, ints(5, 3, 2), other=[(X * 2, ints(5, 5, 1))])
class PackedLstmWithLengths(Recurrent):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        y, (h, _) = self.rnn(packed)
        return pad_packed_sequence(y, batch_first=True, total_length=5)[0], h


@structure(X, ints(2, 5, 3), other=[(X * 2, ints(1, 5, 4))])
class PackedGruWithUnsortedLengths(Recurrent):
    kind, options = nn.GRU, {"bidirectional": True}

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, h = self.rnn(packed)
        return pad_packed_sequence(y, batch_first=True, padding_value=-1.0, total_length=5)[0], h


@structure(X, dynamic=({0: "batch"},), other=(floats(6, 5, 4),))
class CellsUnrolledInPython(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(4, 6), nn.RNNCell(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 6)
        state, outputs = x.new_zeros(x.shape[0], 3), []
        for frame in x.unbind(1):
            h, c = self.first(frame, (h, c))
            state = self.second(h, state)
            outputs.append(state)
        return torch.stack(outputs, 1)


@structure(X, dynamic=FRAMES, other=(OTHER,))
class ConvolutionThenLstmThenPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(4, 4, 3, padding=1), nn.LSTM(4, 6, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2).relu_())
        return torch.cat([y.amax(1), y.mean(1), y[:, -1]], -1)


@structure(floats(5, 4), dynamic=({0: "time"},), other=(floats(8, 4),))
class LstmWithoutABatch(Recurrent):
    pass


@structure(X.double(), dynamic=FRAMES, other=(OTHER.double(),))
class LstmInDoublePrecision(Recurrent):
    def __init__(self) -> None:
        super().__init__()
        self.double()


@structure(X, dynamic=({0: "batch"},), other=(floats(6, 5, 4),))
class ConvolutionalLstmCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv1d(2, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 1, 4)
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame[:, None], h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


@structure(X, ints(3, 5, 2), other=[(X, ints(1, 2, 5))])
class LastOutputByLength(Recurrent):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return y.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, 6)).squeeze(1)


@structure(X, ints(5, 3, 2))
class PackedSequenceReturned(Recurrent):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> PackedSequence:
        return self.rnn(pack_padded_sequence(x, lengths, batch_first=True))[0]
