"""The loaded modules of the packages that a model's classes come from."""

from __future__ import annotations

import functools
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch


def modules_of_packages(model: torch.nn.Module, left_out: Container[str]) -> Iterator[Any]:
    """The modules that are loaded of the packages of the model's classes, but for packages that are left out."""
    kinds = {type(module) for module in model.modules()}
    packages = {cls.__module__.partition(".")[0] for kind in kinds for cls in kind.__mro__}
    loaded = _by_package(tuple(sys.modules))
    for package in sorted(packages):
        for name in () if package in left_out else loaded.get(package, ()):
            if hasattr(module := sys.modules.get(name), "__dict__"):
                yield module


@functools.lru_cache(maxsize=4)  # a capture asks several times, and thousands of modules are loaded
def _by_package(names: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.partition(".")[0], []).append(name)
    return found
