"""What tests share: export a module, run it on onnxruntime and compare with eager torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import torch
from onnxport.testing import TOLERANCES, FunctionModule, as_module, compare_with_eager, expect_equal, flat_tensors


def run_model(
    program: onnxport.ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> list[torch.Tensor]:
    """The user's outputs on onnxruntime."""
    return list(program(*args, **(kwargs or {})))


def export_and_compare(
    model: torch.nn.Module | Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    other_args: Sequence[Any] | None = None,
    other_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> onnxport.ONNXProgram:
    """Export, check with onnx.checker, run on onnxruntime, compare every output with eager.

    Args:
        other_args: a second set of inputs, to show that dynamic dimensions are.
        options: more arguments of ``onnxport.testing.compare_with_eager`` and ``onnxport.export``.
    """
    others = []
    if other_args is not None or other_kwargs is not None:
        others = [(args if other_args is None else other_args, kwargs if other_kwargs is None else other_kwargs)]
    (case,) = compare_with_eager(model, args, kwargs, other_inputs=others, generate=False, **options)
    return case.program


MOVING = frozenset(["Unsqueeze", "Squeeze", "Transpose", "Expand", "Reshape"])


def unfused_session() -> onnxruntime.SessionOptions:
    """Options with which onnxruntime computes Q/DQ pairs as the file says: its integer kernels round further."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def computing_types(program: onnxport.ONNXProgram) -> list[str]:
    """The operators of the main graph that compute: those that only move elements are left out."""
    return [op_type for op_type in op_types(program) if op_type not in MOVING]


def op_types(program: onnxport.ONNXProgram) -> list[str]:
    """Operator types of the main graph, in order."""
    return [node.op_type for node in program.model.graph]


def optimized_types(program: onnxport.ONNXProgram) -> list[str]:
    """The operators that a plain session runs, after onnxruntime's own optimizations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


__all__ = [
    "TOLERANCES",
    "FunctionModule",
    "as_module",
    "computing_types",
    "expect_equal",
    "export_and_compare",
    "flat_tensors",
    "np",
    "onnxruntime",
    "op_types",
    "optimized_types",
    "run_model",
    "unfused_session",
]
