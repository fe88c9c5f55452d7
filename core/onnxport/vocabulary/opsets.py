"""The opsets of the default domain that can be written."""

from __future__ import annotations

import onnx

LOWEST_OPSET = 18
"""The lowest that a translation may ask for. One that asks for it also serves older opsets: forms adapt its nodes."""
NEWEST_OPSET = 28
"""The newest that this release knows; an older onnx knows fewer, and its records above those are no candidates."""
#: The lowest and the highest opset that can be written, and the one that is written when none is asked for.
MIN_OPSET = 13
MAX_OPSET: int = onnx.defs.onnx_opset_version()
DEFAULT_OPSET = 20
