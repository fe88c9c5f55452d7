"""What an ``ONNXProgram`` does, a file a concern: running, saving, loading, other weights, copies."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from onnxport.kit import Action

_HOMES = {
    "run": "running",
    "call_reference": "running",
    "compute_values": "running",
    "open_session": "running",
    "stage": "running",
    "check_destination": "saving",
    "save": "saving",
    "load": "loading",
    "apply_weights": "reweight",
    "rename_axes": "axes",
    "fix": "fixing",
    "copy_model": "copies",
    "reduce": "copies",
}
"""The file that has the function of an action, by whose name it goes."""


def actions() -> list[Action]:
    """All of them; the file of one is imported when it is first done."""
    return [Action(name, partial(_perform, name)) for name in _HOMES]


def _perform(name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)(*arguments, **options)
