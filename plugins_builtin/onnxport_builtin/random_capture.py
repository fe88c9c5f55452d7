"""Capturing random operators: what ``torch.export`` of torch 2.14 refuses of them, see the list.

- ``generator=`` with sizes that are symbolic: the overloads that take one want plain numbers. torch 2.11 can't record a
  generator at all. The file's numbers are the runtime's own, so that a generator says nothing about them.
- ``Tensor.random_(from, to)`` is an operator overload called ``from``, which torch can't write as Python code.
- ``binomial`` and ``_sample_dirichlet`` have no meta kernel; in torch 2.11 nor has ``_standard_gamma``.
- ``torch.distributions`` checks its parameters and values, and raises where one is wrong: a branch on data. In a file
  they aren't checked, as other assertions aren't.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport.kit import Replacement, all_applied
from torch.distributions import Distribution

from onnxport_builtin.meta_kernels import meta_kernels

#: Functions and methods that take a generator.
_DRAWING = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "binomial", "multinomial", "poisson")
_DRAWING_METHODS = (
    *("bernoulli", "multinomial"),
    *("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"),
)


@contextlib.contextmanager
def random_numbers() -> Iterator[None]:
    """While any thread is in it, random operators can be captured."""
    with meta_kernels(_WITHOUT_META), all_applied(_replaced()):
        yield


def _like_count(count: torch.Tensor, prob: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return torch.empty_like(count)


def _like(self: torch.Tensor, generator: Any = None) -> torch.Tensor:
    return torch.empty_like(self)


_WITHOUT_META: dict[str, Callable[..., Any]] = {
    "binomial": _like_count,
    "_sample_dirichlet": _like,
    "_standard_gamma": _like,
}


def _replaced() -> Iterator[Replacement]:
    yield from (Replacement(torch, name, _without_generator) for name in _DRAWING)
    yield from (Replacement(torch.Tensor, name, _without_generator) for name in _DRAWING_METHODS)
    yield Replacement(torch.Tensor, "random_", _random_between)
    yield Replacement(Distribution, "__init__", _unchecked)


def _without_generator(original: Callable[..., Any]) -> Callable[..., Any]:
    def drawn(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            args = tuple(arg for arg in args if not isinstance(arg, torch.Generator))
            kwargs = {name: arg for name, arg in kwargs.items() if name != "generator"}
        return original(*args, **kwargs)

    return drawn


def _random_between(original: Callable[..., Any]) -> Callable[..., Any]:
    def random_(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        low = kwargs.get("from", args[0] if len(args) > 1 or "to" in kwargs else None)
        if low is None or torch.compiler.is_dynamo_compiling() or not torch.compiler.is_exporting():
            return original(self, *args, **kwargs)  # type: ignore[no-any-return]
        high = kwargs.get("to", args[-1] if args and (len(args) > 1 or "from" in kwargs) else None)
        if high is None:
            high = _beyond(self.dtype)
        return self.copy_(torch.randint_like(self, low, high))

    return random_


def _beyond(dtype: torch.dtype) -> int:
    """One more than the greatest number that ``random_`` without an upper bound fills a tensor with."""
    if dtype is torch.bool:
        return 2
    if dtype.is_floating_point:
        return int(2 / torch.finfo(dtype).eps) + 1
    return min(torch.iinfo(dtype).max + 1, 2**63 - 1)


def _unchecked(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Distribution, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if torch.compiler.is_exporting():
            args, kwargs = args[:2], {**kwargs, "validate_args": False}
        original(self, *args, **kwargs)

    return __init__
