"""Capturing what derivatives and ``torch.func`` transforms compute, where torch.export's usual trace can't.

torch.export traces above autograd, where layers are whole operators. There torch 2.14 can't follow
``torch.autograd.grad``, forward mode derivatives, transforms of functions that use a layer's weights, or transforms in
the branches of control flow. A trace below autograd sees the operators that all of these come down to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export._trace import _export

from onnxport.errors import CaptureError

_SIGNS = re.compile(
    "(?<![_/])functorch|grad_fn|requires_?grad|forward mode AD|constant's list|no attribute 'constant'"
    "|data pointer of Tensor|Expected FakeTensor, got"  # the last is of torch 2.11 and 2.12
)


def may_help(errors: Iterable[Exception]) -> bool:
    """Whether a failed capture looks as if derivatives or transforms were the reason."""
    return any(_SIGNS.search(str(error)) for error in errors)


def capture_below_autograd(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    """The program as ATen operators of inference; layers are no longer whole in it."""
    return _export(model, args, dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False, pre_dispatch=False)


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
