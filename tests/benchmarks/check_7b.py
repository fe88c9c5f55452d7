"""``onnxport.check`` on a Llama of 7 billion parameters under fake tensors: peak memory, and time against capture's.

Limits: under 2 GiB for the whole process, its imports included, and under twice the time of ``torch.export.export``.
Each figure is taken in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

MEMORY_LIMIT = 2 * 2**30
TIME_LIMIT = 2.0
_DYNAMIC = torch.export.Dim.DYNAMIC


def subject() -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, Any]]:
    """The model with its keyword inputs and dynamic dimensions; under the fake mode that is active."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(use_cache=False)).eval()  # the defaults are those of the 7B model
    ids = torch.ones(2, 16, dtype=torch.int64)
    axes = {0: _DYNAMIC, 1: _DYNAMIC}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, inputs, {"input_ids": axes, "attention_mask": axes}


def measure(what: str) -> None:
    """In this process: seconds and peak bytes of one check or one capture."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import onnxport

    small = torch.nn.Linear(2, 2).eval()
    onnxport.check(small, (torch.randn(1, 2),))  # imports, and the registry
    torch.export.export(small, (torch.randn(1, 2),))
    with FakeTensorMode():
        model, inputs, shapes = subject()
    start = time.perf_counter()
    if what == "check":
        result = onnxport.check(model, (), kwargs=inputs, dynamic_shapes=shapes)
        if not result.passed:
            raise SystemExit(str(result))
    else:
        with torch.no_grad():
            torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(seconds, peak, sum(p.numel() for p in model.parameters()))


def main() -> int:
    """Both, each in a process; 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", default=None, choices=["check", "capture"])
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return 0
    best: dict[str, list[float]] = {}
    for what in ("check", "capture") * options.repeats:
        done = subprocess.run([sys.executable, __file__, "--measure", what], check=True, capture_output=True, text=True)
        figures = [float(figure) for figure in done.stdout.split()[-3:]]
        best[what] = min(best.get(what, figures), figures)
    (seconds, peak, parameters), capture = best["check"], best["capture"][0]
    print(
        f"check of {parameters / 1e9:.2f}e9 parameters: {seconds:.1f} s, peak {peak / 2**20:.0f} MiB of the process; "
        f"capture alone {capture:.1f} s; ratio {seconds / capture:.2f} (limit {TIME_LIMIT})"
    )
    return int(peak >= MEMORY_LIMIT or seconds >= TIME_LIMIT * capture)


if __name__ == "__main__":
    sys.exit(main())
