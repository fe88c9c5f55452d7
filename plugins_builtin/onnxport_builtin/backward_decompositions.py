"""Gradients that torch 2.14 computes by an operator without a decomposition, computed by others.

A network's forces are captured below autograd, where these operators stand. Sizes may be dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten


def decompositions() -> dict[Any, Callable[..., Any]]:
    """By operator."""
    return {
        aten._cdist_backward.default: _cdist,
        aten._pdist_backward.default: _pdist,
        aten.max_pool3d_with_indices_backward.default: lambda grad, self, *rest: _unpooled(grad, self, rest[-1], 3),
        aten.adaptive_max_pool2d_backward.default: lambda grad, self, indices: _unpooled(grad, self, indices, 2),
        aten.adaptive_max_pool3d_backward.default: lambda grad, self, indices: _unpooled(grad, self, indices, 3),
        aten.avg_pool3d_backward.default: _avg_pool3d,
        aten._adaptive_avg_pool3d_backward.default: _adaptive_avg_pool3d,
        aten.replication_pad1d_backward.default: _replication_pad,
        aten.replication_pad2d_backward.default: _replication_pad,
        aten.replication_pad3d_backward.default: _replication_pad,
        aten.grid_sampler_2d_backward.default: _grid_sampler_2d,
    }


def _by_distance(difference: torch.Tensor, scale: torch.Tensor, distance: torch.Tensor, p: float) -> torch.Tensor:
    """``scale`` times the derivative of a p-norm by the difference (..., d); ``distance`` and ``scale`` are (...)."""
    scale, distance = scale.unsqueeze(-1), distance.unsqueeze(-1)
    if p == 0:
        return torch.zeros_like(difference)
    if p == 1:
        return scale * difference.sign()
    if p == float("inf"):
        return scale * torch.where(difference.abs() == distance, difference.sign(), 0)
    if p == 2:
        return torch.where(distance == 0, 0, scale / distance * difference)
    slope = difference.sign() * difference.abs().pow(p - 1) * scale / distance.pow(p - 1)
    return torch.where(distance == 0, 0, slope)


def _cdist(grad: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor, p: float, cdist: torch.Tensor) -> torch.Tensor:
    """The gradient of ``x1`` (..., rows, d); ``x2`` is (..., columns, d), ``cdist`` (..., rows, columns)."""
    return _by_distance(x1.unsqueeze(-2) - x2.unsqueeze(-3), grad, cdist, p).sum(-2)


def _pdist(grad: torch.Tensor, self: torch.Tensor, p: float, pdist: torch.Tensor) -> torch.Tensor:
    """``self`` is (rows, d), ``pdist`` has the distances of pairs ``i < j`` in the order of ``torch.pdist``."""
    rows = self.shape[0]
    index = torch.arange(rows, device=self.device)
    first, second = index.unsqueeze(1), index.unsqueeze(0)
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    place = (low * (2 * rows - low - 1) // 2 + high - low - 1).clamp(0)
    same = first == second
    distance, scale = (torch.where(same, 0, values[place]) for values in (pdist, grad))
    return _by_distance(self.unsqueeze(1) - self.unsqueeze(0), scale, distance, p).sum(1)


def _unpooled(grad: torch.Tensor, self: torch.Tensor, indices: torch.Tensor, axes: int) -> torch.Tensor:
    """Each maximum's gradient is added where it was."""
    zeros = torch.zeros_like(self).flatten(-axes)
    return zeros.scatter_add(-1, indices.flatten(-axes), grad.flatten(-axes)).reshape(self.shape)


def _through(grad: torch.Tensor, means: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gradient of what was pooled along the last three axes by matrices (outputs, size)."""
    return torch.einsum("...dhw,dx,hy,wz->...xyz", grad, *means)


def _avg_pool3d(
    grad: torch.Tensor, self: torch.Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> torch.Tensor:  # fmt: skip
    kernel, pads = _three(kernel_size), _three(padding)
    steps = _three(stride) if stride else kernel
    means = []
    for axis in range(3):
        outputs, size = grad.shape[axis - 3], self.shape[axis - 3]
        start = torch.arange(outputs, device=grad.device).unsqueeze(1) * steps[axis] - pads[axis]
        end = (start + kernel[axis]).clamp(max=size + pads[axis])
        inside = _inside(start, end, size)
        if divisor_override is not None:
            means.append(inside.to(grad.dtype))
        else:
            means.append(inside / (end - start if count_include_pad else inside.sum(1, keepdim=True)).to(grad.dtype))
    result = _through(grad, means)
    return result if divisor_override is None else result / divisor_override


def _adaptive_avg_pool3d(grad: torch.Tensor, self: torch.Tensor) -> torch.Tensor:
    means = []
    for axis in (-3, -2, -1):
        outputs, size = grad.shape[axis], self.shape[axis]
        index = torch.arange(outputs, device=grad.device).unsqueeze(1)
        start, end = index * size // outputs, ((index + 1) * size + outputs - 1) // outputs
        means.append(_inside(start, end, size) / (end - start).to(grad.dtype))
    return _through(grad, means)


def _inside(start: torch.Tensor, end: torch.Tensor, size: int) -> torch.Tensor:
    """Which of ``size`` places are from ``start`` to ``end``, both (outputs, 1)."""
    places = torch.arange(size, device=start.device)
    return (places >= start) & (places < end)


def _three(sizes: Sequence[int]) -> list[int]:
    return list(sizes) * 3 if len(sizes) == 1 else list(sizes)


def _replication_pad(grad: torch.Tensor, self: torch.Tensor, padding: Sequence[int]) -> torch.Tensor:
    """What was padded along an axis adds to the first and the last place; ``padding`` goes from the last axis on."""
    for i in range(len(padding) // 2):
        axis, before = -1 - i, padding[2 * i]
        size, padded = self.shape[axis], grad.shape[axis]
        source = (torch.arange(padded, device=grad.device) - before).clamp(0, size - 1)
        shape = list(grad.shape)
        shape[axis] = size
        grad = grad.new_zeros(shape).index_add(axis, source, grad)
    return grad


def _grid_sampler_2d(
    grad: torch.Tensor, input: torch.Tensor, grid: torch.Tensor, mode: int, padding: int, align_corners: bool,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    def sample(image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return torch._decomp.decompositions.grid_sampler_2d(image, places, mode, padding, align_corners)

    gradients = torch.func.vjp(sample, input, grid)[1](grad)
    return tuple(gradient if wanted else None for gradient, wanted in zip(gradients, output_mask))
