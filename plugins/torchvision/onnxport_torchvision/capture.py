"""What torchvision's own Python code needs so that torch.export can follow it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from onnxport.kit import Replacement


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Classes are moved apart, so that one suppression serves all, as in torchvision, but whatever the number."""
    # With 0 among the coordinates, no boxes have a maximum too; others keep theirs, since none is negative.
    furthest = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).max()
    offsets = idxs.to(boxes) * (furthest + 1)
    return torch.ops.torchvision.nms(boxes + offsets[:, None], scores, iou_threshold)


def suppression_for_any_number() -> Iterator[Replacement]:
    """Replace ``batched_nms`` while a model is captured.

    torchvision 0.29 branches on the number of boxes, which in a detection model depends on the scores: 0 returns at
    once, and beyond 1000 each class has a suppression of its own, to the same effect.
    """
    # A model that uses torchvision has imported it. Its models look the function up in either module.
    for module in ("torchvision.ops", "torchvision.ops.boxes"):
        yield Replacement(module, "batched_nms", lambda _: _batched_nms, why="it branches on the number of boxes")


class _Whole(type):
    """``int``, except that a symbolic number stays symbolic."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], (torch.SymInt, torch.SymFloat)):
            return torch.sym_int(args[0])
        return int(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, int)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, int)


class _Int(metaclass=_Whole):
    pass


def _resized(original: Any) -> Any:
    def size_of(image_size: Any, size: Any, max_size: Any = None, allow_size_none: bool = False) -> Any:
        height, width = image_size
        symbolic = isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt)
        if torch.compiler.is_dynamo_compiling() or not symbolic or size is None or len(size) != 1 or max_size:
            return original(image_size, size, max_size, allow_size_none)
        # The shorter edge gets the size, and the longer is no less: no need to ask which is which.
        (edge,) = size
        return [torch.sym_max(edge, torch.sym_int(edge * a / b)) for a, b in ((height, width), (width, height))]

    return size_of


def sizes_of_any_image() -> Iterator[Replacement]:
    """Let transforms compute with dynamic heights and widths while a model is captured.

    torchvision 0.29 makes offsets and edges whole by ``int()``, which would make them the example's, and asks whether
    an image is wide or tall.
    """
    names = ("functional", "_functional_tensor", "v2.functional._geometry")
    modules = [sys.modules.get(f"torchvision.transforms.{name}") for name in names]
    for module in filter(None, modules):
        yield Replacement(module, "int", lambda _: _Int, why="int() makes sizes the example's", is_new=True)
        for name in ("_compute_resized_output_size", "__compute_resized_output_size"):
            if getattr(getattr(module, name, None), "__module__", "") == "torchvision.transforms.functional":
                yield Replacement(module, name, _resized, why="it asks whether an image is wide or tall")
