"""``custom_translation_table``: the functions of one call as records."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from onnxport.errors import TableError
from onnxport.records.translations import TABLE_TIER, Translation, key_of, name_of
from onnxport.vocabulary.upstream import HigherOrderOperator, OpOverload, OpOverloadPacket, schema_of

TABLE = "custom_translation_table"
_MAX_PRIORITY = 1000
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

Adapt = Callable[[object], Translation | None]
"""Gives a function that isn't written for ``op`` as one that is; None where no plugin knows such functions."""


def table_records(table: Mapping[Any, Any], adapt: Adapt) -> list[Translation]:
    """The records of one call's table. The functions of a sequence are tried in its order.

    Args:
        table: a function, or a sequence of functions, by operator.
        adapt: what the plugins of ``onnxport_adapt`` make of a function.

    Raises:
        TableError: a key is no operator, or a value no function.
    """
    if not isinstance(table, Mapping):
        raise table_error(
            f"{TABLE} must be a dict of {{torch.ops.ns.op.overload: function}}, not {type(table).__name__}."
        )
    records = []
    for target, functions in table.items():
        _check_key(target)
        sequence = functions if isinstance(functions, (list, tuple)) else [functions]
        if not sequence:
            raise table_error(f"{TABLE}[{target}] is empty: give a function.", target)
        for i, function in enumerate(sequence):
            adapted = _adapted(target, function, adapt)
            records.append(
                Translation(
                    key_of(target),
                    adapted.function,
                    priority=_MAX_PRIORITY - i,
                    complex=adapted.complex,
                    plugin=TABLE,
                    tier=TABLE_TIER,
                )
            )
    return records


def table_error(message: str, target: Any = "", function: Any = "") -> TableError:
    """An error of a table, of one of its keys, or of the function there."""
    name = function if isinstance(function, str) else getattr(function, "__qualname__", repr(function))
    return TableError(message, parameter=TABLE, target=_label(target), function=name)


def _label(target: Any) -> str:
    if isinstance(target, (str, OpOverloadPacket)):  # as it was given
        return str(target)
    return name_of(target) if isinstance(target, (OpOverload, HigherOrderOperator)) or callable(target) else str(target)


def _check_key(target: Any) -> None:
    if isinstance(target, OpOverloadPacket):
        names = ", ".join(f"torch.ops.{target}.{overload}" for overload in target.overloads())
        raise table_error(f"{TABLE} has the key {target}, which is a packet of overloads: name one of {names}.", target)
    if isinstance(target, (OpOverload, HigherOrderOperator)):
        return
    if isinstance(target, str) or not callable(target) or isinstance(target, type):
        raise table_error(
            f"{TABLE} has the key {target!r}, which is no operator: use an overload such as "
            "torch.ops.aten.add.Tensor, or a Python function that stands in FX graphs, such as operator.add.",
            target,
        )


def _adapted(target: Any, function: Any, adapt: Adapt) -> Translation:
    """The function as one whose first parameter is the builder, and whether it takes complex tensors."""
    if (adapted := adapt(function)) is not None:
        return adapted
    if not callable(function):
        raise table_error(f"{TABLE}[{target}] is {function!r}, which is no function: give one.", target, function)
    name = getattr(function, "__name__", function)
    parameters = _parameters(function)
    if parameters[:1] != ["op"]:
        raise table_error(
            f"{TABLE}[{target}]: the first parameter of {name} isn't op, and no plugin adapts such functions. Write it "
            "as a function of op, or let the plugin take part that knows it.",
            target,
            function,
        )
    if wrong := _foreign_parameters(function, target):
        raise table_error(
            f"{TABLE}[{target}]: {name} has a parameter {wrong[0]!r}, which the schema doesn't have: "
            f"{schema_of(target)}. Rename it: arguments are passed by the schema's names.",
            target,
            function,
        )
    return Translation(key_of(target), function, complex=True)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _foreign_parameters(function: Callable[..., Any], target: Any) -> list[str]:
    """Parameters behind ``op`` that need a value and that the operator's schema doesn't name."""
    if not isinstance(target, OpOverload):
        return []
    known = {argument.name for argument in schema_of(target).arguments}
    needed = list(inspect.signature(function).parameters.values())[1:]
    return [p.name for p in needed if p.default is p.empty and p.kind in _NAMED and p.name not in known]
