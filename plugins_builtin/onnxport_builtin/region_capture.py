"""Nested compile regions of a non-strict capture, which torch 2.14 inlines without a trace.

What a call of ``torch.compiler.nested_compile_region`` computes is marked in the module stack of its nodes, by an entry
of its own behind that of the module that calls it. By it the calls become calls of one local function, as a strict
capture's ``invoke_subgraph`` do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from onnxport_builtin.replacements import Replacement, Replacements


def nested_regions() -> AbstractContextManager[None]:
    """While any thread is in it, regions are marked."""
    return _replacements.active()


def _replaced() -> Iterator[Replacement]:
    module = importlib.import_module("torch._higher_order_ops.invoke_subgraph")
    if hasattr(module, "invoke_subgraph_placeholder"):
        yield module, "invoke_subgraph_placeholder", _marked


_replacements = Replacements(_replaced)
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
