"""Shapes of temporaries, for the operators where a glance at the inputs tells.

Results of FX nodes get their shape from torch; this is for the values between them, so that translations and passes
can ask for a rank. Unknown is always allowed (None), wrong never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Dims = "list[Any] | None"


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
    if len(inputs) < 2 or inputs[1] is None:
        axes: list[int] | None = [] if attributes.get("noop_with_empty_axes") else list(range(len(dims)))
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


def _named(names: str, rule: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Callable[[Sequence[Any], dict[str, Any]], Any]] = {
    **_named(
        "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh CumSum CumProd Elu Erf", _same
    ),
    **_named(
        "Exp Floor Gelu HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LayerNormalization LeakyRelu Log", _same
    ),
    **_named("LogSoftmax Mish Neg Not PRelu Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softmax Softplus", _same),
    **_named("Softsign Sqrt Tan Tanh ThresholdedRelu Trilu BatchNormalization InstanceNormalization Swish", _same),
    **_named("GroupNormalization RMSNormalization ReverseSequence ScatterND ScatterElements Dropout BitCast", _same),
    **_named("QuantizeLinear DequantizeLinear", _same),
    **_named(
        "Add Sub Mul Div Pow Mod And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual Where Max Min", _broadcast
    ),
    **_named("Sum Mean BitShift BitwiseAnd BitwiseOr BitwiseXor", _broadcast),
    **_named("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum", _reduce),
    **_named("ReduceLogSumExp ReduceSumSquare", _reduce),
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "GatherElements": lambda inputs, _: _dims(inputs[1]),
    "Concat": _concat,
    "MatMul": _matmul,
    "Shape": _shape,
    "ConstantOfShape": _from_shape_input,
    "Slice": _keep_rank,
    "Pad": _keep_rank,
    "Tile": _keep_rank,
    "TopK": _keep_rank,
    "Conv": _keep_rank,
    "Resize": _keep_rank,
    "Range": lambda _inputs, _: [ir.SymbolicDim(None)],
    "Size": lambda _inputs, _: [],
    "NonZero": lambda inputs, _: None if _dims(inputs[0]) is None else [len(_dims(inputs[0])), ir.SymbolicDim(None)],  # type: ignore[arg-type]
}


def dims_of(op_type: str, inputs: Sequence[Any], attributes: dict[str, Any]) -> list[Any] | None:
    """The dimensions of the first output, or None where they aren't known at a glance."""
    rule = RULES.get(op_type)
    if rule is None or any(type(value) is ir.Attr for value in attributes.values()):  # a function's parameter
        return None
    return rule(inputs, attributes)  # type: ignore[no-any-return]
