"""What torch's operators fill with, and which calls on constants aren't computed at export time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxport.kit import Fill, Folding
from torch.fx import Node

_FILLS: dict[str, Callable[[Node], Any]] = {
    "aten::new_zeros": lambda node: 0,
    "aten::zeros_like": lambda node: 0,
    "aten::zero": lambda node: 0,
    "aten::new_ones": lambda node: 1,
    "aten::ones_like": lambda node: 1,
    "aten::full_like": lambda node: node.args[1],
    "aten::fill.Scalar": lambda node: node.args[1],
    "aten::new_full": lambda node: node.args[2],
}

#: What these give isn't decided.
_EMPTY = (
    "aten::_empty_affine_quantized aten::_empty_per_channel_affine_quantized aten::empty aten::empty_like "
    "aten::empty_permuted aten::empty_quantized aten::empty_strided aten::new_empty aten::new_empty_strided "
    "prims::empty prims::empty_permuted prims::empty_strided"
)

#: Weights that these quantize are stored as integers.
_QUANTIZING = (
    "_fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_channel_affine_backward "
    "_fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_tensor_affine_backward "
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fused_moving_avg_obs_fq_helper "
    "_fused_moving_avg_obs_fq_helper_functional fake_quantize_per_channel_affine "
    "fake_quantize_per_channel_affine_cachemask fake_quantize_per_channel_affine_cachemask_backward "
    "fake_quantize_per_tensor_affine fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_tensor_affine_cachemask_backward fused_moving_avg_obs_fake_quant"
)


def _has_elements(node: Node) -> bool:
    """At another size of what is empty in the example there may be elements."""
    return 0 not in node.meta["val"].shape


def _evaluates(node: Node) -> bool:
    """Whether a dropout drops nothing."""
    return node.args[2] is False


def records() -> list[Any]:
    """All of them."""
    return [
        *(Fill(op, value) for op, value in _FILLS.items()),
        *(Folding(op) for op in _EMPTY.split()),
        *(Folding(f"aten::{name}") for name in _QUANTIZING.split()),
        Folding("aten::expand", when=_has_elements),
        *(Folding(f"aten::{name}", when=_evaluates) for name in ("dropout", "feature_dropout")),
    ]
