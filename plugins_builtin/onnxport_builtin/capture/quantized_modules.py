"""Models that eager mode quantized (``torch.ao.quantization``: ``convert``, ``quantize_dynamic``, ``convert_fx``).

Their layers hold packed weights, objects that torch.export can't carry. While an export captures, the integers, scales
and zero points are buffers of the layers, and the objects stand for them.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from onnxport import CaptureError, is_in_onnx_export, note
from onnxport.kit import Replacement, all_applied
from torch.nn.utils.rnn import PackedSequence

_MODULES = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
_MAKERS = {"quantize_per_tensor", "quantize_per_channel"}


@contextmanager
def quantized_models(model: torch.nn.Module) -> Iterator[None]:
    """While this is active, eager mode's quantized tensors and packed weights can be captured."""
    if not _is_quantized(model):
        yield
        return
    from onnxport_builtin.capture.quantized_values import real

    modules = dict(model.named_modules())
    forward = model.forward

    @functools.wraps(forward)
    def returning_reals(*args: Any, **kwargs: Any) -> Any:
        return real(forward(*args, **kwargs))

    with ExitStack() as stack:
        for path, module in modules.items():
            if type(module).__module__.startswith(_MODULES):
                _numbers(module, stack)
            for space in (vars(module), module._buffers):
                for key, value in list(space.items()):
                    if _is_quantized_tensor(value):
                        _stored(module, space, key, value, stack)
            for key, value in list(vars(module).items()):
                kind = _kind(value)
                if kind == "CellParamsBase":
                    names = path.split(".")  # ...rnn._all_weight_values.0
                    replacement: Any = _cell(modules[".".join(names[:-2])], int(names[-1]), value, stack)
                elif kind:
                    inside = type(module).__name__ in ("LinearPackedParams", "EmbeddingPackedParams")
                    owner = modules[path.rpartition(".")[0]] if inside else module
                    suffix = key.removeprefix("_packed_weight").removeprefix("_packed_params")
                    replacement = _packed(owner, f"weight{suffix}", f"bias{suffix}", value, stack)
                else:
                    continue
                stack.enter_context(mock.patch.dict(vars(module), {key: replacement}))
        stack.enter_context(all_applied(_replaced()))
        for module in modules.values():
            if isinstance(module, torch.fx.GraphModule):  # torch.export runs the functions that its nodes hold
                _retarget(module.graph, stack)
        stack.enter_context(mock.patch.object(model, "forward", returning_reals))
        note("weights of eager mode's quantized layers are integers in the file, behind DequantizeLinear")
        yield


def _retarget(graph: torch.fx.Graph, stack: ExitStack) -> None:
    for node in graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op == "call_function" and name in _MAKERS:
            stack.callback(setattr, node, "target", node.target)
            node.target = getattr(torch, name)


def _is_quantized(model: torch.nn.Module) -> bool:
    """Whether a module holds packed weights or quantized tensors, is a layer for these, or makes them in forward."""
    for module in model.modules():
        values = vars(module).values()
        if type(module).__module__.startswith(_MODULES) or any(_kind(v) or _is_quantized_tensor(v) for v in values):
            return True
        functions = (type(module).forward, *values)
        if any(map(_is_quantized_tensor, module.buffers(False))) or any(map(_quantizes, functions)):
            return True
    return False


def _quantizes(function: Any) -> bool:
    """Whether the code of a function calls what makes quantized tensors."""
    pending = [getattr(inspect.unwrap(function), "__code__", None)] if callable(function) else []
    while pending:
        code = pending.pop()
        if isinstance(code, CodeType):
            if not _MAKERS.isdisjoint(code.co_names):
                return True
            pending += code.co_consts
    return False


def _is_quantized_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_quantized


def _kind(value: Any) -> str:
    """The class of an object with packed weights; empty for anything else."""
    if not isinstance(value, torch.ScriptObject):
        return ""
    name: str = value._type().qualified_name()
    return name.rpartition(".")[2] if ".quantized." in name or ".rnn." in name else ""


def _numbers(module: torch.nn.Module, stack: ExitStack) -> None:
    """Let scales and zero points that are buffers be the numbers that they hold."""
    for name, kind in (("scale", float), ("zero_point", int)):
        if isinstance(buffer := module._buffers.get(name), torch.Tensor) and buffer.numel() == 1:
            stack.enter_context(mock.patch.dict(module._buffers))
            del module._buffers[name]
            stack.enter_context(mock.patch.dict(vars(module), {name: kind(buffer.item())}))


def _cell(rnn: torch.nn.Module, place: int, params: Any, stack: ExitStack) -> Any:
    """The packed weights (input, hidden) of one layer in one direction of a recurrent network."""
    directions = 2 if rnn.bidirectional else 1
    suffix = f"_l{place // directions}{'_reverse' if place % directions else ''}"
    packed = params.__getstate__()[0][4]
    return tuple(
        _packed(rnn, f"weight_{what}{suffix}", f"bias_{what}{suffix}", one, stack)
        for what, one in zip(("ih", "hh"), packed)
    )


def _packed(owner: torch.nn.Module, weight: str, bias: str, params: Any, stack: ExitStack) -> Any:
    """What stands for an object of packed weights, whose tensors become buffers of ``owner``."""
    quantized, value, options = _unpacked(params)
    packed = _held(owner, weight, quantized, stack)
    packed.options = options
    if value is not None:
        stack.enter_context(mock.patch.dict(owner._buffers, {bias: value.detach()}))
        packed.bias = bias
    return packed


def _held(owner: torch.nn.Module, name: str, quantized: torch.Tensor, stack: ExitStack) -> Any:
    """A quantized tensor, or one in half precision, as buffers of ``owner``."""
    from onnxport_builtin.capture.quantized_values import INTEGERS, Packed

    packed = Packed(owner, name)
    buffers: dict[str, torch.Tensor] = {}
    if not quantized.is_quantized:
        buffers[name] = quantized.half()
    else:
        packed.dtype = torch.quint8 if quantized.dtype is torch.quint4x2 else quantized.dtype
        buffers[name] = _integers(quantized)
        if quantized.qscheme() is torch.per_tensor_affine:
            packed.scale, packed.zero_point = float(quantized.q_scale()), int(quantized.q_zero_point())
        else:
            packed.axis, packed.scale, packed.zero_point = (
                quantized.q_per_channel_axis(),
                f"{name}_scale",
                f"{name}_zero_point",
            )
            zero_points = quantized.q_per_channel_zero_points()
            whole = not zero_points.is_floating_point()
            buffers[packed.scale] = quantized.q_per_channel_scales().float()
            buffers[packed.zero_point] = zero_points.to(INTEGERS[packed.dtype][0]) if whole else zero_points.float()
    stack.enter_context(mock.patch.dict(owner._buffers, buffers))
    return packed


def _stored(module: torch.nn.Module, space: dict[str, Any], key: str, value: torch.Tensor, stack: ExitStack) -> None:
    """Let a quantized tensor that a module keeps be a buffer of its integers, and what stands for the tensor."""
    from onnxport_builtin.capture.quantized_values import Stored

    packed = _held(module, f"{key}_integers", value, stack)
    if space is module._buffers:
        del space[key]  # put back with the others
    stack.enter_context(mock.patch.dict(vars(module), {key: Stored(packed)}))


def _unpacked(params: Any) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    """The weight, the bias, and a convolution's options.

    Raises:
        CaptureError: torch can't unpack it, as QNNPACK some convolutions.
    """
    kind, operators = _kind(params), torch.ops.quantized
    if kind == "EmbeddingPackedParamsBase":
        return operators.embedding_bag_unpack(params), None, {}
    try:
        weight, bias = params.unpack()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CaptureError(f"torch can't unpack a quantized layer's weights ({kind}): {reason}") from error
    if kind == "LinearPackedParamsBase":
        return weight, bias, {}
    lists = {option: list(getattr(params, option)()) for option in ("stride", "padding", "output_padding", "dilation")}
    return weight, bias, {**lists, "groups": int(params.groups()), "transpose": bool(params.transpose())}


def _integers(quantized: torch.Tensor) -> torch.Tensor:
    stored = quantized.int_repr()
    if quantized.dtype is not torch.quint4x2:
        return stored
    stored = stored.reshape(*quantized.shape[:-1], -1)
    both = torch.stack([stored & 15, stored >> 4], -1)  # two elements a byte, the first in the low bits
    return both.reshape(*stored.shape[:-1], -1)[..., : quantized.shape[-1]].contiguous()


# Functions of torch ---------------------------------------------------------------------------------------------------


def _capturing(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """``function`` in place of the original in the thread that captures."""

    def replaced(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return (function if is_in_onnx_export() else original)(*args, **kwargs)

        return call

    return replaced


def _quantize(input: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype) -> Any:
    from onnxport_builtin.capture.quantized_values import Quantized

    return Quantized.of(input, scale, zero_point, dtype)


def _quantize_per_channel(
    input: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, axis: int, dtype: torch.dtype
) -> Any:
    from onnxport_builtin.capture.quantized_values import INTEGERS, Quantized

    kind, low, high = INTEGERS[dtype]
    given = (scales, zero_points, axis, low, high, kind)
    integers = torch.ops.quantized_decomposed.quantize_per_channel(input, *given)
    return Quantized(integers, scales, zero_points, dtype, axis)


def _recurrent(name: str) -> Callable[..., Any]:
    """``lstm`` and ``gru`` on the layers' weights as real numbers, in the place of these of packed weights."""

    def run(input: torch.Tensor, *args: Any, dtype: Any = None, use_dynamic: bool = True) -> Any:
        place = next(i for i, arg in enumerate(args) if isinstance(arg, list) and arg and isinstance(arg[0], tuple))
        has_biases = args[place][0][0].bias is not None
        return getattr(torch, name)(input, *args[:place], _flat(args[place]), has_biases, *args[place + 2 :])

    return run


def _flat(cells: list[Any]) -> list[torch.Tensor]:
    """Weights and biases in the order of ``torch.lstm``, as real numbers."""
    weights: list[torch.Tensor] = []
    for ih, hh in cells:
        weights += [ih.real(), hh.real()]
        weights += [bias for bias in (ih.real_bias(), hh.real_bias()) if bias is not None]
    return weights


def _of_sequences(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, PackedSequence) or not is_in_onnx_export():
            return original(self, input, hx)
        cells = [each.param for each in self._all_weight_values]
        names = ("hidden_size", "num_layers", "bidirectional", "mode", "dropout", "training", "permute_hidden")
        given = {name: getattr(self, name) for name in names}
        network = SimpleNamespace(**given, proj_size=0, bias=cells[0][0].bias is not None, _flat_weights=_flat(cells))
        return getattr(torch.nn, self.mode).forward(network, input, hx)  # as a capture has it

    return forward


def _dequantize(original: Callable[..., Any]) -> Callable[..., Any]:
    def dequantize(self: torch.Tensor) -> torch.Tensor:
        return self.float() if is_in_onnx_export() and not self.is_quantized else original(self)

    return dequantize


def _replaced() -> Iterator[Replacement]:
    yield Replacement(torch, "quantize_per_tensor", _capturing(_quantize))
    yield Replacement(torch, "quantize_per_channel", _capturing(_quantize_per_channel))
    yield Replacement(torch, "quantized_lstm", _capturing(_recurrent("lstm")))
    yield Replacement(torch, "quantized_gru", _capturing(_recurrent("gru")))
    if dynamic := sys.modules.get("torch.ao.nn.quantized.dynamic"):
        yield Replacement(dynamic.LSTM, "forward", _of_sequences)
        yield Replacement(dynamic.GRU, "forward", _of_sequences)
    yield Replacement(torch.Tensor, "dequantize", _dequantize)
