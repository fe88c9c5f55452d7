"""The leaves of a call's arguments: where they stand, what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnxport import NamesError
from onnxport.kit import Leaf, Request

from onnxport_builtin.request import pytrees


def leaves_of(request: Request) -> list[tuple[str, Any]]:
    """The leaves of a call's arguments with their readable paths, in the order in which torch.export flattens them."""
    return [pair for name, value in request.arguments for pair in walk(request.path_of(name), value)]


def walk(path: str, value: Any) -> list[tuple[str, Any]]:
    """All leaves below a value with their readable paths, in pytree's order."""
    if not pytrees.is_registered(value):
        return [(path, value)]
    keys, items = pytrees.children(value)
    return [
        pair
        for key, item in zip(keys, items, strict=True)
        for pair in walk(f"{path}.{key}" if path else str(key), item)
    ]


def described(value: Any) -> str:
    """A short word for an example input."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return repr(value)[:60]


def input_names_of(names: Sequence[str], leaves: Sequence[Leaf]) -> dict[int, str]:
    """The name asked for, by index of a leaf. Names count inputs, or all leaves where constants have a name too."""
    inputs = [i for i, leaf in enumerate(leaves) if leaf.is_input]
    if len(names) <= len(inputs) or not leaves:
        return dict(zip(inputs, names, strict=False))
    if len(names) == len(leaves):
        return {i: names[i] for i in inputs}
    listing = "".join(
        f"\n    {leaf.path}: {described(leaf.value)}{'' if leaf.is_input else ' (baked in, takes no name)'}"
        for leaf in leaves
    )
    raise NamesError(
        f"input_names has {len(names)} names, but the model has {len(inputs)} inputs:{listing or ' none'}",
        parameter="input_names",
        names=names[len(inputs) :],
    )
