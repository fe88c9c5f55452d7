"""Element types: torch <-> ONNX."""

from __future__ import annotations

import functools

import torch
from onnx_ir import DataType as DataType  # which packs take from here

from onnxport.errors import InputError
from onnxport.vocabulary.checks import wrong
from onnxport.vocabulary.upstream import unset_fake_temporarily

TORCH_TO_ONNX: dict[torch.dtype, DataType] = {
    torch.float32: DataType.FLOAT,
    torch.float64: DataType.DOUBLE,
    torch.float16: DataType.FLOAT16,
    torch.bfloat16: DataType.BFLOAT16,
    torch.int8: DataType.INT8,
    torch.int16: DataType.INT16,
    torch.int32: DataType.INT32,
    torch.int64: DataType.INT64,
    torch.uint8: DataType.UINT8,
    torch.uint16: DataType.UINT16,
    torch.uint32: DataType.UINT32,
    torch.uint64: DataType.UINT64,
    torch.bool: DataType.BOOL,
    torch.complex64: DataType.COMPLEX64,
    torch.complex128: DataType.COMPLEX128,
    torch.float8_e4m3fn: DataType.FLOAT8E4M3FN,
    torch.float8_e4m3fnuz: DataType.FLOAT8E4M3FNUZ,
    torch.float8_e5m2: DataType.FLOAT8E5M2,
    torch.float8_e5m2fnuz: DataType.FLOAT8E5M2FNUZ,
}
for _torch_name, _onnx_name in (("float8_e8m0fnu", "FLOAT8E8M0"), ("float4_e2m1fn_x2", "FLOAT4E2M1")):
    if hasattr(torch, _torch_name) and hasattr(DataType, _onnx_name):
        TORCH_TO_ONNX[getattr(torch, _torch_name)] = getattr(DataType, _onnx_name)

for _name in ("int4", "uint4", "int2", "uint2"):  # torch keeps an element of these in a byte, and computes nothing
    if hasattr(torch, _name) and hasattr(DataType, _name.upper()):
        TORCH_TO_ONNX[getattr(torch, _name)] = getattr(DataType, _name.upper())

#: The first opset whose operators take an element type.
SINCE: dict[DataType, int] = {
    DataType.FLOAT8E4M3FN: 19,
    DataType.FLOAT8E4M3FNUZ: 19,
    DataType.FLOAT8E5M2: 19,
    DataType.FLOAT8E5M2FNUZ: 19,
    DataType.INT4: 21,
    DataType.UINT4: 21,
    DataType.FLOAT4E2M1: 23,
    DataType.FLOAT8E8M0: 24,
    DataType.INT2: 25,
    DataType.UINT2: 25,
}
ONNX_TO_TORCH: dict[DataType, torch.dtype] = {onnx: torch_ for torch_, onnx in TORCH_TO_ONNX.items()}

#: The real element type that holds one component of a complex number.
COMPONENT: dict[torch.dtype, DataType] = {
    torch.complex64: DataType.FLOAT,
    torch.complex128: DataType.DOUBLE,
    torch.complex32: DataType.FLOAT16,
}
#: torch's symbolic numbers: a size, or what was computed of sizes.
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@functools.cache
def saturates(dtype: DataType) -> bool:
    """Whether torch's casts to it overflow to its largest number; FLOAT8E4M3FN's do from torch 2.12 on, else to NaN."""
    with unset_fake_temporarily():
        return bool(torch.tensor(1e6, device="cpu").to(ONNX_TO_TORCH[dtype]).float().isfinite())


def onnx_dtype(dtype: torch.dtype | DataType) -> DataType:
    """The ONNX element type of a torch dtype (complex ones stay complex).

    Raises:
        InputError: it is no dtype, or ONNX has no such type.
    """
    if isinstance(dtype, DataType):
        return dtype
    if isinstance(dtype, torch.dtype) and dtype in TORCH_TO_ONNX:
        return TORCH_TO_ONNX[dtype]
    raise _no_type(dtype)


def component_dtype(dtype: torch.dtype) -> DataType:
    """The element type that is stored: that of the components for complex dtypes.

    Raises:
        InputError: it is no dtype, or ONNX has no such type.
    """
    if isinstance(dtype, torch.dtype) and (found := COMPONENT.get(dtype) or TORCH_TO_ONNX.get(dtype)):
        return found
    raise _no_type(dtype)


def _no_type(dtype: object) -> InputError:
    if isinstance(dtype, torch.dtype):
        return InputError(f"ONNX has no element type for {dtype}: convert it first.", parameter="dtype")
    return wrong("dtype", dtype, "a torch.dtype, such as torch.float32")
