"""Parts of a dynamic size: ``tensor_split``, ``split`` and ``chunk``.

torch 2.14 compares the remainder of the example's size with the number of the parts of ``tensor_split``, and then takes
the parts to be that long for every size. While an export captures, their lengths are expressions of the size.

How many parts ``split`` and ``chunk`` give may follow the size, and a graph has a fixed number. That condition is asked
here as if the model's line asked it, so that the line is named where other sizes break it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from onnxport.kit import Replacement


def parts() -> Iterator[Replacement]:
    """While any thread is in it, the parts follow the size."""
    yield Replacement(torch, "tensor_split", _by_expressions)
    yield Replacement(torch.Tensor, "tensor_split", _by_expressions)
    for name in ("split", "unsafe_split"):
        yield Replacement(torch.Tensor, name, _counted(lambda size, length: length))
    for name in ("chunk", "unsafe_chunk"):
        for owner in (torch, torch.Tensor):
            yield Replacement(owner, name, _counted(lambda size, chunks: (size + (chunks - 1)) // chunks))


def _by_expressions(original: Callable[..., Any]) -> Callable[..., Any]:
    def tensor_split(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        count, dim = _sections(input, *args, **kwargs)
        if count is None or dim is None:
            return original(input, *args, **kwargs)
        size = input.shape[dim]
        lengths = [(size + (count - 1 - i)) // count for i in range(count - 1)]
        return input.split([*lengths, size - sum(lengths)], dim)

    return tensor_split


def _sections(
    input: torch.Tensor,
    indices_or_sections: Any = None,
    dim: Any = 0,
    *,
    sections: Any = None,
    tensor_indices_or_sections: Any = None,
    **others: Any,
) -> tuple[int | None, int | None]:
    """The number of parts and the axis, where the axis is dynamic and the number is one; a strict capture's isn't."""
    given = (indices_or_sections, sections, tensor_indices_or_sections)
    count = next((value for value in given if value is not None), None)
    if others or not _is_dynamic(input, dim):
        return None, None
    if isinstance(count, torch.Tensor) and not count.dim():
        count = count.item()  # a tensor made of a number in forward is known
    return (count, dim) if type(count) is int and count > 0 else (None, None)


def _is_dynamic(input: torch.Tensor, dim: Any) -> bool:
    """Whether the axis is of a symbolic size, which a strict capture doesn't show."""
    if torch.compiler.is_dynamo_compiling() or not isinstance(dim, int) or not -input.dim() <= dim < input.dim():
        return False
    return isinstance(input.shape[dim], torch.SymInt)


def _counted(length_of: Callable[[Any, Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function, after it was asked whether the number of parts is the example's.

    Args:
        length_of: the length of a part, of the axis' size and the function's argument.
    """

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def function(input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            given = dict(zip(("of", "dim"), args))
            number = next((kwargs[name] for name in _NUMBERS if name in kwargs), given.get("of"))
            dim = kwargs.get("dim", given.get("dim", 0))
            if isinstance(number, (int, torch.SymInt)) and _is_dynamic(input, dim):
                size = input.shape[dim]
                length = length_of(size, number)
                _ask((size + (length - 1)) // length)
            return original(input, *args, **kwargs)

        return function

    return wrap


_NUMBERS = ("split_size", "split_size_or_sections", "chunks")
_LIBRARIES = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, Path(__file__).parent))


def _ask(count: Any) -> None:
    """Ask, at the line of the model, whether a number of parts is the example's."""
    number = getattr(getattr(count, "node", None), "hint", None)
    if not isinstance(number, int):
        return
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    condition = "\n" * (frame.f_lineno - 1) + "bool(count == number)"
    eval(compile(condition, frame.f_code.co_filename, "eval"), {"count": count, "number": number})
