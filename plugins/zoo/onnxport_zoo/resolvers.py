"""Where the models of a library come from: ``timm:*`` in a zoo's file asks the resolver that is called ``timm``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from importlib_metadata import entry_points
from onnxport.kit import UsageError

GROUP = "onnxport_zoo.resolvers"


@dataclass(frozen=True)
class Resolver:
    """The models of a library.

    A pack has one as an entry point of the group ``onnxport_zoo.resolvers``; its name is what stands before the colon.

    Attributes:
        names: gives the names of all models.
        example: makes one, by its name: a dict with ``model``, ``args``, ``kwargs`` and options of ``onnxport.export``,
            as factories of the command line return it.
        distributions: what must be installed, and whose versions tell whether a model is still the same.
    """

    names: Callable[[], Iterable[str]]
    example: Callable[[str], Mapping[str, Any]]
    distributions: tuple[str, ...] = ()

    def matching(self, pattern: str) -> list[str]:
        """The names that a pattern such as ``resnet*`` matches, sorted; a name without wildcards as it is."""
        if not any(sign in pattern for sign in "*?["):
            return [pattern]
        return sorted(name for name in self.names() if fnmatchcase(name, pattern))


@functools.cache
def _entries() -> dict[str, Any]:
    """Resolvers of packs, and the pack's own, which are there even if it is used from a folder."""
    from onnxport_zoo import timm_models, torchvision_models

    own: dict[str, Any] = {
        "timm": timm_models.resolver,
        "timm-families": timm_models.families,
        "torchvision": torchvision_models.resolver,
    }
    return own | {entry.name: entry for entry in entry_points(group=GROUP)}


@functools.cache
def resolver_named(name: str) -> Resolver | None:
    """The resolver of that name; None where no pack has one.

    Raises:
        UsageError: its entry point can't be imported, or is no Resolver.
    """
    found = _entries().get(name)
    if found is None or isinstance(found, Resolver):
        return found
    try:
        loaded = found.load()
    except Exception as error:
        raise UsageError(
            f"The resolver {name!r} can't be imported from {found.value}: {error}. Fix its pack."
        ) from error
    if not isinstance(loaded, Resolver):
        raise UsageError(f"The resolver {name!r} is {type(loaded)}: {found.value} must be an onnxport_zoo.Resolver.")
    return loaded
