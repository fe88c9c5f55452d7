"""Batching rules of ``torch.vmap`` that make a dynamic batch a number.

A few of torch 2.14's rules read sizes as plain numbers: a concatenation of tensors of which some aren't batched (a
basis, in each nested Jacobian), the gradients of slices, and normalizations. While an export captures, these operators
have rules that keep sizes symbolic: torch's decompositions, which are made of operators that do.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._C import _functorch
from torch._decomp import decomposition_table

_KEY = "FuncTorchBatched"

#: Operators whose decomposition is their rule.
_DECOMPOSED = ("gelu_backward", "native_layer_norm")


@contextlib.contextmanager
def symbolic_batches() -> Iterator[None]:
    """While any thread is in it, the operators have these rules."""
    library = torch.library.Library("aten", "IMPL")
    rules: dict[str, Callable[..., Any]] = {
        "cat": _cat,
        "slice_backward": _of_slice,
        "select_backward": _of_select,
        "diagonal_backward": _of_diagonal,
        "native_layer_norm_backward": _of_layer_norm,
    }
    for name in _DECOMPOSED:
        decomposition = decomposition_table.get(getattr(torch.ops.aten, name).default)
        if decomposition is not None:
            rules[name] = decomposition
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each rule takes the place of another
            for name, rule in rules.items():
                library.impl(name, rule, _KEY, allow_override=True)
        yield
    finally:
        library._destroy()


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """Tensors that aren't batched are expanded."""
    level = _functorch.maybe_current_level()
    unwrapped = [_functorch._unwrap_batched(tensor, level) for tensor in tensors]
    sizes = [tensor.shape[axis] for tensor, axis in unwrapped if axis is not None]
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.FuncTorchBatched)):
        if not sizes:
            return torch.cat([tensor for tensor, _ in unwrapped], dim)
        batched = [
            tensor.unsqueeze(0).expand(sizes[0], *tensor.shape) if axis is None else tensor.movedim(axis, 0)
            for tensor, axis in unwrapped
        ]
        result = torch.cat(batched, dim + 1 if dim >= 0 else dim)
    return _functorch._add_batch_dim(result, 0, level)


# Gradients of views: zeros around what was taken ----------------------------------------------------------------------


def _padded(grad: torch.Tensor, dim: int, before: Any, after: Any) -> torch.Tensor:
    dim %= grad.dim()
    return torch.constant_pad_nd(grad, [0, 0] * (grad.dim() - 1 - dim) + [before, after])


def _of_select(grad_output: torch.Tensor, input_sizes: Sequence[Any], dim: int, index: Any) -> torch.Tensor:
    dim %= len(input_sizes)
    index = index + input_sizes[dim] if index < 0 else index
    return _padded(grad_output.unsqueeze(dim), dim, index, input_sizes[dim] - 1 - index)


def _of_slice(
    grad_output: torch.Tensor, input_sizes: Sequence[Any], dim: int, start: Any, end: Any, step: Any
) -> torch.Tensor:
    dim %= len(input_sizes)
    size, length = input_sizes[dim], grad_output.shape[dim]
    first = min(max(start + size if start < 0 else start, 0), size)
    if step != 1:  # zeros behind each element; those behind the last are cut off
        spread = _padded(grad_output.unsqueeze(dim + 1), dim + 1, 0, step - 1).flatten(dim, dim + 1)
        grad_output, length = spread.narrow(dim, 0, max((length - 1) * step + 1, 0)), max((length - 1) * step + 1, 0)
    return _padded(grad_output, dim, first, size - first - length)


def _of_diagonal(
    grad_output: torch.Tensor, input_sizes: Sequence[Any], offset: int, dim1: int, dim2: int
) -> torch.Tensor:
    square = torch.diag_embed(grad_output, offset, dim1, dim2)
    for dim in (dim1, dim2):
        square = _padded(square, dim, 0, input_sizes[dim] - square.shape[dim])
    return square


# Normalization --------------------------------------------------------------------------------------------------------


def _of_layer_norm(
    grad_out: torch.Tensor,
    input: torch.Tensor,
    normalized_shape: Sequence[Any],
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor | None, ...]:
    """The gradients of ``(x - mean) * rstd * weight + bias``.

    The mean and deviation are computed from the input once more: a second derivative goes through them, and those that
    are given have none. Epsilon is what the given deviation holds beyond the variance.
    """
    first = input.dim() - len(normalized_shape)
    axes, others = list(range(first, input.dim())), list(range(first))
    work = rstd.dtype
    x, grad = input.to(work), grad_out.to(work)
    centered = x - x.mean(axes, keepdim=True)
    variance = (centered * centered).mean(axes, keepdim=True)
    scale = torch.rsqrt(variance + (1 / (rstd * rstd) - variance).detach())
    normal = centered * scale
    scaled = grad if weight is None else grad * weight.to(work)
    found = scale * (scaled - scaled.mean(axes, keepdim=True) - normal * (scaled * normal).mean(axes, keepdim=True))
    summed = [values.sum(others) if others else values for values in (grad * normal, grad)]
    results = (found, *summed)
    return tuple(value.to(input.dtype) if wanted else None for value, wanted in zip(results, output_mask, strict=True))
