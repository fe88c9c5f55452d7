"""``python -m onnxport``."""

from __future__ import annotations

from onnxport.cli import main

main()
