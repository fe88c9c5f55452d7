"""Weights in 4 and 8 bits, rounded to the nearest: ``export(quantize=...)`` and ``onnxport.quantize``."""

from __future__ import annotations

from typing import Any

from onnxport import hookimpl


class _Deferred:
    """The quantizer, imported when it is first used."""

    def __getattr__(self, name: str) -> Any:
        from onnxport_quantization.quantizer import Quantizer

        return getattr(Quantizer(), name)


@hookimpl
def onnxport_quantizers() -> list[Any]:
    return [_Deferred()]
