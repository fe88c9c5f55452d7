"""Export time, node count and onnxruntime latency against ``torch.onnx.export``, on the same ExportedProgram.

``python tests/benchmarks/export_time.py [resnet50 …] [--no-latency]``; both exporters run twice, the second run counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime
import torch
from subjects import SUBJECTS, captured


def timed(function: Any, repeat: int = 2) -> tuple[float, Any]:
    """Seconds of the last of ``repeat`` calls, and its result."""
    seconds, result = 0.0, None
    for _ in range(repeat):
        result = None
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
    return seconds, result


def torch_export(program: torch.export.ExportedProgram) -> Any:
    """torch's exporter, quiet."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(program, dynamo=True, verbose=False)


def latencies(programs: list[Any], feeds: dict[str, Any], runs: int = 30) -> list[float]:
    """Median milliseconds of each program, run in turn on two threads."""
    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for i, program in enumerate(programs):
            path = Path(folder) / f"{i}.onnx"
            program.save(path, external_data=True)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 2
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        times: list[list[float]] = [[] for _ in sessions]
        for run in range(runs + 3):
            for i, session in enumerate(sessions):
                given = dict(zip((x.name for x in session.get_inputs()), feeds.values(), strict=True))
                start = time.perf_counter()
                session.run(None, given)
                if run >= 3:
                    times[i].append((time.perf_counter() - start) * 1e3)
    return [statistics.median(t) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS))
    parser.add_argument("--no-latency", action="store_true")
    options = parser.parse_args()
    print(
        "model       capture  torch s  onnxport s  ratio  of capture  nodes torch/onnxport  latency torch/onnxport ms"
    )
    for name in options.subjects:
        subject = SUBJECTS[name]()
        capture_seconds, program = timed(lambda subject=subject: captured(subject), repeat=1)
        torch_seconds, theirs = timed(lambda program=program: torch_export(program))
        own_seconds, ours = timed(lambda program=program: onnxport.export(program))
        nodes = [len(list(p.model.graph.all_nodes())) for p in (theirs, ours)]
        line = (
            f"{name:11} {capture_seconds:7.2f} {torch_seconds:8.2f} {own_seconds:11.3f}"
            f" {torch_seconds / own_seconds:6.1f} {own_seconds / capture_seconds:11.3f}  {nodes[0]:8}/{nodes[1]}"
        )
        if not options.no_latency:
            _, args, kwargs, _ = subject
            feeds = {str(i): t.numpy() for i, t in enumerate([*args, *kwargs.values()])}
            before, after = latencies([theirs, ours], feeds)
            line += f"             {before:8.2f}/{after:.2f} ({after / before:.3f})"
        print(line, flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
