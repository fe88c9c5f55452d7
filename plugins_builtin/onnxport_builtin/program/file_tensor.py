"""Tensors whose data lie in a file."""

from __future__ import annotations

import weakref
from typing import IO, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import DataType
from onnxport.kit import CHUNK_BYTES, write_all

from onnxport_builtin.program.data_file import DataFile


class FileTensor(ir.Tensor):
    """A tensor in a data file, read whenever its data is asked for, and never kept.

    Args:
        file: the data file.
        offset: where the data begins.
        dtype: the element type.
        shape: the shape.
        name: the tensor's name.
    """

    __slots__ = ("_offset", "file")

    def __init__(
        self,
        file: DataFile,
        offset: int,
        dtype: DataType,
        shape: ir.Shape,
        name: str | None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
    ) -> None:
        self.file, self._offset = file, offset
        held = _Held(self)
        super().__init__(held, dtype, shape=shape, name=name, doc_string=doc_string, metadata_props=metadata_props)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Read the values; types that numpy doesn't have are those of ml_dtypes."""
        if self.dtype.bitwidth < 8:
            proto = onnx.TensorProto(data_type=int(self.dtype), dims=self.shape.numpy(), raw_data=self.tobytes())
            return ir.serde.TensorProtoTensor(proto).numpy()
        data = bytearray(self.nbytes)
        self.file.read_into(memoryview(data), self._offset)
        return np.frombuffer(data, self.dtype.numpy()).reshape(self.shape.numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self.numpy().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU

    def tobytes(self) -> bytes:
        """Read the little-endian bytes."""
        data = bytearray(self.nbytes)
        self.file.read_into(memoryview(data), self._offset)
        return bytes(data)

    def tofile(self, file: IO[bytes]) -> None:
        """Write the bytes to a binary file, piece by piece."""
        for chunk in self.file.chunks(self._offset, self.nbytes, CHUNK_BYTES):
            write_all(file, chunk)

    def __repr__(self) -> str:
        return f"{self._repr_base()}(name={self.name!r}, path={self.file.path!r}, offset={self._offset})"

    def __deepcopy__(self, memo: dict[int, Any]) -> FileTensor:
        return self  # it never changes

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_memory, (int(self.dtype), list(self.shape.numpy()), self.tobytes(), self.name)


class _Held:
    """The stand-in for an array in a FileTensor: it reads the file when it is asked for values."""

    def __init__(self, tensor: FileTensor) -> None:
        self._tensor = weakref.ref(tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self._tensor().__array__(dtype, copy)  # type: ignore[union-attr]


def _in_memory(dtype: int, dims: list[int], data: bytes, name: str | None) -> ir.TensorProtocol:
    proto = onnx.TensorProto(name=name or "", data_type=dtype, dims=dims, raw_data=data)
    return ir.serde.TensorProtoTensor(proto)
