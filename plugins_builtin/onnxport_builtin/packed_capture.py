"""Capturing packed sequences whose lengths are data.

torch 2.14 can't: packing has no kernel for fake tensors, and networks read the number of sequences as a Python number.
While an export captures, packing and padding are operators of this package's own, whose results have sizes that depend
on the lengths, and recurrent networks take the number of sequences from the tensor that was packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement
from torch import _VF, nn
from torch.nn.utils.rnn import PackedSequence

_library = torch.library.Library("onnxport", "DEF")
_library.define("pack_padded_sequence(Tensor input, Tensor lengths, bool batch_first) -> (Tensor, Tensor)")
_library.define(
    "pad_packed_sequence(Tensor data, Tensor batch_sizes, SymInt batch, bool batch_first, float padding_value, "
    "SymInt total_length) -> (Tensor, Tensor)"
)

_BATCH = "_onnxport_batch"


def _pack(input: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> Any:
    return torch._C._VariableFunctions._pack_padded_sequence(input, lengths, batch_first)  # type: ignore[attr-defined]


def _pad(
    data: torch.Tensor, batch_sizes: torch.Tensor, batch: int, batch_first: bool, padding_value: float, length: int
) -> Any:
    padded = torch._C._VariableFunctions._pad_packed_sequence(  # type: ignore[attr-defined]
        data, batch_sizes, batch_first, padding_value, length
    )
    return padded[0].contiguous(), padded[1]


def _packed_shapes(input: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> Any:
    context = torch.library.get_ctx()
    rows, steps = context.new_dynamic_size(min=1), context.new_dynamic_size(min=1)
    torch._check(steps <= input.shape[1 if batch_first else 0])
    return input.new_empty([rows, *input.shape[2:]]), torch.empty([steps], dtype=torch.int64)


def _padded_shapes(
    data: torch.Tensor, batch_sizes: torch.Tensor, batch: int, batch_first: bool, padding_value: float, length: int
) -> Any:
    lead = [batch, length] if batch_first else [length, batch]
    return data.new_empty([*lead, *data.shape[1:]]), torch.empty([batch], dtype=torch.int64)


_library.impl("pack_padded_sequence", _pack, "CompositeExplicitAutograd")
_library.impl("pad_packed_sequence", _pad, "CompositeExplicitAutograd")
torch.library.register_fake("onnxport::pack_padded_sequence", _packed_shapes, lib=_library)
torch.library.register_fake("onnxport::pad_packed_sequence", _padded_shapes, lib=_library)


def packed_sequences() -> Iterator[Replacement]:
    """While any thread is in it, packing and networks on packed sequences can be captured."""
    yield Replacement(_VF, "_pack_padded_sequence", _captured_pack)
    yield Replacement(_VF, "_pad_packed_sequence", _captured_pad)
    for network in (nn.LSTM, nn.GRU, nn.RNN):
        yield Replacement(network, "forward", _captured_forward)


def _is_capturing() -> bool:
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


def _captured_pack(original: Callable[..., Any]) -> Callable[..., Any]:
    def pack(input: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> Any:
        if not _is_capturing():
            return original(input, lengths, batch_first)
        data, batch_sizes = torch.ops.onnxport.pack_padded_sequence(input, lengths, batch_first)
        setattr(batch_sizes, _BATCH, input.shape[0 if batch_first else 1])
        return data, batch_sizes

    return pack


def _captured_pad(original: Callable[..., Any]) -> Callable[..., Any]:
    def pad(data: torch.Tensor, batch_sizes: torch.Tensor, batch_first: bool, value: float, length: int) -> Any:
        if not _is_capturing():
            return original(data, batch_sizes, batch_first, value, length)
        batch = _batch_of(batch_sizes)
        return torch.ops.onnxport.pad_packed_sequence(data, batch_sizes, batch, batch_first, float(value), length)

    return pad


def _batch_of(batch_sizes: torch.Tensor) -> Any:
    """The number of sequences: that of the tensor that was packed, where it is known."""
    known = getattr(batch_sizes, _BATCH, None)
    return batch_sizes[0].item() if known is None else known


def _captured_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, PackedSequence) or not _is_capturing():
            return original(self, input, hx)
        data, batch_sizes, sorted_indices, unsorted_indices = input
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        else:
            count = self.num_layers * (2 if self.bidirectional else 1)
            widths = [self.proj_size or self.hidden_size, self.hidden_size][: 2 if self.mode == "LSTM" else 1]
            states = [torch.zeros(count, _batch_of(batch_sizes), w, dtype=data.dtype) for w in widths]
            hx = tuple(states) if self.mode == "LSTM" else states[0]
        network = getattr(_VF, self.mode.lower())
        options = (self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        y, *last = network(data, batch_sizes, hx, self._flat_weights, *options)
        final = self.permute_hidden(tuple(last) if self.mode == "LSTM" else last[0], unsorted_indices)
        return PackedSequence(y, batch_sizes, sorted_indices, unsorted_indices), final

    return forward
