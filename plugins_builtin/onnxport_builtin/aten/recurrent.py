"""Recurrent networks as ONNX's LSTM, GRU and RNN nodes; as Scan where those can't (double, projections)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxport import DataType, Tensor, Unsupported, translation
from onnxport.authoring import Dim

from onnxport_builtin import packed_capture as _operators  # noqa: F401  # defines onnxport::pack_padded_sequence
from onnxport_builtin.aten import random
from onnxport_builtin.aten.matmul import matrix_product

if TYPE_CHECKING:
    from onnxport import Builder

# The element types of onnxruntime 1.32's kernels (bfloat16 runs elsewhere).
_NATIVE = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)


@dataclass(frozen=True)
class _Kind:
    """One recurrent network.

    Attributes:
        name: of the ONNX operator.
        gates: how many rows of `hidden_size` a weight has.
        order: ONNX's order of the gates, as places in torch's (input, forget, cell, output; reset, update, new).
        activation: of the ONNX operator, where it isn't the default.
    """

    name: str
    gates: int
    order: tuple[int, ...]
    activation: str | None = None


_LSTM = _Kind("LSTM", 4, (0, 3, 1, 2))
_GRU = _Kind("GRU", 3, (1, 0, 2))
_RNN_TANH = _Kind("RNN", 1, (0,))
_RNN_RELU = _Kind("RNN", 1, (0,), "Relu")


@dataclass(frozen=True)
class _Direction:
    """The parameters of one layer in one direction."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    w_hr: Tensor | None


def _directions(params: Sequence[Tensor], has_biases: bool, count: int) -> list[_Direction]:
    each = len(params) // count
    biases = 2 if has_biases else 0
    found = []
    for i in range(count):
        w_ih, w_hh, *rest = params[i * each : (i + 1) * each]
        b_ih, b_hh = rest[:2] if biases else (None, None)
        found.append(_Direction(w_ih, w_hh, b_ih, b_hh, rest[biases] if len(rest) > biases else None))
    return found


def _reordered(op: Builder, kind: _Kind, weights: Sequence[Tensor]) -> Tensor:
    """Weights of one layer, one a direction, with their gates in ONNX's order: (directions, rows, ...)."""
    if all(w.const_value is not None for w in weights):
        return op.const(np.stack([_shuffled(kind, w.const_value.numpy()) for w in weights]), weights[0].dtype)
    parts = []
    for weight in weights:
        if kind.gates > 1:
            rows = int(weight.shape[0]) // kind.gates
            pieces = op.Split(weight, [rows] * kind.gates, axis=0, outputs=kind.gates)
            weight = op.Concat(*(pieces[place] for place in kind.order), axis=0)
        parts.append(op.Unsqueeze(weight, [0]))
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=0)


def _shuffled(kind: _Kind, array: np.ndarray) -> np.ndarray:
    pieces = np.split(array, kind.gates)
    return np.concatenate([pieces[place] for place in kind.order])


def _biases(op: Builder, kind: _Kind, layer: Sequence[_Direction]) -> Tensor | None:
    pairs = [(d.b_ih, d.b_hh) for d in layer]
    if any(b is None for pair in pairs for b in pair):
        return None
    if all(b.const_value is not None for pair in pairs for b in pair):
        rows = [np.concatenate([_shuffled(kind, b.const_value.numpy()) for b in pair]) for pair in pairs]
        return op.const(np.stack(rows), layer[0].w_ih.dtype)
    halves = [_reordered(op, kind, [pair[i] for pair in pairs]) for i in (0, 1)]
    return op.Concat(*halves, axis=1)


def _is_zero(state: Tensor) -> bool:
    """Whether a value is known to be zeros: what ``torch.nn`` makes where no initial state is given."""
    if state.const_value is not None:
        return not state.const_value.numpy().any()
    producer = state.producer()
    if producer is None:
        return False
    if producer.op_type == "Expand":
        return _is_zero(producer.inputs[0])
    if producer.op_type != "ConstantOfShape":
        return False
    value = producer.attributes.get("value")
    return value is None or not value.as_tensor().numpy().any()


def _initial(op: Builder, state: Tensor, layer: int, layers: int, directions: int) -> Tensor | None:
    """The initial state of one layer, (directions, batch, size); None where it is known to be zeros."""
    if _is_zero(state):
        return None
    if layers == 1:
        return state
    return op.Slice(state, [layer * directions], [(layer + 1) * directions], [0])


def _native_layer(
    op: Builder,
    kind: _Kind,
    x: Tensor,
    layer: Sequence[_Direction],
    initial: Sequence[Tensor | None],
    lengths: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """One layer as one node: its outputs (time, directions, batch, hidden) and last states."""
    w = _reordered(op, kind, [d.w_ih for d in layer])
    r = _reordered(op, kind, [d.w_hh for d in layer])
    b = _biases(op, kind, layer)
    hidden = int(layer[0].w_hh.shape[1])
    options: dict[str, Any] = {"hidden_size": hidden}
    if len(layer) == 2:
        options["direction"] = "bidirectional"
    if kind.activation is not None:
        options["activations"] = [kind.activation] * len(layer)
    if kind.name == "GRU":
        options["linear_before_reset"] = 1
    emit = getattr(op, kind.name)
    y, *states = emit(x, w, r, b, lengths, *initial, outputs=1 + len(initial), **options)
    return y, states


# ---- the same by Scan


def _linear(op: Builder, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = matrix_product(op, x, op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _lstm_step(
    op: Builder, d: _Direction, gates: Tensor, states: Sequence[Tensor], activation: str | None
) -> list[Tensor]:
    h, c = states
    hidden = int(d.w_hh.shape[0]) // 4
    total = op.Add(gates, _linear(op, h, d.w_hh, d.b_hh))
    i, f, g, o = op.Split(total, [hidden] * 4, axis=-1, outputs=4)
    c = op.Add(op.Mul(op.Sigmoid(f), c), op.Mul(op.Sigmoid(i), op.Tanh(g)))
    h = op.Mul(op.Sigmoid(o), op.Tanh(c))
    return [h if d.w_hr is None else _linear(op, h, d.w_hr, None), c]


def _gru_step(
    op: Builder, d: _Direction, gates: Tensor, states: Sequence[Tensor], activation: str | None
) -> list[Tensor]:
    (h,) = states
    sizes = [int(d.w_hh.shape[0]) // 3] * 3
    reset_x, update_x, new_x = op.Split(gates, sizes, axis=-1, outputs=3)
    reset_h, update_h, new_h = op.Split(_linear(op, h, d.w_hh, d.b_hh), sizes, axis=-1, outputs=3)
    reset = op.Sigmoid(op.Add(reset_x, reset_h))
    update = op.Sigmoid(op.Add(update_x, update_h))
    new = op.Tanh(op.Add(new_x, op.Mul(reset, new_h)))
    return [op.Add(new, op.Mul(update, op.Sub(h, new)))]


def _rnn_step(
    op: Builder, d: _Direction, gates: Tensor, states: Sequence[Tensor], activation: str | None
) -> list[Tensor]:
    (h,) = states
    total = op.Add(gates, _linear(op, h, d.w_hh, d.b_hh))
    return [op.Relu(total) if activation == "Relu" else op.Tanh(total)]


_Step = Callable[["Builder", _Direction, Tensor, Sequence[Tensor], "str | None"], list[Tensor]]
_STEPS: dict[str, _Step] = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}


def _scanned_layer(
    op: Builder,
    kind: _Kind,
    x: Tensor,
    layer: Sequence[_Direction],
    states: Sequence[Tensor],
    running: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """One layer by one Scan a direction; `states` are (directions, batch, size).

    `running`, bool (time, batch, 1), tells which sequences have not ended; those that have keep their states.
    """
    dtype = x.dtype
    outputs, last = [], []
    for i, d in enumerate(layer):
        gates = _linear(op, x, d.w_ih, d.b_ih)
        initial = [op.Gather(state, op.const(np.int64(i)), axis=0) for state in states]

        def body(*values: Tensor, d: _Direction = d, count: int = len(initial)) -> list[Tensor]:
            old, step = list(values[:count]), values[count]
            new = _STEPS[kind.name](op, d, step, old, kind.activation)
            if running is None:
                return [*new, op.Identity(new[0])]
            alive = values[count + 1]
            kept = [op.Where(alive, n, o) for n, o in zip(new, old)]
            return [*kept, op.Where(alive, new[0], 0)]

        kinds: list[tuple[DataType, Any]] = [(dtype, None)] * (len(initial) + 1)
        inputs = [gates]
        if running is not None:
            kinds.append((DataType.BOOL, None))
            inputs.append(running)
        *final, y = op.Scan(
            *initial,
            *inputs,
            body=op.subgraph(body, kinds, name="step"),
            num_scan_inputs=len(inputs),
            scan_input_directions=[i] * len(inputs),
            scan_output_directions=[i],
            outputs=len(initial) + 1,
        )
        outputs.append(op.Unsqueeze(y, [1]))
        last.append([op.Unsqueeze(state, [0]) for state in final])
    if len(layer) == 1:
        return outputs[0], last[0]
    return op.Concat(*outputs, axis=1), [op.Concat(*pair, axis=0) for pair in zip(*last)]


# ---- networks


@dataclass(frozen=True)
class _Packed:
    """How a packed sequence of torch (all sequences' first steps, then the second ones, ...) lies in a padded one.

    Attributes:
        lengths: int64 (batch,).
        running: bool (time, batch).
        sizes: the batch sizes that the sequence was packed with.
        padded: (time, batch, ...), of which the packed one is made.
        time: its number of steps; None where it is just that of the longest sequence.
        longest: int64 (1,), the length of the longest sequence, where it isn't `time`.
        is_zero: it is 0 behind the ends of the sequences.
    """

    lengths: Tensor
    running: Tensor
    sizes: Tensor
    padded: Tensor | None = None
    time: Dim | None = None
    longest: Tensor | None = None
    is_zero: bool = False


_PADDED = "onnxport.padded"
"""Key of a packed value's `meta`: its `_Packed`, so that what pads it again can do without the packing."""


def _compressed(op: Builder, padded: Tensor, packed: _Packed, rest: Sequence[Dim], is_zero: bool) -> Tensor:
    """The packed sequence of a padded one."""
    flat = op.Reshape(padded, op.sizes([-1, *rest]))
    data: Tensor = op.Compress(flat, op.Reshape(packed.running, [-1]), axis=0)
    data.meta[_PADDED] = replace(packed, padded=padded, is_zero=is_zero)
    return data


def _unpacked(op: Builder, data: Tensor, batch_sizes: Tensor) -> _Packed:
    """How a packed sequence lies in the padded one, and that one: in other steps than those of a sequence undefined."""
    known: _Packed | None = data.meta.get(_PADDED)
    if known is not None and known.sizes is batch_sizes:
        return known
    sizes = op.cast(batch_sizes, DataType.INT64)
    batch = op.Slice(sizes, [0], [1], [0])  # the first step has them all
    places = op.Range(0, op.Squeeze(batch, [0]), 1)
    running = op.Less(places, op.Unsqueeze(sizes, [1]))
    lengths = op.ReduceSum(op.cast(running, DataType.INT64), [0], keepdims=0)
    firsts = op.Unsqueeze(op.CumSum(sizes, op.const(np.int64(0)), exclusive=1), [1])
    index = op.Where(running, op.Add(firsts, places), 0)
    return _Packed(lengths, running, batch_sizes, op.Gather(data, index))


@translation("onnxport::pack_padded_sequence")
def pack_padded_sequence(op: Builder, input: Tensor, lengths: Tensor, batch_first: bool) -> list[Tensor]:
    order = list(range(len(input.shape)))
    x = op.Transpose(input, perm=[1, 0, *order[2:]]) if batch_first else input
    time = input.shape[1 if batch_first else 0]
    running = op.Less(op.Unsqueeze(op.Range(0, time, 1), [1]), lengths)
    counts = op.ReduceSum(op.cast(running, DataType.INT64), [1], keepdims=0)
    longest = op.ReduceMax(lengths, [0], keepdims=1)
    sizes = op.Slice(counts, [0], longest, [0])
    packed = _Packed(lengths, running, sizes, time=time, longest=longest)
    return [_compressed(op, x, packed, list(input.shape)[2:], False), sizes]


@translation("onnxport::pad_packed_sequence")
def pad_packed_sequence(
    op: Builder,
    data: Tensor,
    batch_sizes: Tensor,
    batch: Dim,
    batch_first: bool,
    padding_value: float,
    total_length: Dim,
) -> list[Tensor]:
    packed = _unpacked(op, data, batch_sizes)
    rest = list(data.shape)[1:]
    x: Any = packed.padded
    value = op.const(padding_value, data.dtype)
    if not (packed.is_zero and padding_value == 0):
        x = op.Where(op.Unsqueeze(packed.running, list(range(2, 2 + len(rest)))) if rest else packed.running, x, value)
    if total_length == batch_sizes.shape[0]:
        x = x if packed.longest is None else op.Slice(x, [0], packed.longest, [0])
    elif total_length != packed.time:  # the padded sequence at hand may have more steps, or fewer
        wanted = op.sizes([total_length])
        missing = op.Max(op.Sub(wanted, op.Shape(packed.running, start=0, end=1)), [0])
        before, behind = (op.const(np.zeros(count, np.int64)) for count in (2 + len(rest), 1 + len(rest)))
        x = op.Pad(op.Slice(x, [0], wanted, [0]), op.Concat(before, missing, behind, axis=0), value)
    order = [1, 0, *range(2, 2 + len(rest))]
    return [op.Transpose(x, perm=order) if batch_first else x, packed.lengths]


def _network(
    op: Builder,
    kind: _Kind,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    packed: _Packed | None = None,
) -> list[Tensor]:
    """All layers. `x` is (time, batch, size), or (batch, time, size) with `batch_first`.

    Returns the outputs in the same layout and the last states (layers * directions, batch, size).
    """
    directions = 2 if bidirectional else 1
    parameters = _directions(params, has_biases, num_layers * directions)
    native = x.dtype in _NATIVE and parameters[0].w_hr is None
    lengths = running = None
    if packed is not None:
        lengths = op.cast(packed.lengths, DataType.INT32)
        running = op.Unsqueeze(packed.running, [2])
    if batch_first:
        x = op.Transpose(x, perm=[1, 0, 2])
    finals: list[list[Tensor]] = []
    for i in range(num_layers):
        layer = parameters[i * directions : (i + 1) * directions]
        if native:
            initial = [_initial(op, state, i, num_layers, directions) for state in states]
            y, last = _native_layer(op, kind, x, layer, initial, lengths)
        else:
            given = [
                state if num_layers == 1 else op.Slice(state, [i * directions], [(i + 1) * directions], [0])
                for state in states
            ]
            y, last = _scanned_layer(op, kind, x, layer, given, running)
        finals.append(last)
        final_layer = i == num_layers - 1
        transposed = batch_first and final_layer
        if directions == 1:
            x = op.Squeeze(y, [1])
            x = op.Transpose(x, perm=[1, 0, 2]) if transposed else x
        else:
            x = op.Reshape(op.Transpose(y, perm=[2, 0, 1, 3] if transposed else [0, 2, 1, 3]), [0, 0, -1])
        if train and dropout > 0 and not final_layer:
            x = random.dropout(op, x, dropout, train=True)
    joined = [
        finals[0][s] if num_layers == 1 else op.Concat(*(f[s] for f in finals), axis=0) for s in range(len(states))
    ]
    return [x, *joined]


@translation("aten::lstm.input")
def lstm(
    op: Builder,
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    return _network(op, _LSTM, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


def _packed_network(
    op: Builder,
    kind: _Kind,
    data: Tensor,
    batch_sizes: Tensor,
    states: Sequence[Tensor],
    *options: Any,
) -> list[Tensor]:
    """A network on a packed sequence: padded, run with the sequences' lengths, and packed again."""
    packed = _unpacked(op, data, batch_sizes)
    y, *last = _network(op, kind, packed.padded, states, *options, batch_first=False, packed=packed)
    return [_compressed(op, y, packed, [op.results[0].shape[1]], True), *last]


@translation("aten::lstm.data")
def lstm_data(
    op: Builder,
    data: Tensor,
    batch_sizes: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[Tensor]:
    return _packed_network(
        op, _LSTM, data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional
    )


def _one_state_translations(name: str, kind: _Kind) -> None:
    @translation(f"aten::{name}.input")
    def network(
        op: Builder,
        input: Tensor,
        hx: Tensor,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> list[Tensor]:
        return _network(
            op, kind, input, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first
        )

    @translation(f"aten::{name}.data")
    def network_data(
        op: Builder,
        data: Tensor,
        batch_sizes: Tensor,
        hx: Tensor,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> list[Tensor]:
        return _packed_network(
            op, kind, data, batch_sizes, [hx], params, has_biases, num_layers, dropout, train, bidirectional
        )

    @translation(f"aten::{name}_cell")
    def cell(
        op: Builder,
        input: Tensor,
        hx: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Tensor:
        step = _STEPS[kind.name]
        d = _Direction(w_ih, w_hh, b_ih, b_hh, None)
        return step(op, d, _linear(op, input, w_ih, b_ih), [hx], kind.activation)[0]


for _name, _kind in (("gru", _GRU), ("rnn_tanh", _RNN_TANH), ("rnn_relu", _RNN_RELU)):
    _one_state_translations(_name, _kind)


@translation("aten::lstm_cell")
def lstm_cell(
    op: Builder,
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> list[Tensor]:
    d = _Direction(w_ih, w_hh, b_ih, b_hh, None)
    return _lstm_step(op, d, _linear(op, input, w_ih, b_ih), hx, None)


@translation("aten::mkldnn_rnn_layer")
def mkldnn_rnn_layer(
    op: Builder,
    input: Tensor,
    weight0: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    weight3: Tensor,
    hx_: Tensor,
    cx_: Tensor,
    reverse: bool,
    batch_sizes: Sequence[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> list[Tensor | None]:
    """One direction of one LSTM layer, as oneDNN runs it: what decomposing ``aten::lstm`` on a CPU can give."""
    if mode != 2 or batch_first or bidirectional or num_layers != 1 or batch_sizes:
        raise Unsupported("only one direction of one LSTM layer on (time, batch, size)")
    layer = _Direction(weight0, weight1, weight2 if has_biases else None, weight3 if has_biases else None, None)
    if reverse:
        input = op.Slice(input, [-1], [-(2**62)], [0], [-1])
    states = [hx_, cx_]
    if len(hx_.shape) == 2:
        states = [op.Unsqueeze(state, [0]) for state in states]
    y, last = _native_layer(op, _LSTM, input, [layer], states, None)
    y = op.Squeeze(y, [1])
    if reverse:
        y = op.Slice(y, [-1], [-(2**62)], [0], [-1])
    if len(hx_.shape) == 2:
        last = [op.Squeeze(state, [0]) for state in last]
    return [y, *last, None]
