"""Element types: torch <-> ONNX, and torch's type promotion on ONNX values.

Promotion follows torch's documented rules (``torch.result_type``): operands are ranked by category
(bool < integer < float < complex) and by kind (tensors with dimensions > 0-d tensors > Python numbers); the
highest category among the highest kind that reaches it decides.
"""

from __future__ import annotations

import functools
import numbers
from typing import TYPE_CHECKING, Any

import torch
from onnx_ir import DataType as DataType  # which packs take from here

from onnxport.errors import InputError
from onnxport.vocabulary.checks import wrong
from onnxport.vocabulary.upstream import unset_fake_temporarily

if TYPE_CHECKING:
    from collections.abc import Iterable

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

_COMPLEX_OF: dict[DataType, DataType] = {DataType.FLOAT: DataType.COMPLEX64, DataType.DOUBLE: DataType.COMPLEX128}

_BOOL, _INT, _FLOAT, _COMPLEX = range(4)
_DEFAULTS = {_BOOL: DataType.BOOL, _INT: DataType.INT64}


@functools.cache
def saturates(dtype: DataType) -> bool:
    """Whether torch's casts to it overflow to its largest number; FLOAT8E4M3FN's do from torch 2.12 on, else to NaN."""
    with unset_fake_temporarily():
        return bool(torch.tensor(1e6, device="cpu").to(ONNX_TO_TORCH[dtype]).float().isfinite())


_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or the dense one that a sparse one stands for: in a file all are dense."""
    if tensor.layout in _SPARSE:
        return tensor.to_dense()
    return tensor.clone() if getattr(tensor._base, "layout", None) in _SPARSE else tensor  # its indices or values


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


def _category(dtype: DataType) -> int:
    if dtype is DataType.BOOL:
        return _BOOL
    if dtype in (DataType.COMPLEX64, DataType.COMPLEX128):
        return _COMPLEX
    return _INT if dtype.is_integer() else _FLOAT


def _default(category: int) -> DataType:
    if category in _DEFAULTS:
        return _DEFAULTS[category]
    default = TORCH_TO_ONNX[torch.get_default_dtype()]
    return default if category == _FLOAT else _COMPLEX_OF.get(default, DataType.COMPLEX64)


def _number_category(number: Any) -> int:
    if isinstance(number, bool):
        return _BOOL
    if isinstance(number, int):
        return _INT
    if isinstance(number, float):
        return _FLOAT
    if isinstance(number, complex):
        return _COMPLEX
    kind = getattr(number, "kind", None)  # a Size
    if isinstance(kind, str) and kind in ("int", "float", "bool"):
        return {"int": _INT, "float": _FLOAT, "bool": _BOOL}[kind]
    if isinstance(number, (numbers.Integral, torch.SymInt)):
        return _INT
    if isinstance(number, (numbers.Real, torch.SymFloat)):
        return _FLOAT
    raise wrong("operands", number, "tensors, sizes, numbers and dtypes")


def _join(dtypes: Iterable[DataType]) -> DataType | None:
    joined: DataType | None = None
    for dtype in dtypes:
        if joined is None or joined is dtype:
            joined = dtype
        else:
            joined = TORCH_TO_ONNX[torch.promote_types(ONNX_TO_TORCH[joined], ONNX_TO_TORCH[dtype])]
    return joined


def promote(*operands: Any, int_to_float: bool = False) -> DataType:
    """torch's result type of tensors, symbolic sizes, Python numbers and dtypes.

    A complex value counts as its complex type; the caller decides on the layout. ``None`` operands are skipped.

    Args:
        operands: :class:`Tensor`, :class:`Size`, int, float, bool, complex, ``torch.dtype`` or ``DataType``.
        int_to_float: integers and bools become the default float type, as ``torch.sin`` and true division do.

    Source: torch, "Type promotion documentation" (tensor attributes).
    """
    dimensioned: list[DataType] = []
    zero_d: list[DataType] = []
    number = -1
    for operand in operands:
        if operand is None:
            continue
        dtype = getattr(operand, "dtype", None)
        if isinstance(dtype, DataType):
            if getattr(operand, "is_complex", False):
                dtype = _COMPLEX_OF.get(dtype, dtype)
            shape = operand.shape
            (zero_d if shape is not None and len(shape) == 0 else dimensioned).append(dtype)
        elif isinstance(operand, (torch.dtype, DataType)):
            dimensioned.append(onnx_dtype(operand))
        else:
            number = max(number, _number_category(operand))
    result = _join(dimensioned)
    scalar = _join(zero_d)
    if result is None:
        result = scalar
    elif scalar is not None and _category(scalar) > _category(result):
        result = _lift(result, scalar)
    if number >= 0:
        if result is None:
            result = _default(number)
        elif number > _category(result):
            result = _lift(result, _default(number))
    if result is None:
        raise InputError("promote() needs at least one operand that isn't None: give one.", parameter="operands")
    if int_to_float and _category(result) <= _INT:
        return TORCH_TO_ONNX[torch.get_default_dtype()]
    return result


def _lift(lower: DataType, higher: DataType) -> DataType:
    """The higher category wins; a float64 tensor with a complex number becomes complex128, not complex64."""
    if _category(higher) == _COMPLEX and _category(lower) == _FLOAT:
        return _COMPLEX_OF.get(lower, DataType.COMPLEX64)
    return higher
