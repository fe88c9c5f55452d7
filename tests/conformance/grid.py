"""Run torch's operator database through the exporter: op x dtype x samples, against eager.

``python tests/conformance/grid.py --ops add,mul --dtypes float32,int64 --samples 4 [--dynamic] [--verbose]``
"""

from __future__ import annotations

import argparse
import collections
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxport
from support import FunctionModule, expect_equal, flat_tensors

DTYPES = ["float32", "float64", "int64", "int32", "uint8", "bool", "float16", "bfloat16"]
_REAL = {name: getattr(torch, name) for name in [*DTYPES, "complex64"]}


@dataclass
class Case:
    """One sample of one operator: tensors are inputs, everything else is baked in."""

    name: str
    dtype: str
    index: int
    function: Any
    tensors: list[torch.Tensor]
    module: torch.nn.Module


@dataclass
class Outcome:
    """What became of a case: "pass", "capture" (torch.export fails), "refused", "mismatch", "error"."""

    kind: str
    detail: str = ""


class Baked(torch.nn.Module):
    """The operator with its non-tensor arguments baked in."""

    def __init__(self, function: Any, spec: Any, leaves: list[Any]) -> None:
        super().__init__()
        self.function, self.spec, self.leaves = function, spec, leaves

    def forward(self, *tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if leaf is _HOLE else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return self.function(*args, **kwargs)


_HOLE = object()


def operators() -> list[Any]:
    """torch's operator database."""
    from torch.testing._internal.common_methods_invocations import op_db

    return list(op_db)


def cases(entry: Any, dtype: str, limit: int) -> Iterator[Case]:
    """Samples spread over the generator, not only its trivial first ones."""
    torch.manual_seed(0)
    try:
        samples = list(entry.sample_inputs("cpu", _REAL[dtype], requires_grad=False))
    except Exception as error:  # a sample generator that can't make this dtype has no cases
        print(f"  no samples: {entry.name} {dtype}: {error}", file=sys.stderr)
        return
    step = max(1, len(samples) // limit) if limit else 1
    chosen = list(range(0, len(samples), step))
    for index in chosen[-limit:] if limit else chosen:
        sample = samples[index]
        leaves, spec = pytree.tree_flatten(((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        holes = [_HOLE if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        name = f"{entry.name}.{entry.variant_test_name}" if entry.variant_test_name else entry.name
        yield Case(name, dtype, index, entry.op, tensors, Baked(entry.op, spec, holes).eval())


def run(case: Case, dynamic: bool = False, opset: int | None = None) -> Outcome:
    """Capture, export, run and compare one case."""
    inputs = tuple(t.detach().clone() for t in case.tensors)
    try:
        with torch.no_grad():
            expected = flat_tensors(case.module(*[t.clone() for t in inputs]))
    except Exception as error:
        return Outcome("capture", f"eager: {error}")
    if not expected:
        return Outcome("capture", "no tensor result")
    shapes = None
    if dynamic:
        shapes = ({i: tuple(torch.export.Dim.AUTO for _ in t.shape) for i, t in enumerate(inputs)},)
        shapes = (tuple(tuple(torch.export.Dim.AUTO for _ in t.shape) for t in inputs),)
    try:
        program = torch.export.export(case.module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        return Outcome("capture", f"{type(error).__name__}: {str(error)[:200]}")
    try:
        exported = onnxport.export(program, opset_version=opset)
    except onnxport.UnsupportedOperatorsError as error:
        return Outcome("refused", str(error))
    except Exception as error:
        return Outcome("error", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}")
    try:
        import onnx

        onnx.checker.check_model(exported.model_proto, full_check=True)
        actual = list(exported(*inputs))
    except Exception as error:
        return Outcome("error", f"running: {type(error).__name__}: {error}")
    try:
        assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
        for got, want in zip(actual, expected):
            expect_equal(got, want)
    except AssertionError as error:
        return Outcome("mismatch", str(error))
    return Outcome("pass")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ops", default="", help="comma-separated names; a trailing * is a prefix; all when left out")
    parser.add_argument("--dtypes", default="float32,int64,bool")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="print the whole detail of failures")
    parser.add_argument("--opset", type=int, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = [name for name in options.ops.split(",") if name]
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for entry in operators():
        full = f"{entry.name}.{entry.variant_test_name}" if entry.variant_test_name else entry.name
        if wanted and not any(n in (full, entry.name) or (n.endswith("*") and full.startswith(n[:-1])) for n in wanted):
            continue
        for dtype in options.dtypes.split(","):
            if _REAL[dtype] not in entry.supported_dtypes("cpu"):
                continue
            for case in cases(entry, dtype, options.samples):
                outcome = run(case, options.dynamic, options.opset)
                totals[dtype][outcome.kind] += 1
                if outcome.kind not in ("pass", "capture"):
                    detail = outcome.detail if options.verbose else outcome.detail.replace("\n", " ")[:220]
                    print(f"{outcome.kind:9} {case.name} {dtype} #{case.index}: {detail}", flush=True)
    for dtype, counts in totals.items():
        captured = sum(counts.values()) - counts["capture"]
        print(f"{dtype:9} {counts['pass']}/{captured} pass  {dict(counts)}")
    return 0


if __name__ == "__main__":
    with torch.no_grad():
        raise SystemExit(main())


__all__ = ["Case", "FunctionModule", "Outcome", "cases", "operators", "run"]
