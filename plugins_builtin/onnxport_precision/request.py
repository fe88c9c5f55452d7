"""What a caller asks of half precision: the dtype, and what stays in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from onnxport import DataType, InputError
from onnxport.kit import shown

_DTYPES: Mapping[Any, DataType] = {
    "float32": DataType.FLOAT,
    "float16": DataType.FLOAT16,
    "bfloat16": DataType.BFLOAT16,
    torch.float32: DataType.FLOAT,
    torch.float16: DataType.FLOAT16,
    torch.bfloat16: DataType.BFLOAT16,
}


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        dtype: what weights and values become; FLOAT leaves the model as it is.
        keep: patterns of what stays in float32.
        keep_io: inputs and outputs stay in float32.
    """

    dtype: DataType
    keep: tuple[str, ...] = ()
    keep_io: bool = False

    @property
    def name(self) -> str:
        """The dtype as torch calls it."""
        return {dtype: name for name, dtype in _DTYPES.items() if isinstance(name, str)}[self.dtype]

    def matching(self, path: str, operator: str) -> list[str]:
        """The patterns that match a module's path, consecutive parts of it, or an operator; ``*`` is any text."""
        return [each for each in self.keep if _matches(each, path, operator)]


def _matches(pattern: str, path: str, operator: str) -> bool:
    if "::" in pattern:
        return fnmatchcase(operator, pattern)
    return bool(path) and fnmatchcase(f".{path}.", f"*.{pattern}.*")


def request_of(asked: Mapping[str, Any]) -> Request:
    """Check what ``dtype``, ``keep`` and ``keep_io`` say.

    Raises:
        InputError: one of them isn't understood.
    """
    dtype, keep, keep_io = asked["dtype"], asked["keep"], asked["keep_io"]
    if dtype is None:
        name = "keep" if keep is not None else "keep_io"
        raise InputError(f"{name}= needs dtype=: give dtype too, or leave {name} out.", parameter=name)
    if not isinstance(dtype, (str, torch.dtype)) or dtype not in _DTYPES:
        raise InputError(
            f"dtype={shown(dtype)}: give 'float16' or 'bfloat16', or leave it out for the model's own.",
            parameter="dtype",
        )
    if not isinstance(keep_io, bool):
        raise InputError(f"keep_io={shown(keep_io)}: give True or False.", parameter="keep_io")
    return Request(_DTYPES[dtype], _patterns(keep), keep_io)


def _patterns(keep: Any) -> tuple[str, ...]:
    example = "{'lm_head': 'float32'}, by paths of modules or names of operators"
    if keep is None:
        return ()
    if not isinstance(keep, Mapping):
        raise InputError(f"keep={shown(keep)}: give a dict such as {example}.", parameter="keep")
    for pattern, dtype in keep.items():
        if not isinstance(pattern, str) or not pattern.strip():
            raise InputError(f"keep has the key {shown(pattern)}: give a dict such as {example}.", parameter="keep")
        if not isinstance(dtype, (str, torch.dtype)) or dtype not in ("float32", torch.float32):
            raise InputError(
                f"keep={{{pattern!r}: {shown(dtype)}}}: parts of a model can stay in 'float32' only.", parameter="keep"
            )
    return tuple(keep)
