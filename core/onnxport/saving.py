"""Saving a model: weights stream from torch storage to disk, and a file appears only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

import onnx
import onnx_ir as ir
from torch._subclasses.fake_tensor import unset_fake_temporarily

from onnxport.errors import SaveError
from onnxport.serialization import PROTOBUF_LIMIT, Weight, model_size, weights_of, without_weights, write_model
from onnxport.weights import TorchTensor

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


@unset_fake_temporarily()  # under a caller's fake mode, too, real weights are written
def save(
    model: ir.Model,
    destination: str | os.PathLike[str] | IO[bytes],
    *,
    include_initializers: bool = True,
    keep_initializers_as_inputs: bool = False,
    external_data: bool | None = None,
    outputs: Sequence[ir.Value] | None = None,
) -> None:
    """Write a model to a file. The model is not changed, and its weights are never copied as a whole.

    External data goes to `<file name>.data` beside the model. Both files are written under temporary names and
    renamed when they are whole; whatever goes wrong, the temporaries are removed and earlier files survive.

    Args:
        model: the model.
        destination: a path, or a binary file open for writing.
        include_initializers: whether the weights are in the file.
        keep_initializers_as_inputs: whether the initializers are listed as inputs of the graph.
        external_data: True: weights from 1 KiB on go to a file of their own; False: all go into the .onnx file;
            None: a file of their own only where the .onnx file would exceed protobuf's 2 GiB.
        outputs: values to be the graph's outputs instead of its own.

    Raises:
        TypeError: `destination` is no path and no binary file, or is not a path while `external_data` is True.
        SaveError: the files can't be written, or the model is too large without external data.
        WeightError: a weight has no data (a fake or meta tensor).
    """
    path = None
    if isinstance(destination, (str, os.PathLike)):
        path = os.path.abspath(os.fsdecode(destination))
    elif external_data:
        raise TypeError(f"external_data=True needs a path as destination, not {type(destination).__name__}.")
    elif not hasattr(destination, "write"):
        raise TypeError(f"The destination must be a path or a binary file, not {type(destination).__name__}.")

    weights = weights_of(model) if include_initializers else []
    for weight in weights:
        if isinstance(weight.tensor, TorchTensor):
            weight.tensor.require_data()
    shell = without_weights(model, as_inputs=keep_initializers_as_inputs, outputs=outputs)
    size = model_size(shell, weights)
    if path is None:
        _require(size, "Save to a path, where the weights can be external data.")
        write_model(destination, shell, weights)  # type: ignore[arg-type]
        return
    if external_data is None:
        external_data = size > PROTOBUF_LIMIT
    if external_data:
        _lay_out(weights, os.path.basename(path) + ".data")
        size = model_size(shell, weights)
    _require(size, "Save with external_data=True.")
    try:
        _save_to_path(shell, weights, path)
    except SaveError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Nothing was written.")
        raise SaveError(f"Cannot save {path!r}: {error.strerror or error}. {advice}") from error


def to_bytes(model: ir.Model, outputs: Sequence[ir.Value] | None = None) -> bytes:
    """Serialize a model of less than 2 GiB, weights included."""
    buffer = io.BytesIO()
    save(model, buffer, outputs=outputs)
    return buffer.getvalue()


def weight_bytes(model: ir.Model) -> int:
    """Count the bytes of the main graph's initializers."""
    return sum(weight.tensor.nbytes for weight in weights_of(model))


def _require(size: int, advice: str) -> None:
    if size > PROTOBUF_LIMIT:
        raise SaveError(f"The model takes {size / 2**30:.2f} GiB, and an .onnx file can hold 2 GiB at most. {advice}")


def _lay_out(weights: Sequence[Weight], location: str) -> None:
    """Give every weight that is worth it a place in the data file."""
    end = 0
    for weight in weights:
        length = weight.tensor.nbytes
        if length < INLINE_BYTES or weight.tensor.dtype is ir.DataType.STRING:
            continue
        alignment = LARGE_ALIGNMENT if length >= LARGE_BYTES else SMALL_ALIGNMENT
        weight.location, weight.offset = location, -(-end // alignment) * alignment
        end = weight.offset + length


def _save_to_path(shell: onnx.ModelProto, weights: Sequence[Weight], path: str) -> None:
    outside = [weight for weight in weights if weight.location is not None]
    model_file = _target(path)
    data_file = _target(path + ".data") if outside else None
    with contextlib.ExitStack() as stack:
        finished: list[tuple[str, str]] = []
        if data_file is not None:
            with _temporary(stack, data_file, finished) as file:
                for weight in outside:
                    file.seek(weight.offset)
                    weight.write_data(file)
        with _temporary(stack, model_file, finished) as file, io.BufferedWriter(file, LARGE_BYTES) as buffered:
            write_model(buffered, shell, weights)
        _put_in_place(stack, finished)


def _target(path: str) -> str:
    """Resolve links, as opening the file would, and refuse what a rename would destroy."""
    path = os.path.realpath(path)
    if os.path.isdir(path):
        raise SaveError(f"Cannot save {path!r}: it is a folder. Give the path of a file in it.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise SaveError(f"Cannot save {path!r}: it is not a regular file. Pass an open binary file instead.")
    return path


@contextlib.contextmanager
def _temporary(stack: contextlib.ExitStack, target: str, finished: list[tuple[str, str]]) -> Iterator[Any]:
    """Open an unbuffered temporary file beside `target`, which is gone after `stack` unless it was renamed."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(8).hex()}.tmp")
    stack.callback(_remove, temporary)
    with open(temporary, "xb", buffering=0) as file:
        yield file
    finished.append((temporary, target))


def _put_in_place(stack: contextlib.ExitStack, finished: Sequence[tuple[str, str]]) -> None:
    """Rename the data file, then the model. If the second rename fails, the first is taken back."""
    if len(finished) == 1:
        os.replace(*finished[0])
        return
    (data, data_target), model = finished
    backup = data + ".old"
    stack.callback(_remove, backup)
    existed = os.path.exists(data_target)
    if existed:
        with contextlib.suppress(OSError):  # a file system without hard links: then there is no way back
            os.link(data_target, backup)
    try:
        os.replace(data, data_target)
        os.replace(*model)
    except BaseException:
        if os.path.exists(backup):
            os.replace(backup, data_target)
        elif not existed:
            _remove(data_target)
        raise


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
