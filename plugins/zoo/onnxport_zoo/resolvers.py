"""Where the models of a library come from: ``timm:*`` in a zoo's file asks the resolver that is called ``timm``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
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
        perform: does all that is to be done for a name, instead of an export and a verification of an example. It takes
            the name and the case's settings, and returns a result: a dict with ``status``, and what else is to be kept.
        preload: modules that the process of each case has imported before it starts.
    """

    names: Callable[[], Iterable[str]]
    example: Callable[[str], Mapping[str, Any]] | None = None
    distributions: tuple[str, ...] = ()
    perform: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None = None
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.example is None) == (self.perform is None):
            raise UsageError("A Resolver has either example= or perform=: give one of them.")

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


def resolver_at(place: str, folder: str) -> Resolver:
    """The resolver at ``file.py:attribute`` or ``module:attribute``; files are those of a folder.

    Raises:
        UsageError: there is none.
    """
    module, _, attribute = place.rpartition(":")
    try:
        loaded = getattr(_module(module, str(Path(folder, module).absolute())), attribute)
    except Exception as error:  # the code of a module may raise anything
        raise UsageError(
            f"The resolver {place!r} can't be imported: {type(error).__name__}: {error}. Fix it."
        ) from error
    if not isinstance(loaded, Resolver):
        raise UsageError(f"The resolver {place!r} is {type(loaded)}: it must be an onnxport_zoo.Resolver.")
    return loaded


@functools.cache
def _module(name: str, path: str) -> Any:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no file with Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
