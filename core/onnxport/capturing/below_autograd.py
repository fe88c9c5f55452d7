"""Capturing what derivatives and ``torch.func`` transforms compute, where torch.export's usual trace can't.

torch.export traces above autograd, where layers are whole operators. There torch 2.14 can't follow
``torch.autograd.grad``, forward mode derivatives, transforms of functions that use a layer's weights, or transforms in
the branches of control flow. A trace below autograd sees the operators that all of these come down to.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any
from unittest import mock

import torch
import torch.utils._pytree as pytree
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.nn.attention import SDPBackend, sdpa_kernel

from onnxport.errors import CaptureError

_GRADIENTS = re.compile("does not require grad|doesn't require gradient|grad_fn|None of the .* require gradients")
_SIGNS = re.compile(
    "(?<![_/])functorch|grad_fn|requires_?grad|forward mode AD|constant's list|no attribute 'constant'"
    "|data pointer of Tensor|Expected FakeTensor, got"  # the last is of torch 2.11 and 2.12
)


def needs_gradients(error: Exception) -> bool:
    """Whether a capture failed since forward takes gradients, which the usual trace switches off."""
    return bool(_GRADIENTS.search(str(error)))


def may_help(errors: Iterable[Exception]) -> bool:
    """Whether a failed capture looks as if derivatives or transforms were the reason."""
    return any(_SIGNS.search(str(error)) for error in errors)


def capture_below_autograd(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    """The program as ATen operators of inference; layers are no longer whole in it. Forward runs with gradients on."""
    forward = model.forward

    @functools.wraps(forward)
    def with_gradients(*args: Any, **kwargs: Any) -> Any:
        # Of the kinds of attention, only the one made of others has a backward pass that is made of others.
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return pytree.tree_map_only(torch.Tensor, _detached, forward(*args, **kwargs))

    with mock.patch.object(model, "forward", with_gradients):
        return _export(model, args, dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False, pre_dispatch=False)


def _detached(result: torch.Tensor) -> torch.Tensor:
    """torch.export would look for a backward pass behind a result that requires a gradient."""
    return result.detach() if result.requires_grad else result


def check_followed(program: ExportedProgram) -> ExportedProgram:
    """``program``, if what the model computed under transforms is in it.

    Raises:
        CaptureError: torch.export recorded a computed tensor as a constant, or a transform in a branch.
    """
    for name, constant in program.constants.items():
        if isinstance(constant, FakeTensor) and not torch._C._functorch.is_functorch_wrapped_tensor(constant):
            raise CaptureError(f"torch.export's functorch or autograd constant {name!r} has no data")
    for graph_module in program.graph_module.modules():
        if not isinstance(graph_module, torch.fx.GraphModule) or graph_module is program.graph_module:
            continue
        for node in graph_module.graph.nodes:
            if getattr(node.target, "__module__", "").startswith("torch._functorch"):
                raise CaptureError(f"torch.export recorded a step of functorch, {node.target.__name__}, in a branch")
    return program
