"""Capturing what derivatives and ``torch.func`` transforms compute, where torch.export's usual trace can't.

torch.export traces above autograd, where layers are whole operators. There torch 2.14 can't follow
``torch.autograd.grad``, forward mode derivatives, transforms of functions that use a layer's weights, or transforms in
the branches of control flow. A trace below autograd sees the operators that all of these come down to.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from unittest import mock

import torch
import torch.utils._pytree as pytree
from onnxport import CaptureError
from onnxport.kit import Strategy, Turn, may_overlap, needs_gradients
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

_SIGNS = re.compile(
    "(?<![_/])functorch|grad_fn|requires_?grad|forward mode AD|constant's list|no attribute 'constant'"
    "|data pointer of Tensor|Expected FakeTensor, got"  # the last is of torch 2.11 and 2.12
)


class DerivativesError(CaptureError):
    """A patch's word that forward takes derivatives which only a trace below autograd follows."""


def turn(error: Exception) -> Turn:
    """Whether derivatives or transforms look like the reason of a capture's failure."""
    if isinstance(error, DerivativesError):
        return Turn.NOW
    if needs_gradients(error):  # which a strict capture doesn't take
        return Turn.INSTEAD
    return Turn.LAST if _SIGNS.search(str(error)) else Turn.NEVER


def capture_below_autograd(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    """The program as ATen operators of inference; layers are no longer whole in it. Forward runs with gradients on."""
    forward = model.forward

    @functools.wraps(forward)
    def with_gradients(*args: Any, **kwargs: Any) -> Any:
        # Of the kinds of attention, only the one made of others has a backward pass that is made of others.
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _FaithfulWrites():
            return pytree.tree_map_only(torch.Tensor, _detached, forward(*args, **kwargs))

    with mock.patch.object(model, "forward", with_gradients):
        return _export(model, args, dict(kwargs), dynamic_shapes=dynamic_shapes, strict=False, pre_dispatch=False)


class _FaithfulWrites(TorchDispatchMode):
    """Replays writes that torch's functionalization (2.14), which this trace goes through, gets wrong.

    Around the windows of an `unfold` it puts zeros, what an `expand` repeats it adds up. Here such a view is written
    as elements of the tensor that it is a view of, found by the view of their numbers.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self._views: Any = WeakIdKeyDictionary()
        """The tensors that are such views, or views of them: the tensor that they show, and how they are made of it."""

    @classmethod
    def is_infra_mode(cls) -> bool:
        """As the modes that trace: control flow takes another way where users' modes are on."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, schema = dict(kwargs or {}), getattr(func, "_schema", None)
        if schema is None:  # control flow: its bodies are traced apart
            return func(*args, **kwargs)
        if any(argument.alias_info and argument.alias_info.is_write for argument in schema.arguments):
            written = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if _in(leaf, self._views)]
            if written and written[0] is args[0] and schema.name.endswith("_"):
                return self._write(func, args, kwargs)
            if written:
                raise NotImplementedError(f"{schema.name} {_LOST}: write to the tensor itself, or to a clone")
        result = func(*args, **kwargs)
        if any(r.alias_info is not None for r in schema.returns) and args and isinstance(args[0], torch.Tensor):
            shown, steps = self._views.get(args[0], (args[0], None))
            is_strided = schema.name == "aten::as_strided" and may_overlap(result)
            if steps is not None or is_strided or schema.name in ("aten::unfold", "aten::expand"):
                for i, tensor in enumerate(pytree.tree_leaves(result)):
                    self._views[tensor] = shown, [*(steps or ()), (func, args[1:], kwargs, i)]
        return result

    def _write(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        view: torch.Tensor = args[0]
        shown, steps = self._views[view]
        is_filled = func._schema.name in ("aten::fill_", "aten::zero_")
        places = torch.arange(shown.numel(), device=shown.device).reshape(shown.shape)
        for step, rest, options, position in steps:
            places = pytree.tree_leaves(step(places, *rest, **options))[position]
        is_strided = any(step is torch.ops.aten.as_strided.default for step, *_ in steps)  # of the memory, not of it
        if is_strided and is_filled and len(steps) == 1:
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        if is_strided or (may_overlap(view) and not is_filled):
            raise NotImplementedError(f"{func._schema.name} {_LOST}: write to a clone")
        value = func(view.clone(), *args[1:], **kwargs)
        flat = torch.ops.aten.index_put(shown.reshape(-1), [places.reshape(-1)], value.reshape(-1))
        shown.copy_(flat.reshape(shown.shape))
        return view


_LOST = "writes to a view whose elements may be one element of the tensor, in a forward that takes derivatives"


def _in(value: Any, tensors: Any) -> bool:
    return isinstance(value, torch.Tensor) and value in tensors


def _detached(result: torch.Tensor) -> torch.Tensor:
    """torch.export would look for a backward pass behind a result that requires a gradient."""
    return result.detach() if result.requires_grad else result


def check_followed(program: ExportedProgram) -> None:
    """Make sure that what the model computed under transforms is in a program.

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


def below_autograd() -> Strategy:
    """The strategy, as the host keeps it."""
    return Strategy("below autograd", capture_below_autograd, turn, check_followed)
