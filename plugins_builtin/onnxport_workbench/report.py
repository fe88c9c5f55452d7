"""Pages of an export: markdown and HTML for people, and JSON; made only when asked for."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import importlib_metadata
import onnxport
from onnxport import SaveError, UnsupportedOperatorsError
from onnxport.kit import counted, fenced, keys, markdown

from onnxport_workbench.latency import Latencies, Nodes, measured
from onnxport_workbench.report_parts import (
    folded,
    given_inputs,
    graph_text,
    model_of,
    options_of,
    relative,
    skeletons,
)
from onnxport_workbench.view.reading import contents_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from onnxport.kit import Run


logger = logging.getLogger("onnxport")

_MOST_NODES = 20


@dataclass
class Report:
    """The pages of one export.

    Args:
        run: what happened during it.
    """

    _run: Run
    _latencies: Latencies | str = "Not measured: export with report=True and profile=True."

    def write(self, *, report: bool, profile: bool, shown: bool = True) -> list[Path]:
        """Write ``onnx_export_<time>_<outcome>.md`` and its JSON twin, and ``onnx_export_<time>_profile.md``.

        Where there is a whole model, be it verified or not, ``onnx_export_<time>_<outcome>.html`` shows it.

        The names are those that torch's exporter gives: outcomes are ``success``, or what failed: ``pt_export``,
        ``decomp``, ``conversion``, ``checker``, ``runtime``, ``accuracy``; and here ``save``. A profile without a
        report is printed too, if ``shown``. With both, the model is run on onnxruntime, and the report and the page
        tell the time of each node.

        Returns:
            The files that were written.

        Raises:
            SaveError: the artifacts folder can't be written.
        """
        written: list[Path] = []

        def put(suffix: str, ending: str, text: str) -> None:
            path = self._run.path(suffix, ending)
            path.write_text(text, "utf-8")
            written.append(path)

        try:
            with self._run.writing("report"):
                if report and profile:
                    self._latencies = self._measured()
                if report:
                    put("md", self.outcome, self.markdown())
                    put("json", self.outcome, json.dumps(self.as_dict(), indent=2))
                    if self._run.error is None or self._run.nodes_after:  # counted when the model is complete
                        put("html", self.outcome, self.html())
                if profile:
                    put("md", "profile", f"# onnxport profile\n\n{self._stage_table()}\n")
                    if shown and not report and self._run.error is None:
                        print(f"Profile result:\n{self._stage_table()}", flush=True)
        except SaveError as error:
            if self._run.error is None:
                raise
            logger.warning("%s", error)  # the export's own error is the one to see
        return written

    @property
    def outcome(self) -> str:
        """What the export came to, as torch's exporter has it in the name of its report."""
        if self._run.error is None:
            return "success"
        found = self._run.verification
        if found is not None and not found.passed:
            if found.checker:
                return "checker"
            return "runtime" if any(comparison.error for comparison in found.comparisons) else "accuracy"
        if getattr(self._run.error, "refusals", None):
            return "conversion"
        stage = self._run.stages[-1].name if self._run.stages else "capture"
        return {"capture": "pt_export", "functionalize": "decomp", "save": "save"}.get(stage, "conversion")

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON takes it. What did not run is null."""
        translated, error = self._run.translated, self._run.error
        refusals = error.refusals if isinstance(error, UnsupportedOperatorsError) else []
        served = sorted(translated.served.items()) if translated is not None else []
        dtype, quantized = (self._run.conversions.get(name) for name in ("dtype", "quantize"))
        return {
            "succeeded": error is None,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "model": model_of(self._run),
            "options": options_of(self._run, _defaults()),
            "given_inputs": given_inputs(self._run),
            "versions": versions(),
            "opset": None if translated is None else translated.model.opset_imports.get(""),
            "stages": [
                {"name": s.name, "seconds": s.seconds, "peak_growth_bytes": s.peak_growth} for s in self._run.stages
            ],
            "inputs": self._inputs(),
            "outputs": self._outputs(),
            "conditions_on_sizes": {} if self._run.captured is None else dict(self._run.captured.limits),
            "baked_constants": {leaf["path"]: leaf["value"] for leaf in self._inputs() if leaf["kind"] == "baked"},
            "second_trace": self._run.fallback,
            "dropped_assertions": list(self._run.dropped_assertions),
            "operators_before_passes": dict(self._run.nodes_before),
            "operators_after_passes": dict(self._run.nodes_after),
            "passes": self._run.passes,
            "notes": self._run.notes,
            "translations": [
                {"operator": operator, "translation": function, "plugin": plugin, "nodes": count}
                for (operator, function, plugin), count in served
            ],
            "decomposed": {} if translated is None else dict(translated.decomposed),
            "functions": [] if translated is None else [vars(use) for use in translated.functions],
            "kept_inline": {} if translated is None else translated.inlined,
            "refusals": [vars(refusal) for refusal in refusals],
            "dtype": None if dtype is None else dtype.as_dict(),
            "quantization": None if quantized is None else quantized.as_dict(),
            "verification": None if self._run.verification is None else self._run.verification.as_dict(),
            "latency": None if isinstance(self._latencies, str) else self._latencies.as_dict(),
        }

    def _measured(self) -> Latencies | str:
        """The times of the nodes on onnxruntime; why there are none, where the model can't be run here."""
        program = self._run.program
        if program is None or self._run.captured is None or self._run.error is not None:
            return "Not measured: the export failed."
        args, kwargs = self._run.captured.program.example_inputs or ((), {})
        try:
            found = measured(program, args, kwargs)
        except Exception as error:  # of onnxruntime or of what it lacks; the export itself is done
            return f"Not measured: {type(error).__name__}: {markdown(str(error))}"
        nodes = Nodes(contents_of(program.model))
        found.kernels = [nodes.told(kernel) for kernel in found.kernels]
        return found

    def markdown(self) -> str:
        """The record for people. A check that did not run is said not to have run."""
        data = self.as_dict()
        dtype, quantized = (self._run.conversions.get(name) for name in ("dtype", "quantize"))
        counts = [
            [name, str(self._run.nodes_before.get(name, 0)), str(self._run.nodes_after.get(name, 0))]
            for name in sorted({*self._run.nodes_before, *self._run.nodes_after})
        ]
        used = [[t["operator"], t["translation"], t["plugin"], str(t["nodes"])] for t in data["translations"]]
        refused = "\n\n".join(fenced(relative(str(refusal))) for refusal in getattr(self._run.error, "refusals", []))
        graph = graph_text(self._run)
        inputs = self._input_rows(full=True)
        sections = {
            "Model": self._model(data["model"]),
            "Options": _table(["option", "value"], [list(item) for item in data["options"].items()]),
            "Checks": "\n".join(f"- {name}: {markdown(result)}" for name, result in self._checks()),
            "Stages": self._stage_table(),
            "Inputs": _table(["name", "path", "kind", "dtype", "shape", "value or dynamic axes"], inputs)
            if inputs
            else _table(
                ["path", "dtype", "shape", "value"],
                [[i["path"], i["dtype"], i["shape"], i["value"]] for i in data["given_inputs"]],
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
            **self._skeletons(),
            "Baked constants": _table(["argument", "value"], [list(item) for item in data["baked_constants"].items()]),
            "Dropped assertions": "\n".join(f"- {markdown(text)}" for text in self._run.dropped_assertions) or "None.",
            "Notes": "\n".join(f"- {markdown(text)}" for text in self._run.notes) or "None.",
            "Passes": _table(["pass", "changes"], [[name, str(count)] for name, count in self._run.passes.items()]),
            "Half precision": "Not asked for." if dtype is None else dtype.table(),
            "Quantization": "Not asked for." if quantized is None else quantized.table(),
            "Verification": "Not run." if self._run.verification is None else self._run.verification.table(),
            **self._slowest(),
            "Captured graph": folded("The graph that was translated", graph) if graph else "None.",
            "Versions": _table(["package", "version"], [list(item) for item in data["versions"].items()]),
        }
        outcome = "Succeeded." if data["succeeded"] else f"Failed:\n\n{fenced(relative(data['error']))}"
        if self._run.fallback:
            outcome += f"\n\nThe program was traced a second time: {markdown(self._run.fallback)}"
        body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
        return f"# onnxport report\n\n{outcome}\n\n{body}\n"

    def _model(self, model: dict[str, Any]) -> str:
        """The class of the model, and its weights."""
        rows = [[w["dtype"], str(w["tensors"]), f"{w['elements']:,}", f"{w['bytes']:,}"] for w in model["weights"]]
        rows += [["all", *(f"{sum(w[key] for w in model['weights']):,}" for key in ("tensors", "elements", "bytes"))]]
        mode = ", in training mode" if model["training"] else ""
        title = f"`{markdown(model['class'])}`{mode}\n\n" if model["class"] else ""
        return title + _table(["parameters and buffers", "tensors", "elements", "bytes"], rows)

    def _slowest(self) -> dict[str, str]:
        """The sections with the operators and nodes that take longest on onnxruntime."""
        found = self._latencies
        if isinstance(found, str):
            return {"Slowest operators": found}
        whole = found.seconds or 1.0
        operators = [
            [name, str(nodes), _milliseconds(time), f"{time / whole:.1%}"] for name, nodes, time in found.by_operator
        ]
        nodes = [
            [k.node or k.name, k.operator, k.torch_operator, k.module, k.source, _milliseconds(k.seconds)]
            for k in found.kernels[:_MOST_NODES]
        ]
        providers = ", ".join(sorted({kernel.provider for kernel in found.kernels}))
        told = (
            f"Medians of {counted(found.runs, 'run')} on onnxruntime ({providers}), which fuses nodes. All nodes: "
            f"{_milliseconds(whole)} ms."
        )
        return {
            "Slowest operators": f"{told}\n\n{_table(['operator', 'nodes', 'ms', 'of all'], operators)}",
            "Slowest nodes": _table(["node", "operator", "torch operator", "module", "source", "ms"], nodes),
        }

    def _skeletons(self) -> dict[str, str]:
        """A section with a translation to start from for each operator that was refused; none without one."""
        targets = [refusal.target for refusal in getattr(self._run.error, "refusals", [])]
        if not targets:
            return {}
        how = "Write what computes the operator, and pass it in `custom_translation_table`, or publish it as a pack."
        return {"Translations to write": f"{how}\n\n{skeletons(targets)}"}

    def html(self) -> str:
        """The page that shows the model, with what was verified."""
        from onnxport_workbench.view import page_of  # which needs the verification, and so onnxruntime

        found, times = self._run.verification, self._latencies
        return page_of(
            self._run.translated.model,  # type: ignore[union-attr]
            "",
            verification=None if found is None else found.as_dict(),
            latencies=None if isinstance(times, str) else times.by_name,
        )

    def _checks(self) -> list[tuple[str, str]]:
        """What was checked, and how it came out."""
        done = {stage.name for stage in self._run.stages}
        failed = self._run.stages[-1].name if self._run.error is not None and self._run.stages else ""
        rows = [
            (name, "not run" if name not in done else "failed" if name == failed else "ok")
            for name in ("capture", "functionalize", "translate", "optimize")
        ]
        if self._run.error is not None and getattr(self._run.error, "refusals", None):
            rows = [(name, "failed" if name == "translate" else result) for name, result in rows]
        found = self._run.verification
        rows.append(
            ("onnx.checker", "not run" if found is None else f"failed: {found.checker}" if found.checker else "ok")
        )
        rows.append(("numbers", "not run" if found is None else "ok" if found.numbers_passed else "failed"))
        return rows

    def _stage_table(self) -> str:
        rows = [[s.name, f"{s.seconds:.3f}", f"{s.peak_growth / 2**20:.1f}"] for s in self._run.stages]
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
        if self._run.captured is None:
            return []
        graph = None if self._run.translated is None else self._run.translated.model.graph
        values = {value.metadata_props.get(keys.ORIGIN): value for value in (graph.inputs if graph is not None else ())}
        return [{**_leaf(leaf), **_typed(values.get(leaf.placeholder))} for leaf in self._run.captured.interface.inputs]

    def _outputs(self) -> list[dict[str, Any]]:
        """The outputs in their order, those of changed buffers and inputs last."""
        if self._run.captured is None:
            return []
        if self._run.translated is None:
            names = self._run.captured.interface.outputs
            return [{"name": name, "path": "", "kind": "", "dtype": "", "shape": ""} for name in names]
        paths = dict(zip(self._run.captured.interface.outputs, self._run.captured.interface.output_paths))
        return [
            {
                "name": str(value.name),
                "path": paths.get(str(value.name), value.metadata_props.get(keys.OUTPUT_TARGET, "")),
                "kind": value.metadata_props.get(keys.OUTPUT_KIND, ""),
                **_typed(value),
            }
            for value in self._run.translated.model.graph.outputs
        ]


@functools.cache
def _defaults() -> dict[str, Any]:
    """The defaults of the parameters of ``export``."""
    return {name: each.default for name, each in inspect.signature(onnxport.export).parameters.items()}


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


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(markdown, line)) + " |" for line in lines)
