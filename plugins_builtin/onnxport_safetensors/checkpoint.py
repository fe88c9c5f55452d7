"""Checkpoints in safetensors files: weights that stay on disk until they are written elsewhere.

A safetensors file is a length (8 bytes, little-endian), a JSON header of that length, and the data:
https://github.com/huggingface/safetensors#format. An index is a JSON file whose `weight_map` names each weight's file.
Neither is trusted: sizes and offsets are checked, and an index names files of its own folder alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from onnxport import FileError, MissingFileError, WeightError
from onnxport.kit import (
    CHUNK_BYTES,
    OPEN_AT_ONCE,
    DataFile,
    TorchTensor,
    absolute,
    folder_of,
    inside,
    own_memory,
)
from torch._subclasses.fake_tensor import unset_fake_temporarily

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
_LONGEST_HEADER = 100_000_000
"""Bytes, as in the format's own reader. An index isn't longer either."""


class MissingCheckpointError(WeightError, MissingFileError):
    """A checkpoint isn't there."""


class StoredTensor(TorchTensor):
    """A tensor of a safetensors file, read again whenever its data is asked for, and never kept.

    Args:
        file: the file.
        offset: where its data begins.
        dtype: torch's dtype.
        dims: torch's shape.
        name: its name in the state dict.
    """

    __slots__ = ("_file", "_offset")

    def __init__(self, file: DataFile, offset: int, dtype: torch.dtype, dims: list[int], name: str) -> None:
        self._layout = torch.empty(dims, dtype=dtype, device="meta")
        super().__init__(self._layout, name)
        self._raw = None
        self._file, self._offset = file, offset

    @property
    @unset_fake_temporarily()
    def raw(self) -> torch.Tensor:
        """The whole tensor, read from the file."""
        tensor = own_memory(self._layout.shape, self._layout.dtype)
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
        try:
            self._file.read_into(into, self._offset + start)
        except FileError as error:
            raise WeightError(f"The weight {self.source!r} can't be read. {error}", names=[str(self.source)]) from error


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Find the weights of a checkpoint. Its files are opened, and stay open as long as the weights are used.

    Args:
        path: a `.safetensors` file, the `.index.json` of several, or a folder that has either.

    Raises:
        WeightError: it is no such file, and a MissingFileError too where it isn't there; or it lists every file and
            weight that the index names and that isn't there, or isn't in its folder.
    """
    try:
        path = Path(absolute(path))
        is_folder = path.is_dir()
    except MissingFileError as error:
        raise MissingCheckpointError(str(error), path=error.path) from error
    except OSError as error:  # a name that no file can have
        raise MissingCheckpointError(
            f"{str(path)!r} is no checkpoint: {error.strerror or error}. Give the path of one.", path=str(path)
        ) from error
    if is_folder:
        found = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "no such file"
            raise WeightError(
                f"The folder {path.name!r} has {names}: give the path of one .safetensors file, or of an .index.json."
            )
        _resolved(path, found[0].name, _roots(path))
        path = found[0]
    if path.suffix == ".json":
        return _read_index(path)
    if path.suffix != ".safetensors":
        raise WeightError(
            f"{path.name!r} is neither a .safetensors file nor an .index.json. Load it yourself, as with "
            "torch.load(path, mmap=True, weights_only=True), and give the state dict."
        )
    return _read_file(_opened(str(path), path.name), path.name)


def _read_index(path: Path) -> dict[str, StoredTensor]:
    file = _opened(str(path), path.name)
    listed: dict[str, list[str]] = {}
    try:
        for weight, name in json.loads(_content(file, 0, file.size))["weight_map"].items():
            listed.setdefault(os.fspath(name), []).append(weight)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FileError) as error:
        raise _no_checkpoint(path.name, error) from error
    roots = list(dict.fromkeys([*folder_of(str(path)), *_roots(path.parent)]))
    problems: list[str] = []
    weights: dict[str, StoredTensor] = {}
    for i, (name, wanted) in enumerate(listed.items()):
        try:
            held = _read_file(_opened(_resolved(path.parent, name, roots), name, keep=i < OPEN_AT_ONCE), name)
        except WeightError as error:
            problems.append(str(error))
            continue
        problems += [f"{weight}: not in {name}" for weight in wanted if weight not in held]
        weights.update((weight, held[weight]) for weight in wanted if weight in held)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise WeightError(f"The index {path.name} names what isn't there; complete the checkpoint:\n{listing}")
    return weights


def _roots(folder: Path) -> list[str]:
    """Where the files of a folder may really lie: in it, or, in a download cache of Hugging Face, among its blobs."""
    roots = [os.path.realpath(folder)]
    if folder.parent.name == "snapshots":
        roots.append(os.path.realpath(folder.parent.parent / "blobs"))
    return roots


def _resolved(folder: Path, name: str, roots: Sequence[str]) -> str:
    try:
        return inside(str(folder), roots, name, "The checkpoint")
    except FileError as error:
        raise WeightError(f"{name}: {error}") from error


def _opened(path: str, name: str, *, keep: bool = True) -> DataFile:
    try:
        return DataFile(os.path.realpath(path), keep=keep)
    except MissingFileError as error:
        raise MissingCheckpointError(f"{name}: No such file. {error}", path=path) from error
    except FileError as error:
        raise WeightError(f"{name}: {error}") from error


def _content(file: DataFile, start: int, length: int) -> bytes:
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes is longer than the format allows")
    data = bytearray(length)
    file.read_into(memoryview(data), start)
    return bytes(data)


def _no_checkpoint(name: str, error: Exception) -> WeightError:
    return WeightError(f"{name} is no checkpoint ({type(error).__name__}: {error}). Get it again.")


def _read_file(file: DataFile, name: str) -> dict[str, StoredTensor]:
    try:
        length = int.from_bytes(_content(file, 0, min(8, file.size)), "little")
        if length > file.size - 8:
            raise ValueError("the header is longer than the file")
        entries = json.loads(_content(file, 8, length))
        entries.pop("__metadata__", None)
        return {weight: _stored(file, length + 8, weight, entry, name) for weight, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, FileError) as error:
        if isinstance(error, WeightError):
            raise
        raise _no_checkpoint(name, error) from error


def _stored(file: DataFile, start: int, name: str, entry: dict[str, Any], file_name: str) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise WeightError(f"The weight {name!r} of {file_name} is {entry['dtype']}, which can't be read. Convert it.")
    begin, end = entry["data_offsets"]
    dims = entry["shape"]
    if not isinstance(dims, list) or any(type(number) is not int or number < 0 for number in (begin, end, *dims)):
        raise ValueError(f"{name} has the shape {dims} and lies at {begin} to {end}")
    dtype = _DTYPES[entry["dtype"]]
    size = math.prod(dims) * dtype.itemsize
    if size != end - begin or start + end > file.size:
        raise ValueError(f"{name} should take {size} bytes, at {begin} to {end} of {file.size - start}")
    return StoredTensor(file, start + begin, dtype, dims, name)
