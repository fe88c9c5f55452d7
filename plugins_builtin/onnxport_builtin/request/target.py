"""What a file is for: the opset and the profile of the runtime that a call names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from onnxport import InputError, OpsetError, Profile
from onnxport.kit import DEFAULT_OPSET, DEFAULT_PROFILE, MAX_OPSET, MIN_OPSET, shown


def choose_target(
    version: int | None, runtime: object, portable: object, profiles: Callable[[], Mapping[str, Profile]]
) -> tuple[int, Profile]:
    """The opset and the profile that a call names.

    Raises:
        InputError: as :func:`chosen_profile`; an OpsetError where the opset is none that can be written.
    """
    profile = chosen_profile(runtime, portable, profiles)
    return opset_of(version, profile), profile


def opset_of(version: int | None, profile: Profile) -> int:
    """The target opset.

    Raises:
        OpsetError: it is none that can be written.
    """
    if version is None:
        return profile.opset or DEFAULT_OPSET
    if not isinstance(version, int) or isinstance(version, bool) or not MIN_OPSET <= version <= MAX_OPSET:
        raise OpsetError(
            f"opset_version={shown(version)} can't be written: onnxport writes opsets {MIN_OPSET} to {MAX_OPSET} "
            f"(the newest that the installed onnx knows). Leave it out for {DEFAULT_OPSET}.",
            parameter="opset_version",
            opset=version,
            lowest=MIN_OPSET,
            highest=MAX_OPSET,
        )
    return version


def chosen_profile(runtime: object, portable: object, profiles: Callable[[], Mapping[str, Profile]]) -> Profile:
    """The profile that a call names.

    Raises:
        InputError: no plugin of the call has a profile of that name; or ``portable`` is no bool, or has no effect.
    """
    if not isinstance(portable, bool):
        raise InputError(f"portable={shown(portable)}: give True or False.", parameter="portable")
    if isinstance(runtime, str) and runtime == DEFAULT_PROFILE.name:
        if portable:
            raise InputError(
                "portable=True has no effect on runtime='onnx', whose files every runtime takes: leave it out, or name "
                "a runtime.",
                parameter="portable",
            )
        return DEFAULT_PROFILE
    known = profiles()
    if not isinstance(runtime, str) or runtime not in known:
        near = get_close_matches(runtime, known, 1) if isinstance(runtime, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        advice = "" if len(known) > 1 else " Install a pack that has some (pip install onnxport-onnxruntime)."
        raise InputError(
            f"runtime={shown(runtime)} names no profile of the plugins of this call; there are: "
            f"{', '.join(map(repr, known))}.{hint}{advice}",
            parameter="runtime",
        )
    return replace(known[runtime], portable=portable, operators=frozenset() if portable else known[runtime].operators)
