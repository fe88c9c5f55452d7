"""Sorted sequences, sets, counts and histograms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare

I = torch.tensor  # noqa: E741
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16, torch.uint8])
def test_searchsorted(right: bool, dtype: torch.dtype) -> None:
    def found(s: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.searchsorted(s, v, right=right), torch.searchsorted(s[0], v, out_int32=True, right=right),
            torch.searchsorted(s[0], 3, right=right), torch.bucketize(v, s[1], right=right), torch.bucketize(3, s[1]),
        ]  # fmt: skip

    export_and_compare(found, (I([[1, 3, 3, 5], [2, 4, 6, 8]]).to(dtype), I([[3, 0, 9], [4, 8, 1]]).to(dtype)))


def test_searchsorted_of_nan_and_sorter() -> None:
    export_and_compare(lambda s, v: torch.searchsorted(s, v), (I([1.0, 2.0, INF]), I([NAN, INF, -INF, 2.0])))
    export_and_compare(
        lambda s, v, o: torch.searchsorted(s, v, sorter=o, side="right"), (I([3, 1, 2]), I([2, 0]), I([1, 2, 0]))
    )


@pytest.mark.parametrize("invert", [False, True])
def test_isin(invert: bool) -> None:
    def member(t: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.isin(t, s, invert=invert), torch.isin(t, 2, invert=invert), torch.isin(3, s, invert=invert),
            torch.isin(t, s[:0], invert=invert), torch.isin(t[0, 0], s, invert=invert),
        ]  # fmt: skip

    export_and_compare(member, (I([[1, 2], [3, 7]]), I([2, 3, 9])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.uint8, torch.float16, torch.int32])
def test_unique(dtype: torch.dtype) -> None:
    def sets(t: torch.Tensor) -> list[Any]:
        return [
            torch.unique(t), torch.unique(t, return_inverse=True, return_counts=True),
            torch.unique(t, return_counts=True, dim=1),
            torch.unique_consecutive(t, return_inverse=True, return_counts=True),
            torch.unique_consecutive(t, return_counts=True, dim=1),
        ]  # fmt: skip

    export_and_compare(sets, (I([[3, 1, 1, 0], [3, 2, 2, 0]]).to(dtype),))


def test_unique_keeps_each_nan() -> None:
    """onnxruntime's Unique takes NaNs for equal to everything."""
    values = I([NAN, 2, INF, NAN, 2, -0.0])
    export_and_compare(lambda t: torch.unique(t, return_inverse=True, return_counts=True), (values,))


COUNTS: list[tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    ("bincount", lambda t: torch.bincount(t), (I([0, 3, 3, 1]),)),
    ("bincount_min", lambda t: torch.bincount(t, minlength=6), (I([0, 3, 3, 1]),)),
    ("bincount_weights", lambda t, w: torch.bincount(t, w), (I([0, 3, 3]), I([0.5, 1.5, 2.0]))),
    ("histc", lambda t: torch.histc(t, 4, -1, 3), (I([-1.0, 0.2, 3.0, 5.0, NAN]),)),
    ("histc_range", lambda t: torch.histc(t, 4), (I([-1.0, 0.2, 3.0, 5.0]),)),
    ("histc_equal", lambda t: torch.histc(t, 3), (I([2.0, 2.0]),)),
    ("histogram", lambda t: torch.histogram(t, 4), (I([-1.0, 0.2, 3.0, 5.0]),)),
    ("histogram_range", lambda t, w: torch.histogram(t, 4, range=(0.0, 4.0), weight=w, density=True),
     (I([-1.0, 0.2, 3.0, 4.0]), I([1.0, 2.0, 3.0, 4.0]))),
    ("histogram_edges", lambda t, e: torch.histogram(t, e), (I([-1.0, 0.2, 3.0, 4.0]), I([-1.0, 0.0, 2.0, 3.0]))),
]  # fmt: skip


@pytest.mark.parametrize(("function", "args"), [pytest.param(f, a, id=n) for n, f, a in COUNTS])
def test_counts(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> None:
    export_and_compare(function, args)


def test_dynamic() -> None:
    auto = torch.export.Dim.DYNAMIC

    def found(t: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        return [
            torch.searchsorted(s, t), torch.bucketize(t, s), torch.isin(t, s), torch.histc(t, 3, 0, 4),
            torch.unique(t), torch.unique_consecutive(t),
        ]  # fmt: skip

    export_and_compare(
        found,
        (I([0.5, 2.0, 2.0]), I([1.0, 2.0, 3.0, 4.0])),
        dynamic_shapes=(({0: auto}, {0: auto}),),
        other_args=(I([5.0, 0.0, 3.0, 3.0, 1.0]), I([1.0, 3.0])),
    )
