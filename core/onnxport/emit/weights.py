"""Parameters, buffers and constants as ONNX tensors that share torch's memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import onnx_ir as ir
import torch
from torch.export.graph_signature import InputKind

from onnxport.errors import InputError, WeightError
from onnxport.vocabulary.dtypes import component_dtype
from onnxport.vocabulary.storage import has_data
from onnxport.vocabulary.upstream import is_wrapped, storage_key, unset_fake_temporarily

CHUNK_BYTES = 4 * 1024 * 1024
"""What `TorchTensor.tofile` copies at a time, at most, when it has to copy at all."""

_PACKED = getattr(torch, "float4_e2m1fn_x2", None)  # two elements a byte, counted by torch as one
_SUB_BYTE = {getattr(torch, name): 8 // bits for name, bits in (("int4", 4), ("uint4", 4), ("int2", 2), ("uint2", 2))}
"""Elements a byte of the file holds; torch keeps one in a byte."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class TorchTensor(ir.Tensor):
    """An ONNX tensor over the storage of a torch tensor; nothing is copied until bytes are asked for.

    Any strides do: `TorchTensor(weight.t())` is a transposed weight that costs no memory. A complex tensor is
    presented as its real layout, with a trailing axis of 2. Fake and meta tensors have a dtype and a shape, and
    raise `WeightError` when their data is read.

    Args:
        tensor: any dense tensor, on any device, of a dtype that ONNX has.
        name: the initializer's name; for a weight, its state-dict name.

    Attributes:
        source: the name at construction: what `ONNXProgram.apply_weights` knows the weight by. None for constants and
            for tensors that were made of others.
        aliases: other state-dict names of the same weight.
        parents: the tensors that this one was made of, if any.

    Raises:
        WeightError: the tensor is sparse, quantized, or of a dtype that ONNX does not have.
    """

    __slots__ = ("_function", "_layout", "aliases", "parents", "source")

    def __init__(self, tensor: torch.Tensor, name: str | None = None, *, doc_string: str | None = None) -> None:
        label = name or "tensor"
        if tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
            advice = "dequantize()" if tensor.is_quantized else "to_dense()"
            raise WeightError(
                f"The weight {label!r} is {kind}; ONNX stores dense tensors. Call {advice} before the capture, "
                "or export the nn.Module.",
                names=[label],
            )
        try:
            dtype = component_dtype(tensor.dtype)
        except InputError as error:
            raise WeightError(
                f"The weight {label!r} is of dtype {tensor.dtype}, which ONNX does not have. Convert it first.",
                names=[label],
            ) from error
        dims = [int(dim) for dim in tensor.shape]
        if tensor.is_complex():
            dims.append(2)
        elif tensor.dtype is _PACKED:
            dims[-1] *= 2
        super().__init__(tensor, dtype, shape=ir.Shape(dims, frozen=True), name=name, doc_string=doc_string)
        self.source, self._layout = name, tensor
        self.aliases: tuple[str, ...] = ()
        self.parents: tuple[TorchTensor, ...] = ()
        self._function: Callable[..., torch.Tensor] | None = None

    @property
    def raw(self) -> torch.Tensor:
        """The torch tensor; one that `combine` made is computed again each time."""
        if self._raw is None and self._function is not None:
            return self._function(*(parent.raw.detach() for parent in self.parents))
        return self._raw

    @property
    def has_data(self) -> bool:
        """Whether values can be read; false for fake and meta tensors."""
        return all(parent.has_data for parent in self.parents) if self.parents else has_data(self._raw)

    @property
    def is_weight(self) -> bool:
        """Whether the values are, or are made of, weights that `ONNXProgram.apply_weights` can replace."""
        return any(leaf.source is not None for leaf in self.leaves())

    def derive(
        self, view: Callable[..., torch.Tensor], name: str | None = None, others: Sequence[TorchTensor] = ()
    ) -> TorchTensor:
        """Return the tensor `view(self.raw, *(other.raw for other in others))`.

        `view` is called at once, and again when the weights are replaced. Where a parent is read from a file or is
        computed itself, `view` gets tensors without data at first, and data only if it asks for them.
        """
        parents = (self, *others)
        if all(parent._raw is not None for parent in parents):
            return self._made(view(*(parent.raw.detach() for parent in parents)), view, others, name)
        try:
            layout = view(*(parent.layout for parent in parents))
        except (RuntimeError, TypeError):  # it asks for numbers
            layout = view(*(parent.raw.detach() for parent in parents))
        return self._made(_without_data(layout), view, others, name, kept=False)

    def combine(
        self, function: Callable[..., torch.Tensor], others: Sequence[TorchTensor], name: str | None = None
    ) -> TorchTensor:
        """Return the tensor `function(self.raw, *(other.raw for other in others))`, computed when its data is read.

        The result has to have this tensor's shape and dtype. Nothing but the parents is kept in memory.
        """
        return self._made(self.layout, function, others, name, kept=False)

    def _made(self, tensor: torch.Tensor, function: Any, others: Any, name: Any, kept: bool = True) -> TorchTensor:
        made = TorchTensor(tensor, name)
        made.source, made.parents, made._function = None, (self, *others), function
        if not kept:
            made._raw, made._layout = None, _without_data(tensor)
        return made

    @property
    def layout(self) -> torch.Tensor:
        """A tensor on the meta device, of the shape, strides and dtype of `raw`."""
        return _without_data(self._raw) if self._raw is not None else self._layout

    def leaves(self) -> Iterator[TorchTensor]:
        """Yield the tensors that this one is made of in the end: itself, if of no others."""
        if not self.parents:
            yield self
        for parent in self.parents:
            yield from parent.leaves()

    def rebuilt(self, weights: Mapping[str, torch.Tensor | TorchTensor]) -> TorchTensor:
        """Return this tensor as it is with other weights, given by `source`; itself, if none of its own is given.

        Raises:
            WeightError: a tensor that ONNX can't hold.
        """
        if not self.parents or self._function is None:
            if self.source is None or self.source not in weights:
                return self
            given = weights[self.source]
            made = given if isinstance(given, TorchTensor) else TorchTensor(given.detach(), self.source)
            made.name, made.aliases, made.source = self.name, self.aliases, self.source
            return made
        parents = [parent.rebuilt(weights) for parent in self.parents]
        if all(new is old for new, old in zip(parents, self.parents)):
            return self
        first, *others = parents
        if self._raw is None and (first.shape, first.dtype) == (self.shape, self.dtype):
            return first.combine(self._function, others, self.name)
        return first.derive(self._function, self.name, others)

    @unset_fake_temporarily()
    def numpy(self) -> np.ndarray:
        """Return the values, sharing memory where the tensor is on the CPU; bfloat16 and float8 use ml_dtypes."""
        real = _as_real(self.require_data().detach()).cpu()
        bits = real.view(_BITS[real.element_size()]).numpy()
        if real.dtype in _SUB_BYTE:
            return bits.view(np.int8).astype(self.dtype.numpy())
        if real.dtype is _PACKED:
            bits = np.stack((bits & 0xF, bits >> 4), axis=-1).reshape(self.shape.numpy())
        return bits.view(self.dtype.numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy().copy() if copy else self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return _as_real(self.require_data().detach()).__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.require_data().__dlpack_device__()

    def tobytes(self) -> bytes:
        """Return the values as little-endian bytes in row-major order."""
        return b"".join(bytes(chunk) for chunk in self.chunks())

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the row-major bytes piece by piece.

        A contiguous CPU tensor is one piece: a view of its storage. Anything else is copied, at most about `limit`
        bytes at a time. A piece is valid until the next one is asked for.
        """
        tensor = self.require_data().detach()
        if tensor.dtype in _SUB_BYTE:
            yield _packed(tensor, _SUB_BYTE[tensor.dtype]).numpy().data
            return
        for block in _blocks(tensor, limit):
            flat = _as_real(block).contiguous().cpu().reshape(-1)
            if flat.numel():  # the stride of a single element may be any
                yield flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().data

    def tofile(self, file: IO[bytes]) -> None:
        """Write the row-major bytes to a binary file with a `write` method, raw (unbuffered) files included."""
        for chunk in self.chunks():
            write_all(file, chunk)

    def __repr__(self) -> str:
        data = "" if self.has_data else ", without data"
        return f"{self._repr_base()}(name={self.name!r}{data})"

    def require_data(self) -> torch.Tensor:
        """Return the torch tensor, or raise `WeightError` when it is fake or on the meta device."""
        if not self.has_data:
            empty = next(leaf for leaf in self.leaves() if not leaf.has_data)
            raise WeightError(
                f"The weight {(empty.source or self.name)!r} has no data: the model was exported with fake or meta "
                "tensors. Give it values with ONNXProgram.apply_weights(state_dict), or save with "
                "include_initializers=False.",
                names=[str(empty.source or self.name)],
            )
        return self.raw


def write_all(file: IO[bytes], data: memoryview | bytes) -> None:
    """Write all of `data`; a raw file may take less at once than it was given (2 GiB at most on Linux)."""
    view = memoryview(data)
    while view.nbytes:
        written = file.write(view)
        view = view[view.nbytes if written is None else written :]


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device="meta")


def _as_real(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _blocks(tensor: torch.Tensor, limit: int) -> Iterator[torch.Tensor]:
    """Split along the leading axes into views of at most `limit` bytes, unless nothing will have to be copied."""
    size = tensor.numel() * tensor.element_size()
    free = tensor.is_contiguous() and tensor.device.type == "cpu" and not tensor.is_conj() and not tensor.is_neg()
    if size <= limit or free or tensor.dim() == 0:
        yield tensor
        return
    row = size // tensor.shape[0]
    if row > limit:
        for part in tensor.unbind(0):
            yield from _blocks(part, limit)
    else:
        yield from tensor.split(max(1, limit // row), dim=0)


def _packed(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """The row-major elements, `count` to a byte, the first in the lowest bits."""
    flat = tensor.view(torch.uint8).cpu().contiguous().reshape(-1) & (0xFF >> (8 - 8 // count))
    rows = torch.nn.functional.pad(flat, (0, -flat.numel() % count)).reshape(-1, count)
    return sum((rows[:, i] << (i * 8 // count) for i in range(1, count)), rows[:, 0])


@dataclass
class Initializer:
    """A weight of an exported program: one initializer of the model.

    Attributes:
        name: its state-dict name; with tied weights, the first one.
        tensor: the data, named `name`.
        kind: PARAMETER, BUFFER or CONSTANT_TENSOR.
        persistent: for buffers, whether the state dict holds it; else None.
        placeholders: the FX placeholders that stand for it, several when weights are tied.
        aliases: the other state-dict names on the same storage.
    """

    name: str
    tensor: TorchTensor
    kind: InputKind
    persistent: bool | None = None
    placeholders: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)


def initializers_of(program: torch.export.ExportedProgram) -> list[Initializer]:
    """List the weights of a program in signature order, each storage once.

    Raises:
        WeightError: a weight that ONNX can't hold, or one that the program names but does not have.
    """
    found: dict[Any, Initializer] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            continue
        target = spec.target or spec.arg.name
        tensor = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(tensor, torch.Tensor):
            raise WeightError(
                f"The exported program has no data for {target!r} (input {spec.arg.name!r}). Export the model again.",
                names=[target],
            )
        if is_wrapped(tensor):
            continue  # of a torch.func transform: the functional graph has what it stands for
        if any(isinstance(size, torch.SymInt) for size in tensor.shape):
            raise WeightError(
                f"torch.export recorded a tensor that forward computes as the constant {target!r}, without its data: "
                "it can't follow some calls, such as Tensor.data (use detach()).",
                names=[target],
            )
        key = _identity(tensor)
        known = found.get(key)
        if known is None:
            known = found[key] = Initializer(target, TorchTensor(tensor, target), spec.kind, spec.persistent)
            if spec.kind is InputKind.CONSTANT_TENSOR and known.tensor.has_data:
                known.tensor.source = None  # written in the model's code: no state dict has it
        elif target != known.name and target not in known.aliases:
            known.aliases.append(target)
            known.tensor.aliases = tuple(known.aliases)
        known.placeholders.append(spec.arg.name)
    return list(found.values())


def _identity(tensor: torch.Tensor) -> Any:
    """Name the memory that a tensor shows. Sparse tensors have no storage and empty ones share none."""
    if tensor.layout is not torch.strided or math.prod(tensor.shape) == 0:
        return id(tensor)
    storage = tensor.untyped_storage()
    place = storage.data_ptr() if has_data(tensor) else storage_key(storage)
    bits = (tensor.is_conj(), tensor.is_neg())
    return place, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device), bits
