"""Weights in 4 and 8 bits, rounded to the nearest: ``export(quantize=...)`` and ``onnxport.quantize``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from onnxport import hookimpl

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class _Deferred:
    """The quantizer, imported when a call asks for it, or a model has something of it."""

    def plan(self, request: Any, opset: int | None, names: Collection[str] | None) -> Any:
        return _quantizer().plan(request, opset, names)

    def restore(self, model: ir.Model) -> None:
        if _is_quantized(model):
            _quantizer().restore(model)

    def roundings(self, model: ir.Model, weights: Mapping[str, torch.Tensor]) -> Any:
        return _quantizer().roundings(model, weights) if _is_quantized(model) else None


def _quantizer() -> Any:
    from onnxport_quantization.quantizer import Quantizer

    return Quantizer()


def _is_quantized(model: ir.Model) -> bool:
    from onnxport.optimize.rewriting import QUANTIZED, all_nodes

    return any(QUANTIZED in node.metadata_props for node in all_nodes(model))


@hookimpl
def onnxport_quantizers() -> list[Any]:
    return [_Deferred()]
