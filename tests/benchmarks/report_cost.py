"""What metadata and the report cost: export and save with ``metadata="full", report=True`` against ``"none"``.

The two alternate in one process, and the median of the pairs' ratios is printed. The limit is 10 % of export time, that
is of a call of ``onnxport.export`` with a module, capture included; the ratio without the capture is printed beside it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from subjects import SUBJECTS, captured, llama

LIMIT = 0.10
_NAMES = ("resnet50", "vit_b_16", "bert", "llama24")


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, garbage of others collected before."""
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> int:
    """Print a line for each subject; 1 if one exceeds the limit."""
    import onnxport

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("subjects", nargs="*", default=_NAMES)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    status = 0
    for name in options.subjects:
        subject = llama(24) if name == "llama24" else SUBJECTS[name]()
        model, args, kwargs, shapes = subject
        program = captured(subject)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"

            def plain(program=program, path=path) -> None:
                onnxport.export(program, (), path, metadata="none")

            def full(program=program, path=path, folder=folder) -> None:
                onnxport.export(program, (), path, metadata="full", report=True, profile=True, artifacts_dir=folder)

            plain(), full()
            pairs = [(seconds(plain), seconds(full)) for _ in range(options.repeats)]
        start = time.perf_counter()
        onnxport.export(model, args, kwargs=kwargs, dynamic_shapes=shapes, metadata="none")
        whole = time.perf_counter() - start
        cost = statistics.median(b - a for a, b in pairs)
        alone = statistics.median(b / a for a, b in pairs) - 1
        status |= cost / whole > LIMIT
        print(
            f"{name:10} metadata and report {cost * 1000:.0f} ms: {cost / whole:.1%} of the export ({whole:.2f} s), "
            f"{alone:.1%} of translation and save ({statistics.median(a for a, _ in pairs):.2f} s)",
            flush=True,
        )
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
