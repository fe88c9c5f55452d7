"""What the built-in plugin does by name: the capture, decompositions, and what an ``ONNXProgram`` does."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from onnxport.kit import Action

_HOMES = {
    "choose_target": "request.target",
    "check_call": "request.checks",
    "prefer": "request.preferences",
    "prepare": "request.arguments",
    "capture": "attempts.capture",
    "check_dynamic": "attempts.contract",
    "decomposer": "decomposer",
    "missing_operator": "missing_operators",
    "advertised": "known_packs",
    "call_spec": "program.call_spec",
    "run": "program.running",
    "call_reference": "program.running",
    "compute_values": "program.running",
    "open_session": "program.running",
    "stage": "program.running",
    "check_destination": "program.saving",
    "save": "program.saving",
    "load": "program.loading",
    "apply_weights": "program.reweight",
    "rename_axes": "program.axes",
    "fix": "program.fixing",
    "copy_model": "program.copies",
    "reduce": "program.copies",
}
"""The file that has the function of an action, by whose name it goes."""


def actions() -> list[Action]:
    """All of them; the file of one is imported when it is first done."""
    return [Action(name, partial(_perform, name)) for name in _HOMES]


def _perform(name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module(f"{__package__}.{_HOMES[name]}"), name)(*arguments, **options)
