"""What happened during one export: stages with times and memory, translations used, refusals, verification.

The record is kept in any case (it is a handful of numbers); the markdown and JSON files are made only when asked for.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import logging
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import importlib_metadata

from onnxport.errors import SaveError, UnsupportedOperatorsError, plain
from onnxport.vocabulary.display import fenced, markdown
from onnxport.vocabulary.notes import _notes

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.export import ExportedProgram

    from onnxport.capture.arguments import Interface
    from onnxport.translate.walk import Translated
    from onnxport.verify import VerificationResult

logger = logging.getLogger("onnxport")
_ORIGINAL = "pkg.torch.onnx.original_node_name"
_OUTPUT = "pkg.torch.export.graph_signature.OutputSpec"


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
        notes: what plugins said by :func:`note`.
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
    notes: list[str] = field(default_factory=list)
    verification: VerificationResult | None = None
    error: BaseException | None = None

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
                print(plain(f"[onnxport]   input {name or path}: {kind} {rest}"))
            for condition, line in self.interface.limits.items():
                print(plain(f"[onnxport]   only where {condition}{f' ({line})' if line else ''}"))
            print(plain(f"[onnxport]   outputs: {', '.join(self.interface.outputs)}"), flush=True)

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

        with self._writing("captured program"):
            path = self._path("pt2")
            torch.export.save(program, path)
        logger.info("captured program saved to %s", path)

    def write(self, *, report: bool, profile: bool, shown: bool = True) -> None:
        """Write ``onnx_export_<time>_<outcome>.md`` and its JSON twin, and ``onnx_export_<time>_profile.md``.

        The names are those that torch's exporter gives: outcomes are ``success``, or what failed: ``pt_export``,
        ``decomp``, ``conversion``, ``checker``, ``runtime``, ``accuracy``; and here ``save``. A profile without a
        report is printed too, if ``shown``.

        Raises:
            SaveError: the artifacts folder can't be written.
        """
        try:
            with self._writing("report"):
                if report:
                    self._path("md", self.outcome).write_text(self.markdown(), "utf-8")
                    self._path("json", self.outcome).write_text(json.dumps(self.as_dict(), indent=2), "utf-8")
                if profile:
                    self._path("md", "profile").write_text(f"# onnxport profile\n\n{self._stage_table()}\n", "utf-8")
                    if shown and not report and self.error is None:
                        print(f"Profile result:\n{self._stage_table()}", flush=True)
        except SaveError as error:
            if self.error is None:
                raise
            logger.warning("%s", error)  # the export's own error is the one to see

    @property
    def outcome(self) -> str:
        """What the export came to, as torch's exporter has it in the name of its report."""
        if self.error is None:
            return "success"
        found = self.verification
        if found is not None and not found.passed:
            if found.checker:
                return "checker"
            return "runtime" if any(comparison.error for comparison in found.comparisons) else "accuracy"
        if getattr(self.error, "refusals", None):
            return "conversion"
        stage = self.stages[-1].name if self.stages else "capture"
        return {"capture": "pt_export", "functionalize": "decomp", "save": "save"}.get(stage, "conversion")

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SaveError(
                f"The {what} can't be written to {self.artifacts}: {error}. Give another artifacts_dir.",
                path=str(self.artifacts),
            ) from error

    def _path(self, suffix: str, ending: str = "") -> Path:
        self.artifacts.mkdir(parents=True, exist_ok=True)
        if not hasattr(self, "_stamp"):  # to the microsecond: exports in several threads write beside each other
            self._stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
        return self.artifacts / f"onnx_export_{self._stamp}{'_' if ending else ''}{ending}.{suffix}"

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON takes it. What did not run is null."""
        translated, error = self.translated, self.error
        refusals = error.refusals if isinstance(error, UnsupportedOperatorsError) else []
        served = sorted(translated.served.items()) if translated is not None else []
        return {
            "succeeded": error is None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "versions": versions(),
            "opset": None if translated is None else translated.model.opset_imports.get(""),
            "stages": [{"name": s.name, "seconds": s.seconds, "peak_growth_bytes": s.peak_growth} for s in self.stages],
            "inputs": self._inputs(),
            "outputs": self._outputs(),
            "conditions_on_sizes": {} if self.interface is None else self.interface.limits,
            "baked_constants": {leaf["path"]: leaf["value"] for leaf in self._inputs() if leaf["kind"] == "baked"},
            "second_trace": self.fallback,
            "dropped_assertions": list(self.dropped_assertions),
            "operators_before_passes": dict(self.nodes_before),
            "operators_after_passes": dict(self.nodes_after),
            "passes": self.passes,
            "notes": self.notes,
            "translations": [
                {"operator": operator, "translation": function, "plugin": plugin, "nodes": count}
                for (operator, function, plugin), count in served
            ],
            "decomposed": {} if translated is None else dict(translated.decomposed),
            "functions": [] if translated is None else [vars(use) for use in translated.functions],
            "kept_inline": {} if translated is None else translated.inlined,
            "refusals": [vars(refusal) for refusal in refusals],
            "verification": None if self.verification is None else self.verification.as_dict(),
        }

    def markdown(self) -> str:
        """The record for people. A check that did not run is said not to have run."""
        data = self.as_dict()
        counts = [
            [name, str(self.nodes_before.get(name, 0)), str(self.nodes_after.get(name, 0))]
            for name in sorted({*self.nodes_before, *self.nodes_after})
        ]
        used = [[t["operator"], t["translation"], t["plugin"], str(t["nodes"])] for t in data["translations"]]
        refused = "\n\n".join(fenced(refusal) for refusal in getattr(self.error, "refusals", []))
        sections = {
            "Checks": "\n".join(f"- {name}: {markdown(result)}" for name, result in self._checks()),
            "Stages": self._stage_table(),
            "Inputs": _table(
                ["name", "path", "kind", "dtype", "shape", "value or dynamic axes"], self._input_rows(full=True)
            ),
            "Outputs": _table(
                ["name", "path", "kind", "dtype", "shape"],
                [[o["name"], o["path"], o["kind"], o["dtype"], o["shape"]] for o in data["outputs"]],
            ),
            "Conditions on sizes": _table(
                ["condition", "asked by"],
                [[text, line or "an operator"] for text, line in data["conditions_on_sizes"].items()],
            ),
            "ONNX operators": _table(["operator", "before passes", "after"], counts),
            "Translations used": _table(["torch operator", "translation", "plugin", "nodes"], used),
            "Decomposed operators": _table(
                ["torch operator", "nodes"], [[k, str(v)] for k, v in data["decomposed"].items()]
            ),
            "Functions": _table(
                ["function", "class", "nodes", "calls"],
                [[f["name"], f["module"], str(f["nodes"]), ", ".join(f["calls"])] for f in data["functions"]],
            ),
            "Calls kept inline": _table(["call", "reason"], [list(item) for item in data["kept_inline"].items()]),
            "Refusals": refused or "None.",
            "Baked constants": _table(["argument", "value"], [list(item) for item in data["baked_constants"].items()]),
            "Dropped assertions": "\n".join(f"- {markdown(text)}" for text in self.dropped_assertions) or "None.",
            "Notes": "\n".join(f"- {markdown(text)}" for text in self.notes) or "None.",
            "Passes": _table(["pass", "changes"], [[name, str(count)] for name, count in self.passes.items()]),
            "Verification": "Not run." if self.verification is None else self.verification.table(),
            "Versions": _table(["package", "version"], [list(item) for item in data["versions"].items()]),
        }
        outcome = "Succeeded." if data["succeeded"] else f"Failed:\n\n{fenced(data['error'])}"
        if self.fallback:
            outcome += f"\n\nThe program was traced a second time: {markdown(self.fallback)}"
        body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
        return f"# onnxport report\n\n{outcome}\n\n{body}\n"

    def _checks(self) -> list[tuple[str, str]]:
        """What was checked, and how it came out."""
        done = {stage.name for stage in self.stages}
        failed = self.stages[-1].name if self.error is not None and self.stages else ""
        rows = [
            (name, "not run" if name not in done else "failed" if name == failed else "ok")
            for name in ("capture", "functionalize", "translate", "optimize")
        ]
        if self.error is not None and getattr(self.error, "refusals", None):
            rows = [(name, "failed" if name == "translate" else result) for name, result in rows]
        found = self.verification
        rows.append(
            ("onnx.checker", "not run" if found is None else f"failed: {found.checker}" if found.checker else "ok")
        )
        rows.append(("numbers", "not run" if found is None else "ok" if found.numbers_passed else "failed"))
        return rows

    def _stage_table(self) -> str:
        rows = [[s.name, f"{s.seconds:.3f}", f"{s.peak_growth / 2**20:.1f}"] for s in self.stages]
        return _table(["stage", "seconds", "peak memory growth (MiB)"], rows)

    def _input_rows(self, full: bool = False) -> list[list[str]]:
        return [
            [leaf["name"] or "", leaf["path"], leaf["kind"]]
            + ([leaf["dtype"], leaf["shape"]] if full else [])
            + [str(leaf["value"] if leaf["kind"] == "baked" else leaf["axes"])]
            for leaf in self._inputs()
        ]

    def _inputs(self) -> list[dict[str, Any]]:
        """All leaves of the inputs, with what the graph has for them."""
        if self.interface is None:
            return []
        graph = None if self.translated is None else self.translated.model.graph
        values = {value.metadata_props.get(_ORIGINAL): value for value in (graph.inputs if graph is not None else ())}
        return [{**_leaf(leaf), **_typed(values.get(leaf.placeholder))} for leaf in self.interface.inputs]

    def _outputs(self) -> list[dict[str, Any]]:
        """The outputs in their order, those of changed buffers and inputs last."""
        if self.interface is None:
            return []
        if self.translated is None:
            return [{"name": name, "path": "", "kind": "", "dtype": "", "shape": ""} for name in self.interface.outputs]
        paths = dict(zip(self.interface.outputs, self.interface.output_paths))
        return [
            {
                "name": str(value.name),
                "path": paths.get(str(value.name), value.metadata_props.get(f"{_OUTPUT}.target", "")),
                "kind": value.metadata_props.get(f"{_OUTPUT}.kind", ""),
                **_typed(value),
            }
            for value in self.translated.model.graph.outputs
        ]


@functools.cache
def versions() -> dict[str, str]:
    """The versions of what an export depends on."""
    packages = ("onnxport", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib_metadata.PackageNotFoundError):
            found[package] = importlib_metadata.version(package)
    return found


def _typed(value: ir.Value | None) -> dict[str, str]:
    if value is None:
        return {"dtype": "", "shape": ""}
    shape = "?" if value.shape is None else f"[{', '.join(str(dim) for dim in value.shape)}]"
    return {"dtype": "" if value.dtype is None else value.dtype.name.lower(), "shape": shape}


def _leaf(leaf: Any) -> dict[str, Any]:
    axes = {str(axis): str(name) for axis, name in (leaf.axes or {}).items()}
    return {"name": leaf.name, "path": leaf.path, "kind": leaf.kind, "value": repr(leaf.value), "axes": axes}


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(markdown, line)) + " |" for line in lines)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
