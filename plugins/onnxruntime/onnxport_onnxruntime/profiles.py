"""The profiles: what onnxruntime has by execution provider, and which of its operators files have."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Measurement:
    """The times of one form.

    Attributes:
        date: when it was measured, as ``2026-12-01``.
        conditions: how, for whoever reads the profile.
        cases: by name of a case, for each pass the milliseconds of the standard form and of onnxruntime's operator.
    """

    date: str
    conditions: str
    cases: Mapping[str, list[list[float]]]

    @property
    def ratios(self) -> list[float]:
        """For each pass, the mean over the cases of the operator's time to that of the standard form."""
        passes = zip(*self.cases.values(), strict=True)
        return [sum(own / standard for standard, own in times) / len(times) for times in passes]

    @property
    def ratio(self) -> float:
        """That of the median pass."""
        return statistics.median(self.ratios)

    @property
    def is_faster(self) -> bool:
        """The operator takes less time than the standard form in each pass, and clearly less in the median one."""
        return self.ratio <= _FASTER and max(self.ratios) < 1


def median_times(passes: list[list[float]]) -> list[float]:
    """The times of the pass whose ratio is the median one; of an even number of passes, the lower of both."""
    return sorted(passes, key=lambda times: times[1] / times[0])[(len(passes) - 1) // 2]


@functools.cache
def measurements(profile: str) -> tuple[str, dict[str, Measurement]]:
    """The onnxruntime that was measured for a profile, and the measurements by form.

    Those of the installed version, or of the newest that was measured.
    """
    data: dict[str, Any] = json.loads(resources.files(__package__).joinpath("choices.json").read_text("utf-8"))
    versions = data.get(profile, {})
    if not versions:
        return "", {}
    installed = installed_version()
    version = installed if installed in versions else max(versions, key=_numbers)
    return version, {name: Measurement(**values) for name, values in versions[version].items()}


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
    return frozenset(name for name, measured in measurements(profile)[1].items() if measured.is_faster)


def choices(profile: str) -> dict[str, str]:
    """By form, whether files of a profile have it, and the measurement that decided."""
    version, measured = measurements(profile)
    told = {}
    for name, each in measured.items():
        medians = {case: median_times(passes) for case, passes in each.cases.items()}
        times = ", ".join(f"{case}: {standard:.3f} to {own:.3f} ms" for case, (standard, own) in medians.items())
        spread = f"{min(each.ratios):.2f} to {max(each.ratios):.2f}"
        told[name] = (
            f"{'used' if each.is_faster else 'not used'}: {each.ratio:.2f} of the standard form ({times}; "
            f"{spread} by pass; {each.date}, {each.conditions}; onnxruntime {version})"
        )
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
