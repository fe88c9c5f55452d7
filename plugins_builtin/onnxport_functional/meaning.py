"""What operators do besides computing: by the plugins of the export that goes on, or else by the built-in records."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from onnxport import PluginError
from onnxport.kit import Assertion, Region, Semantics, Ties, View, Write, current_semantics, operator_named
from torch._ops import OpOverload

_R = TypeVar("_R", View, Write, Region, Assertion, Ties)


def of(kind: type[_R], target: Any) -> _R | None:
    """The record of a kind about an operator."""
    return (current_semantics() or _built_in()).of(kind, target)


def named(name: str, record: View | Write) -> OpOverload:
    """The pure operator that a record names.

    Raises: PluginError, where torch has none.
    """
    target = operator_named(name)
    if not isinstance(target, OpOverload):
        raise PluginError(
            f"The {type(record).__name__} record of {record.op} names {name}, and torch has no such operator: correct "
            "the name, or import the library that defines it."
        )
    return target


@cache
def _built_in() -> Semantics:
    from onnxport_functional.records import records

    return Semantics(records())
