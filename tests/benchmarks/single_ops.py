"""Export time of single-op programs over torch's operator database: median and 95th percentile, and torch's exporter.

``python tests/benchmarks/single_ops.py [--every N] [--against M]`` takes every N-th operator (default 1), float32, one
sample each, and exports every M-th of those (default 16, 0 for none) by torch's exporter as well. Both start from one
``ExportedProgram``, so the capture isn't counted. Times are those of the process (one thread), in milliseconds, so that
other work on the machine doesn't count; each program is exported once before it is timed.

A program is *direct* when one translation served it; the others go through a decomposition or several operators.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from export_time import torch_export

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

import onnxport
from grid import _translations, cases, name_of, operators

_REPEATS = 3


def _milliseconds(function: Callable[[Any], Any], program: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function(program)
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


def _print(name: str, times: list[float]) -> None:
    if len(times) > 1:
        middle, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(f"{name:24} {len(times):4} programs: median {middle:.2f} ms, 95th percentile {high:.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--against", type=int, default=16)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    gc.freeze()  # what torch's modules hold is no work of an export
    direct: list[tuple[float, str]] = []
    others: list[tuple[float, str]] = []
    theirs: list[float] = []
    ratios: list[float] = []
    for place, entry in enumerate(operators()[:: options.every]):
        if torch.float32 not in entry.supported_dtypes("cpu"):
            continue
        for case in cases(entry, "float32", 1):
            try:
                program = torch.export.export(case.module, tuple(case.tensors), strict=False)
                proto = onnxport.export(program).model_proto
            except Exception as error:
                print(f"left out: {case.name}: {type(error).__name__}", file=sys.stderr)
                continue
            own = _milliseconds(onnxport.export, program, _REPEATS)
            (direct if len(_translations(proto)) <= 1 else others).append((own, name_of(entry)))
            if not options.against or place % options.against:
                continue
            try:
                torch_export(program)
                theirs.append(_milliseconds(torch_export, program, 1))
            except Exception as error:
                print(f"torch's exporter fails: {case.name}: {type(error).__name__}", file=sys.stderr)
                continue
            ratios.append(theirs[-1] / own)
    _print("onnxport, direct", [milliseconds for milliseconds, _ in direct])
    _print("onnxport, others", [milliseconds for milliseconds, _ in others])
    _print("onnxport, all", [milliseconds for milliseconds, _ in direct + others])
    _print("torch.onnx.export", theirs)
    if ratios:
        print(f"torch / onnxport, the same programs: median {statistics.median(ratios):.0f}")
    for name, found in (("direct", direct), ("others", others)):
        print(f"slowest {name}:", ", ".join(f"{op} {ms:.1f}" for ms, op in sorted(found, reverse=True)[:10]))


if __name__ == "__main__":
    main()
