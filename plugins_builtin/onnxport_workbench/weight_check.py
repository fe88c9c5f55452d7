"""The weights of an ONNX model against those of a torch model: what a difference of the outputs may come from."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from onnxport import WeightError
from onnxport.kit import (
    ONNX_TO_TORCH,
    ProgramPass,
    TorchTensor,
    keys,
    load,
    names_of,
    weights_behind,
    with_program_passes,
)
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.export import ExportedProgram

_LISTED = 3
_CHUNK_BYTES = 64 * 1024 * 1024


@dataclass
class WeightCheck:
    """The weights that an ONNX model and a torch model have by one name.

    Left out is what the export computed of weights, and what has other names or is quantized in the file.

    Attributes:
        compared: how many there are.
        differing: names of those whose values differ.
        reshaped: names of those whose sizes differ.
        unknown: names of weights of the ONNX model that the torch model doesn't have.
    """

    compared: int = 0
    differing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, compared: int, differing: Iterable[str]) -> None:
        """Count weights that were compared in another way."""
        self.compared += compared
        self.differing += [name for name in differing if name not in self.differing]

    @property
    def problem(self) -> str:
        """What differs, and what to do; empty where nothing does."""
        kinds = {"differ": self.differing, "have another shape": self.reshaped, "aren't in the model": self.unknown}
        total = self.compared + len(self.unknown)
        parts = [f"{len(names)} of {total} weights {what}" for what, names in kinds.items() if names]
        names = [name for listed in kinds.values() for name in listed]
        examples = f"{', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
        return f"{', '.join(parts)}: seed the factory or load a checkpoint ({examples})" if parts else ""

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {**asdict(self), "problem": self.problem}


@unset_fake_temporarily()
def check_weights(model: ir.Model, program: ExportedProgram | None, reference: Any) -> WeightCheck:
    """Compare the weights that an ONNX model and a torch model have by one name.

    Args:
        model: the ONNX model.
        program: the program that it was exported from, where that is known.
        reference: a module, an ``ExportedProgram``, or a function, which has no weights.
    """
    check, theirs, packed = WeightCheck(), weights_of(reference), _packed_in(reference)
    for name, tensor in _weights_in(model, program, theirs):
        known = theirs.get(name)
        if known is None and not name.startswith(packed):
            check.unknown.append(name)
        elif known is not None and (difference := _difference(tensor, known)) is not None:
            check.compared += 1
            if difference:
                (check.reshaped if difference == "shape" else check.differing).append(name)
    if not check.compared:
        check.unknown.clear()  # a function, or a module that holds the model under other names
    return check


def _packed_in(reference: Any) -> tuple[str, ...]:
    """Prefixes of the weights that a torch model has in objects of its own: eager mode's quantized layers."""
    modules = reference.named_modules() if isinstance(reference, torch.nn.Module) else ()
    owners = [path for path, module in modules if any(isinstance(v, torch.ScriptObject) for v in vars(module).values())]
    return tuple(f"{path.rpartition('.')[0] if '_packed_params' in path else path}." for path in owners)


def _passes() -> list[ProgramPass]:
    """The steps that change the weights of a program."""
    return [each for each in load().program_passes() if each.weights is not None]


def weights_of(reference: Any) -> dict[str, torch.Tensor]:
    """A torch model's weights by their names."""
    if isinstance(reference, ExportedProgram):
        named: dict[str, Any] = {**reference.constants, **reference.state_dict}
    elif isinstance(reference, torch.nn.Module):
        module = getattr(reference, "_orig_mod", reference)  # of torch.compile
        named = {
            **dict(module.named_buffers(remove_duplicate=False)),
            **dict(module.named_parameters(remove_duplicate=False)),
        }
    else:
        return {}
    return {
        name: tensor for name, tensor in weights_behind(named, _passes()).items() if isinstance(tensor, torch.Tensor)
    }


def _weights_in(
    model: ir.Model, program: ExportedProgram | None, theirs: dict[str, torch.Tensor]
) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """An ONNX model's weights by their names in the torch model: a file names what it is made of, or it is its own."""
    initializers = model.graph.initializers
    told = any(keys.INPUT_KIND in value.metadata_props for value in initializers.values())
    seen: set[str] = set()
    for name, value in initializers.items():
        tensor = value.const_value
        if isinstance(tensor, TorchTensor):
            for leaf in tensor.leaves():
                names = () if leaf.source is None else (_known_as(leaf.source, theirs), *leaf.aliases)
                yield from ((each, leaf) for each in names if each not in seen)
                seen.update(names)
        elif keys.FOLDED_FROM in value.metadata_props:
            continue
        elif tensor is not None and (keys.INPUT_KIND in value.metadata_props if told else name in theirs):
            name = _known_as(name, theirs)
            seen.add(name)
            yield name, tensor
    with contextlib.suppress(WeightError):  # of a kind that ONNX doesn't have
        program = None if program is None else with_program_passes(program, _passes())
        for name in sorted(names_of(program)[0] - seen):  # computed into constants at the export
            known = None if program is None else program.state_dict.get(name)
            if isinstance(known, torch.Tensor):
                yield name, TorchTensor(known, name)


def _known_as(name: str, theirs: Container[str]) -> str:
    """The torch model's name of a weight; the file's name of a transposed one is longer."""
    while name not in theirs and "." in name and name.rpartition(".")[0] in theirs:
        name = name.rpartition(".")[0]
    return name


def _difference(tensor: ir.TensorProtocol, known: torch.Tensor) -> Literal["", "shape", "values"] | None:
    """What differs of two weights, whatever the order of their axes; None where that can't be told."""
    if isinstance(tensor, TorchTensor):
        if not tensor.has_data:
            return None
        if tensor._raw is known or _is_one(tensor._raw, known):
            return ""
    try:
        dtype = ONNX_TO_TORCH.get(ir.DataType(tensor.dtype))
        if dtype is not None and known.dtype != dtype and known.is_floating_point() and dtype.is_floating_point:
            known = known.detach().to(dtype)  # the file was converted
        other = TorchTensor(known)
        if not other.has_data or other.dtype != tensor.dtype:
            return None
        left, right = _bits(tensor.numpy()), _bits(other.numpy())
    except WeightError:
        return None
    if left.shape == right.shape:
        left, right = left.reshape(-1), right.reshape(-1)
    elif left.size == right.size:
        left, right = np.sort(left, axis=None), np.sort(right, axis=None)
    else:
        return "shape"
    step = _CHUNK_BYTES // left.itemsize
    same = all(np.array_equal(left[i : i + step], right[i : i + step]) for i in range(0, left.size, step))
    return "" if same else "values"


def _is_one(left: Any, right: torch.Tensor) -> bool:
    """Whether two tensors show the same memory."""
    if not isinstance(left, torch.Tensor) or left.layout is not torch.strided or right.layout is not torch.strided:
        return False
    shown = [(t.data_ptr(), t.shape, t.stride(), t.dtype, t.device, t.is_conj(), t.is_neg()) for t in (left, right)]
    return shown[0] == shown[1]


def _bits(array: np.ndarray) -> np.ndarray:
    kinds = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
    return np.ascontiguousarray(array).view(kinds[array.itemsize]).reshape(array.shape)


__all__ = ["WeightCheck", "check_weights", "weights_of"]
