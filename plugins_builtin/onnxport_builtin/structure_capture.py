"""Capturing ``associative_scan`` as one operator, and what torch stumbles over: see the list.

These are changes to functions of torch 2.14 that last while an export captures:

- ``associative_scan(combine_mode="generic")`` is traced as the recursion that computes it eagerly,
  whose depth belongs to the example's length. Here it becomes the higher order operator, as ``"pointwise"`` does.
- A product of three sizes, such as a stride, that a nested trace meets first raises "mul expected 2 arguments, got 3"
  (a bias with three dynamic axes that a ``flex_attention`` looks up, for one). Here it is made of two products.
- An activation checkpoint in a branch or a loop's body is traced twice, and the second trace misses what the first kept
  beside the graph: "KeyError: '_checkpoint_context_fn'".
- torch 2.11 takes the positions and counts of ``unique`` to have the dtype of its values.
"""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from onnxport.kit import Replacement
from torch._dynamo.exc import TorchDynamoException
from torch._higher_order_ops.wrap import TagActivationCheckpoint
from torch._subclasses import fake_impls
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import noop_context_fn

_SCAN = "torch._higher_order_ops.associative_scan"  # the package's attribute of this name is a function
_CARRYING_SCAN = "torch._higher_order_ops.scan"  # likewise


def structures() -> Iterator[Replacement]:
    """While any thread is in it, torch's functions are replaced."""
    wanted = [
        Replacement(importlib.import_module(_SCAN), "generic_associative_scan", _one_operator),
        Replacement(importlib.import_module(_CARRYING_SCAN), "_maybe_compile_and_run_fn", _states_of_their_own),
        Replacement(proxy_tensor, "_build_proxy_for_sym_expr", _binary_products),
        Replacement(TagActivationCheckpoint, "__call__", _with_context),
        Replacement(fake_impls, "_unique", _whole_positions),
    ]
    return (each for each in wanted if hasattr(each.owner, each.name))  # other versions of torch may lack one


def _one_operator(original: Callable[..., Any]) -> Callable[..., Any]:
    def generic_associative_scan(
        combine: Any, leaves: Sequence[torch.Tensor], dim: int = 0, additional_inputs: Any = ()
    ) -> Any:
        if torch.compiler.is_dynamo_compiling() or not torch.compiler.is_exporting():
            return original(combine, leaves, dim, additional_inputs)
        function = _unmapped(getattr(combine, "keywords", {}).get("combine_fn"))
        if function is None or dim != 0 or additional_inputs:
            return original(combine, leaves, dim, additional_inputs)
        flat = functools.partial(combine.func, **{**combine.keywords, "combine_fn": function})
        scans: Any = importlib.import_module(_SCAN)
        inductor = importlib.import_module("torch._inductor.utils")

        def operator_itself(combine: Any, leaves: Sequence[torch.Tensor]) -> Any:  # torch 2.11's function asks for CUDA
            return scans.associative_scan_op(combine, leaves, additional_inputs=())

        try:
            # only code that torch.compile generates needs elementwise functions
            with mock.patch.object(inductor, "is_pointwise_use", lambda *_args, **_kwargs: True):
                return pytree.tree_leaves(scans._maybe_compile_and_run_fn(operator_itself, flat, leaves))
        except TorchDynamoException:
            if isinstance(leaves[0].shape[0], int):
                return original(combine, leaves)
            raise

    return generic_associative_scan


def _states_of_their_own(original: Callable[..., Any]) -> Callable[..., Any]:
    """Without it, the steps of a scan that begins with one tensor twice read one state where they mean two."""

    def run(function: Any, combine: Any, states: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> Any:
        seen = {id(value) for value in inputs}
        apart = []
        for state in states:
            apart.append(state.clone() if id(state) in seen else state)
            seen.add(id(state))
        return original(function, combine, apart, inputs)

    return run


def _unmapped(function: Any) -> Callable[..., Any] | None:
    """The function that ``torch.vmap`` was given; None where this wasn't made by it."""
    code = getattr(function, "__code__", None)
    if code is None or "func" not in code.co_freevars:
        return None
    found = function.__closure__[code.co_freevars.index("func")].cell_contents
    return found if callable(found) else None


def _whole_positions(original: Callable[..., Any]) -> Callable[..., Any]:
    def unique(*args: Any, **kwargs: Any) -> Any:
        values, *others = original(*args, **kwargs)
        return (values, *(x if x.dtype is torch.int64 else x.new_empty(x.shape, dtype=torch.int64) for x in others))

    return unique


def _binary_products(original: Callable[..., Any]) -> Callable[..., Any]:
    def build(tracer: Any, expr: Any, out: Any = None) -> Any:
        is_product = getattr(expr, "is_Mul", False) and len(expr.args) > 2
        if not is_product or expr in tracer.sympy_expr_tracker:
            return original(tracer, expr, out)
        factors = [build(tracer, factor) for factor in expr.args]
        if any(factor is None for factor in factors):
            return None
        *most, last = factors
        product = functools.reduce(operator.mul, most)
        if out is None:
            return product * last
        proxy_tensor._sym_register(tracer, operator.mul, (product, last), out)  # type: ignore[arg-type]
        return out

    return build


def _with_context(original: Callable[..., Any]) -> Callable[..., Any]:
    def tagged(self: Any, graph: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(graph, torch.fx.GraphModule):
            graph.meta.setdefault("_checkpoint_context_fn", noop_context_fn)
        return original(self, graph, *args, **kwargs)

    return tagged
