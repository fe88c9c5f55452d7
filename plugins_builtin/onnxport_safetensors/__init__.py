"""``apply_weights(path)``: checkpoints in safetensors files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxport import hookimpl


def _read(path: str) -> Any:
    from onnxport_safetensors.checkpoint import read_checkpoint

    return read_checkpoint(path)


@hookimpl
def onnxport_checkpoints() -> list[Callable[[str], Any]]:
    return [_read]
