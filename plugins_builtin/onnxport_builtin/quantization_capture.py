"""What the capture of modules of fake quantization needs, and of int4 weights without the GPU that they are for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from onnxport.kit import Replacement, all_applied

from onnxport_builtin.meta_kernels import meta_kernels


def _like(self: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(self)


def _with_mask(self: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(self), torch.empty_like(self, dtype=torch.bool)


#: Operators without a meta kernel in torch 2.14, which therefore can't be captured with dynamic shapes.
_WITHOUT_META: dict[str, Callable[..., Any]] = {
    "fake_quantize_per_tensor_affine_cachemask": _with_mask,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _with_mask,
    "fake_quantize_per_channel_affine_cachemask": _with_mask,
    "_fake_quantize_learnable_per_tensor_affine": _like,
    "_fake_quantize_learnable_per_channel_affine": _like,
}


def _product(X: torch.Tensor, WQ: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return X.new_empty((*X.shape[:-1], WQ.shape[-2]), dtype=torch.bfloat16)


#: What torchao's int4 weights are multiplied by, which a library for GPUs defines.
_MSLK: dict[str, Callable[..., Any]] = {
    f"{name}(Tensor X, Tensor WQ, Tensor w_scale_group, Tensor w_zero_group) -> Tensor": _product
    for name in ("bf16i4bf16_rowwise", "bf16i4bf16_rowwise_batched", "bf16i4bf16_shuffled")
}


@contextmanager
def pure_modules() -> Iterator[None]:
    """While this is active, quantized models can be captured: operators at any shape, modules as pure operators.

    As they are (torch 2.14, torchao 0.18), ``FakeQuantize`` branches on a buffer, which ``torch.export`` refuses, and
    the fused module writes its statistics even where its observer is off. Both become the pure operator that computes
    the same, with its switches: their values are known when it is translated.
    """
    with meta_kernels(_WITHOUT_META), ExitStack() as stack:
        if "torchao.quantization" in sys.modules:
            stack.enter_context(meta_kernels(_MSLK, "mslk"))
        for package in ("torch.ao.quantization.fake_quantize", "torchao.quantization.pt2e.fake_quantize"):
            module = sys.modules.get(package)
            if module is not None:
                plain, fused = module.FakeQuantize, module.FusedMovingAvgObsFakeQuantize
                changes = (Replacement(plain, "forward", _plain_forward), Replacement(fused, "forward", _fused))
                stack.enter_context(all_applied(changes))
        yield


def _plain_forward(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(self: Any, X: torch.Tensor) -> torch.Tensor:
        if self.zero_point.is_floating_point():
            return original(self, X)
        return _call(self, X, self.scale, self.scale, 0.0, False)

    return forward


def _fused(_original: Any) -> Callable[..., torch.Tensor]:
    return _fused_forward


def _fused_forward(self: Any, X: torch.Tensor) -> torch.Tensor:
    observer = self.activation_post_process
    constant = observer.averaging_constant
    return _call(self, X, observer.min_val, observer.max_val, constant, self.is_symmetric_quant)


def _call(
    module: Any, X: torch.Tensor, least: torch.Tensor, most: torch.Tensor, constant: float, symmetric: bool
) -> torch.Tensor:
    observer = module.activation_post_process
    results = torch.ops.aten._fused_moving_avg_obs_fq_helper_functional(
        X,
        module.observer_enabled,
        module.fake_quant_enabled,
        least,
        most,
        module.scale,
        module.zero_point,
        constant,
        observer.quant_min,
        observer.quant_max,
        module.ch_axis,
        module.is_per_channel,
        symmetric,
    )
    return results[0]
