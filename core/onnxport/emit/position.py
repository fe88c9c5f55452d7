"""The FX node that a builder emits for; a context, and a class of its own since one is entered for each node."""

from __future__ import annotations

from typing import Any


class Position:
    """While it lasts, the builder has these attributes; afterwards, those that it had before."""

    __slots__ = ("_new", "_old", "_op")

    def __init__(self, op: Any, node: Any, source: Any, origin: Any) -> None:
        self._op, self._new = op, (node, source, origin)

    def __enter__(self) -> None:
        op = self._op
        self._old = op.node, op.source, op.origin
        op.node, op.source, op.origin = self._new

    def __exit__(self, *_error: object) -> None:
        op = self._op
        op.node, op.source, op.origin = self._old
