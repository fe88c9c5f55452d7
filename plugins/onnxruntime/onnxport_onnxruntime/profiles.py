"""The profiles: what onnxruntime has by execution provider."""

from __future__ import annotations

from onnxport import Profile

DOMAIN = "com.microsoft"


def profiles() -> list[Profile]:
    """onnxruntime by its execution providers."""
    return [Profile("onnxruntime-cpu", "onnxruntime", {DOMAIN: 1}, None, ("CPUExecutionProvider",))]
