"""Files for onnxruntime: its own operators, where they are measured to be faster than the standard's."""

from __future__ import annotations

from onnxport import Pass, Profile, Translation, collect, hookimpl


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of the pack, each for some profiles."""
    from onnxport_onnxruntime import translations

    return collect(translations)


@hookimpl
def onnxport_profiles() -> list[Profile]:
    """onnxruntime by its execution providers."""
    from onnxport_onnxruntime.profiles import profiles

    return profiles()


@hookimpl
def onnxport_fx_passes() -> list[Pass]:
    """What puts one operator of the pack for several nodes, for each profile by what was measured."""
    from onnxport_onnxruntime import fusion, profiles

    return [step for each in profiles.profiles() for step in fusion.fx_passes(each.name, profiles.used(each.name))]


@hookimpl
def onnxport_ir_passes() -> list[Pass]:
    """What keeps onnxruntime from fusing, for each profile by what was measured; and bfloat16 on the CPU."""
    from onnxport_onnxruntime import fusion, profiles, widening

    measured = [step for each in profiles.profiles() for step in fusion.ir_passes(each.name, profiles.used(each.name))]
    return [*measured, Pass("onnxruntime-cpu: bfloat16", widening.widen, is_required=True, profile=profiles.CPU)]
