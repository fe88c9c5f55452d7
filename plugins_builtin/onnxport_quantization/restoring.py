"""Files whose rounded weights can be given other floats: their marks, as tensors that can be computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxport.kit import TorchTensor

from onnxport_quantization.experts import one_of
from onnxport_quantization.marks import LOOKUP, Mark, marks_in
from onnxport_quantization.tensors import Part, RoundedTensor


class StoredPart(RoundedTensor):
    """A part of a rounded weight as a file has it, until the weight is given.

    Args:
        tensor: what the file has.
        arguments: those of `RoundedTensor`.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor: ir.TensorProtocol, *arguments: Any) -> None:
        self._tensor = tensor
        super().__init__(*arguments)

    @property
    def has_data(self) -> bool:
        """True: the file has it."""
        return True

    def require_data(self) -> torch.Tensor:
        """The whole part."""
        return self.raw

    @property
    def raw(self) -> torch.Tensor:
        """The whole part."""
        array = self._tensor.numpy()
        if self._part is Part.SCALES:
            array = np.ascontiguousarray(array)
            bits = array.view({2: np.int16, 4: np.int32}[array.itemsize]).copy()
        else:
            bits = array.astype(np.int8 if self.dtype.is_signed() else np.uint8)
        return torch.from_numpy(bits).view(self._layout.dtype)

    def chunks(self, limit: int = 0) -> Iterator[memoryview]:
        """Yield the row-major bytes."""
        yield memoryview(self._tensor.tobytes())

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values."""
        return self._tensor.numpy()

    def rebuilt(self, weights: Mapping[str, torch.Tensor | TorchTensor]) -> TorchTensor:
        """Return this part of a weight that is given; itself, where it isn't."""
        weight = self.weight.rebuilt(weights)
        return self if weight is self.weight else RoundedTensor(weight, *self._arguments, self.name, self._ones)


def restore(model: ir.Model) -> None:
    """Put tensors that know their weight in the place of those that were read from a file."""
    weights: dict[str, TorchTensor] = {}
    stacks: dict[str, TorchTensor] = {}
    counts: dict[str, int] = {}
    for mark, _ in marks_in(model):
        counts[mark.weight] = max(counts.get(mark.weight, 0), (mark.index or 0) + 1)
    for mark, node in marks_in(model):
        parts = list(_parts(node, mark))
        read = [each for each in parts if not isinstance(each[1].const_value, TorchTensor)]
        if not read:
            continue
        weight = weights.get(mark.key)
        if weight is None:
            width, columns = _size(parts, mark)
            dims = (width, columns) if mark.axis == 0 else (columns, width)
            if mark.index is None:
                weight = _float_weight(mark, dims)
            else:
                stack = stacks.setdefault(mark.weight, _float_weight(mark, (counts[mark.weight], *dims)))
                if stack.shape.numpy()[1:] != dims:
                    continue
                weight = stack.derive(partial(one_of, index=mark.index))
            weights[mark.key] = weight
        for part, value, by_rows in read:
            shape = () if value.shape is None else value.shape.numpy()
            arguments = weight, mark.format, part, mark.axis, by_rows, mark.torch_dtype, value.name
            is_vector = mark.format.block_size is None and part in (Part.SCALES, Part.ZEROS)
            ones = max(0, len(shape) - (1 if is_vector else 2))
            made = StoredPart(value.const_value, *arguments, ones)  # type: ignore[arg-type]
            if tuple(made.shape.numpy()) == shape and made.dtype == value.dtype:
                value.const_value = made


def _float_weight(mark: Mark, dims: tuple[int, ...]) -> TorchTensor:
    """A weight without data, by the name that the state dict has for it."""
    weight = TorchTensor(torch.empty(dims, dtype=mark.torch_dtype, device="meta"), mark.weight)
    weight.aliases = mark.aliases
    return weight


def _size(parts: list[tuple[Part, ir.Value, bool]], mark: Mark) -> tuple[int, int]:
    """How many numbers are summed, and how many sums there are, by the shape of the codes."""
    part, value, by_rows = parts[0]
    dims = [] if value.shape is None else list(value.shape.numpy())
    width, columns = (dims[-1], dims[0]) if by_rows else (dims[0], dims[-1])
    return (2 * width if part is Part.HALVES else width), columns


def _parts(node: ir.Node, mark: Mark) -> Iterator[tuple[Part, ir.Value, bool]]:
    """The parts that a node dequantizes, the codes first, with the initializer and whether it lies by rows."""
    is_lookup = node.op_type == LOOKUP
    inputs = [value for i, value in enumerate(node.inputs) if not is_lookup or i != 1]  # its second are the places
    for part, value in zip((Part.CODES, Part.SCALES, Part.ZEROS), inputs):
        by_rows = is_lookup
        while value is not None and (producer := value.producer()) is not None:
            if producer.op_type in ("Transpose", "Gather"):
                by_rows = True
            if producer.op_type == "Concat":
                part = Part.HALVES
            elif producer.op_type == "Gather" and part is Part.ZEROS and mark.format.bits == 4:
                part = Part.BYTES
            value = producer.inputs[0] if producer.inputs else None
        if value is not None and value.const_value is not None and not value.is_graph_input():
            yield part, value, by_rows
