"""What an export came to, for whoever called it and wants more than its result: the command line, for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxport.kit import Run


@dataclass
class Seen:
    """The last export that ended meanwhile.

    Attributes:
        run: its record; None where none ended.
        pages: the files of its report.
    """

    run: Run | None = None
    pages: list[Path] = field(default_factory=list)


_watching: ContextVar[Seen | None] = ContextVar("_watching", default=None)


@contextlib.contextmanager
def watching() -> Iterator[Seen]:
    """Collect what the exports of this thread come to, until the block ends."""
    seen = Seen()
    token = _watching.set(seen)
    try:
        yield seen
    finally:
        _watching.reset(token)


def ended(run: Run, pages: list[Path]) -> None:
    """Tell whoever watches that an export has ended."""
    seen = _watching.get()
    if seen is not None:
        seen.run, seen.pages = run, pages


__all__ = ["Seen", "ended", "watching"]
