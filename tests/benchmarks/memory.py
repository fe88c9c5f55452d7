"""Peak memory growth of export and save of a 1.5 GB model, and save time against plain writes of the same bytes.

Every figure is taken in a process of its own, from ``getrusage``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn


class Wide(nn.Module):
    """Square linear layers of 16 MiB each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2048, 2048) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(exporter: str, layers: int) -> None:
    """In this process: export and save, and print what it took."""
    import onnxport

    model = Wide(layers).eval()
    weights = sum(p.nbytes for p in model.parameters())
    program = torch.export.export(model, (torch.randn(2, 2048),), strict=False)
    small = torch.export.export(Wide(1).eval(), (torch.randn(2, 2048),), strict=False)
    export = onnxport.export if exporter == "onnxport" else lambda p: torch.onnx.export(p, dynamo=True, verbose=False)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        export(small).save(Path(folder) / "warm.onnx", external_data=True)
        before = peak()
        exported = export(program)
        start = time.perf_counter()
        exported.save(Path(folder) / "model.onnx", external_data=True)
        saved = time.perf_counter() - start
        growth = peak() - before
        start = time.perf_counter()
        with open(Path(folder) / "plain.bin", "wb", buffering=0) as file:
            for parameter in model.parameters():
                data = memoryview(parameter.detach().numpy()).cast("B")
                while data:
                    data = data[file.write(data) :]
        plain = time.perf_counter() - start
    print(
        f"{exporter:9} weights {weights / 2**20:.0f} MiB, peak growth {growth / 2**20:.1f} MiB "
        f"({growth / weights:.4f} of the weights), save {saved:.2f} s, plain writes {plain:.2f} s ({saved / plain:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", default=None)
    parser.add_argument("--layers", type=int, default=96)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.layers)
        return
    for exporter in ("onnxport", "torch"):
        subprocess.run([sys.executable, __file__, "--measure", exporter, "--layers", str(options.layers)], check=True)


if __name__ == "__main__":
    main()
