"""Functions as tables of polynomials: one Gather and one sum, however many intervals.

A table holds, for each of equal intervals, the coefficients of a polynomial in the position within it, from -1 to 1.
The numbers, in ``tables.npz``, are interpolations of values computed by mpmath to 40 digits (``python -m
onnxport_builtin.aten.fit_tables`` makes them again), good to a few units in the last place of float64.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxport import Builder


@functools.cache
def _load() -> dict[str, np.ndarray]:
    with resources.files(__package__).joinpath("tables.npz").open("rb") as file, np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def table(name: str) -> tuple[np.ndarray, float, float]:
    """Coefficients of shape (intervals, degree + 1), lowest power first, and the ends of the domain."""
    stored = _load()
    low, high = stored[f"{name}.domain"]
    return stored[name], float(low), float(high)


def piecewise(op: Builder, x: Tensor, name: str) -> Tensor:
    """The tabulated function of a float64 tensor of any shape.

    Outside the table's domain the outermost polynomials go on, which is of no use: mask those elements. NaN stays NaN.
    """
    coefficients, low, high = table(name)
    intervals, terms = coefficients.shape
    position = op.Mul(op.Sub(x, low) if low else x, intervals / (high - low))
    index = op.Floor(op.Clip(op.Where(op.IsNaN(position), 0.0, position), 0.0, float(intervals - 1)))
    rows = op.Gather(op.const(coefficients), op.cast(index, DataType.INT64), axis=0)
    inner = op.Sub(op.Mul(op.Sub(position, index), 2.0), 1.0)
    powers = op.Pow(op.Unsqueeze(inner, [-1]), op.const(np.arange(terms, dtype=np.float64)))
    return op.ReduceSum(op.Mul(rows, powers), [-1], keepdims=0)


def series(op: Builder, x: Tensor, coefficients: Sequence[float], first: int = 0, step: int = 1) -> Tensor:
    """``sum(c[k] * x ** (first + k * step))`` of a float64 tensor of any shape."""
    exponents = first + step * np.arange(len(coefficients), dtype=np.float64)
    powers = op.Pow(op.Unsqueeze(x, [-1]), op.const(exponents))
    return op.ReduceSum(op.Mul(powers, op.const(np.array(coefficients, np.float64))), [-1], keepdims=0)
