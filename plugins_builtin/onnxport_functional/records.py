"""What torch's operators do besides computing, as records: views with their inverses, writes, regions, assertions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from onnxport.kit import Assertion, Region, Ties, View, Write
from torch.fx import Node

from onnxport_functional import assignments, views

_ASSERTIONS = (
    "_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar "
    "sym_constrain_range sym_constrain_range_for_size _functional_sym_constrain_range "
    "_functional_sym_constrain_range_for_size _print record_stream retain_grad"
)
_ASSERTING_FUNCTIONS = (torch._check, torch._check_is_size, torch._check_value, torch._assert)
#: Operators that return the argument itself, the same Python object, where there is nothing to do.
_ITSELF = "contiguous to atleast_1d atleast_2d atleast_3d type_as"
#: Operators that return their argument or a view of it where they have nothing else to do; their schemas don't say so.
_MAY_BE_VIEWS = (
    "broadcast_tensors cartesian_prod conj_physical dropout einsum feature_dropout meshgrid sum_to_size type_as"
)


def records() -> list[Any]:
    """All of them."""
    return [*_views(), *_writes(), *_regions(), *_assertions(), *_ties()]


def _views() -> Iterator[View]:
    for inverse, names in views.BY_INVERSE:
        for name in names.split():
            yield View(f"aten::{name}", inverse)


def _writes() -> Iterator[Write]:
    for op, value in assignments.VALUES.items():
        yield Write(op, _assigning(value))
    for name, function, flag in (
        ("batch_norm", assignments.batch_norm, 5),
        ("native_batch_norm", assignments.batch_norm, 5),
        ("instance_norm", assignments.instance_norm, 5),
    ):
        yield Write(f"aten::{name}.default", function, when=_trains(flag))


def _assigning(value: Callable[..., Node]) -> Callable[[Any, Node], Sequence[Any]]:
    """What stores the new value of the first argument, which is the result."""

    def write(rewriter: Any, node: Node) -> Sequence[Any]:
        alias = rewriter.alias(node.args[0])
        rewriter.store(alias, value(rewriter, node, alias))
        return [alias]

    return write


def _trains(flag: int) -> Callable[[Node], bool]:
    """Whether a norm writes its running statistics, which its schema doesn't say."""
    return lambda node: node.args[flag] is True and isinstance(node.args[3], Node)


def _regions() -> Iterator[Region]:
    bodies = {
        "wrap_with_set_grad_enabled": 1,
        "wrap_with_autocast": 4,
        "dynamo_bypassing_wrapper": 1,
        "tag_activation_checkpoint": 0,
        "wrap_activation_checkpoint": 0,
        "wrap": 0,
    }
    for name, body in bodies.items():
        yield Region(f"higher_order::{name}", body)
    for name in ("strict_mode", "hints_wrapper"):
        yield Region(f"higher_order::{name}", inputs=lambda args: args[1])
    yield Region("higher_order::invoke_subgraph", inputs=lambda args: args[2:])  # behind an identifier
    # Behind the backward graph; the forward graph of an autograd.Function also returns what it saves for backward.
    yield Region("higher_order::autograd_function_apply", inputs=lambda args: args[2:], results=lambda found: found[0])


def _assertions() -> Iterator[Assertion]:
    for name in _ASSERTIONS.split():
        yield Assertion(f"aten::{name}")
    for function in _ASSERTING_FUNCTIONS:
        yield Assertion(function)


def _ties() -> Iterator[Ties]:
    itself, views = _ITSELF.split(), _MAY_BE_VIEWS.split()
    for name in dict.fromkeys((*itself, *views)):
        yield Ties(f"aten::{name}", is_itself=name in itself)
