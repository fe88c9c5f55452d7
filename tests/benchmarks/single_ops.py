"""Export time of single-op programs over torch's operator database: median and 95th percentile, and torch's exporter.

``python tests/benchmarks/single_ops.py [--every N]`` takes every N-th operator (default 8), float32, one sample each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from export_time import torch_export

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

import onnxport
from grid import cases, operators


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    own: list[float] = []
    theirs: list[float] = []
    ratios: list[float] = []
    for entry in operators()[:: options.every]:
        if torch.float32 not in entry.supported_dtypes("cpu"):
            continue
        for case in cases(entry, "float32", 1):
            try:
                program = torch.export.export(case.module, tuple(case.tensors), strict=False)
                onnxport.export(program)
            except Exception as error:
                print(f"left out: {case.name}: {type(error).__name__}", file=sys.stderr)
                continue
            start = time.perf_counter()
            onnxport.export(program)
            own.append((time.perf_counter() - start) * 1e3)
            try:
                torch_export(program)
                start = time.perf_counter()
                torch_export(program)
            except Exception as error:
                print(f"torch's exporter fails: {case.name}: {type(error).__name__}", file=sys.stderr)
                continue
            theirs.append((time.perf_counter() - start) * 1e3)
            ratios.append(theirs[-1] / own[-1])
    for name, times in (("onnxport", own), ("torch", theirs)):
        if times:
            middle, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
            print(f"{name:9} {len(times)} programs: median {middle:.1f} ms, 95th percentile {high:.1f} ms")
    print(f"ratio of the same programs: median {statistics.median(ratios):.0f}")


if __name__ == "__main__":
    main()
