"""Gradients that forward takes: ``torch.autograd.grad``, ``Tensor.backward`` and what is made of them.

The engine runs as usual, and the operators of the backward pass are captured. These are changes to torch 2.14 that
last while an export captures, in the thread that captures:

- What a backward pass saves is kept: traced tensors are read once more after the pass.
- ``Tensor.backward()`` would accumulate into the stand-ins of the tensors. Here the gradients are taken, and set.
- An operator that only checks its arguments is no effect, which a capture would thread a token through.
- ``is_grads_batched=True`` maps the pass over a batch, which can't be traced at dynamic shapes. Here it is a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from onnxport import is_in_onnx_export
from onnxport.kit import Replacement
from torch._higher_order_ops import effects


def gradients() -> Iterator[Replacement]:
    """While any thread is in it, torch's functions are replaced."""
    yield Replacement(torch.autograd, "_engine_run_backward", _keeping)
    yield Replacement(torch._vmap_internals, "_vmap", _one_by_one)
    if hasattr(effects, "_get_effect"):
        yield Replacement(effects, "_get_effect", _of_no_check)


def _of_no_check(original: Callable[..., Any]) -> Callable[..., Any]:
    def effect_of(operator: Any) -> Any:
        return None if operator is torch.ops.aten._linalg_check_errors.default else original(operator)

    return effect_of


def _keeping(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(outputs: Sequence[Any], given: Any, retain_graph: bool, create_graph: bool, inputs: Any, *args: Any,
            accumulate_grad: bool = False, **kwargs: Any) -> Any:  # fmt: skip
        if not is_in_onnx_export():
            return original(
                outputs, given, retain_graph, create_graph, inputs, *args, accumulate_grad=accumulate_grad, **kwargs
            )
        if not accumulate_grad:
            return original(outputs, given, True, create_graph, inputs, *args, accumulate_grad=False, **kwargs)
        leaves = tuple(inputs) or tuple(_leaves(outputs))
        found = original(outputs, given, True, create_graph, leaves, True, accumulate_grad=False)
        with torch.set_grad_enabled(create_graph):
            for leaf, gradient in zip(leaves, found):
                if gradient is not None:
                    leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        return ()

    return run


def _leaves(outputs: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors that require a gradient and that nothing computed, from which the outputs are."""
    seen, waiting = set(), [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        waiting += [following for following, _ in node.next_functions]


def _one_by_one(original: Callable[..., Any]) -> Callable[..., Any]:
    def vmap(function: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, *more: Any, **options: Any) -> Any:
        mapped = original(function, in_dims, out_dims, *more, **options)

        def batched(*args: Any) -> Any:
            leaves = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            size = leaves[0].shape[0] if leaves and leaves[0].dim() else None
            if not is_in_onnx_export() or in_dims != 0 or out_dims != 0 or not isinstance(size, int) or not size:
                return mapped(*args)
            results = [
                function(*pytree.tree_map_only(torch.Tensor, lambda leaf, i=i: leaf[i], args)) for i in range(size)
            ]
            if isinstance(results[0], torch.Tensor):
                return torch.stack(results)
            return tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*results))

        return batched

    return vmap
