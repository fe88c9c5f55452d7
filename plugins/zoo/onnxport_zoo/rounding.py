"""Whether a file that differs from its model differs by rounding: a rule that measures, and knows no model by its name.

Quantized models round to few steps, and detectors sort: where a value is in the middle between two steps, or two scores
are equal, the last place of a sum decides. Such a model has no one result. What tells is each operator of the file,
which must give what torch gives on the values that the file has. That is about the captured program; the model itself
must give the same as that, or change as much when its own inputs are rounded otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import onnxport
import torch
from torch.utils import _pytree as pytree

_CLOSE = 1e-5, 1e-6  # relative and absolute: the same kernels of torch
_DRAWS = 8
_ROUNDING = 2.0**-20  # of a sum in float32, relative; other dtypes by their own last place
_TIMES = 2.0  # how much farther the file may be than the model is from itself
_SHARES = 4.0  # and in how many more elements


def explained(program: onnxport.ONNXProgram, model: Any, found: onnxport.VerificationResult) -> dict[str, Any] | None:
    """What explains the differences of a verification by rounding; None where something doesn't.

    Args:
        program: was verified.
        model: what it was verified against.
        found: differs somewhere.

    Returns:
        By the label of each comparison that differs: how far the file is from the model, the nodes that chose
        otherwise, and how far the model is from itself where that was asked.
    """
    labels = {each.label for each in found.comparisons if not each.passed}
    if not labels or found.checker or not labels <= found.departing.keys():
        return None  # something doesn't run
    told: dict[str, Any] = {}
    for comparison in found.comparisons:
        if comparison.label in labels:
            args, kwargs = found.departing[comparison.label]
            steps = onnxport.find_mismatch(program, args, kwargs, each=True)
            if not steps.passed:
                return None
            told[comparison.label] = {"file": max(output.max_abs for output in comparison.outputs), "ties": steps.ties}
            if not _is_captured(program, model, args, kwargs):
                changes = _changes(model, args, kwargs)
                if not all(_within(output, changes) for output in comparison.outputs if output.problem):
                    return None
                told[comparison.label]["model"] = "other shapes" if changes is None else max(c for c, _ in changes)
    return told


def _is_captured(program: onnxport.ONNXProgram, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the captured program gives what the model does, both in torch."""
    captured = program.exported_program
    if captured is None:
        return False
    first = _outputs(model, args, kwargs)
    second = _outputs(captured.module(check_guards=False), args, kwargs)
    return len(first) == len(second) and all(map(_is_close, first, second))


def _is_close(first: torch.Tensor, second: torch.Tensor) -> bool:
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    if not first.is_floating_point():
        return torch.equal(first, second)
    relative, absolute = max(_CLOSE, (2 * torch.finfo(first.dtype).eps,) * 2)
    size = max(1.0, float(first.double().abs().nan_to_num(posinf=0.0).mean())) if first.numel() else 1.0
    return torch.allclose(first, second, rtol=relative, atol=absolute * size, equal_nan=True)


def _within(output: Any, changes: list[tuple[float, float]] | None) -> bool:
    """Whether an output differs no more than the model from itself; None are changes of shapes, which are anything."""
    if changes is None:
        return True
    if output.problem.startswith(("shape", "dtype")) or output.nans[0] != output.nans[1]:
        return False
    farthest, share = max(change for change, _ in changes), max(share for _, share in changes)
    return bool(output.max_abs <= _TIMES * farthest and output.mismatched <= _SHARES * share)


def _changes(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """How far each output changes, and in which share of its elements, when inputs change by a rounding.

    None where the outputs change their shapes.
    """
    first = _outputs(model, args, kwargs)
    changes = [(0.0, 0.0)] * len(first)
    for draw in range(_DRAWS):
        generator = torch.Generator().manual_seed(draw)
        others = _outputs(model, *pytree.tree_map(_rounded_by(generator), (args, dict(kwargs))))
        if [value.shape for value in others] != [value.shape for value in first]:
            return None
        for place, (value, other) in enumerate(zip(first, others)):
            difference = (value.double() - other.double()).abs().nan_to_num()
            if difference.numel():
                share = float((difference > 0).double().mean())
                farthest, most = changes[place]
                changes[place] = max(farthest, float(difference.max())), max(most, share)
    return changes


def _rounded_by(generator: torch.Generator) -> Callable[[Any], Any]:
    def rounded(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
            return leaf
        step = max(_ROUNDING, torch.finfo(leaf.dtype).eps)
        return leaf * (1 + step * (2 * torch.rand(leaf.shape, generator=generator) - 1)).to(leaf.dtype)

    return rounded


def _outputs(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    positional, keywords = copy.deepcopy((args, dict(kwargs)))  # a model may write into what it is given
    with torch.no_grad():
        leaves = pytree.tree_leaves(model(*positional, **keywords))
    return [leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor)]
