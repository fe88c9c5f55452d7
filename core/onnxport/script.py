"""``custom_translation_table``: user functions as translations.

Three kinds of function are taken: Python functions that call an onnxscript opset and are traced, functions made by
``@onnxscript.script()``, which stay local functions of the model, and functions whose first parameter is ``op``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir import AttributeType, DataType
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.utils import _pytree as pytree

from onnxport.errors import TableError, Unsupported
from onnxport.graph.schemas import OpSpec, spec_of
from onnxport.graph.tensor import Tensor
from onnxport.registry import TABLE_TIER, WRITTEN, Translation, key_of, name_of
from onnxport.symbols import Size

if TYPE_CHECKING:
    from onnxport.builder import Builder

_MAX_PRIORITY = 1000
_NO_DEFAULT = object()
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_tracing_lock = threading.RLock()


def table_records(table: Mapping[Any, Any], opset: int) -> list[Translation]:
    """The records of one call's table; a sequence of functions is tried in its order.

    Raises:
        TableError: a key is no operator, or a value no function.
    """
    if not isinstance(table, Mapping):
        raise table_error(
            "custom_translation_table must be a dict of {torch.ops.ns.op.overload: function}, "
            f"not {type(table).__name__}."
        )
    records = []
    for target, functions in table.items():
        _check_key(target)
        listed = functions if isinstance(functions, (list, tuple)) else [functions]
        if not listed:
            raise table_error(f"custom_translation_table[{target}] is empty: give a function.", target)
        for i, function in enumerate(listed):
            records.append(_record(target, function, _MAX_PRIORITY - i))
    return records


def table_error(message: str, target: Any = "", function: Any = "") -> TableError:
    """An error of a table, of one of its keys or of the function there."""
    name = function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
    return TableError(message, parameter="custom_translation_table", target=_label(target), function=name)


def _label(target: Any) -> str:
    return name_of(target) if isinstance(target, (OpOverload, HigherOrderOperator)) or callable(target) else str(target)


def _check_key(target: Any) -> None:
    if isinstance(target, OpOverloadPacket):
        names = ", ".join(f"torch.ops.{target}.{overload}" for overload in target.overloads())
        raise table_error(
            f"custom_translation_table has the key {target}, which is a packet of overloads: name one of {names}.",
            target,
        )
    if isinstance(target, (OpOverload, HigherOrderOperator)):
        return
    if isinstance(target, str) or not callable(target) or isinstance(target, type):
        raise table_error(
            f"custom_translation_table has the key {target!r}, which is no operator: use an overload such as "
            "torch.ops.aten.add.Tensor, or a Python function that stands in FX graphs, such as operator.add.",
            target,
        )


def _record(target: Any, function: Any, priority: int) -> Translation:
    if _is_onnxscript(function):
        call: Callable[..., Any] = _script_call(function)
    elif not callable(function):
        raise table_error(
            f"custom_translation_table[{target}] is {function!r}, which is no function.", target, function
        )
    elif _takes_builder(function):
        call = function
        if wrong := _foreign_parameters(function, target):
            raise table_error(
                f"custom_translation_table[{target}]: {getattr(function, '__name__', function)} has a parameter "
                f"{wrong[0]!r}, which the schema doesn't have: {target._schema}. Arguments are passed by its names.",
                target,
                function,
            )
    else:
        call = _traced_call(function)
    return Translation(
        key_of(target), call, priority=priority, complex=True, plugin="custom_translation_table", tier=TABLE_TIER
    )


def _takes_builder(function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
    return bool(parameters) and parameters[0] == "op"


def _foreign_parameters(function: Callable[..., Any], target: Any) -> list[str]:
    """Parameters behind ``op`` that need a value and that the operator's schema doesn't name."""
    if not isinstance(target, OpOverload):
        return []
    known = {argument.name for argument in target._schema.arguments}
    needed = list(inspect.signature(function).parameters.values())[1:]
    return [p.name for p in needed if p.default is p.empty and p.kind in _NAMED and p.name not in known]


def _is_onnxscript(function: Any) -> bool:
    return type(function).__module__.startswith("onnxscript") and hasattr(function, "to_function_proto")


def _positional(op: Builder, bound: dict[str, Any], names: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments for a function that names its parameters as it likes: in the schema's order where names differ."""
    if set(bound) <= set(names):
        return [], bound
    schema = op.node.target._schema.arguments if isinstance(op.node.target, OpOverload) else []  # type: ignore[union-attr]
    ordered = [bound[a.name] for a in schema if a.name in bound] if schema else list(bound.values())
    defaults = [a.default_value if a.has_default_value() else _NO_DEFAULT for a in schema]
    while len(ordered) > len(names) and ordered and defaults and ordered[-1] == defaults[len(ordered) - 1]:
        ordered.pop()
    if len(ordered) > len(names):
        raise Unsupported(f"the function takes {len(names)} arguments, the operator has {len(ordered)}")
    return ordered, {}


def _as_values(op: Builder, args: list[Any]) -> list[Any]:
    return [op.tensor(a) if isinstance(a, Size) else a for a in args]


def _traced_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function over an onnxscript opset: its operator calls are emitted as they are made."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(op: Builder, *args: Any, **kwargs: Any) -> Any:
        positional, keyword = _positional(op, kwargs, names) if kwargs else (list(args), {})
        keyword = {key: op.tensor(value) if isinstance(value, Size) else value for key, value in keyword.items()}
        with _tracing(op):
            return function(*_as_values(op, positional), **keyword)

    del call.__wrapped__  # type: ignore[attr-defined]  # its own signature takes whatever the operator has
    setattr(call, WRITTEN, function)
    return call


def _script_call(function: Any) -> Callable[..., Any]:
    """An ``@onnxscript.script()`` function: a call of it, with its body among the model's functions."""

    def call(op: Builder, *args: Any, **kwargs: Any) -> Any:
        proto = function.to_function_proto()
        parameters = _parameters(proto)
        positional, keyword = _positional(op, kwargs, parameters) if kwargs else (list(args), {})
        return _call_function(op, proto, {**dict(zip(parameters, positional)), **keyword}, function)

    call.__name__ = call.__qualname__ = function.name
    setattr(call, WRITTEN, getattr(function, "function", None))
    call.__module__ = (
        getattr(function.function, "__module__", "onnxscript") if hasattr(function, "function") else "onnxscript"
    )
    return call


@contextlib.contextmanager
def _tracing(op: Builder) -> Iterator[None]:
    """Operator calls and arithmetic on values emit into ``op``.

    onnxscript and onnx_ir keep their handlers in globals, so that only one thread may trace at a time.
    """
    from onnxscript import evaluator

    with _tracing_lock:
        before = ir.set_value_magic_handler(op)  # type: ignore[arg-type]
        try:
            with evaluator.default_as(_Emitter(op)):
                yield
        finally:
            ir.set_value_magic_handler(before)


class _Emitter:
    """An onnxscript evaluator under which every operator call becomes a node."""

    def __init__(self, op: Builder) -> None:
        self._op = op

    def eval_op(self, called: Any, args: Any, kwargs: Any) -> Any:
        schema = called.op_schema
        inputs, attributes = _split(schema, args, kwargs)
        return _emit(self._op, schema, inputs, attributes)

    def eval_function(self, called: Any, args: Any, kwargs: Any) -> Any:
        proto = called.to_function_proto()
        return _call_function(self._op, proto, {**dict(zip(_parameters(proto), args)), **kwargs}, called)


def _parameters(proto: Any) -> list[str]:
    return [*proto.input, *proto.attribute, *(a.name for a in proto.attribute_proto)]


def _split(schema: Any, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    names = [formal.name for formal in schema.inputs]
    inputs = list(args)
    attributes = {key: value for key, value in kwargs.items() if key not in names}
    for i, name in enumerate(names):
        if name in kwargs:
            inputs += [None] * (i + 1 - len(inputs))
            inputs[i] = kwargs[name]
    return inputs, attributes


def _emit(op: Builder, schema: Any, inputs: Any, attributes: dict[str, Any]) -> Any:
    outputs = attributes.pop("_outputs", None)
    outputs = len(outputs) if isinstance(outputs, (list, tuple)) else outputs
    if schema.domain not in ("", "ai.onnx"):
        return op.call(schema.domain, schema.name, *inputs, version=schema.since_version, **attributes)
    newest = spec_of(schema.name, op.opset)
    if newest is None or newest.since < schema.since_version:
        raise Unsupported(f"needs opset {schema.since_version}: {schema.name}")
    kwargs = {} if outputs is None else {"outputs": outputs}
    return getattr(op, schema.name)(*inputs, **kwargs, **attributes)


def _call_function(op: Builder, proto: Any, given: dict[str, Any], called: Any) -> Any:
    """A node that calls a local function; numbers given for its inputs become constants."""
    key = (proto.domain, proto.name, proto.overload)
    if key not in op.functions:
        for inner in [proto, *_callees(called)]:
            function = ir.serde.deserialize_function(inner)
            _raise_opset(function, op.opset)
            op.functions.setdefault((inner.domain, inner.name, inner.overload), function)
            for domain, version in function.opset_imports.items():
                op.domains.setdefault(domain, version)
    inputs = [given.get(name) for name in proto.input]
    attributes = {key: value for key, value in given.items() if key not in proto.input and value is not None}
    for name in _float_attributes(op.functions[key]) & attributes.keys():
        attributes[name] = pytree.tree_map(lambda v: float(v) if isinstance(v, int) else v, attributes[name])
    dtypes = _output_dtypes(op, len(proto.output), inputs)
    return op.call(
        proto.domain, proto.name, *inputs, version=1, outputs=len(proto.output), dtypes=dtypes, overload=proto.overload,
        **attributes,
    )  # fmt: skip


def _float_attributes(function: ir.Function) -> set[str]:
    """The attributes of a function that its nodes read as floats, which a call may give as Python ints."""
    kinds = (AttributeType.FLOAT, AttributeType.FLOATS)
    attributes = (attribute for node in function.all_nodes() for attribute in node.attributes.values())
    return {a.ref_attr_name for a in attributes if a.ref_attr_name is not None and a.type in kinds}


def _raise_opset(function: ir.Function, opset: int) -> None:
    """Write a function for the model's opset: a model may not have two versions of one operator.

    Raises:
        Unsupported: an operator of the function means something else there.
    """
    version = function.opset_imports.get("", opset)
    for node in function.all_nodes():
        if node.domain in ("", "ai.onnx") and version != opset:
            old, new = spec_of(node.op_type, version), spec_of(node.op_type, opset)
            if old is None or new is None or (old.since != new.since and not _takes_the_same(node, old, new)):
                raise Unsupported(f"the function is written for opset {version}, whose {node.op_type} isn't {opset}'s")
    function.opset_imports[""] = opset


def _takes_the_same(node: ir.Node, old: OpSpec, new: OpSpec) -> bool:
    """Whether an operator has changed but for the types that it takes, and attributes that the node doesn't have."""
    same = (old.inputs, old.outputs) == (new.inputs, new.outputs) and new.attributes.keys() >= node.attributes.keys()
    return same and node.op_type not in ("GridSample", "GroupNormalization")


def _callees(called: Any) -> list[Any]:
    """Functions that a script function calls, however deep."""
    irs = called.function_ir.get_called_functions() if hasattr(called.function_ir, "get_called_functions") else {}
    return [inner.to_function_proto() for inner in irs.values()]


def _output_dtypes(op: Builder, count: int, inputs: list[Any]) -> list[DataType]:
    """What the FX node gives, where the function gives as many results; else the first input's type."""
    results = op.results
    if len(results) == count:
        return [result.dtype for result in results]
    first = next((value.dtype for value in inputs if isinstance(value, Tensor)), DataType.FLOAT)
    return [first or DataType.FLOAT] * count
