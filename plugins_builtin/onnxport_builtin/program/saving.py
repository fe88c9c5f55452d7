"""Saving a model: weights stream from torch storage to disk, and a file appears only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Sequence
from typing import IO, Any

import onnx
import onnx_ir as ir
from onnxport import ArgumentError, InputError, MissingFileError, ONNXProgram, SaveError
from onnxport.kit import TorchTensor, path_argument, require_flags, shown, unset_fake_temporarily

from onnxport_builtin.program import placing
from onnxport_builtin.program.data_file import absolute
from onnxport_builtin.program.serialization import (
    PROTOBUF_LIMIT,
    Weight,
    model_size,
    weights_of,
    without_weights,
    write_model,
)

INLINE_BYTES = 1024
"""Tensors smaller than this stay in the .onnx file in any case, where shape inference can read them."""

LARGE_BYTES = 1024 * 1024
LARGE_ALIGNMENT = 64 * 1024
"""Tensors from `LARGE_BYTES` on start at a multiple of this, which every system's memory mapping accepts."""

SMALL_ALIGNMENT = 64

_ADVICE = {
    errno.ENOSPC: "The disk is full: free space, or save to another disk.",
    errno.EDQUOT: "The disk quota is used up: free space, or save elsewhere.",
    errno.EACCES: "There is no permission to write: choose another folder, or change its permissions.",
    errno.EPERM: "There is no permission to write: choose another folder, or change its permissions.",
    errno.EROFS: "The file system is read-only: choose another folder.",
    errno.ENOENT: "The folder does not exist: create it first.",
    errno.ENOTDIR: "A part of the path is a file, not a folder: choose another path.",
    errno.ENAMETOOLONG: "The file name is too long: choose a shorter one.",
    errno.EFBIG: "The file is larger than the process or the file system may write: save elsewhere.",
}


def save(program: ONNXProgram, destination: str | os.PathLike[str] | IO[bytes], **options: Any) -> None:
    """See `ONNXProgram.save`."""
    save_model(program.model, destination, **options)


def check_destination(destination: Any, external_data: bool) -> bool:
    """Refuse, before a capture, what can't be saved to; whether there will be external data, as a file can't have.

    Raises:
        ArgumentError, SaveError: as `path_of`.
    """
    external_data = external_data and not is_file(destination)  # which has no place beside it
    path_of(destination, external_data)
    return external_data


@unset_fake_temporarily()  # under a caller's fake mode, too, real weights are written
def save_model(
    model: ir.Model,
    destination: str | os.PathLike[str] | IO[bytes],
    *,
    include_initializers: bool = True,
    keep_initializers_as_inputs: bool = False,
    external_data: bool | None = None,
    shard_bytes: int | None = None,
    outputs: Sequence[ir.Value] | None = None,
) -> None:
    """Write a model to a file. The model is not changed, and its weights are never copied as a whole.

    External data goes to `<file name>.data` beside the model; where a model is there that has data, and has others, to
    `<file name>.<digest>.data`, and the old data are removed. Files are written under temporary names and renamed when
    they are whole and on the disk: see `placing`. Whatever goes wrong, the temporaries are removed and earlier files
    survive. A process that is killed leaves the old model or the new one, each with its own data, and perhaps
    temporaries (`.<file name>*.tmp`), which the next save removes. The sync took 1 s of the 12 s of a save of 1.6 GB.
    A file that is replaced hands on its permissions, and where possible its owner and group.

    Args:
        model: the model.
        destination: a path, or a binary file open for writing.
        include_initializers: whether the weights are in the file.
        keep_initializers_as_inputs: whether the initializers are listed as inputs of the graph.
        external_data: True: weights from 1 KiB on go to a file of their own; False: all go into the .onnx file;
            None: a file of their own only where the .onnx file would exceed protobuf's 2 GiB.
        shard_bytes: the size from which external data goes on in another file, `<file name>.data_1` and so on.
        outputs: values to be the graph's outputs instead of its own.

    Raises:
        ArgumentError: `destination` is no path and no binary file, or is not a path while `external_data` is True.
        SaveError: the files can't be written, or the model is too large without external data.
        WeightError: a weight has no data (a fake or meta tensor).
        InputError: `shard_bytes` is not a positive number, or a flag neither True nor False.
    """
    require_flags(
        include_initializers=include_initializers,
        keep_initializers_as_inputs=keep_initializers_as_inputs,
        external_data=external_data,
    )
    if shard_bytes is not None and (not isinstance(shard_bytes, int) or shard_bytes < 1):
        raise InputError(
            f"shard_bytes={shown(shard_bytes)}: give a number of bytes, such as 2 * 10**9, or leave it out.",
            parameter="shard_bytes",
        )
    path = path_of(destination, external_data)
    weights = weights_of(model) if include_initializers else []
    for weight in weights:
        if isinstance(weight.tensor, TorchTensor) and not weight.tensor.has_data:
            weight.tensor.require_data()
    try:
        shell = without_weights(model, as_inputs=keep_initializers_as_inputs, outputs=outputs)
    except Exception as error:  # of onnx_ir or protobuf, on what was put into the model by hand
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise SaveError(f"The model can't be written: {cause}. Names and texts have to be valid Unicode.") from error
    size = model_size(shell, weights)
    if path is None:
        _require(size, "Save to a path, where the weights can be external data.")
        try:
            write_model(destination, shell, weights)  # type: ignore[arg-type]
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, "What the file holds now is no whole model.")
            raise SaveError(f"Cannot write to the file given: {error.strerror or error}. {advice}") from error
        return
    if external_data is None:
        external_data = size > PROTOBUF_LIMIT
    if external_data:
        _require_text(path)
        _lay_out(weights, os.path.basename(path) + ".data", shard_bytes)
        size = model_size(shell, weights)
    _require(size, "Save with external_data=True.")
    try:
        _save_to_path(shell, weights, path)
    except SaveError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Nothing was written.")
        raise SaveError(f"Cannot save {path!r}: {error.strerror or error}. {advice}", path=path) from error


def path_of(destination: Any, external_data: bool | None) -> str | None:
    """The absolute path of a destination in a folder that is there; None for a binary file.

    Raises:
        ArgumentError: it is no path and no binary file, or is not a path while `external_data` is True.
        SaveError: its folder isn't there, or it is a folder itself.
    """
    if isinstance(destination, (str, os.PathLike)):
        if destination == "":
            raise SaveError("Cannot save '': give the path of a file.")
        given = path_argument("destination", destination, "the path of a file, or a binary file")
        try:
            path = absolute(given)
        except MissingFileError as error:
            raise SaveError(f"Cannot save. {error}", path=given) from error
        if not os.path.isdir(os.path.dirname(path)):
            code = errno.ENOTDIR if os.path.exists(os.path.dirname(path)) else errno.ENOENT
            raise SaveError(f"Cannot save {path!r}: {os.strerror(code)}. {_ADVICE[code]}", path=path)
        _target(path)
        return path
    kind = type(destination).__name__
    if not hasattr(destination, "write"):
        raise ArgumentError(f"The destination must be a path or a binary file, not {kind}.", parameter="destination")
    if problem := _unwritable(destination):
        raise ArgumentError(
            f"The destination is a {kind} that {problem}: open a file with mode 'wb', or give a path.",
            parameter="destination",
        )
    if external_data:
        raise ArgumentError(
            f"external_data=True needs a path as destination, not {kind}; give external_data=False.",
            parameter="external_data",
        )
    return None


def is_file(destination: Any) -> bool:
    """Whether a destination is an open file, and not the path of one."""
    return not isinstance(destination, (str, os.PathLike)) and hasattr(destination, "write")


def _unwritable(file: Any) -> str:
    """The fault of a file object that bytes are to be written to; empty if there is none."""
    if isinstance(file, io.TextIOBase):
        return "takes text, and no bytes"
    if getattr(file, "closed", False):
        return "is closed"
    writable = getattr(file, "writable", None)
    return "is not open for writing" if callable(writable) and not writable() else ""


def to_bytes(model: ir.Model, outputs: Sequence[ir.Value] | None = None) -> bytes:
    """Serialize a model of less than 2 GiB, weights included."""
    buffer = io.BytesIO()
    save_model(model, buffer, outputs=outputs)
    return buffer.getvalue()


def _require(size: int, advice: str) -> None:
    if size > PROTOBUF_LIMIT:
        raise SaveError(f"The model takes {size / 2**30:.2f} GiB, and an .onnx file can hold 2 GiB at most. {advice}")


def _require_text(path: str) -> None:
    try:
        os.path.basename(path).encode()
    except UnicodeEncodeError as error:
        raise SaveError(
            f"Cannot save {path!r}: its name isn't valid UTF-8, and an ONNX model can't name data after it. "
            "Choose another name, or save with external_data=False.",
            path=path,
        ) from error


def _lay_out(weights: Sequence[Weight], location: str, shard_bytes: int | None) -> None:
    """Give every weight that is worth it a place in a data file: `location`, then `location_1`, `location_2`, …"""
    shard, end = 0, 0
    for weight in weights:
        length = weight.tensor.nbytes
        if length < INLINE_BYTES or weight.tensor.dtype is ir.DataType.STRING:
            continue
        alignment = LARGE_ALIGNMENT if length >= LARGE_BYTES else SMALL_ALIGNMENT
        start = -(-end // alignment) * alignment
        if end and shard_bytes is not None and start + length > shard_bytes:
            shard, start = shard + 1, 0
        weight.location, weight.offset = f"{location}_{shard}" if shard else location, start
        end = start + length


def _save_to_path(shell: onnx.ModelProto, weights: Sequence[Weight], path: str) -> None:
    """Write everything under temporary names, then give the data theirs, and then the model its own."""
    target, (folder, name) = _target(path), os.path.split(path)
    shards: dict[str, list[Weight]] = {}
    for weight in weights:
        if weight.location is not None:
            shards.setdefault(weight.location, []).append(weight)
    for location in shards:
        if os.path.isdir(os.path.join(folder, location)):
            raise SaveError(f"Cannot save {os.path.join(folder, location)!r}: it is a folder. Choose another name.")
    for each in {folder, os.path.dirname(target)}:
        placing.remove_abandoned(each, name)
    private = os.path.exists(target)
    with contextlib.ExitStack() as stack:
        written = []
        for group in shards.values():
            temporary = placing.Temporary(stack, folder, name, private=private)
            for weight in group:
                temporary.file.seek(weight.offset)
                weight.write_data(temporary.file)
            temporary.sync()
            written.append(temporary)
        model = placing.Temporary(stack, os.path.dirname(target), os.path.basename(target), private=private)
        if not shards:  # what may be large is written before others have to wait
            _write_model(model, shell, weights)
        with placing.locked(path, target) as place:
            locations = place.locations(written)
            for group, location in zip(shards.values(), locations):
                for weight in group:
                    weight.location = location
            if shards:
                _write_model(model, shell, weights)
            place.put(written, locations, model)


def _write_model(temporary: placing.Temporary, shell: onnx.ModelProto, weights: Sequence[Weight]) -> None:
    buffered = io.BufferedWriter(temporary.file, LARGE_BYTES)
    try:
        write_model(buffered, shell, weights)
        buffered.flush()
    finally:
        buffered.detach()  # the file stays open: its lock says that somebody is at work
    temporary.sync()


def _target(path: str) -> str:
    """Resolve links, as opening the file would, and refuse what a rename would destroy."""
    path = os.path.realpath(path)
    if os.path.isdir(path):
        raise SaveError(f"Cannot save {path!r}: it is a folder. Give the path of a file in it.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise SaveError(f"Cannot save {path!r}: it is not a regular file. Pass an open binary file instead.")
    return path
