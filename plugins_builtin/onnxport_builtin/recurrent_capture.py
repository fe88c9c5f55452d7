"""Capturing recurrent networks with a dynamic time axis.

torch traces ``lstm``, ``gru`` and ``rnn`` on fake tensors by its decompositions, which unroll the time steps and so
freeze the time axis (pytorch#126339, #184872; still so in torch 2.14). Shapes are all that a capture needs of them:
while an export captures, fake tensors get their shapes from the functions here, real tensors what they always get.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C import DispatchKey
from torch._subclasses.fake_tensor import FakeTensor

aten = torch.ops.aten

_KEYS = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
_active: contextvars.ContextVar[bool] = contextvars.ContextVar("onnxport_recurrent_capture", default=False)
_lock = threading.Lock()
_users = 0
_originals: dict[tuple[Any, DispatchKey], Callable[..., Any]] = {}


def _directions(bidirectional: bool) -> int:
    return 2 if bidirectional else 1


def _lstm_input(
    input: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    width = _directions(bidirectional) * hx[0].shape[-1]
    dtype = _autocast_dtype(input) if hx[0].shape == hx[1].shape else input.dtype  # oneDNN takes no projections
    states = (torch.empty_like(state, dtype=dtype) for state in hx)
    return input.new_empty([*input.shape[:-1], width], dtype=dtype), *states  # type: ignore[return-value]


def _lstm_data(
    data: torch.Tensor, batch_sizes: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    width = _directions(bidirectional) * hx[0].shape[-1]
    return data.new_empty([data.shape[0], width]), torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _gru_input(
    input: torch.Tensor, hx: torch.Tensor, params: Any, has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return input.new_empty([*input.shape[:-1], _directions(bidirectional) * hx.shape[-1]]), torch.empty_like(hx)


def _gru_data(
    data: torch.Tensor, batch_sizes: torch.Tensor, hx: torch.Tensor, params: Any, has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return data.new_empty([data.shape[0], _directions(bidirectional) * hx.shape[-1]]), torch.empty_like(hx)


def _like(input: torch.Tensor, shape: list[Any], hx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The results of a layer that is all linear layers and their activation, which autocast computes in its dtype."""
    dtype = _autocast_dtype(input)
    return input.new_empty(shape, dtype=dtype), torch.empty_like(hx, dtype=dtype)


def _autocast_dtype(input: torch.Tensor) -> torch.dtype:
    device = input.device.type
    if input.dtype is torch.float64 or not torch.amp.is_autocast_available(device):
        return input.dtype
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype


def _rnn_input(
    input: torch.Tensor, hx: torch.Tensor, params: Any, has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return _like(input, [*input.shape[:-1], _directions(bidirectional) * hx.shape[-1]], hx)


def _rnn_data(
    data: torch.Tensor, batch_sizes: torch.Tensor, hx: torch.Tensor, params: Any, has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return _like(data, [data.shape[0], _directions(bidirectional) * hx.shape[-1]], hx)


_SHAPES: dict[Any, Callable[..., Any]] = {
    aten.lstm.input: _lstm_input,
    aten.lstm.data: _lstm_data,
    aten.gru.input: _gru_input,
    aten.gru.data: _gru_data,
    aten.rnn_tanh.input: _rnn_input,
    aten.rnn_tanh.data: _rnn_data,
    aten.rnn_relu.input: _rnn_input,
    aten.rnn_relu.data: _rnn_data,
}


@contextlib.contextmanager
def recurrent_shapes() -> Iterator[None]:
    """While active in this thread, recurrent operators on fake tensors give shapes without unrolling."""
    _install()
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)
        _uninstall()


def _install() -> None:
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        for op, shape in _SHAPES.items():
            for key in _KEYS:
                original = op.py_kernels.get(key)
                if original is not None:
                    _originals[op, key] = original
                    _set(op, key, _switch(original, shape))


def _uninstall() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for (op, key), original in _originals.items():
                _set(op, key, original)
            _originals.clear()


def _set(op: Any, key: DispatchKey, kernel: Callable[..., Any]) -> None:
    op.py_kernels[key] = kernel
    op._dispatch_cache.clear()


def _switch(original: Callable[..., Any], shape: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if _active.get() and isinstance(first, FakeTensor):
            return shape(first, *args, **kwargs)
        return original(first, *args, **kwargs)

    return kernel
