"""Functions of torch that are replaced while an export captures, for all threads: they have no place per thread."""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

#: (owner, name of its attribute, original -> what takes its place: a function, or another value)
Replacement = tuple[Any, str, Callable[[Any], Any]]


class Replacements:
    """What ``find`` lists, replaced from the first thread's entrance to the last one's exit."""

    def __init__(self, find: Callable[[], Iterable[Replacement]]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._users = 0
        self._originals: list[tuple[Any, str, Any, bool]] = []

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While any thread is in it, the replacements stand."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                for owner, name, wrapper in self._find():
                    original = getattr(owner, name, None)  # a method may be missing
                    self._originals.append((owner, name, original, name in vars(owner) or name == "__code__"))
                    replacement = wrapper(original)
                    if callable(original) and isinstance(replacement, types.FunctionType):
                        functools.update_wrapper(replacement, original)
                    setattr(owner, name, replacement)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                while self._users == 0 and self._originals:
                    owner, name, original, is_own = self._originals.pop()
                    if is_own:
                        setattr(owner, name, original)
                    else:  # a method that a base class has, or none
                        delattr(owner, name)


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
