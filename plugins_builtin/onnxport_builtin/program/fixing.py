"""``ONNXProgram.fix``: dynamic dimensions become numbers, and the arithmetic over them goes."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass
from onnxport import InputError, ONNXProgram
from onnxport.kit import shown, wrong

from onnxport_builtin.emission.dimension_text import expression_of, simplified
from onnxport_builtin.passes import constants
from onnxport_builtin.rewriting import bodies, values_of

_NAME = re.compile(r"[A-Za-z_]\w*")
_ROUNDS = 8
"""Rounds of shape inference and passes: each folds what the one before made known."""

_INTEGERS = 1 << 20
"""Bytes of positions, masks and indices that are computed of sizes; floats may be weights, and aren't folded."""

_BINARY: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_CALLS: Mapping[str, Callable[..., int]] = {
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "CeilDiv": lambda a, b: -(-a // b),
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Max": max,
    "Min": min,
    "Abs": abs,
}
"""The functions in the text of dimensions, which are those of torch's sympy expressions."""


def fix(program: ONNXProgram, sizes: Mapping[str, int]) -> None:
    """See `ONNXProgram.fix`."""
    if not isinstance(sizes, Mapping) or not sizes:
        raise wrong("sizes", sizes, "a size for each dimension to fix, such as fix(batch=1)")
    model = program.model
    known = names_of(model)
    for name, size in sizes.items():
        if type(size) is not int or size < 0:
            raise wrong(f"sizes[{name!r}]", size, "an int of at least 0")
        if name not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "all its dimensions are fixed"
            raise InputError(f"The model has no dimension {shown(name)}: {has}.", parameter="sizes")
    values = [value for graph in bodies(model) for value in values_of(graph)]
    fixed = [(value, ir.Shape([_fixed(dim, sizes) for dim in value.shape or ()])) for value in values]
    for value, shape in fixed:
        for before, dim in zip(value.shape or (), shape, strict=True):
            if isinstance(dim, int) and dim < 0:
                given = ", ".join(f"{name}={size}" for name, size in sizes.items())
                raise InputError(
                    f"The dimension {before} of {value.name} would be {dim} with {given}. Give sizes that the model "
                    "takes.",
                    parameter="sizes",
                )
    for value, shape in fixed:
        if value.shape is not None:
            value.shape = shape
    _fold(program)


def names_of(model: ir.Model) -> set[str]:
    """The names of dimensions that the model has, those in arithmetic such as ``2*batch`` included."""
    values = (value for graph in bodies(model) for value in values_of(graph))
    dims = {str(dim.value) for value in values for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    return {name for dim in dims - {"None"} for name in _NAME.findall(dim)} - _CALLS.keys()


def _fixed(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    text = str(dim.value)
    if text in sizes:
        return sizes[text]
    if sizes.keys().isdisjoint(_NAME.findall(text)):
        return dim
    try:
        return _number(ast.parse(text, mode="eval").body, sizes)
    except KeyError:  # one of its names stays
        rest = _NAME.sub(lambda match: str(sizes.get(match[0], match[0])), text)
        return ir.SymbolicDim(str(simplified(expression_of(rest))).replace(" ", ""))
    except (SyntaxError, ValueError, ZeroDivisionError):  # no arithmetic that is known: inference tells it, or nothing
        return ir.SymbolicDim(None)


def _number(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """The value of a dimension's text.

    Raises:
        KeyError: a name has no size.
        ValueError: it is no arithmetic over integers.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, sizes)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_number(node.left, sizes), _number(node.right, sizes))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        quotient, rest = divmod(_number(node.left, sizes), _number(node.right, sizes))
        if rest == 0:
            return quotient
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return _CALLS[node.func.id](*(_number(argument, sizes) for argument in node.args))
    raise ValueError(f"no arithmetic: {ast.unparse(node)}")


def _fold(program: ONNXProgram) -> None:
    """Shapes that follow from the inputs', and what the passes make of them, until nothing changes any more."""
    model = program.model
    for _ in range(_ROUNDS):
        before = [(node.op_type, len(node.outputs)) for node in model.graph]
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        constants.run(model, _INTEGERS)
        program.optimize()
        if before == [(node.op_type, len(node.outputs)) for node in model.graph]:
            break
