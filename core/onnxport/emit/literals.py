"""Python values as ONNX attributes and constants, and the element types of results that schemas leave open."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable
from reprlib import repr as brief
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import AttributeType, DataType

from onnxport.emit.schemas import OpSpec, first_opset_of_attribute
from onnxport.emit.symbols import Size
from onnxport.emit.tensor import Tensor
from onnxport.emit.weights import TorchTensor
from onnxport.errors import Unsupported
from onnxport.vocabulary.dtypes import SYMBOLIC, onnx_dtype


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
            raise TypeError(f"no ONNX constant can be made of {value!r}: give numbers, an array or a tensor")
        return array.astype(dtype.numpy()), dtype
    wide = np.array(value)
    if dtype.is_integer() and wide.dtype.kind in "iu":
        bits = dtype.bitwidth
        if dtype is not DataType.INT64 and dtype is not DataType.UINT64 and bits >= 8:
            return wide.astype(np.int64).astype(dtype.numpy()), dtype
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype in (DataType.FLOAT16, DataType.BFLOAT16):  # torch, too, rounds twice
            wide = wide.astype(np.float32)
        return wide.astype(dtype.numpy()), dtype


def count(name: str, outputs: Any) -> int:
    """Check the number of results that a node is asked to have.

    Raises:
        TypeError: it is no positive int.
    """
    if type(outputs) is not int or outputs < 1:
        raise TypeError(f"outputs of {name} is {brief(outputs)}, it must be a positive int: how many results it has")
    return outputs


def attribute(spec: OpSpec | str, key: str, value: Any) -> ir.Attr:
    """An attribute of an ONNX operator, of the type that its schema says; of one without a schema, by its name.

    Raises:
        TypeError: no version of the operator has it, or the value is of another type.
        Unsupported: a newer opset has it; or the value is known at run time only.
    """
    if isinstance(spec, str):
        return any_attribute(spec, key, value)
    kind = spec.attributes.get(key)
    if kind is None:
        raise _unknown(spec, key)
    if type(value) is ir.Attr:  # isinstance of a protocol costs microseconds
        return ir.RefAttr(key, value.ref_attr_name or value.name, kind)
    _expect_constant(spec.name, key, value)
    form = _FORMS.get(kind)
    if form is None:
        return ir.Attr(key, kind, value)
    convert, wanted = form
    try:
        return ir.Attr(key, kind, convert(value))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise _wrong(spec.name, key, value, wanted) from error


def by_name(attributes: Iterable[ir.Attr]) -> dict[str, Any]:
    """The values of attributes; an attribute that refers to a function's parameter stands for itself."""
    return {attr.name: attr if attr.ref_attr_name else attr.value for attr in attributes}


def _unknown(spec: OpSpec, key: str) -> Exception:
    since = first_opset_of_attribute(spec.name, key, spec.domain)
    if since is not None and since > spec.since:
        return Unsupported(f"needs opset {since}: {spec.name} with the attribute {key!r}")
    if key.startswith("_"):
        advice = "it is written at the target opset; outputs= is the number of its results, op.call takes other domains"
    elif near := difflib.get_close_matches(key, spec.attributes, 1):
        advice = f"did you mean {near[0]!r}?"
    else:
        advice = f"it has {', '.join(spec.attributes) or 'none'}, and its inputs are given by position"
    return TypeError(f"{spec.name} of opset {spec.since} has no attribute {key!r}: {advice}")


def _wrong(name: str, key: str, value: Any, wanted: str) -> TypeError:
    return TypeError(f"the attribute {key!r} of {name} is {brief(value)}, it must be {wanted}")


def _int(value: Any) -> int:
    """A value as an int that ONNX can hold: nothing is rounded, and text isn't read.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, torch.dtype):
        value = onnx_dtype(value)
    number = int(value) if isinstance(value, np.bool_) else operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise OverflowError(number)
    return number


def _float(value: Any) -> float:
    """A value as a float that ONNX can hold, which has 32 bits.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, (np.ndarray, torch.Tensor)):
        value = value.item()
    if not isinstance(value, (bool, int, float, np.number, np.bool_)) or isinstance(value, np.complexfloating):
        raise TypeError(value)
    number = float(value)
    if abs(number) > _LARGEST and math.isfinite(number):
        raise OverflowError(number)
    return number


def _string(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _listed(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def converted(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple, range, np.ndarray, torch.Tensor)):
            raise TypeError(value)
        return tuple(convert(item) for item in value)

    return converted


def _tensor(value: Any) -> ir.TensorProtocol:
    if isinstance(value, torch.Tensor):
        return TorchTensor(value)
    if isinstance(value, ir.TensorProtocol):
        return value
    if np.asarray(value).dtype.kind == "O":
        raise TypeError(value)
    return ir.tensor(value)


def _graph(value: Any) -> ir.Graph:
    if not isinstance(value, ir.Graph):
        raise TypeError(value)
    return value


_LARGEST = float(np.finfo(np.float32).max)
_FORMS: dict[AttributeType, tuple[Callable[[Any], Any], str]] = {
    AttributeType.INT: (_int, "an int of 64 bits"),
    AttributeType.INTS: (_listed(_int), "a list of ints of 64 bits"),
    AttributeType.FLOAT: (_float, "a float of 32 bits"),
    AttributeType.FLOATS: (_listed(_float), "a list of floats of 32 bits"),
    AttributeType.STRING: (_string, "a string"),
    AttributeType.STRINGS: (_listed(_string), "a list of strings"),
    AttributeType.TENSOR: (_tensor, "a constant: a number, a list, a numpy array or a torch tensor"),
    AttributeType.GRAPH: (_graph, "a graph, which op.subgraph gives"),
}


def any_attribute(name: str, key: str, value: Any) -> ir.Attr:
    """An attribute of the operator ``name``, which has no schema here: the type follows the value.

    Raises:
        TypeError: no attribute can have that value.
    """
    if type(value) is ir.Attr:
        return ir.RefAttr(key, value.ref_attr_name, value.type) if value.ref_attr_name else value
    _expect_constant(name, key, value)
    try:
        if isinstance(value, np.ndarray) or (isinstance(value, torch.Tensor) and value.ndim):
            value = ir.Tensor(value) if isinstance(value, np.ndarray) else TorchTensor(value)
        elif isinstance(value, (list, tuple, range)):
            value = [_plain(item) for item in value]
            if {float} < set(map(type, value)) <= {int, float}:
                value = [float(item) for item in value]
        else:
            value = _plain(value)
        return ir.convenience.convert_attribute(key, value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        wanted = (
            "an int, a float, a string, a tensor, a graph, or a list of one of these; ints of 64 bits, floats of 32"
        )
        raise _wrong(name, key, value, wanted) from error


def _plain(value: Any) -> Any:
    """A scalar as Python's own."""
    if isinstance(value, torch.Tensor) and value.ndim:
        return TorchTensor(value)
    if isinstance(value, (torch.Tensor, np.generic)):
        value = value.item()
    if isinstance(value, (bool, int, torch.dtype)):
        return _int(value)
    return _float(value) if isinstance(value, float) else value


def _expect_constant(name: str, key: str, value: Any) -> None:
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, (Size, Tensor, *SYMBOLIC)):
            raise Unsupported(
                f"the attribute {key!r} of {name} is known at run time only ({item}), and an ONNX attribute is a "
                "constant: make it an input"
            )


def of_type(spec: OpSpec, attributes: dict[str, Any], dtype: DataType) -> dict[str, Any]:
    """The attributes with another type for what they say to make: that of `value`, or a type's number."""
    value = attributes.get("value")
    if value is None:
        key = next(key for key in ("dtype", "output_dtype", "output_datatype") if key in spec.attributes)
        return {**attributes, key: dtype}
    tensor = value if isinstance(value, ir.TensorProtocol) else ir.tensor(value)
    return {**attributes, "value": ir.tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype)}
