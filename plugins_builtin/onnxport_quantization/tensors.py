"""The parts of a rounded weight as tensors that are computed when they are written, a piece at a time.

Nothing but the float weight is in memory, and that is the model's own. `ONNXProgram.apply_weights` replaces it, and so
the numbers that are made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxport import DataType, WeightError
from onnxport.kit import ONNX_TO_TORCH, TorchTensor

from onnxport_quantization.formats import WeightFormat
from onnxport_quantization.rounding import TILE, Blocks, rounded, tiles

CODES = {
    DataType.INT4: getattr(torch, "int4"),  # noqa: B009 - torch's stubs don't have it
    DataType.UINT4: getattr(torch, "uint4"),  # noqa: B009
    DataType.INT8: torch.int8,
    DataType.UINT8: torch.uint8,
}


class Part(Enum):
    """What a tensor has of a rounded weight.

    `HALVES` and `BYTES` are for rows that are looked up, which ONNX doesn't do with types of 4 bits: codes, two a byte,
    the first half of a row in the lower bits and the second half in the upper ones; and the zero points, one a byte.
    """

    CODES = "codes"
    SCALES = "scale"
    ZEROS = "zero_point"
    HALVES = "halves"
    BYTES = "zero_bytes"


class StoredWeight(TorchTensor):
    """A weight of a model that was loaded from a file, read again whenever its data is asked for.

    Args:
        tensor: what the model has.
        name: the initializer's name.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor: ir.TensorProtocol, name: str) -> None:
        dtype = ONNX_TO_TORCH[ir.DataType(tensor.dtype)]
        self._layout = torch.empty(list(tensor.shape.numpy()), dtype=dtype, device="meta")
        self._tensor = tensor
        super().__init__(self._layout, name)
        self._raw = None

    @property
    def raw(self) -> torch.Tensor:
        """The whole tensor."""
        array = np.ascontiguousarray(self._tensor.numpy())
        bits = array.view({2: np.int16, 4: np.int32}[array.itemsize])
        if not bits.flags.writeable:
            bits = bits.copy()
        return torch.from_numpy(bits).view(self._layout.dtype)

    @property
    def has_data(self) -> bool:
        """True: the file has it."""
        return True


class RoundedTensor(TorchTensor):
    """One part of a rounded weight.

    Args:
        weight: the float matrix, as it is stored.
        form: how it is rounded.
        part: which part this is.
        axis: the axis of ``weight`` that blocks run along.
        by_rows: whether the part lies as (columns, blocks) of the product, and not as (blocks, columns).
        dtype: the float type that the weight is read in.
        name: its name.
        ones: how many axes of size 1 are between the two.
    """

    __slots__ = ("_arguments", "_axis", "_by_rows", "_float", "_form", "_ones", "_part")

    def __init__(
        self,
        weight: TorchTensor,
        form: WeightFormat,
        part: Part,
        axis: int,
        by_rows: bool,
        dtype: torch.dtype,
        name: str | None,
        ones: int = 0,
    ) -> None:
        self._arguments = form, part, axis, by_rows, dtype
        self._form, self._part, self._axis, self._by_rows, self._float = self._arguments
        self._ones = ones
        width, columns = weight.shape.numpy()[axis], weight.shape.numpy()[1 - axis]
        length = {Part.CODES: width, Part.HALVES: width // 2}.get(part, -(-width // form.block(width)))
        shape = [columns, length] if by_rows else [length, columns]
        if self._is_vector:
            shape = [columns]
        shape[1:1] = [1] * ones
        kinds = {Part.SCALES: dtype, Part.HALVES: torch.uint8, Part.BYTES: torch.uint8}
        kind = kinds.get(part, CODES[form.dtype])
        self._layout = torch.empty(shape, dtype=dtype if kind is dtype else torch.uint8, device="meta").view(kind)
        super().__init__(self._layout, name)
        self.source, self.parents, self._raw = None, (weight,), None

    @property
    def weight(self) -> TorchTensor:
        """The float matrix that this was made of."""
        return self.parents[0]

    @property
    def raw(self) -> torch.Tensor:
        """The whole part; integers of 4 bits take a byte each, as torch has them."""
        return torch.cat(list(self._pieces())).reshape(self._layout.shape).view(self._layout.dtype)

    def chunks(self, limit: int = 0) -> Iterator[memoryview]:
        """Yield the row-major bytes piece by piece, each of them valid until the next one is asked for."""
        if self._part is Part.ZEROS:  # two of them may share a byte
            yield from TorchTensor(self.raw, self.name).chunks()
            return
        kind = self._layout.dtype
        for piece in self._pieces():
            yield from TorchTensor(piece.view(kind), self.name).chunks()

    def rebuilt(self, weights: Mapping[str, torch.Tensor | TorchTensor]) -> TorchTensor:
        """Return this part of another weight; itself, where the weight isn't given."""
        weight = self.weight.rebuilt(weights)
        return self if weight is self.weight else RoundedTensor(weight, *self._arguments, self.name, self._ones)

    @property
    def _is_vector(self) -> bool:
        return self._form.block_size is None and self._part in (Part.SCALES, Part.ZEROS)

    def _pieces(self) -> Iterator[torch.Tensor]:
        """The part in pieces that lie behind each other in the tensor, with an even number of codes each.

        Raises:
            WeightError: the weight has numbers that aren't finite.
        """
        weight = self.weight.require_data().detach()
        weight = (weight if self._axis == 0 else weight.t()).cpu()
        rows, columns = weight.shape
        block = self._form.block(rows)
        if self._by_rows or self._is_vector:
            step = max(1, TILE // max(1, 2 * rows)) * 2
            for start in range(0, columns, step):
                piece = self._of(self._rounded(weight[:, start : start + step], block))
                yield piece if self._is_vector else piece.t().contiguous()
            return
        for band, slices in tiles(rows, columns, block):
            yield torch.cat([self._of(self._rounded(weight[band, each], block)) for each in slices], 1)

    def _rounded(self, piece: torch.Tensor, block: int) -> Blocks:
        try:
            return rounded(piece.to(self._float), self._form, block, codes=self._part in (Part.CODES, Part.HALVES))
        except WeightError as error:
            name = str(next((leaf.source for leaf in self.leaves() if leaf.source), self.name))
            raise WeightError(f"{name}: {error}", names=[name]) from None

    def _of(self, blocks: Blocks) -> torch.Tensor:
        if self._part is Part.SCALES:
            return blocks.scales[0] if self._is_vector else blocks.scales
        if self._part is Part.HALVES:
            first, second = blocks.codes.chunk(2)
            return first | second << 4
        found = blocks.codes if self._part is Part.CODES else blocks.zeros
        if self._form.symmetric and self._part is not Part.BYTES:
            found = (found.to(torch.int16) - 2 ** (self._form.bits - 1)).to(torch.int8)
        return found[0] if self._is_vector else found


def layout_of(weight: TorchTensor) -> tuple[TorchTensor, Sequence[int]] | None:
    """The weight that a matrix is a view of, and the order of its axes in the matrix; None for what is computed."""
    leaf, order = weight, [0, 1]
    while leaf.parents:
        if len(leaf.parents) > 1 or leaf._function is None:
            return None
        parent = leaf.parents[0]
        turned = [0, 1] if is_conversion(leaf._function) else _order(leaf._function, parent)
        if turned is None:
            return None
        leaf, order = parent, [turned[axis] for axis in order]
    return (leaf, order) if leaf.source is not None else None


def is_conversion(function: Any) -> bool:
    """Whether a function of a weight gives the same numbers in another dtype, and leaves the axes as they are."""
    return getattr(function, "is_conversion", False) is True


def _order(function: Any, parent: TorchTensor) -> list[int] | None:
    """How a function turns the axes of a matrix, told by the strides of a matrix without data."""
    if len(parent.shape) != 2:
        return None
    probe = torch.empty_strided((3, 5), (5, 1), device="meta")
    try:
        found = function(probe)
    except Exception:  # a function that was made for the weight's own sizes may raise anything
        return None
    if found._base is not probe and found is not probe:
        return None
    return {((3, 5), (5, 1)): [0, 1], ((5, 3), (1, 5)): [1, 0]}.get((tuple(found.shape), found.stride()))
