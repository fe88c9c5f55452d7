"""associative_scan in both of its modes: as Scan, at two lengths, of which one is 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare, op_types
from torch._higher_order_ops import associative_scan

DYNAMIC = torch.export.Dim.DYNAMIC


def _runs_pointwise() -> bool:
    """Whether eager torch scans elementwise functions on the CPU: 2.11 refuses that before it looks at the sizes."""
    try:
        associative_scan(torch.add, torch.ones(0), 0, combine_mode="pointwise")
    except ValueError as error:
        return "on CUDA" not in str(error)
    return True


needs_pointwise = pytest.mark.skipif(not _runs_pointwise(), reason="combine_mode='pointwise' needs a GPU in this torch")
MODES = ("generic", pytest.param("pointwise", marks=needs_pointwise))


class Model(torch.nn.Module):
    def __init__(self, combine: Callable[..., Any], **named: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, 1.5, -1.0]))
        self.combine, self.named = combine, named

    def forward(self, x: Any) -> Any:
        return associative_scan(lambda a, b: self.combine(self, a, b), x, **self.named)


def compare(model: torch.nn.Module, x: Any, other: Any, sizes: Any = None) -> list[str]:
    return op_types(export_and_compare(model, (x,), dynamic_shapes=(sizes or {0: DYNAMIC},), other_args=(other,)))


X = torch.randn(5, 3)


@needs_pointwise
@pytest.mark.parametrize("length", [1, 2, 9])
def test_of_one_tensor(length: int) -> None:
    model = Model(lambda m, a, b: torch.maximum(a, b) * 1.0, dim=0)
    assert compare(model, X, torch.randn(length, 3)).count("Scan") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [0, -1])
def test_dims_and_directions(mode: str, reverse: bool, dim: int) -> None:
    model = Model(lambda m, a, b: a * b + 0.0 * m.weight[0], dim=dim, reverse=reverse, combine_mode=mode)
    compare(model, X, torch.randn(8, 3) if dim == 0 else torch.randn(5, 8), {dim % 2: DYNAMIC})


@pytest.mark.parametrize("mode", MODES)
def test_sums_are_a_cumsum(mode: str) -> None:
    model = Model(lambda m, a, b: a + b, dim=0, combine_mode=mode)
    assert compare(model, X, torch.randn(1, 3)) == ["CumSum"]
    compare(Model(lambda m, a, b: a + b, dim=0, combine_mode=mode), torch.arange(5), torch.arange(9))


@pytest.mark.parametrize("mode", MODES)
def test_linear_recurrence_of_a_tree(mode: str) -> None:
    def combine(m: Model, a: Any, b: Any) -> Any:
        return {"decay": a["decay"] * b["decay"], "state": (b["decay"] * a["state"][0] + b["state"][0],)}

    def tree(length: int) -> Any:
        return {"decay": torch.rand(length, 3), "state": (torch.randn(length, 3),)}

    sizes = {"decay": {0: DYNAMIC}, "state": ({0: DYNAMIC},)}
    ops = compare(Model(combine, dim=0, combine_mode=mode), tree(5), tree(8), sizes)
    assert ops.count("Scan") == 1


def test_products_of_matrices() -> None:
    model = Model(lambda m, a, b: (a * m.weight) @ b, dim=0, combine_mode="generic")
    compare(model, torch.randn(5, 3, 3) * 0.5, torch.randn(7, 3, 3) * 0.5)


def test_static_lengths() -> None:
    for length in (1, 2, 6):
        export_and_compare(Model(lambda m, a, b: a * b, dim=0, combine_mode="generic"), (torch.randn(length, 3),))


@needs_pointwise
def test_complex_numbers() -> None:
    model = Model(lambda m, a, b: a * b, dim=0)
    compare(model, torch.randn(5, 3, dtype=torch.complex64), torch.randn(7, 3, dtype=torch.complex64))
    compare(
        Model(lambda m, a, b: a + b, dim=0),
        torch.randn(5, 3, dtype=torch.complex64),
        torch.randn(1, 3, dtype=torch.complex64),
    )
