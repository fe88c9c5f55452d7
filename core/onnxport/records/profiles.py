"""Profiles: the runtimes that files can be written for, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from onnxport.errors import PluginError

STANDARD = "onnx"

Kernels = Mapping[tuple[str, str], Sequence[tuple[int, int, Mapping[str, Iterable[str]]]]]
"""By domain and operator: first and last version of each kernel, and the types it takes, by type variable."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A runtime that files can be written for.

    Attributes:
        name: what ``export(runtime=...)`` takes, such as ``"onnxruntime-cpu"``.
        description: one line for people, with the version of the runtime that the data is of.
        domains: version of each domain, beside ONNX's own, that the runtime has operators of.
        opset: the opset that is written where the caller names none; None for the usual one.
        providers: onnxruntime's execution providers that run such a file, the preferred first.
        kernels: gives the table of kernels, for ``check(runtime=...)``; None where it isn't known.
        operators: those of its domains that other plugins may write too: ``"com.microsoft::GatherBlockQuantized"``.
        choices: by operator, whether files have it and the measurement that decided.
        portable: the call asked for operators of other domains as functions with a standard body.
        quantized: the call rounds weights (``quantize=``), which an operator of the runtime may have no form for.
        plugin: name of the plugin that brought it; filled when the plugin is loaded.
    """

    name: str
    description: str = ""
    domains: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    providers: tuple[str, ...] = ()
    kernels: Callable[[], Kernels] | None = None
    operators: frozenset[str] = frozenset()
    choices: Mapping[str, str] = field(default_factory=dict)
    portable: bool = False
    quantized: bool = False
    plugin: str = field(default="", compare=False)


DEFAULT_PROFILE = Profile(STANDARD, "the standard alone: every runtime of ONNX")


def is_for(pattern: str | None, profile: str) -> bool:
    """Whether what is for the profiles of a pattern, or without one for all, is for a profile."""
    return pattern is None or fnmatchcase(profile, pattern)


def by_name(profiles: Iterable[Profile]) -> dict[str, Profile]:
    """Profiles by name, the standard first.

    Raises:
        PluginError: two have one name.
    """
    named = {STANDARD: DEFAULT_PROFILE}
    for profile in profiles:
        if (other := named.setdefault(profile.name, profile)) is not profile:
            raise PluginError(
                f"The plugins {other.plugin or 'onnxport'!r} and {profile.plugin!r} both have a profile "
                f"{profile.name!r}: leave one out of plugins=[...], or rename one.",
                plugins=[other.plugin, profile.plugin],
            )
    return named
