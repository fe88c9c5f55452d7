"""What is shown while a command works: the step and the time on a terminal, one line elsewhere; all of it with -v."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from onnxport_workbench.cli_output import errors_console
from onnxport_workbench.shown import is_terminal

Tell = Callable[[str], None]


@contextlib.contextmanager
def progress(title: str, *, verbose: bool = False) -> Iterator[Tell]:
    """Show what is going on; gives the function that names the step.

    On a terminal, a line with the step and the seconds since the start. Elsewhere, such as in a log, the title alone,
    at once: torch takes seconds to load. With ``verbose``, a line for each step and its time.
    """
    started = time.perf_counter()
    if verbose or not errors_console.is_terminal:
        errors_console.print(title)
        with _steps_told() if verbose else contextlib.nullcontext(lambda step: None) as tell:
            yield tell
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    # What is printed meanwhile stays where it goes to, such as a file.
    with Progress(*columns, console=errors_console, transient=True, redirect_stdout=is_terminal(sys.stdout)) as shown:
        task = shown.add_task(f"{title}: loading")
        yield lambda step: shown.update(task, description=f"{title}: {step}")
    errors_console.print(f"{title}: {time.perf_counter() - started:.1f} s")


@contextlib.contextmanager
def _steps_told() -> Iterator[Tell]:
    """A line for each step that ends, with its seconds, and what onnxport logs meanwhile."""
    logger, handler = logging.getLogger("onnxport"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("  %(levelname)s: %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the root's handlers would say it again
    current, since = "loading", time.perf_counter()

    def tell(step: str) -> None:
        nonlocal current, since
        now = time.perf_counter()
        errors_console.print(f"  {current}: {now - since:.2f} s")
        current, since = step, now

    try:
        yield tell
        tell("")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


__all__ = ["Tell", "progress"]
