"""What the builder is taught: results of ONNX operators, and sizes as nodes and as text."""

from __future__ import annotations

from typing import Any

from onnxport.kit import SizeText

from onnxport_builtin.emission import dimension_text, results, sizes


def records() -> list[Any]:
    """All records."""
    return [*results.records(), *sizes.records(), SizeText(dimension_text.text_of)]
