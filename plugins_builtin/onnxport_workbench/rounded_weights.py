"""Files whose weights are rounded: what they are compared with, and how far they are from the original."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxport import InputError
from onnxport.kit import load

from onnxport_workbench.weight_check import weights_of


def roundings_of(model: ir.Model, reference: Any, plugins: Sequence[Any] | None) -> Any:
    """What a quantizer says of the rounded weights of a model; None where it has none.

    Raises:
        InputError: the torch model doesn't have these weights.
    """
    weights = weights_of(reference)
    for quantizer in load(plugins).items("onnxport_quantizers"):
        found = quantizer.roundings(model, weights)
        if found is None:
            continue
        if missing := found.missing:
            names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise InputError(
                "The weights of the ONNX model are rounded, and are compared with the torch model's, rounded likewise; "
                f"the model given has no {names}. Pass the module that was exported, or the ExportedProgram.",
                parameter="model",
            )
        return found
    return None


@contextlib.contextmanager
def replaced(function: Any, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """A module with other weights, by name, for a while."""
    module = getattr(function, "_orig_mod", function)  # of torch.compile
    places: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for name, tensor in weights.items():
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            table: dict[str, Any] = owner._parameters if attribute in owner._parameters else owner._buffers
            old = table[attribute]
            places.append((table, attribute, old))
            is_parameter = isinstance(old, torch.nn.Parameter)
            table[attribute] = torch.nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor
        yield
    finally:
        for table, attribute, old in places:
            table[attribute] = old


__all__ = ["replaced", "roundings_of"]
