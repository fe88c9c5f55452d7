"""The profiles: what onnxruntime has by execution provider, and which of its operators files have."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import metadata, resources
from importlib.util import find_spec
from typing import Any

from onnxport import Profile

from onnxport_onnxruntime import widening

DOMAIN = "com.microsoft"
CPU, CUDA, WEBGPU = "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-webgpu"
_OPEN = 2**31 - 1
_FASTER = 0.97
"""A file has an operator of onnxruntime where it takes at most so much of the standard form: more than runs differ."""


@functools.cache
def measurements(profile: str) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """The onnxruntime that was measured for a profile, and times in ms by operator and case: standard, operator.

    Those of the installed version, or of the newest that was measured.
    """
    data: dict[str, Any] = json.loads(resources.files(__package__).joinpath("choices.json").read_text("utf-8"))
    versions = data.get(profile, {})
    if not versions:
        return "", {}
    installed = installed_version()
    version = installed if installed in versions else max(versions, key=_numbers)
    return version, versions[version]


def installed_version() -> str:
    """The version of the installed onnxruntime; empty if there is none."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def used(profile: str) -> frozenset[str]:
    """The forms that files of a profile have."""
    return frozenset(name for name, cases in measurements(profile)[1].items() if ratio(cases) <= _FASTER)


def ratio(cases: dict[str, list[float]]) -> float:
    """The mean, over the cases, of the operator's time to that of the standard form."""
    return sum(own / standard for standard, own in cases.values()) / len(cases)


def choices(profile: str) -> dict[str, str]:
    """By form, whether files of a profile have it, and the measurement that decided."""
    version, measured = measurements(profile)
    told = {}
    for name, cases in measured.items():
        times = ", ".join(f"{case}: {standard:.3f} to {own:.3f} ms" for case, (standard, own) in cases.items())
        is_used = "used" if name in used(profile) else "not used"
        told[name] = f"{is_used}: {ratio(cases):.2f} of the standard form ({times}; onnxruntime {version})"
    return told


def profiles() -> list[Profile]:
    """onnxruntime by its execution providers."""
    return [
        Profile(
            CPU,
            f"onnxruntime on the CPU; its operators were measured on {measurements(CPU)[0]}",
            {DOMAIN: 1},
            opset=23,  # norms, rotations and attentions are one node each: tests/benchmarks/runtimes.py
            providers=("CPUExecutionProvider",),
            operators=frozenset([f"{DOMAIN}::GatherBlockQuantized"]),  # a tied table is stored once
            kernels=widening.kernels_of_files if find_spec("onnxruntime") else None,  # else those that check has
            choices=choices(CPU),
        ),
        Profile(
            CUDA,
            "onnxruntime on CUDA; none of its operators was measured, so files have those of the standard",
            {DOMAIN: 1},
            providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
            choices=choices(CUDA),
        ),
        Profile(
            WEBGPU,
            f"onnxruntime-web {_webgpu()['version']} on WebGPU; none of its operators was measured, so files have "
            "those of the standard",
            {DOMAIN: 1},
            providers=("WebGpuExecutionProvider", "CPUExecutionProvider"),
            kernels=webgpu_kernels,
            choices=choices(WEBGPU),
        ),
    ]


@functools.cache
def _webgpu() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("webgpu.json").read_text("utf-8"))  # type: ignore[no-any-return]


def webgpu_kernels() -> Mapping[tuple[str, str], Any]:
    """The kernels of WebGPU as the page of onnxruntime-web lists them, which doesn't tell the types."""
    found = {}
    for name, versions in _webgpu()["operators"].items():
        domain, _, operator = name.rpartition("::")
        found[domain, operator] = [(first, _OPEN if last is None else last, {}) for first, last in versions]
    return found
