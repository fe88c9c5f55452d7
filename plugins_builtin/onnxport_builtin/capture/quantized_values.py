"""Quantized tensors of eager mode (``torch.quint8``, ``torch.qint8``) while an export captures.

ONNX has no such type: a value is its integers with the scale and zero point beside them, and gets to torch's functions
by ``__torch_function__``. Layers compute on dequantized values, and their result is quantized, so that a file has
DequantizeLinear and QuantizeLinear around each; weights stay integers. What only moves elements moves the integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines quantized_decomposed
import torch.nn.functional as F
import torch.utils._pytree as pytree
from onnxport import CaptureError

_decomposed = torch.ops.quantized_decomposed
#: The integers of a quantized element type, and their range.
INTEGERS = {
    torch.quint8: (torch.uint8, 0, 255),
    torch.qint8: (torch.int8, -128, 127),
    torch.qint32: (torch.int32, -(2**31), 2**31 - 1),
}


class Quantized:
    """A quantized tensor: ``real = (integers - zero_point) * scale``.

    Attributes:
        integers: of the tensor's shape.
        scale: a number, or a tensor of one element; with ``axis``, one for each place along it.
        zero_point: as the scale.
        dtype: such as ``torch.quint8``.
        axis: of the scales; None where the tensor has one.
    """

    def __init__(
        self, integers: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype, axis: Any = None
    ) -> None:
        self.integers, self.scale, self.zero_point, self.dtype, self.axis = integers, scale, zero_point, dtype, axis
        self._real: torch.Tensor | None = None

    @classmethod
    def of(cls, real: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype) -> Quantized:
        """Quantize real numbers."""
        if dtype not in INTEGERS:
            raise CaptureError(f"Quantized tensors of {dtype} can't be exported: use torch.quint8 or torch.qint8.")
        kind, low, high = INTEGERS[dtype]
        if isinstance(scale, torch.Tensor) or isinstance(zero_point, torch.Tensor):
            scale, zero_point = (torch.as_tensor(value).reshape(1) for value in (scale, zero_point))
            integers = _decomposed.quantize_per_tensor.tensor(real, scale, zero_point, low, high, kind)
        else:
            scale, zero_point = float(scale), int(zero_point)
            integers = _decomposed.quantize_per_tensor.default(real, scale, zero_point, low, high, kind)
        return cls(integers, scale, zero_point, dtype)

    def dequantize(self) -> torch.Tensor:
        """The real numbers, float32."""
        if self._real is None:
            kind, low, high = INTEGERS[self.dtype]
            given = (self.integers, self.scale, self.zero_point)
            if self.axis is not None:
                self._real = _decomposed.dequantize_per_channel(*given, self.axis, low, high, kind)
            elif isinstance(self.scale, torch.Tensor):
                self._real = _decomposed.dequantize_per_tensor.tensor(*given, low, high, kind)
            else:
                self._real = _decomposed.dequantize_per_tensor.default(*given, low, high, kind)
        return self._real

    def like(self, real: torch.Tensor) -> Quantized:
        """Other real numbers with this scale and zero point."""
        if self.axis is not None:
            raise CaptureError("A function of a tensor quantized per channel can't be exported: dequantize it first.")
        return Quantized.of(real, self.scale, self.zero_point, self.dtype)

    def moved(self, integers: torch.Tensor) -> Quantized:
        """These elements in another order or shape."""
        if self.axis is not None:
            raise CaptureError("The shape of a tensor quantized per channel can't be changed: dequantize it first.")
        return Quantized(integers, self.scale, self.zero_point, self.dtype)

    def become(self, other: Quantized) -> Quantized:
        """What functions that write to their argument do."""
        vars(self).update(vars(other))
        return self

    # As a tensor -----------------------------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return call(func, args, dict(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(f"a quantized tensor has no attribute {name!r}")
        if name in _OF_STORAGE:
            return getattr(self.integers, name)
        return lambda *args, **kwargs: call(getattr(torch.Tensor, name), (self, *args), kwargs)

    def __getitem__(self, key: Any) -> Quantized:
        return self.moved(self.integers[key])

    def __len__(self) -> int:
        return len(self.integers)

    def __iter__(self) -> Any:
        return map(self.moved, self.integers)

    def __lt__(self, other: Any) -> Any:
        return self.dequantize() < real(other)

    def __le__(self, other: Any) -> Any:
        return self.dequantize() <= real(other)

    def __gt__(self, other: Any) -> Any:
        return self.dequantize() > real(other)

    def __ge__(self, other: Any) -> Any:
        return self.dequantize() >= real(other)

    is_quantized = True


#: What is asked of the integers: sizes, the device.
_OF_STORAGE = (
    "shape", "ndim", "device", "layout", "size", "dim", "numel", "nelement", "stride", "is_contiguous", "is_cuda",
    "requires_grad", "element_size", "get_device", "ndimension", "is_cpu", "is_meta", "names", "is_sparse",
)  # fmt: skip


def real(value: Any) -> Any:
    """The real numbers of what is quantized, in containers too; anything else as it is."""
    return pytree.tree_map(lambda leaf: leaf.dequantize() if isinstance(leaf, Quantized) else leaf, value)


@dataclass
class Packed:
    """What stands for an object of torch that holds packed weights.

    Attributes:
        owner: the module among whose buffers they are, as long as a capture lasts.
        weight: name of the weight's buffer: integers, or half precision numbers.
        bias: name of the bias, if there is one.
        scale: of the weight: a number, or the name of a buffer with one for each place along ``axis``.
        zero_point: as the scale.
        dtype: of the weight, such as ``torch.qint8``; None where it isn't quantized.
        axis: of the scales.
        options: of a convolution.
    """

    owner: torch.nn.Module
    weight: str
    bias: str | None = None
    scale: Any = 1.0
    zero_point: Any = 0
    dtype: torch.dtype | None = None
    axis: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def _buffer(self, name: Any) -> Any:
        return self.owner._buffers[name] if isinstance(name, str) else name

    @property
    def quantized(self) -> Quantized:
        """The weight."""
        dtype: Any = self.dtype
        integers, scale, zero_point = (self._buffer(part) for part in (self.weight, self.scale, self.zero_point))
        return Quantized(integers, scale, zero_point, dtype, self.axis)

    def real(self) -> torch.Tensor:
        """The weight as real numbers."""
        return self._buffer(self.weight).float() if self.dtype is None else self.quantized.dequantize()

    def real_bias(self) -> torch.Tensor | None:
        """The bias, if there is one."""
        return self._buffer(self.bias)  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return call(func, args, dict(kwargs or {}))


class Stored(Quantized):
    """A quantized tensor that a module keeps: its parts are buffers of the module, which a capture replaces."""

    def __init__(self, packed: Packed) -> None:
        self._packed, self.dtype, self.axis = packed, packed.dtype, packed.axis  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name in ("integers", "scale", "zero_point"):
            return getattr(self._packed.quantized, name)
        return super().__getattr__(name)

    def dequantize(self) -> torch.Tensor:
        return self._packed.quantized.dequantize()


# Functions ------------------------------------------------------------------------------------------------------------

#: They move elements, or leave them.
_MOVES = frozenset([
    "view", "reshape", "flatten", "permute", "transpose", "t", "squeeze", "unsqueeze", "contiguous", "clone",
    "detach", "narrow", "select", "index_select", "split", "chunk", "unbind", "tensor_split", "expand",
    "expand_as", "flip", "channel_shuffle", "native_channel_shuffle", "unfold", "as_strided", "roll", "movedim",
    "swapaxes", "swapdims", "unflatten", "to", "cpu", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "feature_dropout", "repeat", "pixel_shuffle", "pixel_unshuffle", "view_as", "reshape_as",
    "type_as", "requires_grad_", "__getitem__", "take_along_dim", "gather",
])  # fmt: skip
#: They compute real numbers, whose scale is that of their argument.
_SAME_SCALE = frozenset([
    "relu6", "hardtanh", "clamp", "clip", "threshold", "gelu", "masked_fill",
])  # fmt: skip
#: As these, and the scale of the argument is no matter: they are computed on integers less the zero point, which are
#: exact. A mean of few elements lies on a half often enough.
_ANY_SCALE = frozenset([
    "relu", "leaky_relu", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean", "std", "interpolate",
    "upsample", "upsample_nearest", "upsample_bilinear", "grid_sample", "max", "min", "topk", "sort", "amax",
    "amin", "adaptive_max_pool2d",
])  # fmt: skip
#: They compute real numbers of a known range: the scale, and the zero point of quint8.
_OWN_SCALE = {"sigmoid": (1 / 256, 0), "hardsigmoid": (1 / 256, 0), "tanh": (2 / 256, 128)}
#: They give plain tensors.
_PLAIN = frozenset(["eq", "ne", "lt", "le", "gt", "ge", "equal"])


def call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a function of torch gives where quantized values or packed weights are among its arguments.

    Raises:
        CaptureError: it can't be exported for these.
    """
    operator = _operator(func)
    if operator is not None:
        return operator(*args, **kwargs)
    name = getattr(func, "__name__", str(func))
    first = next((leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Quantized)), None)
    if first is not None:
        plain_name = name.removesuffix("_") if not name.startswith("__") else name
        is_written = plain_name != name or bool(kwargs.pop("inplace", False))
        if is_written and plain_name != name:
            func = getattr(torch.Tensor, plain_name, None) or getattr(torch, plain_name)
        found = _of_values(func, plain_name, first, args, kwargs)
        if found is not None:
            return first.become(found) if is_written and isinstance(found, Quantized) else found
    raise CaptureError(
        f"{name} of a quantized tensor can't be exported: call dequantize() before it (a DeQuantStub), or quantize the "
        "model with torchao.quantization.pt2e"
    )


def _leaves(value: Any) -> Iterable[Any]:
    return pytree.tree_leaves(value)


def _of_values(func: Any, name: str, first: Quantized, args: Any, kwargs: dict[str, Any]) -> Any:
    if name in ("dequantize", "int_repr", "q_scale", "q_zero_point", "qscheme", "is_floating_point", "is_complex"):
        return _questions[name](first)
    if name in _MOVES:
        return _wrapped(first.moved, func(*_integers(args), **_integers(kwargs)))
    if name in _SAME_SCALE:
        return _wrapped(first.like, func(*real(args), **real(kwargs)))
    if name in _ANY_SCALE:
        unit = Quantized(first.integers, 1.0, first.zero_point, first.dtype)
        if isinstance(first.zero_point, torch.Tensor):
            unit.scale = torch.ones_like(first.scale)
        units = pytree.tree_map(lambda leaf: unit if leaf is first else leaf, (args, kwargs))
        result = _wrapped(unit.like, func(*real(units[0]), **real(units[1])))
        for value in _leaves(result):
            if isinstance(value, Quantized):
                value.scale = first.scale
        return result
    if name in _OWN_SCALE:
        scale, zero_point = _OWN_SCALE[name]
        shift = 128 if first.dtype is torch.qint8 else 0
        return Quantized.of(func(*real(args), **real(kwargs)), scale, zero_point - shift, first.dtype)
    if name in _PLAIN:
        return func(*real(args), **real(kwargs))
    if name in ("cat", "stack", "concat", "concatenate"):
        return first.like(func(*real(args), **real(kwargs)))
    if name == "pad":
        return _padded(first, *args[1:], **kwargs)
    return None


_questions: Mapping[str, Callable[[Quantized], Any]] = {
    "dequantize": Quantized.dequantize,
    "int_repr": lambda value: value.integers,
    "q_scale": lambda value: value.scale,
    "q_zero_point": lambda value: value.zero_point,
    "qscheme": lambda value: torch.per_tensor_affine if value.axis is None else torch.per_channel_affine,
    "is_floating_point": lambda _: False,
    "is_complex": lambda _: False,
}


def _integers(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.integers if isinstance(leaf, Quantized) else leaf, value)


def _wrapped(make: Callable[[torch.Tensor], Quantized], results: Any) -> Any:
    """Quantized values for the results; indices stay as they are, since they come behind the values."""
    if isinstance(results, (tuple, list)):
        kind = type(results) if type(results) in (tuple, list) else tuple
        return kind(make(item) if item.dtype is results[0].dtype else item for item in results)
    return make(results)


def _padded(first: Quantized, pad: Any, mode: str = "constant", value: Any = None) -> Quantized:
    if mode != "constant":
        return first.moved(F.pad(first.integers, pad, mode))
    return first.like(F.pad(first.dequantize(), pad, mode, value))


def _operator(func: Any) -> Callable[..., Any] | None:
    """The function for an operator of ``torch.ops.quantized``; None for other functions."""
    name = getattr(func, "_qualified_op_name", None)
    if name is None and isinstance(func, torch._ops.OpOverload):
        name = func._schema.name
    namespace, _, name = str(name).partition("::")
    if namespace != "quantized":
        return None
    from onnxport_builtin.capture.quantized_operators import OPERATORS

    if name not in OPERATORS:
        raise CaptureError(
            f"torch.ops.quantized.{name} can't be exported: quantize the model with torchao.quantization.pt2e, whose "
            "operators become QuantizeLinear and DequantizeLinear"
        )
    return OPERATORS[name]
