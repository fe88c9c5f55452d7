"""torch's type promotion on ONNX values.

It follows torch's documented rules (``torch.result_type``): operands are ranked by category (bool < integer < float <
complex) and by kind (tensors with dimensions > 0-d tensors > Python numbers); the highest category among the highest
kind that reaches it decides.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import torch
from onnxport import DataType, InputError, onnx_dtype
from onnxport.kit import ONNX_TO_TORCH, TORCH_TO_ONNX, wrong

_COMPLEX_OF: dict[DataType, DataType] = {DataType.FLOAT: DataType.COMPLEX64, DataType.DOUBLE: DataType.COMPLEX128}
_BOOL, _INT, _FLOAT, _COMPLEX = range(4)
_DEFAULTS = {_BOOL: DataType.BOOL, _INT: DataType.INT64}


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
