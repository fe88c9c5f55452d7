"""Shapes of ``view`` and ``reshape``: the sizes that were asked for, and none that hold for the example alone.

torch 2.14 finds the shape of a view by merging and splitting axes, and compares their sizes for the example. Where one
is 1 only there, such as the number of windows in a small map, the size is fixed, or the result gets sizes of other
axes: 7 for ``7 * (width // 7)``, which is wrong at other widths. While an export captures, the result has the shape
that was asked for, which is the same number by definition; a contiguous tensor with as many elements at every size is
compared with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from onnxport.kit import Replacement
from torch import _prims_common as layout
from torch import _refs as references


def shapes_of_views() -> Iterator[Replacement]:
    """While any thread is in it, torch's function is replaced."""
    if hasattr(references, "_reshape_view_helper"):
        yield Replacement(references, "_reshape_view_helper", _as_asked)


def _as_asked(original: Callable[..., Any]) -> Callable[..., Any]:
    def helper(a: Any, *shape: Any, allow_copy: bool) -> Any:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        if not any(isinstance(size, torch.SymInt) for size in (*a.shape, *sizes)):
            return original(a, *shape, allow_copy=allow_copy)
        asked = _without_minus_one(a.numel(), sizes)
        if _same(a.numel(), _product(asked)) and layout.is_contiguous_or_false(a):
            return a.as_strided(asked, layout.make_contiguous_strides_for(asked))
        result = original(a, *shape, allow_copy=allow_copy)
        if all(_same(x, y) for x, y in zip(asked, result.shape, strict=True)):
            return result
        return result.as_strided(asked, _strides(asked, result))

    return helper


def _without_minus_one(count: Any, sizes: Sequence[Any]) -> list[Any]:
    """The sizes, with the one that follows from the number of elements."""
    free = [axis for axis, size in enumerate(sizes) if isinstance(size, int) and size == -1]
    others = _product([size for axis, size in enumerate(sizes) if axis not in free]) if free else 1
    return [count // others if axis in free else size for axis, size in enumerate(sizes)]


def _product(sizes: Sequence[Any]) -> Any:
    """Their product, from left to right."""
    product: Any = 1
    for size in sizes:
        product = product * size
    return product


def _same(x: Any, y: Any) -> bool:
    """Whether two sizes are one expression."""
    return bool(_expression(x) == _expression(y))


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _strides(shape: Sequence[Any], result: Any) -> Any:
    """Those of a contiguous tensor of that shape, if the result is one."""
    if layout.is_contiguous_or_false(result):
        return layout.make_contiguous_strides_for(shape)
    return result.stride()
