"""Functions of onnxscript in ``custom_translation_table``: traced, scripted, and those of its collection for torch."""

from __future__ import annotations

from onnxport import Translation, hookimpl


@hookimpl
def onnxport_adapt(function: object) -> Translation | None:
    from onnxport_onnxscript import adapter

    return adapter.adapted(function)
