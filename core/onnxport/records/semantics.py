"""What operators do besides computing, as records that plugins bring: the core itself knows no operator by its name.

``op`` is a qualified name, such as ``"mypack::push_"`` for all overloads, ``"mypack::push_.Tensor"`` or
``"mypack::push_.default"`` for one, or ``"higher_order::wrap"``; or a Python callable that stands in graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxport.vocabulary.upstream import HigherOrderOperator, OpOverload, overload_of, schema_of

Target = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class View:
    """An operator whose result is a view of its first argument, which can be written through.

    Attributes:
        op: the operator.
        inverse: the name of a pure operator that is called as ``(parent, value, *rest)``, with the view's arguments
            behind the first, and gives the parent with ``value`` in the place of the view; or a function
            ``(emit, step, parent, val, value)`` that emits nodes which do: see ``onnxport_functional.views``.
    """

    op: Target
    inverse: str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Write:
    """An operator that writes its arguments, and the pure operators that compute the same.

    Only operators need one that have no pure twin which torch names after them (``add_`` and ``add``), or that write
    without saying so in their schema.

    Attributes:
        op: the operator.
        value: the name of a pure operator of the same arguments that returns the operator's own results and then the
            new values of what it writes; or a function ``(rewriter, node)`` that stores the new values and gives the
            results: see ``onnxport_functional.assignments``.
        when: tells the FX nodes that write; by default, all do.
    """

    op: Target
    value: str | Callable[..., Any]
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """An operator that only changes how torch runs a nested graph, which becomes part of the graph around it.

    Attributes:
        op: the operator.
        body: the position of the nested graph among the arguments.
        inputs: gives the body's inputs, from all arguments; by default, they are those behind the body.
        results: gives the operator's result, from the body's; by default, it is the body's.
    """

    op: Target
    body: int = 0
    inputs: Callable[[tuple[Any, ...]], Any] | None = None
    results: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Assertion:
    """An operator that only checks or tells something: it is left out of the file, which the report says."""

    op: Target


@dataclass(frozen=True, slots=True)
class Ties:
    """An operator whose results may share the memory of its arguments, though its schema doesn't say so.

    Attributes:
        op: the operator.
        is_itself: where there is nothing to do, its result is its first argument, the same Python object.
    """

    op: Target
    is_itself: bool = False


@dataclass(frozen=True, slots=True)
class Fill:
    """An operator whose result is full of one number: of its tensor it takes the shape and dtype alone.

    Attributes:
        op: the operator.
        value: gives the number, or an FX node that computes it, from an FX node of the operator.
    """

    op: Target
    value: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Folding:
    """Whether calls of an operator on constants may be computed at export time.

    Without a record, all are that are no writes, draw no numbers and have static sizes.

    Attributes:
        op: the operator.
        when: tells the FX nodes that may; by default, none.
    """

    op: Target
    when: Callable[[Any], bool] | None = None


Record = View | Write | Region | Assertion | Ties | Fill | Folding
_R = TypeVar("_R", View, Write, Region, Assertion, Ties, Fill, Folding)
_UNKNOWN: Any = object()


class Semantics:
    """Records, looked up by the targets of FX nodes.

    Args:
        records: the first one of an operator is taken, of each kind.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: dict[type, dict[Target, Any]] = {}
        for record in records:
            self._records.setdefault(type(record), {}).setdefault(record.op, record)
        self._found: dict[tuple[type, Any], Any] = {}

    def of(self, kind: type[_R], target: Any) -> _R | None:
        """The record of a kind about an operator."""
        records = self._records.get(kind)
        if not records:
            return None
        found = self._found.get((kind, target), _UNKNOWN)
        if found is _UNKNOWN:
            found = self._found[kind, target] = _look_up(records, target)
        return found  # type: ignore[no-any-return]


def _look_up(records: Mapping[Target, Any], target: Any) -> Any:
    if isinstance(target, OpOverload):
        every = schema_of(target).name
        return records.get(f"{every}.{overload_of(target)}", records.get(every))
    if isinstance(target, HigherOrderOperator):
        return records.get(f"higher_order::{target.name()}")
    return records.get(target) if callable(target) else None


_current: ContextVar[Semantics | None] = ContextVar("onnxport_semantics", default=None)


def current_semantics() -> Semantics | None:
    """What the plugins of the export that goes on in this thread say; None outside of one."""
    return _current.get()


@contextlib.contextmanager
def using(semantics: Semantics) -> Iterator[None]:
    """Let these be the current ones."""
    token = _current.set(semantics)
    try:
        yield
    finally:
        _current.reset(token)
