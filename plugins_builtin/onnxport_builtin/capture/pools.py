"""Pools whose windows or results are as large as a dynamic size says.

torch's operators take plain numbers there, so ``adaptive_max_pool2d(x, (3, None))`` and ``max_pool1d(x, x.size(2))``
make the size the example's. While an export captures, an adaptive maximum of dynamic sizes is an operator of this
package's own, the average over one axis is the one over two, which takes them, and a window over a whole axis is a
reduction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnxport.kit import Replacement

_library = torch.library.Library("onnxport", "FRAGMENT")
_library.define("adaptive_max_pool(Tensor self, SymInt[] output_size) -> (Tensor, Tensor)")


def _adaptive_max_pool(self: torch.Tensor, output_size: Sequence[int]) -> Any:
    kernel = {1: torch.adaptive_max_pool1d, 2: _nn.adaptive_max_pool2d, 3: _nn.adaptive_max_pool3d}[len(output_size)]
    return kernel(self, [int(size) for size in output_size])


def _adaptive_max_shapes(self: torch.Tensor, output_size: Sequence[Any]) -> Any:
    shape = [*self.shape[: -len(output_size)], *output_size]
    return self.new_empty(shape), self.new_empty(shape, dtype=torch.int64)


_library.impl("adaptive_max_pool", _adaptive_max_pool, "CompositeExplicitAutograd")
torch.library.register_fake("onnxport::adaptive_max_pool", _adaptive_max_shapes, lib=_library)

_nn: Any = torch._C._nn  # type: ignore[attr-defined]  # where torch.nn.functional has its kernels


def pools() -> Iterator[Replacement]:
    """While any thread is in it, the sizes of pools may be dynamic."""
    for owner in (torch, F):
        yield Replacement(owner, "adaptive_avg_pool1d", _average_over_two)
    yield Replacement(torch, "adaptive_max_pool1d", functools.partial(_any_maxima, 1))
    yield Replacement(_nn, "adaptive_max_pool2d", functools.partial(_any_maxima, 2))
    yield Replacement(_nn, "adaptive_max_pool3d", functools.partial(_any_maxima, 3))
    for spatial, owners in ((1, (torch, F)), (2, (_nn, F)), (3, (_nn, F))):
        for owner in owners:
            yield Replacement(owner, f"avg_pool{spatial}d", functools.partial(_whole_averages, spatial))
        yield Replacement(torch, f"max_pool{spatial}d", functools.partial(_whole_maxima, spatial))
        with_indices = torch if spatial == 1 else _nn
        wrapper = functools.partial(_whole_maxima_and_places, spatial)
        yield Replacement(with_indices, f"max_pool{spatial}d_with_indices", wrapper)


def _sizes(value: Any, spatial: int) -> list[Any] | None:
    """The sizes of a pool, one a spatial axis, where one of them is dynamic; the sizes of a strict capture aren't."""
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    if torch.compiler.is_dynamo_compiling() or not any(isinstance(size, torch.SymInt) for size in listed):
        return None
    return listed * spatial if len(listed) == 1 else listed


def _average_over_two(original: Callable[..., Any]) -> Callable[..., Any]:
    def adaptive_avg_pool1d(input: torch.Tensor, output_size: Any) -> Any:
        sizes = _sizes(output_size, 1)
        if sizes is None:
            return original(input, output_size)
        return F.adaptive_avg_pool2d(input.unsqueeze(-2), (1, sizes[0])).squeeze(-2)

    return adaptive_avg_pool1d


def _any_maxima(spatial: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def adaptive_max_pool(input: torch.Tensor, output_size: Any) -> Any:
        sizes = _sizes(output_size, spatial)
        if sizes is None or (torch.is_grad_enabled() and input.requires_grad):
            return original(input, output_size)
        return torch.ops.onnxport.adaptive_max_pool(input, sizes)

    return adaptive_max_pool


def _whole_axes(
    input: torch.Tensor, kernel: Sequence[Any], padding: Any, dilation: Any = 1
) -> tuple[list[int], list[Any]] | None:
    """The axes that one window covers, and the kernel with 1 for them; None where pads or gaps are in the way."""

    def plain(value: Any, number: int) -> bool:
        return all(each == number for each in (value if isinstance(value, (list, tuple)) else [value]))

    if not plain(padding, 0) or not plain(dilation, 1):
        return None
    axes, rest = [], list(kernel)
    for i, size in enumerate(kernel):
        axis = i - len(kernel)
        if _is_same(size, input.shape[axis]):
            axes.append(axis)
            rest[i] = 1
    return (axes, rest) if axes and not any(isinstance(size, torch.SymInt) for size in rest) else None


def _is_same(a: Any, b: Any) -> bool:
    """Whether two sizes are one expression; no guard is added."""
    if isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt):
        return bool(a.node.expr == b.node.expr)
    return isinstance(a, int) and isinstance(b, int) and a == b


def _steps(stride: Any, kernel: Sequence[Any], rest: Sequence[int]) -> list[Any]:
    """The strides of the other axes; one window needs none."""
    listed = list(stride) if isinstance(stride, (list, tuple)) else [] if stride is None else [stride]
    steps = (listed * len(kernel) if len(listed) == 1 else listed) or list(kernel)
    return [1 if isinstance(step, torch.SymInt) else step for step in steps]


def _whole_averages(spatial: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def avg_pool(
        input: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        override = () if spatial == 1 else (divisor_override,)
        kernel = _sizes(kernel_size, spatial)
        whole = None if kernel is None or divisor_override else _whole_axes(input, kernel, padding)
        if kernel is None or whole is None:
            steps = () if stride is None else stride
            return original(input, kernel_size, steps, padding, ceil_mode, count_include_pad, *override)
        axes, rest = whole
        means = input.mean(axes, keepdim=True)
        if all(size == 1 for size in rest) and len(axes) == spatial:
            return means
        return original(means, rest, _steps(stride, kernel, rest), 0, ceil_mode, count_include_pad, *override)

    return avg_pool


def _whole_maxima(spatial: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def max_pool(
        input: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        kernel = _sizes(kernel_size, spatial)
        whole = None if kernel is None else _whole_axes(input, kernel, padding, dilation)
        if kernel is None or whole is None:
            return original(input, kernel_size, () if stride is None else stride, padding, dilation, ceil_mode)
        axes, rest = whole
        if len(axes) == spatial:
            return _adaptive_max_pool(input, [1] * spatial)[0]
        maxima = input.amax(axes, keepdim=True)
        return original(maxima, rest, _steps(stride, kernel, rest), 0, 1, ceil_mode)

    return max_pool


def _whole_maxima_and_places(spatial: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def max_pool_with_indices(
        input: torch.Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        kernel = _sizes(kernel_size, spatial)
        whole = None if kernel is None else _whole_axes(input, kernel, padding, dilation)
        if kernel is None or whole is None or len(whole[0]) < spatial:
            return original(input, kernel_size, () if stride is None else stride, padding, dilation, ceil_mode)
        return _adaptive_max_pool(input, [1] * spatial)

    return max_pool_with_indices
