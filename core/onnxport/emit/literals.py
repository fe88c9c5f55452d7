"""Python values as ONNX attributes and constants, and the element types of results that schemas leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import AttributeType, DataType

from onnxport.emit.schemas import OpSpec
from onnxport.emit.symbols import Size
from onnxport.emit.tensor import Tensor
from onnxport.emit.weights import TorchTensor
from onnxport.errors import Unsupported
from onnxport.vocabulary.dtypes import onnx_dtype


def array(value: Any, dtype: DataType | None) -> tuple[np.ndarray, DataType]:
    """A number, nested list or tensor as an array. Ints outside the type's range wrap, as torch's do."""
    if not isinstance(value, (bool, int, float, list, tuple, np.ndarray)) and isinstance(value, ir.TensorProtocol):
        dtype = dtype or value.dtype
        return np.ascontiguousarray(value.numpy().astype(dtype.numpy(), copy=False)).reshape(value.numpy().shape), dtype
    if isinstance(value, np.ndarray):
        element = dtype or DataType.from_numpy(value.dtype)
        return np.ascontiguousarray(value.astype(element.numpy(), copy=False)).reshape(value.shape), element
    if dtype is None:
        array = np.array(value)
        if array.dtype.kind == "f" or (array.size == 0 and array.dtype.kind != "i"):
            dtype = DataType.FLOAT if array.size else DataType.INT64
        elif array.dtype.kind == "b":
            dtype = DataType.BOOL
        elif array.dtype.kind in "iu":
            dtype = DataType.INT64
        else:
            raise TypeError(f"no ONNX constant can be made of {value!r}")
        return array.astype(dtype.numpy()), dtype
    wide = np.array(value)
    if dtype.is_integer() and wide.dtype.kind in "iu":
        bits = dtype.bitwidth
        if dtype is not DataType.INT64 and dtype is not DataType.UINT64 and bits >= 8:
            return wide.astype(np.int64).astype(dtype.numpy()), dtype
    with np.errstate(over="ignore", invalid="ignore"):
        return wide.astype(dtype.numpy()), dtype


def attribute(spec: OpSpec, key: str, value: Any) -> ir.Attr:
    """An attribute of an ONNX operator, of the type that its schema says."""
    kind = spec.attributes.get(key)
    if kind is None:
        raise Unsupported(f"{spec.name} of opset {spec.since} has no attribute {key!r}")
    if type(value) is ir.Attr:  # isinstance of a protocol costs microseconds
        return ir.RefAttr(key, value.ref_attr_name or value.name, kind)
    _expect_constant(spec.name, key, value)
    if kind is AttributeType.INT:
        value = int(onnx_dtype(value)) if isinstance(value, torch.dtype) else int(value)
    elif kind is AttributeType.FLOAT:
        value = float(value)
    elif kind is AttributeType.INTS:
        value = tuple(int(v) for v in value)
    elif kind is AttributeType.FLOATS:
        value = tuple(float(v) for v in value)
    elif kind is AttributeType.TENSOR and not isinstance(value, ir.TensorProtocol):
        value = ir.tensor(value)
    return ir.Attr(key, kind, value)


def any_attribute(name: str, key: str, value: Any) -> ir.Attr:
    """An attribute of the operator ``name``, which has no schema here: the type follows the value."""
    if type(value) is ir.Attr:
        return ir.RefAttr(key, value.ref_attr_name, value.type) if value.ref_attr_name else value
    _expect_constant(name, key, value)
    if isinstance(value, bool):
        value = int(value)
    elif isinstance(value, torch.dtype):
        value = int(onnx_dtype(value))
    elif isinstance(value, torch.Tensor):
        value = TorchTensor(value)
    elif isinstance(value, np.ndarray):
        value = ir.Tensor(value)
    return ir.convenience.convert_attribute(key, value)


def _expect_constant(name: str, key: str, value: Any) -> None:
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, (Size, Tensor)):
            raise Unsupported(
                f"the attribute {key!r} of {name} is known at run time only ({item}), and an ONNX attribute is a "
                "constant: make it an input"
            )


_TYPES = frozenset(["to", "dtype", "output_dtype", "output_datatype", "value"])


def special_types(
    name: str, attributes: dict[str, Any], count: int, values: Sequence[Any]
) -> list[DataType | None] | None:
    """The element types of an operator's results, where its schema leaves them open; else None."""
    rule = SPECIAL_TYPES.get(name)
    if rule is None:
        return None
    if any(type(value) is ir.Attr and key in _TYPES for key, value in attributes.items()):
        return [None] * count  # each call of the function says which
    return rule(attributes, count, values)


def _cast_type(attributes: dict[str, Any], count: int, _values: Sequence[Any]) -> list[DataType | None]:
    to = attributes["to"]
    return [onnx_dtype(to) if isinstance(to, torch.dtype) else DataType(int(to))] * count


def _dtype_attribute(default: DataType | None) -> Callable[..., list[DataType | None]]:
    def rule(attributes: dict[str, Any], count: int, values: Sequence[Any]) -> list[DataType | None]:
        dtype = attributes.get("dtype", attributes.get("output_dtype", attributes.get("output_datatype")))
        if dtype is None:
            found = default if default is not None else values[0].dtype
        else:
            found = onnx_dtype(dtype) if isinstance(dtype, torch.dtype) else DataType(int(dtype))
        return [found] * count

    return rule


def _filled_type(attributes: dict[str, Any], count: int, _values: Sequence[Any]) -> list[DataType | None]:
    value = attributes.get("value")
    dtype = (
        DataType.FLOAT if value is None else (value if isinstance(value, ir.TensorProtocol) else ir.tensor(value)).dtype
    )
    return [dtype] * count


_CONSTANTS = {"value_int": DataType.INT64, "value_ints": DataType.INT64, "value_string": DataType.STRING}


def _constant_type(attributes: dict[str, Any], count: int, values: Sequence[Any]) -> list[DataType | None]:
    known = next((dtype for key, dtype in _CONSTANTS.items() if key in attributes), None)
    return _filled_type(attributes, count, values) if known is None else [known] * count


def _body_types(attributes: dict[str, Any], count: int, _values: Sequence[Any]) -> list[DataType | None]:
    graph = attributes.get("then_branch") or attributes["body"]
    outputs = list(graph.outputs)
    return [value.dtype for value in outputs[len(outputs) - count :]]


def _quantized_type(attributes: dict[str, Any], count: int, values: Sequence[Any]) -> list[DataType | None]:
    if len(values) > 2:
        return [values[2].dtype] * count
    return [DataType(int(attributes.get("output_dtype") or DataType.UINT8))] * count


def _dequantized_type(attributes: dict[str, Any], count: int, values: Sequence[Any]) -> list[DataType | None]:
    return [DataType(int(attributes.get("output_dtype") or values[1].dtype))] * count


SPECIAL_TYPES: dict[str, Callable[..., list[DataType | None]]] = {
    "Cast": _cast_type,
    "BitCast": _cast_type,
    "CastLike": lambda _attributes, count, values: [values[1].dtype] * count,
    "ConstantOfShape": _filled_type,
    "Constant": _constant_type,
    "EyeLike": _dtype_attribute(None),
    "Bernoulli": _dtype_attribute(None),
    "Multinomial": _dtype_attribute(DataType.INT32),
    "RandomNormal": _dtype_attribute(DataType.FLOAT),
    "RandomUniform": _dtype_attribute(DataType.FLOAT),
    "RandomNormalLike": _dtype_attribute(None),
    "RandomUniformLike": _dtype_attribute(None),
    "BlackmanWindow": _dtype_attribute(DataType.FLOAT),
    "HammingWindow": _dtype_attribute(DataType.FLOAT),
    "HannWindow": _dtype_attribute(DataType.FLOAT),
    "MelWeightMatrix": _dtype_attribute(DataType.FLOAT),
    "QuantizeLinear": _quantized_type,
    "DequantizeLinear": _dequantized_type,
    "If": _body_types,
    "Loop": _body_types,
    "Scan": _body_types,
}
