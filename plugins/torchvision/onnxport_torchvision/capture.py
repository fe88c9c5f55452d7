"""What torchvision's own Python code needs so that torch.export can follow it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch


def _batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Classes are moved apart, so that one suppression serves all, as in torchvision, but whatever the number."""
    # With 0 among the coordinates, no boxes have a maximum too; others keep theirs, since none is negative.
    furthest = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).max()
    offsets = idxs.to(boxes) * (furthest + 1)
    return torch.ops.torchvision.nms(boxes + offsets[:, None], scores, iou_threshold)


@contextmanager
def suppression_for_any_number() -> Iterator[None]:
    """Replace ``batched_nms`` while a model is captured.

    torchvision 0.29 branches on the number of boxes, which in a detection model depends on the scores: 0 returns at
    once, and beyond 1000 each class has a suppression of its own, to the same effect.
    """
    # A model that uses torchvision has imported it. Its models look the function up in either module.
    modules = [sys.modules[name] for name in ("torchvision.ops", "torchvision.ops.boxes") if name in sys.modules]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "batched_nms", _batched_nms))
        yield
