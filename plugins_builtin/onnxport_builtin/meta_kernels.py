"""Meta kernels of torch's operators that have none, while an export captures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


@contextlib.contextmanager
def meta_kernels(kernels: Mapping[str, Callable[..., Any]], namespace: str = "aten") -> Iterator[None]:
    """While this is active, the named operators have meta kernels, unless there are some already.

    Args:
        kernels: by the operator's name, or by its whole schema where it may not be defined at all.
    """
    library = torch.library.Library(namespace, "FRAGMENT")
    for schema, kernel in kernels.items():
        name = schema.partition("(")[0]
        if name != schema and not hasattr(getattr(torch.ops, namespace), name):
            library.define(schema)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{name}", "Meta"):
            library.impl(name, kernel, "Meta")
    try:
        yield
    finally:
        library._destroy()
