"""Functions of onnxscript as translations.

There are two kinds: Python functions that call an onnxscript opset are traced, and functions made by
``@onnxscript.script()`` stay local functions of the model. Those of onnxscript's collection for torch are of either
kind; their signatures tell inputs from attributes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir import AttributeType
from onnxport import Size, Translation, Unsupported
from onnxport.kit import OpSpec, domains, spec_of, translations
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from onnxport_onnxscript import signatures

if TYPE_CHECKING:
    from onnxport import Builder

_NO_DEFAULT = object()
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
#: What opset 20 calls the modes of opset 16
_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_tracing_lock = threading.RLock()


def adapted(function: Any) -> Translation | None:
    """A function for the table as a translation; None for one that is written for ``op``, and for no function.

    The record's target is a placeholder: the table has the operator.
    """
    kind = signatures.kind_of(function)
    if _is_onnxscript(function):
        call: Callable[..., Any] = _script_call(function, kind)
    elif _is_traced(function):
        call = _traced_call(function.func, kind)
    elif callable(function) and _first_parameter(function) not in ("op", None):
        call = _traced_call(function)
    else:
        return None
    return Translation("adapted::function", call, complex=kind.numbers != "real")


def _first_parameter(function: Callable[..., Any]) -> str | None:
    """The name of the first parameter, empty for a function without any; None where Python can't tell."""
    try:
        return next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):
        return None


def _is_onnxscript(function: Any) -> bool:
    return type(function).__module__.startswith("onnxscript") and hasattr(function, "to_function_proto")


def _is_traced(function: Any) -> bool:
    """A function of onnxscript's collection that is only ever traced; its own call takes no argument named self."""
    return type(function).__module__.startswith("onnxscript") and callable(getattr(function, "func", None))


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


def _traced_call(
    function: Callable[..., Any],
    kind: signatures.Kind = signatures.Kind(),  # noqa: B008
) -> Callable[..., Any]:
    """A Python function over an onnxscript opset: its operator calls are emitted as they are made."""
    names, optional = _names(function)

    @functools.wraps(function)
    def call(op: Builder, *args: Any, **kwargs: Any) -> Any:
        kwargs = signatures.given_by(op, kwargs, names, optional)
        positional, keyword = _positional(op, kwargs, names) if kwargs else (list(args), {})
        if kind.numbers:
            positional, keyword = [], kind.arguments(op, {**dict(zip(names, positional)), **keyword})
        positional, keyword = signatures.plain((positional, keyword))
        keyword = {key: op.tensor(value) if isinstance(value, Size) else value for key, value in keyword.items()}
        with _tracing(op) as emitter:
            found = function(*_as_values(op, positional), **keyword)
            signatures.without_unused(op, emitter.several, found)
        return kind.results(op, found)

    del call.__wrapped__  # type: ignore[attr-defined]  # its own signature takes whatever the operator has
    setattr(call, translations.WRITTEN, function)
    return call


def _names(function: Callable[..., Any]) -> tuple[list[str], set[str]]:
    parameters = inspect.signature(function).parameters
    return list(parameters), {
        name for name, p in parameters.items() if p.default is not p.empty or p.kind not in _NAMED
    }


def _script_call(function: Any, kind: signatures.Kind) -> Callable[..., Any]:
    """An ``@onnxscript.script()`` function: a call of it, with its body among the model's functions."""

    def call(op: Builder, *args: Any, **kwargs: Any) -> Any:
        proto = function.to_function_proto()
        parameters = _parameters(proto)
        kwargs = signatures.given_by(op, kwargs, parameters, {a.name for a in proto.attribute_proto})
        positional, keyword = _positional(op, kwargs, parameters) if kwargs else (list(args), {})
        given = kind.arguments(op, {**dict(zip(parameters, positional)), **keyword})
        return kind.results(op, _call_function(op, proto, signatures.plain(given), function))

    call.__name__ = call.__qualname__ = function.name
    setattr(call, translations.WRITTEN, getattr(function, "function", None))
    call.__module__ = (
        getattr(function.function, "__module__", "onnxscript") if hasattr(function, "function") else "onnxscript"
    )
    return call


@contextlib.contextmanager
def _tracing(op: Builder) -> Iterator[_Emitter]:
    """Operator calls and arithmetic on values emit into ``op``.

    onnxscript and onnx_ir keep their handlers in globals, so that only one thread may trace at a time.
    """
    from onnxscript import evaluator

    with _tracing_lock:
        before = ir.set_value_magic_handler(op)  # type: ignore[arg-type]
        emitter = _Emitter(op)
        try:
            with evaluator.default_as(emitter):
                yield emitter
        finally:
            ir.set_value_magic_handler(before)


class _Emitter:
    """An onnxscript evaluator under which every operator call becomes a node."""

    def __init__(self, op: Builder) -> None:
        self._op = op
        self.several: list[signatures.Outputs] = []

    def eval_op(self, called: Any, args: Any, kwargs: Any) -> Any:
        schema = called.op_schema
        inputs, attributes = _split(schema, [_first(arg) for arg in args], kwargs)
        outputs = attributes.pop("_outputs", None)
        count = len(outputs) if isinstance(outputs, (list, tuple)) else outputs
        if count is None:
            count = signatures.count_of(schema, attributes)
        found = _emit(self._op, schema, inputs, attributes, count)
        if count == 1 or not isinstance(found, (list, tuple)):
            return found
        self.several += [signatures.Outputs(found)] if outputs is None else []
        return signatures.Outputs(found)

    def eval_function(self, called: Any, args: Any, kwargs: Any) -> Any:
        proto = called.to_function_proto()
        given = {**dict(zip(_parameters(proto), map(_first, args))), **kwargs}
        answer = signatures.answer(proto, given)
        return _call_function(self._op, proto, given, called, inner=True) if answer is None else answer


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, signatures.Outputs) else value


def _parameters(proto: Any) -> list[str]:
    return [*proto.input, *proto.attribute, *(a.name for a in proto.attribute_proto)]


def _split(schema: Any, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    names = [formal.name for formal in schema.inputs]
    inputs = list(args)
    attributes = {key: _plain_attribute(value) for key, value in kwargs.items() if key not in names}
    for i, name in enumerate(names):
        if name in kwargs:
            inputs += [None] * (i + 1 - len(inputs))
            inputs[i] = kwargs[name]
    return inputs, attributes


def _plain_attribute(value: Any) -> Any:
    """An attribute object's value, unless it refers to an attribute of the function around it."""
    return value.value if isinstance(value, ir.Attr) and value.ref_attr_name is None else value


def _emit(op: Builder, schema: Any, inputs: Any, attributes: dict[str, Any], outputs: int) -> Any:
    if schema.domain not in ("", "ai.onnx"):
        return op.call(schema.domain, schema.name, *inputs, version=schema.since_version, outputs=outputs, **attributes)
    newest = spec_of(schema.name, op.opset)
    if newest is None or newest.since < schema.since_version:
        raise Unsupported(f"needs opset {schema.since_version}: {schema.name}")
    if schema.name == "GridSample" and schema.since_version < 20 <= op.opset:
        attributes = {**attributes, "mode": _GRID_MODES.get(attributes.get("mode", ""), attributes.get("mode"))}
    elif schema.name == "GroupNormalization" and schema.since_version < 21 <= op.opset:
        raise Unsupported(f"the function is written for GroupNormalization-{schema.since_version}")
    kwargs = {} if outputs == 1 else {"outputs": outputs}
    return getattr(op, schema.name)(*inputs, **kwargs, **attributes)


def _call_function(op: Builder, proto: Any, given: dict[str, Any], called: Any, *, inner: bool = False) -> Any:
    """A node that calls a local function; numbers given for its inputs become constants."""
    key = (proto.domain, proto.name, proto.overload)
    if key not in op.functions:
        for each in [proto, *_callees(called)]:
            function = ir.serde.deserialize_function(each)
            _raise_opset(function, op.opset)
            op.functions.setdefault((each.domain, each.name, each.overload), function)
            for domain, version in function.opset_imports.items():
                domains.require(op, domain, version)
    signature = signatures.signature_of(called)
    given = signatures.converted(op, signature, given, set(_parameters(proto)) - set(proto.input))
    inputs = [given.get(name) for name in proto.input]
    attributes = {key: value for key, value in given.items() if key not in proto.input and value is not None}
    for name in _float_attributes(op.functions[key]) & attributes.keys():
        attributes[name] = pytree.tree_map(lambda v: float(v) if isinstance(v, int) else v, attributes[name])
    dtypes = signatures.output_dtypes(op, proto, signature, inputs, inner=inner)
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
