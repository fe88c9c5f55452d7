"""Several graphs over one data file: encoder and decoder, or prompt and step, whose weights are stored once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import onnx_ir as ir
import onnxport
import torch
from onnxport import ArgumentError, InputError, ONNXProgram, SaveError
from onnxport.kit import (
    TorchTensor,
    path_argument,
    placing,
    require_flags,
    saving,
    serialization,
    shown,
    unset_fake_temporarily,
)
from torch.export import ExportedProgram

_NAME = re.compile(r"[\w.-]+")
_OWN = re.compile(r"weights\.[0-9a-f]{16}\.data|weights\.data")
_DATA = "weights.data"


@dataclass
class Together:
    """What :func:`export_together` wrote.

    Attributes:
        programs: by name.
        files: the ONNX files, by name.
        data: the file with all their weights; None where none is large enough.
        shared_bytes: the weights that several have, beyond the first of each.
    """

    programs: dict[str, ONNXProgram]
    files: dict[str, Path] = field(default_factory=dict)
    data: Path | None = None
    shared_bytes: int = 0


def export_together(
    models: Mapping[str, Any], folder: str | os.PathLike[str], *, verify: bool = True, **options: Any
) -> Together:
    """Export several graphs that share weights, into a folder with one data file. Each weight is stored once.

    Args:
        models: by the names of the files, without ``.onnx``: a dict of the arguments of :func:`onnxport.export`, such
            as ``{"model": encoder, "args": (x,)}``; a tuple ``(model, args)`` or ``(model, args, kwargs)``; or an
            ``ONNXProgram``, which was exported already.
        folder: it is made where it isn't there.
        verify: whether each is compared with its torch model before anything is written.
        options: arguments of :func:`onnxport.export` for all of them; those of a model go first.

    Returns:
        Programs and paths.

    Raises:
        ArgumentError: `models` is no dict, or one of its values is none of these.
        InputError: a name can't be that of a file, or an option isn't for several models.
        OnnxExporterError: a model can't be exported. Nothing is written then.
        SaveError: the folder can't be written.
    """
    require_flags(verify=verify)
    where = path_argument("folder", folder, "the path of a folder")
    if not isinstance(models, Mapping) or not models:
        raise ArgumentError(
            "models: give a dict of what to export, by the names of the files: {'encoder': (encoder, args), ...}.",
            parameter="models",
        )
    if "f" in options:
        raise InputError("f is the path of one file; the folder is the second argument. Leave it out.", parameter="f")
    for name in models:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("."):
            raise InputError(f"{name!r} can't be the name of a file: use letters, digits, dots and hyphens.")
    calls = {name: _arguments(name, given) for name, given in models.items()}
    programs = {
        name: call if isinstance(call, ONNXProgram) else onnxport.export(**{"verify": verify, **options, **call})
        for name, call in calls.items()
    }
    return save_together(programs, where)


def _arguments(name: str, given: Any) -> ONNXProgram | dict[str, Any]:
    if isinstance(given, ONNXProgram):
        return given
    if isinstance(given, (torch.nn.Module, ExportedProgram)):
        return {"model": given}
    if isinstance(given, tuple) and len(given) in (2, 3):
        args = given[1] if isinstance(given[1], (tuple, list)) else (given[1],)
        return {"model": given[0], "args": tuple(args), "kwargs": given[2] if len(given) == 3 else None}
    if isinstance(given, Mapping) and "model" in given and "f" not in given:
        return dict(given)
    raise ArgumentError(
        f"models[{name!r}]: give (model, args), (model, args, kwargs), a dict of export's arguments with 'model' and "
        "without 'f', or an ONNXProgram.",
        parameter="models",
    )


@unset_fake_temporarily()
def save_together(programs: Mapping[str, ONNXProgram], folder: str | os.PathLike[str]) -> Together:
    """Save several programs in a folder, with one file for the weights of all. What is equal is written once.

    Raises:
        InputError: an argument is of another type.
        SaveError: the folder can't be written.
        WeightError: a weight has no data.
    """
    folder = path_argument("folder", folder, "the path of a folder")
    if not isinstance(programs, Mapping) or not all(isinstance(each, ONNXProgram) for each in programs.values()):
        raise ArgumentError(
            f"programs={shown(programs)}: give a dict of ONNXPrograms by their names.", parameter="programs"
        )
    where, made = Path(folder), Together(dict(programs))
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where, prefix=".together-") as scratch:
            _write(made, where, Path(scratch))
    except OSError as error:
        raise SaveError(
            f"Cannot save in {str(where)!r}: {error.strerror or error}. Free space, or give another folder.",
            path=str(where),
        ) from error
    return made


def _write(made: Together, folder: Path, scratch: Path) -> None:
    """Write under other names first: whoever reads the folder finds the old files or the new ones."""
    weights = {name: serialization.weights_of(program.model) for name, program in made.programs.items()}
    for listed in weights.values():
        for weight in listed:
            if isinstance(weight.tensor, TorchTensor) and not weight.tensor.has_data:
                weight.tensor.require_data()
    total = hashlib.blake2b(digest_size=8)
    with open(scratch / _DATA, "wb") as file:
        made.shared_bytes = _lay_out([weight for listed in weights.values() for weight in listed], file, total)
        file.flush()
        placing.sync(file.fileno())
    has_data = any(weight.location for listed in weights.values() for weight in listed)
    location = f"weights.{total.hexdigest()}.data" if (folder / _DATA).exists() else _DATA
    for name, program in made.programs.items():
        for weight in weights[name]:
            weight.location = weight.location and location
        shell = serialization.without_weights(program.model)
        if serialization.model_size(shell, weights[name]) > serialization.PROTOBUF_LIMIT:
            raise SaveError(f"The graph of {name!r} alone takes more than 2 GiB. Export its parts as models.")
        with open(scratch / f"{name}.onnx", "wb") as file:
            serialization.write_model(file, shell, weights[name])
            file.flush()
            placing.sync(file.fileno())
    if has_data:
        made.data = folder / location
        os.replace(scratch / _DATA, made.data)
    for name in made.programs:
        made.files[name] = folder / f"{name}.onnx"
        os.replace(scratch / f"{name}.onnx", made.files[name])
    _tidy(folder, location if has_data else "")


def _lay_out(weights: list[Any], file: IO[bytes], total: Any) -> int:
    """Write what isn't there yet, and give each weight its place; the bytes that were there already."""
    places: dict[tuple[bytes, int], int] = {}
    end = shared = 0
    for weight in weights:
        length = weight.tensor.nbytes
        if length < saving.INLINE_BYTES or weight.tensor.dtype is ir.DataType.STRING:
            continue
        alignment = saving.LARGE_ALIGNMENT if length >= saving.LARGE_BYTES else saving.SMALL_ALIGNMENT
        start = -(-end // alignment) * alignment
        file.seek(start)
        hashed = _Hashed(file)
        weight.write_data(hashed)
        key = hashed.digest(), length
        weight.location, weight.offset = _DATA, places.setdefault(key, start)
        if weight.offset == start:
            total.update(key[0])
            end = start + length
        else:
            shared += length
    file.truncate(end)  # a weight that was there already may have been written behind the last
    return shared


class _Hashed:
    """A file that remembers the digest of what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.blake2b(digest_size=32)

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def digest(self) -> bytes:
        return self._hash.digest()


def _tidy(folder: Path, location: str) -> None:
    """Remove the data of files that were replaced."""
    old = [path.name for path in folder.iterdir() if _OWN.fullmatch(path.name) and path.name != location]
    used = {name for path in folder.glob("*.onnx") for name in placing.names_in(str(path), old)}
    for name in set(old) - used:
        with contextlib.suppress(OSError):
            os.unlink(folder / name)
