"""What happened during one export: stages with times and memory, translations used, refusals, verification.

The record is kept in any case (it is a handful of numbers); the markdown and JSON files are made only when asked for.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxport.errors import SaveError, UnsupportedOperatorsError

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.export import ExportedProgram

    from onnxport.inputs import Interface
    from onnxport.translate import Translated
    from onnxport.verify import VerificationResult

logger = logging.getLogger("onnxport")


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
        verbose: print each stage and the resolved inputs and outputs.
        artifacts: folder for reports.
        observer: called with each stage's name when it starts; for progress displays.
    """

    verbose: bool = False
    artifacts: Path = Path(".")
    observer: Callable[[str], None] | None = None
    stages: list[Stage] = field(default_factory=list)
    interface: Interface | None = None
    translated: Translated | None = None
    fallback: str | None = None
    dropped_assertions: tuple[str, ...] = ()
    nodes_before: Counter[str] = field(default_factory=Counter)
    nodes_after: Counter[str] = field(default_factory=Counter)
    passes: dict[str, int] = field(default_factory=dict)
    verification: VerificationResult | None = None
    error: BaseException | None = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        if self.observer is not None:
            self.observer(name)
        record = Stage(name)
        self.stages.append(record)
        peak = _peak_bytes()
        start = time.perf_counter()
        try:
            yield
        finally:
            record.seconds = time.perf_counter() - start
            record.peak_growth = _peak_bytes() - peak
            if self.verbose:
                print(f"[onnxport] {name}: {record.seconds:.2f} s", flush=True)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage."""
        return {stage.name: stage.seconds for stage in self.stages}

    def show_interface(self) -> None:
        """Print the resolved inputs and outputs, when the run is verbose."""
        if self.verbose and self.interface is not None:
            for name, path, kind, rest in self._input_rows():
                print(f"[onnxport]   input {name or path}: {kind} {rest}")
            print(f"[onnxport]   outputs: {', '.join(self.interface.outputs)}", flush=True)

    def count(self, model: ir.Model, after: bool) -> None:
        """Keep the operator counts of the model before or after the passes."""
        graphs = [model.graph, *(function.graph for function in model.functions.values())]
        counts = Counter(node.op_type for graph in graphs for node in graph.all_nodes())
        if after:
            self.nodes_after = counts
        else:
            self.nodes_before = counts

    def dump(self, program: ExportedProgram) -> None:
        """Save the captured program beside the reports."""
        import torch

        path = self._path("pt2")
        torch.export.save(program, path)
        logger.info("captured program saved to %s", path)

    def write(self, *, report: bool, profile: bool) -> None:
        """Write ``onnxport_report_<time>.md`` and its JSON twin, and ``onnxport_profile_<time>.md``.

        Raises:
            SaveError: the artifacts folder can't be written.
        """
        try:
            if report:
                self._path("md").write_text(self.markdown())
                self._path("json").write_text(json.dumps(self.as_dict(), indent=2))
            if profile:
                self._path("md", "profile").write_text(f"# onnxport profile\n\n{self._stage_table()}\n")
        except OSError as error:
            raise SaveError(
                f"The report can't be written to {self.artifacts}: {error}. Give another artifacts_dir."
            ) from error

    def _path(self, suffix: str, kind: str = "report") -> Path:
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if not hasattr(self, "_stamp"):
            self._stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        return self.artifacts / f"onnxport_{kind}_{self._stamp}.{suffix}"

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        translated, interface = self.translated, self.interface
        error = self.error
        refusals = error.refusals if isinstance(error, UnsupportedOperatorsError) else []
        return {
            "succeeded": error is None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "stages": [{"name": s.name, "seconds": s.seconds, "peak_growth_bytes": s.peak_growth} for s in self.stages],
            "inputs": [] if interface is None else [_leaf(leaf) for leaf in interface.inputs],
            "outputs": [] if interface is None else list(interface.outputs),
            "second_trace": self.fallback,
            "dropped_assertions": list(self.dropped_assertions),
            "operators_before_passes": dict(self.nodes_before),
            "operators_after_passes": dict(self.nodes_after),
            "passes": self.passes,
            "translations": []
            if translated is None
            else [{"operator": op, "translation": fn, "nodes": n} for (op, fn), n in sorted(translated.served.items())],
            "decomposed": {} if translated is None else dict(translated.decomposed),
            "functions": [] if translated is None else [vars(use) for use in translated.functions],
            "kept_inline": {} if translated is None else translated.inlined,
            "refusals": [vars(refusal) for refusal in refusals],
            "verification": None if self.verification is None else self.verification.as_dict(),
        }

    def markdown(self) -> str:
        """The record for people. A check that did not run is said not to have run."""
        data = self.as_dict()
        parts = ["# onnxport report", "", "Succeeded." if data["succeeded"] else f"Failed: {data['error']}", ""]
        parts += ["## Stages", "", self._stage_table(), ""]
        parts += ["## Inputs", "", _table(["name", "path", "kind", "value or dynamic axes"], self._input_rows()), ""]
        parts += ["## Outputs", "", *(f"- `{name}`" for name in data["outputs"]), ""]
        names = sorted({*self.nodes_before, *self.nodes_after})
        rows = [[n, str(self.nodes_before.get(n, 0)), str(self.nodes_after.get(n, 0))] for n in names]
        parts += ["## ONNX operators", "", _table(["operator", "before passes", "after"], rows), ""]
        used = [[t["operator"], t["translation"], str(t["nodes"])] for t in data["translations"]]
        parts += ["## Translations used", "", _table(["torch operator", "translation", "nodes"], used), ""]
        parts += ["## Decomposed operators", "", *(f"- {k}: {v}" for k, v in data["decomposed"].items()), ""]
        if data["functions"] or data["kept_inline"]:
            rows = [[f["name"], f["module"], str(f["nodes"]), ", ".join(f["calls"])] for f in data["functions"]]
            parts += ["## Functions", "", _table(["function", "class", "nodes", "calls"], rows), ""]
            parts += [*(f"- {path} stayed inline: {reason}" for path, reason in data["kept_inline"].items()), ""]
        if self.fallback:
            parts += [f"The program was traced a second time: {self.fallback}", ""]
        verification = "Not run." if self.verification is None else self.verification.table()
        parts += ["## Verification", "", verification, ""]
        return "\n".join(parts)

    def _stage_table(self) -> str:
        rows = [[s.name, f"{s.seconds:.3f}", f"{s.peak_growth / 2**20:.1f}"] for s in self.stages]
        return _table(["stage", "seconds", "peak memory growth (MiB)"], rows)

    def _input_rows(self) -> list[list[str]]:
        if self.interface is None:
            return []
        leaves = [_leaf(leaf) for leaf in self.interface.inputs]
        return [
            [d["name"] or "", d["path"], d["kind"], str(d["value"] if d["kind"] == "baked" else d["axes"])]
            for d in leaves
        ]


def _leaf(leaf: Any) -> dict[str, Any]:
    axes = {str(axis): str(name) for axis, name in (leaf.axes or {}).items()}
    return {"name": leaf.name, "path": leaf.path, "kind": leaf.kind, "value": repr(leaf.value), "axes": axes}


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
