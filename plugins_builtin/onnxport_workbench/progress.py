"""What an export shows while it works: lines, a line of a terminal that changes, or an output of a notebook."""

from __future__ import annotations

import contextvars
import html
import importlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxport.kit import counted, plain, wrong

from onnxport_workbench.shown import is_terminal, model_size, shown_bytes

if TYPE_CHECKING:
    from onnxport.kit import Run

_TICK = 0.5
_one_at_a_time = threading.Lock()


def started(run: Run) -> None:
    """Show the progress of an export: as lines with ``verbose=True``; else where a person looks.

    A person looks at a terminal, that is where standard error is one, and at a notebook. With ``verbose=False`` nothing
    is shown, and a function that is passed as ``verbose`` shows its own.
    """
    asked = run.asked.get("verbose")
    if callable(asked):
        run.observer = _calling(asked)
    if run.observer is not None:  # or a pack shows its own
        return
    display: _Display | None = None
    if asked:
        display = _Lines(run)
    elif asked is None and _one_at_a_time.acquire(blocking=False):  # exports of several threads share a terminal
        shell = _notebook()
        if shell is not None:
            display = _Output(run)
        elif is_terminal(sys.stderr):
            display = _TerminalLine(run)
        if display is None:
            _one_at_a_time.release()
    if display is not None:
        run.observer = display
        display.start()


def ended(run: Run) -> None:
    """End what :func:`started` began; an export that failed says so by its error."""
    if not isinstance(run.observer, _Display):
        return
    try:
        run.observer.end()
    finally:
        if not isinstance(run.observer, _Lines):
            _one_at_a_time.release()


def _calling(function: Callable[[str], object]) -> Callable[[str], None]:
    """The function of ``verbose``. A TypeError of it becomes an InputError."""

    def observe(stage: str) -> None:
        try:
            function(stage)
        except TypeError as error:
            raise wrong("verbose", function, "True, False, or a function that takes the name of a stage") from error

    return observe


class _Display:
    """Shows the step of an export. It is called with the name of each."""

    def __init__(self, run: Run) -> None:
        self._run = run
        model = run.asked.get("model")
        self._name = plain(type(model).__name__)
        self._size = model_size(model)
        self._since = time.perf_counter()
        self._step = "start"

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._since

    @property
    def _title(self) -> str:
        return f"Exporting {self._name}{f' ({self._size})' if self._size else ''}"

    @property
    def _result(self) -> str:
        """What came of it, for a line that stays."""
        run = self._run
        if run.error is not None or run.translated is None:
            stage = self._step.partition(":")[0]  # without what its capture tried last
            return f"{self._title}: failed at {stage} after {self._seconds:.1f} s"
        model = run.translated.model
        weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
        nodes, size = sum(run.nodes_after.values()), shown_bytes(sum(weight.nbytes for weight in weights))
        return f"Exported {self._name} in {self._seconds:.1f} s: {counted(nodes, 'node')}, weights {size}"

    def start(self) -> None:
        """Show the first words."""

    def __call__(self, step: str) -> None:
        self._step = step

    def end(self) -> None:
        """Show the last words."""


class _Lines(_Display):
    """A line for each stage when it has ended, on standard output; and the inputs and outputs after the capture."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._told = 0

    def start(self) -> None:
        _print(self._title)

    def __call__(self, step: str) -> None:
        super().__call__(step)
        if any(stage.name == step for stage in self._run.stages):
            self._tell(self._run.stages[:-1])
        else:  # what a capture tries next
            _print(step)

    def end(self) -> None:
        self._tell(self._run.stages)
        _print(self._result)

    def _tell(self, ended: list[Any]) -> None:
        for stage in ended[self._told :]:
            _print(f"{stage.name}: {stage.seconds:.2f} s")
            if stage.name == "capture":
                self._interface()
        self._told = max(self._told, len(ended))

    def _interface(self) -> None:
        captured = self._run.captured
        if captured is None:
            return
        for leaf in captured.interface.inputs:
            axes = {str(axis): str(name) for axis, name in (leaf.axes or {}).items()}
            rest = repr(leaf.value) if leaf.kind == "baked" else str(axes)
            _print(f"  input {leaf.name or leaf.path}: {leaf.kind} {rest}")
        for condition, line in captured.limits.items():
            _print(f"  only where {condition}{f' ({line})' if line else ''}")
        _print(f"  outputs: {', '.join(captured.interface.outputs)}")


def _print(text: str) -> None:
    print(plain(f"[onnxport] {text}"), flush=True)


class _TerminalLine(_Display):
    """A line on standard error with the step and the seconds, which makes room for the result."""

    def start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._console = Console(stderr=True, highlight=False)
        self._shown = Progress(
            *columns,
            console=self._console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=is_terminal(sys.stdout),  # what the model prints stays where it goes to, such as a file
        )
        self._task = self._shown.add_task(self._title)
        self._shown.start()

    def __call__(self, step: str) -> None:
        super().__call__(step)
        self._shown.update(self._task, description=f"{self._title}: {step}")

    def end(self) -> None:
        self._shown.stop()
        self._console.print(self._result, markup=False)


class _Output(_Display):
    """An output of a notebook's cell, which is replaced as the export goes on."""

    def start(self) -> None:
        shows = importlib.import_module("IPython.display")  # the notebook's own, and no dependency
        self._html: Callable[[str], Any] = shows.HTML
        self._handle = shows.display(self._html(self._now()), display_id=True)
        self._has_ended = threading.Event()
        context = contextvars.copy_context()  # by which the kernel knows the cell
        self._clock = threading.Thread(target=context.run, args=(self._tick,), daemon=True, name="onnxport progress")
        self._clock.start()

    def __call__(self, step: str) -> None:
        super().__call__(step)
        self._show(self._now())

    def end(self) -> None:
        self._has_ended.set()
        self._clock.join()
        self._show(_block(self._result))

    def _tick(self) -> None:
        while not self._has_ended.wait(_TICK):
            self._show(self._now())

    def _now(self) -> str:
        done = [f"{stage.name} {stage.seconds:.1f} s" for stage in self._run.stages[:-1]]
        steps = ", ".join([*done, self._step])
        return _block(f"{self._title}: {self._seconds:.0f} s", steps)

    def _show(self, text: str) -> None:
        if self._handle is not None:
            self._handle.update(self._html(text))


def _block(*lines: str) -> str:
    return f"<div>{'<br>'.join(html.escape(plain(line)) for line in lines)}</div>"


def _notebook() -> Any:
    """The shell of a notebook's kernel; None elsewhere. IPython isn't imported for it."""
    shell_of = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell: Any = shell_of() if shell_of is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


__all__ = ["ended", "started"]
