"""Profiles: the runtimes that files can be written for, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from onnxport.errors import InputError, PluginError
from onnxport.vocabulary.checks import shown

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


DEFAULT = Profile(STANDARD, "the standard alone: every runtime of ONNX")


def is_for(pattern: str | None, profile: str) -> bool:
    """Whether what is for the profiles of a pattern, or without one for all, is for a profile."""
    return pattern is None or fnmatchcase(profile, pattern)


def by_name(profiles: Iterable[Profile]) -> dict[str, Profile]:
    """Profiles by name, the standard first.

    Raises:
        PluginError: two have one name.
    """
    named = {STANDARD: DEFAULT}
    for profile in profiles:
        if (other := named.setdefault(profile.name, profile)) is not profile:
            raise PluginError(
                f"The plugins {other.plugin or 'onnxport'!r} and {profile.plugin!r} both have a profile "
                f"{profile.name!r}: leave one out of plugins=[...], or rename one.",
                plugins=[other.plugin, profile.plugin],
            )
    return named


def chosen_profile(runtime: object, portable: object, profiles: Callable[[], Mapping[str, Profile]]) -> Profile:
    """The profile that a call names.

    Raises:
        InputError: no plugin of the call has a profile of that name; or ``portable`` is no bool, or has no effect.
    """
    if not isinstance(portable, bool):
        raise InputError(f"portable={shown(portable)}: give True or False.", parameter="portable")
    if isinstance(runtime, str) and runtime == STANDARD:
        if portable:
            raise InputError(
                "portable=True has no effect on runtime='onnx', whose files every runtime takes: leave it out, or name "
                "a runtime.",
                parameter="portable",
            )
        return DEFAULT
    known = profiles()
    if not isinstance(runtime, str) or runtime not in known:
        near = get_close_matches(runtime, known, 1) if isinstance(runtime, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        cure = "" if len(known) > 1 else " Install a pack that has some (pip install onnxport-onnxruntime)."
        raise InputError(
            f"runtime={shown(runtime)} names no profile of the plugins of this call; there are: "
            f"{', '.join(map(repr, known))}.{hint}{cure}",
            parameter="runtime",
        )
    return replace(known[runtime], portable=portable, operators=frozenset() if portable else known[runtime].operators)
