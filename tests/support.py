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
import torch.utils._pytree as pytree

#: (rtol, atol) by dtype of an output
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float32: (1e-4, 1e-5),
    torch.float64: (1e-7, 1e-9),
    torch.float16: (2e-2, 1e-3),
    torch.bfloat16: (5e-2, 1e-2),
    torch.complex64: (1e-4, 1e-5),
    torch.complex128: (1e-7, 1e-9),
}


class FunctionModule(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def as_module(model: torch.nn.Module | Callable[..., Any]) -> torch.nn.Module:
    """The model itself, or a function wrapped, in eval mode."""
    return model.eval() if isinstance(model, torch.nn.Module) else FunctionModule(model).eval()


def flat_tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of a model's return value, in order; numbers become 0-d tensors (a Python float is a double)."""
    leaves = [
        torch.tensor(leaf, dtype=torch.float64) if isinstance(leaf, float) else leaf
        for leaf in pytree.tree_leaves(value)
    ]
    return [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf) for leaf in leaves if leaf is not None]


def expect_equal(
    actual: torch.Tensor, expected: torch.Tensor, rtol: float | None = None, atol: float | None = None
) -> None:
    """Check dtype, shape and values; NaN and infinities must stand in the same places."""
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    assert tuple(actual.shape) == tuple(expected.shape), (
        f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    )
    default = TOLERANCES.get(expected.dtype, (0.0, 0.0))
    torch.testing.assert_close(
        actual.detach().cpu(),
        expected.detach().cpu().resolve_conj().resolve_neg(),
        rtol=default[0] if rtol is None else rtol,
        atol=default[1] if atol is None else atol,
        equal_nan=True,
    )


def run_model(
    program: onnxport.ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> list[torch.Tensor]:
    """The user's outputs on onnxruntime."""
    return list(program(*args, **(kwargs or {})))


def _copied(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def export_and_compare(
    model: torch.nn.Module | Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    other_args: Sequence[Any] | None = None,
    other_kwargs: Mapping[str, Any] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    **options: Any,
) -> onnxport.ONNXProgram:
    """Export, check with onnx.checker, run on onnxruntime, compare every output with eager.

    Args:
        other_args: a second set of inputs, to show that dynamic dimensions are.
        options: more arguments of ``onnxport.export``.
    """
    module = as_module(model)
    kwargs = dict(kwargs or {})
    program = onnxport.export(
        module, tuple(_copied(args)), kwargs=_copied(kwargs), dynamic_shapes=dynamic_shapes, **options
    )
    onnx.checker.check_model(program.model_proto, full_check=True)
    sets = [(args, kwargs)]
    if other_args is not None or other_kwargs is not None:
        sets.append(
            (args if other_args is None else other_args, kwargs if other_kwargs is None else dict(other_kwargs))
        )
    for given_args, given_kwargs in sets:
        with torch.no_grad():
            expected = flat_tensors(module(*_copied(given_args), **_copied(given_kwargs)))
        actual = run_model(program, _copied(given_args), _copied(given_kwargs))
        assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
        for got, want in zip(actual, expected):
            expect_equal(got, want, rtol, atol)
    return program


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
