"""Notes of plugins about an export: lines of its report."""

from __future__ import annotations

import contextvars
import logging

from onnxport.text import plain

logger = logging.getLogger("onnxport")

_notes: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("onnxport_notes", default=None)


def note(text: str) -> None:
    """Say in the report of the export that goes on what a plugin does to the model; without a report, in the log."""
    logger.info("%s", plain(text))
    notes = _notes.get()
    if notes is not None and text not in notes:
        notes.append(text)
