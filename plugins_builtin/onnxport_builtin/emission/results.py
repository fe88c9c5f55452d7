"""What nodes of ONNX operators give, where a glance at their inputs and attributes tells.

Results of FX nodes get their element types and shapes from torch; this is for the values between them, so that
translations and passes can ask for a rank. Unknown is always allowed (None), wrong never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnx_ir import DataType
from onnxport.kit import Inference

# Dimensions -----------------------------------------------------------------------------------------------------------


def _dims(value: Any) -> list[Any] | None:
    """The physical dimensions of a value: a complex one has a last axis of 2."""
    if value is None or value.shape is None:
        return None
    dims = list(value.shape)
    return [*dims, 2] if value.is_complex else dims


def _ints(value: Any) -> list[int] | None:
    """The content of a small constant, or None."""
    if value is None or value.const_value is None or value.const_value.size > 64:
        return None
    return [int(v) for v in value.const_value.numpy().reshape(-1)]


def _same(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    return _dims(inputs[0])


def _broadcast(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    shapes: list[Any] = [_dims(value) for value in inputs if value is not None]
    if any(shape is None for shape in shapes):
        return None
    result: list[Any] = []
    for axis in range(1, max((len(s) for s in shapes), default=0) + 1):
        dim: Any = 1
        for shape in shapes:
            if axis > len(shape) or shape[-axis] == 1 or shape[-axis] == dim:
                continue
            if dim != 1 and isinstance(shape[-axis], int) == isinstance(dim, int):
                dim = ir.SymbolicDim(None)
            elif dim == 1 or isinstance(shape[-axis], int):
                dim = shape[-axis]
        result.insert(0, dim)
    return result


def _axes(inputs: Sequence[Any], rank: int) -> list[int] | None:
    axes = _ints(inputs[1]) if len(inputs) > 1 else None
    return None if axes is None else sorted(a % rank for a in axes) if rank else []


def _reduce(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    if dims is None:
        return None
    if attributes.get("axes"):  # below opset 18
        axes: list[int] | None = sorted(a % max(1, len(dims)) for a in attributes["axes"])
    elif len(inputs) < 2 or inputs[1] is None:
        axes = [] if attributes.get("noop_with_empty_axes") else list(range(len(dims)))
    else:
        axes = _axes(inputs, len(dims))
        if axes == [] and not attributes.get("noop_with_empty_axes"):
            axes = list(range(len(dims)))
    if axes is None:
        return None
    if attributes.get("keepdims", 1):
        return [1 if i in axes else d for i, d in enumerate(dims)]
    return [d for i, d in enumerate(dims) if i not in axes]


def _arg_reduce(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    if not dims:
        return dims
    axis = attributes.get("axis", 0) % len(dims)
    return dims[:axis] + ([1] if attributes.get("keepdims", 1) else []) + dims[axis + 1 :]


def _reshape(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    target = _ints(inputs[1])
    if target is None:
        shape = inputs[1].shape
        known = shape is not None and len(shape) == 1 and isinstance(shape[0], int)
        return [ir.SymbolicDim(None)] * shape[0] if known else None
    source = _dims(inputs[0])
    dims: list[Any] = list(target)
    for i, dim in enumerate(target):
        if dim == 0 and not attributes.get("allowzero"):
            dims[i] = source[i] if source is not None and i < len(source) else ir.SymbolicDim(None)
    if -1 in dims:
        hole = dims.index(-1)
        rest: int | None = 1
        for i, dim in enumerate(dims):
            rest = (
                rest * dim
                if i != hole and isinstance(dim, int) and isinstance(rest, int)
                else (rest if i == hole else None)
            )
            if rest is None:
                break
        total: int | None = 1
        for dim in source or [None]:
            total = total * dim if isinstance(dim, int) and isinstance(total, int) else None
            if total is None:
                break
        dims[hole] = total // rest if total is not None and rest else ir.SymbolicDim(None)
    return dims


def _transpose(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    if dims is None:
        return None
    return [dims[i] for i in attributes.get("perm") or range(len(dims) - 1, -1, -1)]


def _unsqueeze(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    dims, axes = _dims(inputs[0]), _ints(inputs[1])
    if dims is None or axes is None:
        return None
    rank = len(dims) + len(axes)
    rest = iter(dims)
    places = {a % rank for a in axes}
    return [1 if i in places else next(rest) for i in range(rank)]


def _squeeze(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    if dims is None:
        return None
    if len(inputs) < 2 or inputs[1] is None:
        return [d for d in dims if d != 1] if all(isinstance(d, int) for d in dims) else None
    axes = _axes(inputs, len(dims))
    return None if axes is None else [d for i, d in enumerate(dims) if i not in axes]


def _gather(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    dims, indices = _dims(inputs[0]), _dims(inputs[1])
    if dims is None or indices is None:
        return None
    axis = attributes.get("axis", 0) % max(1, len(dims))
    return dims[:axis] + indices + dims[axis + 1 :]


def _concat(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    shapes: list[Any] = [_dims(value) for value in inputs]
    if any(s is None for s in shapes):
        return None
    first = shapes[0]
    axis = attributes["axis"] % max(1, len(first))
    total: Any = 0
    for shape in shapes:
        total = total + shape[axis] if isinstance(shape[axis], int) and total is not None else None
    return [(ir.SymbolicDim(None) if total is None else total) if i == axis else d for i, d in enumerate(first)]


def _matmul(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    a, b = _dims(inputs[0]), _dims(inputs[1])
    if a is None or b is None or len(a) < 2 or len(b) < 2 or (len(a) > 2 and len(b) > 2 and a[:-2] != b[:-2]):
        return None
    return [*(a if len(a) >= len(b) else b)[:-2], a[-2], b[-1]]


def _shape(inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    if dims is None:
        return None
    start, end, _ = slice(attributes.get("start"), attributes.get("end")).indices(len(dims))
    return [max(0, end - start)]


def _from_shape_input(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    target = _ints(inputs[0])
    if target is not None:
        return target
    shape = inputs[0].shape
    known = shape is not None and len(shape) == 1 and isinstance(shape[0], int)
    return [ir.SymbolicDim(None)] * shape[0] if known else None


def _keep_rank(inputs: Sequence[Any], _attributes: dict[str, Any]) -> Any:
    dims = _dims(inputs[0])
    return None if dims is None else [ir.SymbolicDim(None)] * len(dims)


def _ranked(value: Any) -> Any:
    """The rank and the number of elements that aren't zero, which data decide."""
    dims = _dims(value)
    return None if dims is None else [len(dims), ir.SymbolicDim(None)]


_Dims = Callable[[Sequence[Any], dict[str, Any]], Any]
_DIMS: dict[str, _Dims] = {
    operator: rule
    for rule, operators in (
        (
            _same,
            """Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitCast BitwiseNot Cast Ceil Celu Clip Cos Cosh
            CumProd CumSum DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish
            Hardmax Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Log LogSoftmax Mish Neg Not
            PRelu QuantizeLinear RMSNormalization Reciprocal Relu ReverseSequence Round ScatterElements ScatterND Selu
            Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu""",
        ),
        (
            _broadcast,
            """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
            Mean Min Mod Mul Or Pow Sub Sum Where Xor""",
        ),
        (
            _reduce,
            """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
            ReduceSumSquare""",
        ),
        (_arg_reduce, "ArgMax ArgMin"),
        (_keep_rank, "Conv Pad Resize Slice Tile TopK"),
        (_reshape, "Reshape"),
        (_transpose, "Transpose"),
        (_unsqueeze, "Unsqueeze"),
        (_squeeze, "Squeeze"),
        (_gather, "Gather"),
        (_concat, "Concat"),
        (_matmul, "MatMul"),
        (_shape, "Shape"),
        (_from_shape_input, "ConstantOfShape"),
        (lambda inputs, _: _dims(inputs[1]), "GatherElements"),
        (lambda inputs, _: _ranked(inputs[0]), "NonZero"),
        (lambda _inputs, _: [ir.SymbolicDim(None)], "Range"),
        (lambda _inputs, _: [], "Size"),
    )
    for operator in operators.split()
}

# Element types --------------------------------------------------------------------------------------------------------

_DECIDING = ("to", "dtype", "output_dtype", "output_datatype", "value")
"""Attributes that say the element type of the results."""
_Dtype = Callable[[Mapping[str, Any], Sequence[Any]], DataType | None]


def _for_all(dtype: _Dtype) -> Callable[..., list[DataType | None]]:
    """One element type for all results; unknown in a function where it is an attribute of the call."""

    def dtypes(attributes: Mapping[str, Any], count: int, inputs: Sequence[Any]) -> list[DataType | None]:
        is_open = any(type(attributes.get(name)) is ir.Attr for name in _DECIDING)
        return [None if is_open else dtype(attributes, inputs)] * count

    return dtypes


def _asked_for(default: Callable[[Sequence[Any]], DataType]) -> _Dtype:
    """The type that an attribute asks for, whose name differs, or a default."""

    def dtype(attributes: Mapping[str, Any], inputs: Sequence[Any]) -> DataType:
        number = next((n for name in _DECIDING[:-1] if (n := attributes.get(name)) is not None), None)
        return default(inputs) if number is None else DataType(number)

    return dtype


def _filled(attributes: Mapping[str, Any], _inputs: Sequence[Any]) -> DataType:
    value = attributes.get("value")
    return DataType.FLOAT if value is None else value.dtype  # type: ignore[no-any-return]


_CONSTANTS = {"value_int": DataType.INT64, "value_ints": DataType.INT64, "value_string": DataType.STRING}


def _constant(attributes: Mapping[str, Any], inputs: Sequence[Any]) -> DataType:
    found = next((dtype for key, dtype in _CONSTANTS.items() if key in attributes), None)
    return found or _filled(attributes, inputs)


def _quantized(attributes: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
    return inputs[2].dtype if len(inputs) > 2 else DataType(attributes.get("output_dtype") or DataType.UINT8)


def _of_body(attributes: Mapping[str, Any], count: int, _inputs: Sequence[Any]) -> list[DataType | None]:
    graph = attributes.get("then_branch") or attributes["body"]
    outputs = list(graph.outputs)
    return [value.dtype for value in outputs[len(outputs) - count :]]


_as_first = _asked_for(lambda inputs: inputs[0].dtype)
_float = _asked_for(lambda _inputs: DataType.FLOAT)
_DTYPES: dict[str, Callable[..., list[DataType | None]]] = {
    operator: rule
    for rule, operators in (
        (_for_all(lambda attributes, _inputs: DataType(attributes["to"])), "BitCast Cast"),
        (_for_all(_as_first), "Bernoulli EyeLike RandomNormalLike RandomUniformLike"),
        (
            _for_all(_float),
            "BlackmanWindow HammingWindow HannWindow MelWeightMatrix RandomNormal RandomUniform",
        ),
        (_for_all(_asked_for(lambda _inputs: DataType.INT32)), "Multinomial"),
        (_for_all(lambda _attributes, inputs: inputs[1].dtype), "CastLike"),
        (_for_all(_filled), "ConstantOfShape"),
        (_for_all(_constant), "Constant"),
        (_for_all(_quantized), "QuantizeLinear"),
        (_for_all(lambda a, inputs: DataType(a.get("output_dtype") or inputs[1].dtype)), "DequantizeLinear"),
        (_of_body, "If Loop Scan"),
    )
    for operator in operators.split()
}


def records() -> list[Inference]:
    """A record for each operator of which something can be told."""
    return [Inference(operator, _DIMS.get(operator), _DTYPES.get(operator)) for operator in {**_DIMS, **_DTYPES}]
