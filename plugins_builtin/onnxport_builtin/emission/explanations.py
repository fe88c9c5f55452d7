"""What the exceptions of a translation mean that say little by themselves."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import onnx_ir as ir

_OPERATORS = {"add": "Add", "sub": "Sub", "mul": "Mul", "truediv": "Div", "neg": "Neg", "pow": "Pow"}
_OPERATORS |= {"lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "matmul": "MatMul"}


def explained(error: Exception, emitted: Sequence[ir.Node]) -> str | None:
    """What a translation did, as the error goes on behind its name; None where the exception says it itself.

    Args:
        error: what it raised.
        emitted: the nodes that it had emitted.
    """
    text = str(error)
    if isinstance(error, (TypeError, AttributeError)) and "NoneType" in text:
        return _unknown(emitted)
    if "set_value_magic_handler" in text and error.__traceback__ is not None:
        methods = [frame.f_code.co_name.strip("_") for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = [name for method in methods for name in (method, method.removeprefix("r")) if name in _OPERATORS]
        called = _OPERATORS[names[0]] if names else "Add"
        return f"uses an operator of Python on a tensor: write op.{called}(a, b), numbers may be given as they are"
    if isinstance(error, NotImplementedError) and not text:
        return "raised NotImplementedError: it is not finished"
    return None


def _unknown(emitted: Sequence[ir.Node]) -> str | None:
    """The use of a shape or an element type that nobody knows, of the value that was emitted last without one."""
    values = [value for node in emitted for value in node.outputs if value.shape is None or value.dtype is None]
    if not values:
        return None
    value, node = values[-1], values[-1].producer()
    kind = "shape" if value.shape is None else "element type"
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type  # type: ignore[union-attr]
    return (
        f"uses the {kind} of {value.name}, the result of {name}, which isn't known: it is None. Take that of an input "
        "or of op.result, or compute it with op.Shape(x)"
    )
