"""Writes into one of several views that an operator makes of a list of tensors reach that tensor alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import export_and_compare

Tensor = torch.Tensor


def scalar_and_vector(x: Tensor) -> Any:
    grid = torch.meshgrid(x[torch.tensor(0)], x, indexing="ij")[1]
    grid.mul_(2)
    return grid, x * 1


def view_of_an_element(x: Tensor) -> Any:
    grid = torch.meshgrid(x[0], x, indexing="ij")[1]
    grid.mul_(2)
    return grid, x * 1


def a_row_of_a_grid(x: Tensor) -> Any:
    y = x * 1
    grids = torch.meshgrid(y, x, indexing="xy")
    grids[0][0].mul_(2)
    return grids[0], grids[1], y, x * 1


def filled(x: Tensor) -> Any:
    first = x[torch.tensor(0)]
    grids = torch.meshgrid(x, first, first, indexing="xy")
    grids[1].fill_(7.0)
    return *grids, first, x * 1


def without_indexing(x: Tensor) -> Any:
    first = x[torch.tensor(0)]
    grid = torch.meshgrid([first, x.to(first.dtype)])[1]
    grid.mul_(2)
    grid[0, 0] = 5
    return grid, x * 1


def of_another_type(x: Tensor) -> Any:
    y = x * 1
    grids = torch.meshgrid(y, y[:2], indexing="ij")
    grids[0][:, 1] += 3
    grids[1][0] -= 1
    return *grids, y


def broadcast(x: Tensor) -> Any:
    y = x * 1
    first, second = torch.broadcast_tensors(y[0], x)
    second.mul_(2)
    return first, second, y, x * 1


def rows_of_broadcast(x: Tensor) -> Any:
    y = (x > 1).to(torch.int32)
    first, second = torch.broadcast_tensors(y[:, None], x)
    first[:, 0] += 2
    second[1].mul_(3)
    return first, second, y, x * 1


def at_least_one_axis(x: Tensor) -> Any:
    y = x * 1
    first, second = torch.atleast_1d(y[0], x)
    first.mul_(2)
    second.add_(1)
    return first, second, y, x * 1


CASES: list[Callable[[Tensor], Any]] = [
    scalar_and_vector, view_of_an_element, a_row_of_a_grid, filled, without_indexing, of_another_type, broadcast,
    rows_of_broadcast, at_least_one_axis,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("dynamic", [False, True])
def test_grid_is_written(function: Callable[[Tensor], Any], dynamic: bool) -> None:
    x, other = torch.tensor([1.5, 0.25, 2.0]), torch.tensor([3.0, 1.0, 0.5, 2.0])
    if dynamic:
        export_and_compare(function, (x,), dynamic_shapes=({0: "n"},), other_args=(other,))
    else:
        export_and_compare(function, (x,))
