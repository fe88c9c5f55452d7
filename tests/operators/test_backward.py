"""Gradient operators of core ATen, called as a decomposed training graph calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import export_and_compare

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil", "count", "divisor"),
    [
        ([2, 2], [2, 2], [0, 0], False, True, None),
        ([3, 2], [2, 1], [1, 0], True, False, None),
        ([3, 3], [2, 2], [1, 1], True, True, None),
        ([2, 2], [], [0, 0], False, True, 3),
    ],
)
def test_average_pool(kernel: list[int], stride: list[int], padding: list[int], ceil: bool, count: bool, divisor: Any):
    x = torch.randn(2, 3, 7, 6)
    y = aten.avg_pool2d(x, kernel, stride, padding, ceil, count, divisor)

    def gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return aten.avg_pool2d_backward(grad, x, kernel, stride, padding, ceil, count, divisor)

    export_and_compare(gradient, (torch.randn_like(y), x))


def test_adaptive_average_pool() -> None:
    grad, x = torch.randn(2, 3, 3, 4), torch.randn(2, 3, 7, 6)
    export_and_compare(lambda g, x: aten._adaptive_avg_pool2d_backward(g, x), (grad, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_max_pool(dtype: torch.dtype) -> None:
    """Windows overlap: one place gets several gradients."""

    def gradient(grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return aten.max_pool2d_with_indices_backward(grad, x, [3, 3], [2, 2], [1, 1], [1, 1], False, indices)

    def arguments(height: int, width: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(2, 3, height, width).to(dtype)
        y, indices = aten.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])
        return torch.randn_like(y), x, indices

    height = torch.export.Dim("height", min=4, max=20)
    shapes = (({2: height}, {2: 2 * height - 1}, {2: height}),)  # of *args
    other = arguments(11, 6)
    export_and_compare(gradient, arguments(7, 6), dynamic_shapes=shapes, other_args=other)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, [1, 1], [0, 0], [1, 1]), (2, [2, 1], [1, 0], [1, 2])]
)
def test_convolution(groups: int, stride: list[int], padding: list[int], dilation: list[int], transposed: bool) -> None:
    x = torch.randn(2, 4, 8, 7)
    weight = torch.randn(4, 6 // groups, 3, 2) if transposed else torch.randn(6, 4 // groups, 3, 2)
    rest = [stride[0] - 1, 0] if transposed else [0, 0]
    forward = (stride, padding, dilation, transposed, rest, groups)
    y = aten.convolution(x, weight, None, *forward)

    def gradients(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return aten.convolution_backward(grad, x, weight, [6], *forward, [True, True, True])

    export_and_compare(gradients, (torch.randn_like(y), x, weight), rtol=1e-3, atol=1e-4)


def _norm_inputs() -> tuple[torch.Tensor, ...]:
    x = torch.randn(2, 6, 5)
    _, mean, rstd = aten.native_layer_norm(x, [5], None, None, 1e-5)
    return torch.randn_like(x), x, mean, rstd, torch.randn(5), torch.randn(5)


def _group_norm_inputs() -> tuple[torch.Tensor, ...]:
    x = torch.randn(2, 6, 5)
    _, mean, rstd = aten.native_group_norm(x, None, None, 2, 6, 5, 3, 1e-5)
    return torch.randn_like(x), x, mean, rstd, torch.randn(6)


DECOMPOSED: list[tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = [
    (
        lambda g, x, m, r, w, b: aten.native_layer_norm_backward(g, x, [5], m, r, w, b, [True, True, True]),
        _norm_inputs(),
    ),
    (
        lambda g, x, m, r, w: aten.native_group_norm_backward(g, x, m, r, w, 2, 6, 5, 3, [True, True, True]),
        _group_norm_inputs(),
    ),
    (
        lambda g, i: aten.embedding_dense_backward(g, i, 7, 2, True),
        (torch.randn(3, 4, 5), torch.randint(0, 7, (3, 4))),
    ),
]


@pytest.mark.parametrize("place", range(len(DECOMPOSED)))
def test_decomposed(place: int) -> None:
    export_and_compare(*DECOMPOSED[place], rtol=1e-3, atol=1e-5)


def test_resize() -> None:
    export_and_compare(lambda x: (x * 2).resize_(2, 3), (torch.arange(10.0),))


def _gradient_of(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """What autograd computes with the operators of the backward pass, of the square of what ``function`` gives."""

    def gradient(*inputs: torch.Tensor) -> torch.Tensor:
        leaves = [value.detach().requires_grad_() for value in inputs]
        with torch.enable_grad():
            return sum(g.sum() * 0 + g for g in torch.autograd.grad(function(*leaves).square().sum(), leaves))

    return gradient


@pytest.mark.parametrize("p", [0.0, 1.0, 1.5, 2.0, 3.0, float("inf")])
def test_distances(p: float) -> None:
    def pairs(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, x.flip(-2), p=p, compute_mode="donot_use_mm_for_euclid_dist")  # some distances are 0

    rows = torch.export.Dim("rows", min=2, max=50)
    x, other = torch.randn(2, 5, 3), torch.randn(2, 7, 3)
    export_and_compare(_gradient_of(pairs), (x,), dynamic_shapes=(({1: rows},),), other_args=(other,), atol=1e-4)
    export_and_compare(_gradient_of(lambda x: torch.pdist(x, p)), (torch.randn(5, 3),), atol=1e-4)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: F.max_pool3d(x, 3, 2, 1), (1, 2, 7, 6, 5)),
        (lambda x: F.adaptive_max_pool2d(x, (3, 2)), (1, 2, 7, 6)),
        (lambda x: F.adaptive_max_pool3d(x, (3, 2, 2)), (2, 7, 6, 5)),
        (lambda x: F.adaptive_avg_pool3d(x, (3, 2, 4)), (1, 2, 7, 6, 5)),
        (lambda x: F.avg_pool3d(x, (2, 3, 2), 2, 1), (1, 2, 7, 6, 5)),
        (lambda x: F.avg_pool3d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 7, 6, 5)),
        (lambda x: F.avg_pool3d(x, 2, divisor_override=3), (1, 2, 7, 6, 5)),
        (lambda x: F.pad(x, (2, 1), mode="replicate"), (2, 3, 4)),
        (lambda x: F.pad(x, (2, 1, 0, 3), mode="replicate"), (1, 2, 3, 4)),
        (lambda x: F.pad(x, (-1, 1, 1, 2, 0, 1), mode="replicate"), (1, 2, 3, 4, 3)),
        (torch.linalg.inv, (3, 3)),
        (lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(3)), (2, 3, 3)),
    ],
)
def test_gradients_by_decompositions_of_their_own(function: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    export_and_compare(_gradient_of(function), (torch.randn(shape),), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_gradients_of_a_sampled_grid(mode: str, padding: str) -> None:
    def sampled(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        places = grid.reshape(2, 3, 4, 2)
        return F.grid_sample(image.reshape(2, 1, 3, 4), places, mode=mode, padding_mode=padding, align_corners=False)

    torch.manual_seed(0)
    gradient = _gradient_of(lambda image, grid: sampled(image, torch.cat([grid, grid + 0.3])) + grid.sum())
    export_and_compare(gradient, (torch.randn(24), torch.rand(24) * 2.4 - 1.2), atol=1e-4, rtol=1e-3)
