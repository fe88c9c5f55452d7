"""The operators of ONNX as methods of ``op``: the builder makes each when it is first used."""

from __future__ import annotations

from typing import Protocol


class Operators(Protocol):
    """The methods; ``operators.pyi``, which tools/operator_stub.py writes, lists them for type checkers."""
