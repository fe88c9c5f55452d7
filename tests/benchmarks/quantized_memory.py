"""Peak memory of export and save of a 1.5 GB model in 4 and 8 bits, over that of the plain export.

Every figure is taken in a process of its own, from ``getrusage``. The limit is one weight (16 MiB here) plus 64 MiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from memory import Wide, peak


def measure(quantize: str | None, layers: int) -> None:
    """In this process: export and save, and print the peak in bytes, the seconds, and the size of the files."""
    import onnxport

    model = Wide(layers).eval()
    x = torch.randn(2, 2048)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        onnxport.export(Wide(1).eval(), (x,), Path(folder) / "warm.onnx", quantize=quantize)
        start = time.perf_counter()
        onnxport.export(model, (x,), Path(folder) / "model.onnx", quantize=quantize)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).glob("model.onnx*"))
    print(peak(), seconds, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", default=None)
    parser.add_argument("--layers", type=int, default=96)
    options = parser.parse_args()
    if options.measure:
        measure(None if options.measure == "plain" else options.measure, options.layers)
        return
    plain = 0.0
    for kind in ("plain", "int4", "uint4", "int8"):
        command = [sys.executable, __file__, "--measure", kind, "--layers", str(options.layers)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peak, seconds, size = (float(number) for number in printed[-3:])
        plain = plain or peak
        print(
            f"{kind:6} peak {peak / 2**20:.0f} MiB ({(peak - plain) / 2**20:+.1f} MiB over the plain one), "
            f"{seconds:.1f} s, files of {size / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
