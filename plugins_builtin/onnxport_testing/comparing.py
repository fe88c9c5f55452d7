"""Comparison of an export with eager torch: over dtypes, opsets, profiles and sizes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx
import onnxport
import torch
from torch.utils import _pytree as pytree

from onnxport_testing.exporting import Case, exported

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float32: (1e-4, 1e-5),
    torch.float64: (1e-7, 1e-9),
    torch.float16: (2e-2, 1e-3),
    torch.bfloat16: (5e-2, 1e-2),
    torch.complex64: (1e-4, 1e-5),
    torch.complex128: (1e-7, 1e-9),
}
"""Relative and absolute tolerance by dtype of an output; others must be equal."""


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
    """Check dtype, shape and values; NaN and infinities must stand in the same places.

    Args:
        actual: what the file computes.
        expected: what torch computes.
        rtol: relative tolerance; by default that of the dtype in :data:`TOLERANCES`.
        atol: absolute tolerance, likewise.

    Raises:
        AssertionError: they differ.
    """
    if actual.dtype != expected.dtype:
        raise AssertionError(f"dtype {actual.dtype}, expected {expected.dtype}")
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    default = TOLERANCES.get(expected.dtype, (0.0, 0.0))
    torch.testing.assert_close(
        actual.detach().cpu(),
        expected.detach().cpu().resolve_conj().resolve_neg(),
        rtol=default[0] if rtol is None else rtol,
        atol=default[1] if atol is None else atol,
        equal_nan=True,
    )


def compare_with_eager(
    model: torch.nn.Module | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dtypes: Iterable[torch.dtype | None] = (None,),
    opsets: Iterable[int | None] = (None,),
    runtimes: Iterable[str] = ("onnx",),
    dynamic_shapes: Any = None,
    other_inputs: Sequence[tuple[Sequence[Any], Mapping[str, Any] | None]] = (),
    generate: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    **options: Any,
) -> list[Case]:
    """Export a model in each combination, and compare every output on onnxruntime with eager torch.

    Each file is checked by ``onnx.checker`` in full. Where dimensions are dynamic and no other inputs are given, it is
    also compared at generated sizes, as :func:`onnxport.verify` does.

    Args:
        model: a module, or a function of tensors.
        args: positional inputs.
        kwargs: keyword inputs.
        dtypes: the model and its floating-point inputs are converted to each; None leaves them.
        opsets: target opsets; None for the default.
        runtimes: names of profiles; see ``onnxport profiles``.
        dynamic_shapes: as :func:`onnxport.export` takes it.
        other_inputs: further ``(args, kwargs)`` to compare at, in other sizes.
        generate: whether to compare at generated sizes, with dynamic dimensions and without ``other_inputs``.
        rtol: relative tolerance; by default that of the output's dtype in :data:`TOLERANCES`.
        atol: absolute tolerance, likewise.
        options: more arguments of :func:`onnxport.export`, such as ``plugins``.

    Returns:
        One case a combination: its program, and what served each operator.

    Raises:
        AssertionError: outputs differ; of several combinations, each is named.
        Exception: of the only combination, whatever the export or onnxruntime raised.
    """
    module = as_module(model)
    combinations = list(itertools.product(dtypes, opsets, runtimes))
    cases, failures = [], []
    for dtype, opset, runtime in combinations:
        asked: dict[str, Any] = {} if opset is None else {"opset_version": opset}
        asked |= {} if runtime == "onnx" else {"runtime": runtime}
        label = _label(dtype, opset, runtime)
        try:
            given = module if dtype is None else _converted_model(module, dtype)
            case = exported(
                given,
                _converted(_copied(tuple(args)), dtype),
                _converted(_copied(dict(kwargs or {})), dtype),
                label=label,
                dynamic_shapes=dynamic_shapes,
                **asked,
                **options,
            )
            sets = [(args, kwargs), *other_inputs]
            _compare(case, given, [_converted((tuple(a), dict(k or {})), dtype) for a, k in sets], rtol, atol)
            if dynamic_shapes is not None and generate and not other_inputs:
                plugins = options.get("plugins")
                onnxport.verify(case.program, given, rtol=rtol, atol=atol, plugins=plugins).raise_on_failure()
        except Exception as error:
            if len(combinations) == 1:
                raise
            failures.append((label, error))
        else:
            cases.append(case)
    if failures:
        told = "\n".join(f"  {label}: {type(error).__name__}: {error}" for label, error in failures)
        raise AssertionError(f"{len(failures)} of {len(combinations)} combinations fail:\n{told}") from failures[0][1]
    return cases


def _compare(
    case: Case,
    model: torch.nn.Module,
    sets: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
    rtol: float | None,
    atol: float | None,
) -> None:
    onnx.checker.check_model(case.program.model_proto, full_check=True)
    for args, kwargs in sets:
        with torch.no_grad():
            expected = flat_tensors(model(*_copied(args), **_copied(kwargs)))
        actual = list(case.program(*_copied(args), **_copied(kwargs)))
        if len(actual) != len(expected):
            raise AssertionError(f"{len(actual)} outputs, expected {len(expected)}")
        for got, want in zip(actual, expected):
            expect_equal(got, want, rtol, atol)


def _label(dtype: torch.dtype | None, opset: int | None, runtime: str) -> str:
    parts = ["" if dtype is None else str(dtype).removeprefix("torch."), "" if opset is None else f"opset {opset}"]
    return ", ".join(part for part in (*parts, "" if runtime == "onnx" else runtime) if part)


def _converted_model(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy with that dtype; integers have no parameters of theirs, and leave it."""
    return copy.deepcopy(model).to(dtype) if dtype.is_floating_point or dtype.is_complex else model


def _converted(value: Any, dtype: torch.dtype | None) -> Any:
    """The same with tensors of floating-point and complex numbers in that dtype."""

    def convert(leaf: Any) -> Any:
        wanted = isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        return leaf.to(dtype) if wanted else leaf

    return value if dtype is None else pytree.tree_map(convert, value)


def _copied(value: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


__all__ = ["TOLERANCES", "FunctionModule", "as_module", "compare_with_eager", "expect_equal", "flat_tensors"]
