"""One output against what was expected: dtype, shape, values within a tolerance, NaN and infinities in their places."""

from __future__ import annotations

from dataclasses import dataclass

import torch

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1e-4, 2e-5),
    torch.float16: (1e-2, 5e-3),
    torch.bfloat16: (4e-2, 4e-2),
    torch.float8_e4m3fn: (0.13, 0.13),
    torch.float8_e4m3fnuz: (0.13, 0.13),
    torch.float8_e5m2: (0.26, 0.26),
    torch.float8_e5m2fnuz: (0.26, 0.26),
}
"""Relative and absolute tolerance by dtype; complex dtypes have their components'. Other dtypes must be equal.

The absolute one is multiplied by the mean magnitude of the expected values where that exceeds 1, since rounding errors
grow with the terms that cancel out in an output, not with what is left of them.
"""


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """Relative and absolute tolerance of a floating-point or complex dtype."""
    real = dtype.to_real() if dtype.is_complex else dtype
    known = TOLERANCES.get(real)
    return known or (2 * torch.finfo(real).eps,) * 2  # narrower than those of the table: two steps


@dataclass
class OutputCheck:
    """One output compared at one shape.

    Attributes:
        name: the graph output's name.
        dtype: the dtype expected, as torch prints it.
        shape: the shape expected.
        max_abs: largest absolute difference among finite elements.
        max_rel: largest difference relative to the expected value among finite elements that are not 0.
        relative: root mean square of the differences, relative to that of the expected values.
        mismatched: share of the elements outside the tolerance, 0 to 1.
        nans: NaNs expected and found.
        infs: infinities expected and found.
        problem: what is wrong, empty if nothing is.
    """

    name: str
    dtype: str
    shape: list[int]
    max_abs: float = 0.0
    max_rel: float = 0.0
    relative: float = 0.0
    mismatched: float = 0.0
    nans: tuple[int, int] = (0, 0)
    infs: tuple[int, int] = (0, 0)
    problem: str = ""


def compare(
    name: str,
    expected: torch.Tensor | complex,
    actual: torch.Tensor,
    rtol: float | None = None,
    atol: float | None = None,
    precision: torch.dtype | None = None,
) -> OutputCheck:
    """Compare an output with the tensor (or Python number, then of any dtype) expected.

    ``precision`` is a dtype whose tolerance holds where it is wider: that of what the values were computed from.
    """
    number = not isinstance(expected, torch.Tensor)
    want = torch.as_tensor(expected).detach().cpu()
    check = OutputCheck(name, str(want.dtype).removeprefix("torch."), list(want.shape))
    if want.shape != actual.shape:
        check.problem, check.mismatched = f"shape {list(actual.shape)}, expected {check.shape}", 1.0
        return check
    wide = torch.complex128 if want.is_complex() or actual.is_complex() else torch.float64
    exact = not (want.is_floating_point() or want.is_complex())
    left, right = want.to(wide), actual.to(wide)
    check.nans = int(left.isnan().sum()), int(right.isnan().sum())
    check.infs = int(left.isinf().sum()), int(right.isinf().sum())
    both = left.isfinite() & right.isfinite()
    difference = torch.where(both, (left - right).abs(), 0.0)
    magnitude = torch.where(both, left.abs(), 0.0)
    if want.numel():
        check.max_abs = float(difference.max())
        check.max_rel = float((difference / magnitude.where(magnitude > 0, torch.inf)).max())
        size = float(magnitude.square().sum()) ** 0.5
        check.relative = float(difference.square().sum()) ** 0.5 / size if size else 0.0
        relative, absolute = (0.0, 0.0) if exact else max(tolerance(want.dtype), tolerance(precision or want.dtype))
        if not exact:
            absolute *= max(1.0, float(magnitude.mean()))
            relative = relative if rtol is None else rtol
            absolute = absolute if atol is None else atol
        bad = torch.where(both, difference > absolute + relative * magnitude, ~_same_special(left, right))
        if exact and want.dtype == actual.dtype:
            bad = want != actual  # float64 can't tell the largest integers apart
        check.mismatched = float(bad.to(torch.float64).mean())
        if check.mismatched:
            check.problem = f"{check.mismatched:.2%} of the elements differ, by {check.max_abs:.2e} at most"
            if check.nans[0] != check.nans[1]:
                check.problem += f", {check.nans[1]} NaN instead of {check.nans[0]}"
            if check.infs[0] != check.infs[1]:
                check.problem += f", {check.infs[1]} infinite instead of {check.infs[0]}"
    if want.dtype is not actual.dtype and not number:
        check.problem = f"dtype {actual.dtype}, expected {want.dtype}" + (f"; {check.problem}" if check.problem else "")
    return check


def _same_special(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Tell where two tensors hold the same infinity, or both NaN; complex ones count as NaN in any part."""
    return (left == right) | (left.isnan() & right.isnan())


__all__ = ["TOLERANCES", "OutputCheck", "compare", "tolerance"]
