"""Nested compile regions of a non-strict capture, which torch 2.14 inlines without a trace.

What a call of ``torch.compiler.nested_compile_region`` computes is marked in the module stack of its nodes, by an entry
of its own behind that of the module that calls it. By it the calls become calls of one local function, as a strict
capture's ``invoke_subgraph`` do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement
from torch.fx.experimental.proxy_tensor import get_proxy_mode


def nested_regions() -> Iterator[Replacement]:
    """While any thread is in it, regions are marked."""
    module = importlib.import_module("torch._higher_order_ops.invoke_subgraph")
    if hasattr(module, "invoke_subgraph_placeholder"):
        yield Replacement(module, "invoke_subgraph_placeholder", _marked)


_REGION = "nested_compile_region"


def _marked(original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(function: Any, *args: Any, **kwargs: Any) -> Any:
        outside = torch.compiler.is_dynamo_compiling() or not torch.compiler.is_exporting()
        mode = None if outside else get_proxy_mode()
        stack = getattr(getattr(mode, "tracer", None), "module_stack", None)
        if not stack:
            return original(function, *args, **kwargs)
        path, _ = next(reversed(stack.values()))
        count = mode.tracer.__dict__.setdefault("_onnxport_regions", [])  # type: ignore[union-attr]
        count.append(function)
        key = f"{_REGION}@{len(count)}"
        name = getattr(function, "__qualname__", "").removesuffix(".forward")
        stack[key] = path, f"{getattr(function, '__module__', 'torch')}.{name or _REGION}"
        try:
            return function(*args, **kwargs)
        finally:
            del stack[key]

    return invoke
