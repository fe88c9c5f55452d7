"""Checks of the fields of records that hooks return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from reprlib import repr as brief
from typing import Any, TypeVar

from onnxport.host.info import PluginInfo
from onnxport.records.emission import (
    Explanation,
    Form,
    FunctionWriter,
    Inference,
    NodeCheck,
    SizeFunction,
    SizeText,
    Widening,
)
from onnxport.records.semantics import Assertion, Fill, Folding, Region, Ties, View, Write

_T = TypeVar("_T")


def items_of(value: Any, kind: type[_T]) -> list[_T]:
    """The items of what a hook returned.

    Raises:
        TypeError: it is no list, or has items of another kind.
    """
    if kind is not object and isinstance(value, kind):
        raise TypeError(f"returned a {kind.__name__}: return a list of {kind.__name__} objects")
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"expected a list of {kind.__name__} objects, got {brief(value)}")
    items = list(value)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"expected {kind.__name__} objects, got {brief(item)}")
    return items


def expect(condition: bool, owner: str, field: str, value: Any, wanted: str) -> None:
    if not condition:
        raise TypeError(f"{owner}: {field} is {brief(value)}, it must be {wanted}")


def _is_operator(value: Any) -> bool:
    return callable(value) or (isinstance(value, str) and "::" in value)


def _is_optional(value: Any) -> bool:
    return value is None or callable(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_Field = tuple[Callable[[Any], bool], str]
_OP: Mapping[str, _Field] = {"op": (_is_operator, "a qualified name such as 'mypack::push_', or a function")}
_VALUE: _Field = (_is_operator, "the name of an operator, or a function")
_FUNCTION: _Field = (callable, "a function")
_OPTIONAL: _Field = (_is_optional, "a function or None")
MEANINGS: Mapping[type, Mapping[str, _Field]] = {
    View: {**_OP, "inverse": _VALUE},
    Write: {**_OP, "value": _VALUE, "when": _OPTIONAL},
    Region: {
        **_OP,
        "body": (lambda v: type(v) is int and v >= 0, "the position of an argument"),
        "inputs": _OPTIONAL,
        "results": _OPTIONAL,
    },
    Assertion: _OP,
    Ties: {**_OP, "is_itself": (lambda v: type(v) is bool, "True or False")},
    Fill: {**_OP, "value": _FUNCTION},
    Folding: {**_OP, "when": _OPTIONAL},
}
LESSONS: Mapping[type, Mapping[str, _Field]] = {
    Inference: {
        "op_type": (_is_name, "the name of an ONNX operator"),
        "dims": _OPTIONAL,
        "dtypes": _OPTIONAL,
        "domain": (lambda v: isinstance(v, str), "the name of a domain"),
    },
    Form: {
        "op_type": (_is_name, "the name of an ONNX operator"),
        "below": (lambda v: type(v) is int, "an opset"),
        "write": _FUNCTION,
    },
    SizeFunction: {"name": (_is_name, "the name of a sympy class"), "emit": _FUNCTION},
    SizeText: {"write": _FUNCTION},
    Widening: {"types": _FUNCTION},
    FunctionWriter: {"make": _FUNCTION},
    NodeCheck: {"make": _FUNCTION},
    Explanation: {"explain": _FUNCTION},
}


def _one(record: Any) -> str:
    name = type(record).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def records_of(kinds: Mapping[type, Mapping[str, _Field]]) -> Callable[[PluginInfo, Any, frozenset[int]], list[Any]]:
    """Looks at records of several kinds, field by field; the first field says what a record is about."""

    def looked_at(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Any]:
        if isinstance(value, tuple(kinds)):
            raise TypeError(f"returned {_one(value)}: return a list of records")
        items = items_of(value, object)
        for item in items:
            if not isinstance(item, tuple(kinds)):
                names = ", ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"expected records of the kinds {names}, got {brief(item)}")
            owner = _one(item)
            for field, (is_right, wanted) in kinds[type(item)].items():
                given = getattr(item, field)
                expect(is_right(given), owner, field, given, wanted)
                owner = owner if owner.startswith("the ") else f"the {type(item).__name__} of {given}"
        return items

    return looked_at
