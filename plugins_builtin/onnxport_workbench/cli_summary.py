"""What is told of an export that succeeded, and of a verification: for people, in 80 columns, and as JSON types."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxport.kit import counted
from rich.console import Console
from rich.table import Column, Table

from onnxport_workbench.shown import shown_bytes

if TYPE_CHECKING:
    from onnxport import ONNXProgram, VerificationResult

    from onnxport_workbench.observing import Seen


def table_of(*names: str) -> Table:
    """A table as wide as the console at most, which cuts nothing off."""
    columns = [Column(name, overflow="fold") for name in names]
    return Table(*columns, box=None, pad_edge=False)


def summary_of(program: ONNXProgram, path: Path) -> dict[str, Any]:
    """What an exported file has."""
    graph = program.model.graph
    weights = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return {
        "output": str(path),
        "opset": graph.opset_imports[""],
        "nodes": sum(1 for _ in graph.all_nodes()),
        "functions": {function.name: len(function) for function in program.model.functions.values()},
        "initializers": len(graph.initializers),
        "bytes": sum(weight.nbytes for weight in weights),
        "inputs": {str(value.name): _described(value) for value in graph.inputs},
        "outputs": {str(value.name): _described(value) for value in graph.outputs},
    }


def what_was_seen(seen: Seen, profile: bool = False) -> dict[str, Any]:
    """What was verified, where the report is, and the stages of a profile; None for what wasn't asked for."""
    found = None if seen.run is None else seen.run.verification
    return {
        "verification": None if found is None else found.as_dict(),
        "report": [str(page) for page in seen.pages] or None,
        "stages": None if seen.run is None or not profile else [asdict(stage) for stage in seen.run.stages],
    }


def print_summary(console: Console, summary: dict[str, Any], verification: VerificationResult | None) -> None:
    """Print what :func:`summary_of` and :func:`what_was_seen` give."""
    size = shown_bytes(summary["bytes"])
    console.print(f"{summary['output']}: opset {summary['opset']}, {counted(summary['nodes'], 'node')}, weights {size}")
    for function, nodes in summary["functions"].items():
        console.print(f"  function {function}: {counted(nodes, 'node')}")
    for kind in ("inputs", "outputs"):
        for name, text in summary[kind].items():
            console.print(f"  {kind[:-1]:6} {name}: {text}")
    if verification is not None:
        console.print("Verified against torch:")
        print_verification(console, verification)
    if summary["stages"] is not None:
        table = table_of("stage", "seconds", "peak memory growth")
        for stage in summary["stages"]:
            table.add_row(stage["name"], f"{stage['seconds']:.3f}", shown_bytes(stage["peak_growth"]))
        console.print(table)
    for page in summary["report"] or ():
        console.print(f"report: {page}")


def print_verification(console: Console, result: VerificationResult) -> None:
    """Print what was compared and how it came out, a line an output; all numbers are in ``result.table()``."""
    table = table_of("inputs", "output", "dtype", "shape", "max abs", "result")
    for one in result.comparisons:
        if one.skipped or one.error:
            reason = f"not run: {one.skipped}" if one.skipped else f"FAILED: {one.error}"
            table.add_row(one.label, "", "", "", "", reason.splitlines()[0])
        for out in one.outputs:
            outcome = f"FAILED: {out.problem}" if out.problem else "ok"
            table.add_row(one.label, out.name, out.dtype, str(out.shape), f"{out.max_abs:.1e}", outcome)
    console.print(table)
    console.print(f"onnx.checker: {result.checker or 'ok'}")
    if result.reference:
        console.print(result.reference)
    if result.weights.problem:
        console.print(f"weights: {result.weights.problem}")
    if result.rounding is not None:
        console.print(result.rounding.table())
    for out in () if result.original is None else result.original.outputs:
        console.print(f"{out.name}, against the original: max abs {out.max_abs:.1e}, relative {out.relative:.1e}")


def _described(value: Any) -> str:
    shape = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.dtype}[{shape}]"


__all__ = ["print_summary", "print_verification", "summary_of", "table_of", "what_was_seen"]
