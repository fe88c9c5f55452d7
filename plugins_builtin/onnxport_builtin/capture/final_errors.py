"""Errors of a capture that no other way to capture changes, so that a refusal takes no longer than a capture.

An operator without shapes, inputs of another structure, and a branch or loop over data depend neither on the example's
sizes, nor on who follows the code. Nor does what forward does with the example itself: it runs once, without a capture,
on copies of the model and of the example, so that state in buffers or attributes stays as it was. Where it fails at the
same line, the inputs don't fit the model. Where it returns dataclasses, they are registered with pytree, as those among
the inputs are.
"""

from __future__ import annotations

import copy
import itertools
import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from onnxport.kit import (
    Strategy,
    Turn,
    is_constraint,
    is_data_dependent,
    is_library,
    is_repeated,
    needs_gradients,
    register_dataclasses_in,
    user_line,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

logger = logging.getLogger("onnxport")

_LARGEST = 2**32
"""Bytes of weights: larger models aren't run for what an error message would gain."""
_LEAVES = (
    torch.Tensor,
    torch.SymInt,
    torch.SymFloat,
    torch.SymBool,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.Size,
    torch.dtype,
    torch.device,
)
_HASHED = re.compile("unhashable type: '?(non-nested )?Sym")
_WRITTEN = re.compile(r"'[^']*\bs\d+\b")
"""A symbol that an error quotes: a size was written into a text, and read from it."""


def final_errors() -> Strategy:
    """The record of the plugin; it captures nothing that torch.export's usual way doesn't."""
    return Strategy("non-strict", torch.export.export, lambda _error: Turn.NEVER, final=is_final)


def is_final(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_bound: bool, error: Exception
) -> bool:
    """Whether no other capture can succeed where one failed with this error.

    Args:
        model: what was captured.
        args: the caller's example.
        kwargs: its keywords.
        is_bound: no dynamic dimension may become a number; a strict capture makes one of a size that it can't follow.
        error: why the first attempt failed. Its ``is_of_the_example`` tells the advice that forward raises it itself.
    """
    if "Detected mismatch between the structure" in str(error) or has_no_shapes(error) or _branches_on_data(error):
        return True
    if is_data_dependent(error) or is_constraint(error) or needs_gradients(error):
        return False
    place, is_builtin = user_line(error), type(error).__module__ == "builtins"
    if is_builtin and place and (_HASHED.search(str(error)) or _reads_size(error)):
        return is_bound
    is_of_outputs = "not a known type" in str(error) or str(error).startswith("unhashable type")  # torch 2.11's word
    if not is_of_outputs and not (is_builtin and place):
        return False
    try:
        ours, copied_args, copied_kwargs = _copies(model, args, kwargs)
    except Exception as reason:  # whatever an attribute's class raises: then it isn't known
        logger.debug("the example isn't run: %s: %s", type(reason).__name__, reason)
        return is_of_outputs and _registered(_traced_outputs(model, args, kwargs))
    try:
        returned = ours(*copied_args, **copied_kwargs)
    except Exception as failure:  # the model's own
        is_alike = type(failure) is type(error) and user_line(failure) == place != ""
        error.is_of_the_example = is_alike  # type: ignore[attr-defined]
        return is_alike or (is_of_outputs and _registered(_traced_outputs(model, args, kwargs)))
    return is_of_outputs and _registered([returned])


def _copies(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The model with weights that it shares and state of its own, and copies of the arguments.

    Raises:
        RuntimeError: the model is too large to be run for what an error message would gain.
        Exception: something can't be copied.
    """
    weights = list(model.parameters())
    if sum(weight.nbytes for weight in weights) > _LARGEST:
        raise RuntimeError("the model is large")
    return copy.deepcopy((model, args, dict(kwargs)), {id(weight): weight for weight in weights})


def _traced_outputs(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """What forward returns in a capture, which doesn't compute."""
    returned: list[Any] = []
    handle = model.register_forward_hook(lambda _module, _args, output: returned.append(output))
    try:
        torch.export.export(model, args, dict(kwargs), strict=False)
    except Exception as error:  # only the hook matters here; the next attempt tells
        logger.debug("capture while looking for the outputs' classes: %s", error)
    finally:
        handle.remove()
    return returned


def _registered(returned: list[Any]) -> bool:
    """Register the dataclasses among the outputs; whether others are left that pytree doesn't know."""
    register_dataclasses_in(returned)
    return not all(isinstance(leaf, _LEAVES) for leaf in pytree.tree_leaves(returned))


def _branches_on_data(error: Exception) -> bool:
    """Whether forward asked a value of data for a truth value, or how often to repeat something.

    A strict capture follows an assertion.
    """
    place, frames = user_line(error), traceback.extract_tb(error.__traceback__)
    if not isinstance(error, GuardOnDataDependentSymNode) or not place or ": assert " in place:
        return False
    behind = list(itertools.takewhile(lambda frame: is_library(frame.filename), reversed(frames)))
    is_inside = any(frame.filename.endswith("fake_tensor.py") for frame in behind)  # an operator
    return is_repeated(place) or (not is_inside and "guard_bool" in {frame.name for frame in behind})


def has_no_shapes(error: Exception) -> bool:
    """Whether an operator has neither a meta kernel nor another function of shapes."""
    return type(error).__name__ == "UnsupportedOperatorException" or "no fake impl" in str(error)


def _reads_size(error: Exception) -> bool:
    return isinstance(error, (KeyError, ValueError)) and bool(_WRITTEN.search(str(error)))
