"""The built-in plugins by name: the one place where the core knows them."""

from __future__ import annotations

BUILTIN_PACKAGE = "onnxport_builtin"
STAGE_PACKAGES = (
    "onnxport_functional", "onnxport_functions", "onnxport_onnxscript", "onnxport_precision", "onnxport_quantization",
    "onnxport_safetensors", "onnxport_workbench",
)  # fmt: skip
"""Built-in plugins for stages of the pipeline; they are told as parts of the built-in one."""
