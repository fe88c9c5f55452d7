"""Checkpoints in safetensors files: weights that stay on disk until they are written elsewhere.

A safetensors file is a length (8 bytes, little-endian), a JSON header of that length, and the data:
https://github.com/huggingface/safetensors#format. An index is a JSON file whose `weight_map` names each weight's file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from onnxport.errors import WeightError
from onnxport.weights import CHUNK_BYTES, TorchTensor

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


class StoredTensor(TorchTensor):
    """A tensor of a safetensors file, read anew whenever its data is asked for, and never kept.

    Args:
        path: the file.
        offset: where its data begins.
        dtype: torch's dtype.
        dims: torch's shape.
        name: its name in the state dict.
    """

    __slots__ = ("_layout", "_offset", "_path")

    def __init__(self, path: Path, offset: int, dtype: torch.dtype, dims: list[int], name: str) -> None:
        self._layout = torch.empty(dims, dtype=dtype, device="meta")
        super().__init__(self._layout, name)
        self._raw = None
        self._path, self._offset = path, offset

    @property
    @unset_fake_temporarily()
    def raw(self) -> torch.Tensor:
        """The whole tensor, read from the file."""
        tensor = torch.empty(self._layout.shape, dtype=self._layout.dtype)
        self._read(tensor.reshape(-1).view(torch.uint8).numpy().data, 0)
        return tensor

    @property
    def has_data(self) -> bool:
        """True: the file has it."""
        return True

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Yield the bytes piece by piece, each of at most `limit` bytes and valid until the next one is asked for."""
        buffer = memoryview(bytearray(min(limit, self.nbytes)))
        for start in range(0, self.nbytes, limit):
            piece = buffer[: min(limit, self.nbytes - start)]
            self._read(piece, start)
            yield piece

    def _read(self, into: memoryview, start: int) -> None:
        with open(self._path, "rb", buffering=0) as file:
            file.seek(self._offset + start)
            while into.nbytes:
                count = file.readinto(into)
                if not count:
                    raise WeightError(
                        f"{self._path.name} ended before the data of {self.source!r}: it was cut short.",
                        names=[str(self.source)],
                    )
                into = into[count:]


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Find the weights of a checkpoint.

    Args:
        path: a `.safetensors` file, the `.index.json` of several, or a folder that has either.

    Raises:
        WeightError: it is no such file; or it lists every file and weight that the index names and that isn't there.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "no such file"
            raise WeightError(
                f"The folder {path.name!r} has {names}: give the path of one .safetensors file, or of an .index.json."
            )
        path = found[0]
    if path.suffix == ".json":
        return _read_index(path)
    if path.suffix != ".safetensors":
        raise WeightError(
            f"{path.name!r} is neither a .safetensors file nor an .index.json. Load it yourself, as with "
            "torch.load(path, mmap=True, weights_only=True), and give the state dict."
        )
    return _read_file(path)


def _read_index(path: Path) -> dict[str, StoredTensor]:
    weight_map = _parsed(path, lambda: json.loads(path.read_text(encoding="utf-8"))["weight_map"])
    problems: list[str] = []
    missing: list[str] = []
    weights: dict[str, StoredTensor] = {}
    for name in dict.fromkeys(weight_map.values()):
        listed = [weight for weight, file in weight_map.items() if file == name]
        try:
            held = _read_file(path.parent / name)
        except WeightError as error:
            problems.append(str(error))
            missing += listed
            continue
        missing += [weight for weight in listed if weight not in held]
        problems += [f"{weight}: not in {name}" for weight in listed if weight not in held]
        weights.update((weight, held[weight]) for weight in listed if weight in held)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise WeightError(
            f"The index {path.name} names what isn't there; complete the checkpoint:\n{listing}", names=missing
        )
    return weights


def _read_file(path: Path) -> dict[str, StoredTensor]:
    def weights() -> dict[str, StoredTensor]:
        with open(path, "rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        return {name: _stored(path, length + 8, size, name, entry) for name, entry in entries.items()}

    return _parsed(path, weights)


def _stored(path: Path, start: int, size: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise WeightError(
            f"The weight {name!r} of {path.name} is {entry['dtype']}, which can't be read. Convert it.", names=[name]
        )
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(path, start + begin, _DTYPES[entry["dtype"]], entry["shape"], name)
    if tensor.nbytes != end - begin or begin < 0 or start + end > size:
        raise ValueError(f"{name} should take {tensor.nbytes} bytes, at {begin} to {end} of {size - start}")
    return tensor


def _parsed(path: Path, parse: Any) -> Any:
    try:
        return parse()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, WeightError):
            raise
        what = error.strerror if isinstance(error, OSError) else f"is no checkpoint ({type(error).__name__}: {error})"
        raise WeightError(f"{path.name}: {what}") from error
