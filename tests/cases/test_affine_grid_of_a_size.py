"""Operators over constants that take a dynamic size follow it: never the example's numbers in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from onnxport import Unsupported
from onnxport_builtin.decomposer import Decomposer
from support import export_and_compare

Tensor = torch.Tensor
SIZES: dict[str, Callable[[Any], Any]] = {
    "n": lambda n: n,
    "half": lambda n: (n + 1) // 2,
    "twice": lambda n: 2 * n,
    "less": lambda n: n - 2,
}
THETA = torch.tensor([[[0.5, 0.25, -1.0], [0.0, 2.0, 0.125]]])


def grids(k: Any) -> list[Tensor]:
    volume = torch.eye(3, 4)[None]
    return [
        F.affine_grid(torch.ones(1, 2, 3), (1, 1, k, 1), align_corners=False),
        F.affine_grid(THETA, (1, 1, 3, k), align_corners=True),
        F.affine_grid(THETA.double(), (1, 1, k, k + 1), align_corners=False),
        F.affine_grid(volume, (1, 1, k, 2, k), align_corners=False),
        F.affine_grid(THETA.expand(k, 2, 3), (k, 1, 2, 2), align_corners=False),
    ]


def others(k: Any) -> list[Tensor]:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    return [
        torch.arange(1, k + 1, 2),
        torch.arange(0, k, dtype=torch.float32) / k,
        torch.linspace(0, 1, k),
        torch.eye(k, 3),
        torch.full((k, 2), 7),
        torch.full((2,), k),
        *torch.meshgrid(torch.arange(k), torch.arange(3), indexing="ij"),
        F.interpolate(image, size=(k, 2 * k), mode="bilinear"),
        F.interpolate(image, size=(k, 5), mode="nearest"),
        torch.arange(3).expand(k, 3),
        torch.arange(3).repeat(k, 2),
        torch.triu(torch.ones(k, k), 1),
        torch.ones(k).cumsum(0),
        torch.arange(100)[k:],
        torch.arange(9) % (k + 1),
        F.adaptive_avg_pool1d(torch.arange(12.0).view(1, 12), k),
    ]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("function", [grids, others], ids=lambda function: function.__name__)
def test_sizes_over_constants(function: Callable[[Any], list[Tensor]], name: str) -> None:
    def run(x: Tensor) -> list[Tensor]:
        return function(SIZES[name](x.shape[0]))

    for other in (3, 8):
        export_and_compare(run, (torch.ones(5),), dynamic_shapes=(({0: "n"},),), other_args=(torch.ones(other),))


def test_a_decomposition_that_makes_a_number_of_a_size_is_refused() -> None:
    class Windows(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros((x.shape[0] + 1) // 2, 2)

    program = torch.export.export(Windows(), (torch.ones(5),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    node = next(n for n in program.graph.nodes if n.target is torch.ops.aten.new_zeros.default)

    def constant(self: Tensor, size: Any, **_: Any) -> Tensor:
        return self.new_ones([int(number) for number in size])

    with pytest.raises(Unsupported, match="makes a number of a dynamic size"):
        Decomposer({node.target: constant}, lambda graph: graph).expand(node)
