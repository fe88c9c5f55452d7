"""The record of one export: stages with times and memory, counts, notes.

The record is kept in any case (it is a handful of numbers); a plugin makes pages of it (``onnxport_after_export``).
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxport.errors import SaveError
from onnxport.vocabulary.notes import _notes

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.export import ExportedProgram

    from onnxport.capture.captured import Captured
    from onnxport.program.onnx_program import ONNXProgram
    from onnxport.translate.model import Translated

logger = logging.getLogger("onnxport")
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@dataclass
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: such as ``"translate"``.
        seconds: wall time.
        peak_growth: growth of the process's peak resident memory, in bytes.
    """

    name: str
    seconds: float = 0.0
    peak_growth: int = 0


@dataclass
class Run:
    """The record of one export.

    Attributes:
        artifacts: folder for reports.
        notes: what plugins said by :func:`note`.
        observer: called with each stage's name when it starts, and with what a capture tries next; for displays of
            progress, such as that of ``onnxport_before_export``.
        conversions: what ``dtype=`` and ``quantize=`` changed, by parameter.
        asked: the arguments of the call, by parameter.
        program: what the caller gets.
    """

    artifacts: Path = Path(".")
    observer: Callable[[str], None] | None = None
    stages: list[Stage] = field(default_factory=list)
    captured: Captured | None = None
    translated: Translated | None = None
    program: ONNXProgram | None = None
    fallback: str | None = None
    dropped_assertions: tuple[str, ...] = ()
    nodes_before: Counter[str] = field(default_factory=Counter)
    nodes_after: Counter[str] = field(default_factory=Counter)
    passes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    conversions: dict[str, Any] = field(default_factory=dict)
    verification: Any = None
    error: BaseException | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        record = Stage(name)
        self.stages.append(record)
        peak = _peak_bytes()
        start = time.perf_counter()
        token = _notes.set(self.notes)
        try:
            if self.observer is not None:
                self.observer(name)
            yield
        finally:
            _notes.reset(token)
            record.seconds = time.perf_counter() - start
            record.peak_growth = _peak_bytes() - peak

    def count(self, model: ir.Model, after: bool) -> None:
        """Keep the operator counts of the model before or after the passes."""
        graphs = [model.graph, *(function.graph for function in model.functions.values())]
        counts = Counter(node.op_type for graph in graphs for node in graph.all_nodes())
        if after:
            self.nodes_after = counts
        else:
            self.nodes_before = counts

    def dump(self, program: ExportedProgram) -> None:
        """Save the captured program beside the reports.

        Raises:
            SaveError: the artifacts folder can't be written.
        """
        import torch

        with self.writing("captured program"):
            path = self.path("pt2")
            torch.export.save(program, path)
        logger.info("captured program saved to %s", path)

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Write a file: what the system refuses is an error that says where."""
        try:
            yield
        except OSError as error:
            raise SaveError(
                f"The {what} can't be written to {self.artifacts}: {error}. Give another artifacts_dir.",
                path=str(self.artifacts),
            ) from error

    def path(self, suffix: str, ending: str = "") -> Path:
        """The path of a file of this export in the artifacts folder, which is made."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if not hasattr(self, "_stamp"):  # to the microsecond: exports in several threads write beside each other
            self._stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        return self.artifacts / f"onnx_export_{self._stamp}{'_' if ending else ''}{ending}.{suffix}"


def _peak_bytes() -> int:
    """The process's peak resident memory; 0 where the system doesn't tell. macOS counts bytes, others kilobytes."""
    usage = 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024
