"""``python -m onnxport``."""

from __future__ import annotations

from importlib import import_module

import_module("onnxport_workbench.cli").main()
