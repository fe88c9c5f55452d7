"""Non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnxport import DataType, Tensor, translation

if TYPE_CHECKING:
    from onnxport import Builder


@translation("torchvision::nms")
def nms(op: Builder, dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (m,) of the boxes that stay, scores descending, from boxes (n, 4) and scores (n,).

    A box goes when its IoU with a kept one of higher score is strictly above the threshold, as NonMaxSuppression has it
    too; of equal scores, the lower index comes first in both. NonMaxSuppression is symmetric in x and y, so the
    coordinates may stay in torchvision's order.
    """
    if dets.dtype == DataType.DOUBLE or not 0 <= iou_threshold <= 1:
        return _suppressed_in_turn(op, dets, scores, iou_threshold)
    # torch compares with the threshold as a double. No float32 lies between the two, if it is rounded down.
    limit = _rounded_down(iou_threshold)
    boxes = op.Unsqueeze(op.cast(dets, DataType.FLOAT), [0])
    ranked = op.Unsqueeze(op.cast(scores, DataType.FLOAT), [0, 1])
    most = op.sizes([dets.shape[0]])
    selected = op.NonMaxSuppression(boxes, ranked, most, op.const(np.array([limit])))
    return op.Gather(selected, op.const(np.int64(2)), axis=1)


def _rounded_down(value: float) -> np.float32:
    nearest = np.float32(value)
    return nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf))


def _suppressed_in_turn(op: Builder, dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The same in the boxes' own precision, by all pairs' IoU (n, n) and a loop over the boxes."""
    dtype = DataType.DOUBLE if dets.dtype == DataType.DOUBLE else DataType.FLOAT
    count = dets.shape[0]
    _, order = op.TopK(op.cast(scores, dtype), op.sizes([count]), axis=0)
    boxes = op.Gather(op.cast(dets, dtype), order, axis=0)
    low = op.Slice(boxes, [0], [2], [1])
    high = op.Slice(boxes, [2], [4], [1])
    sides = op.Sub(op.Min(op.Unsqueeze(high, [1]), high), op.Max(op.Unsqueeze(low, [1]), low))
    shared = op.ReduceProd(op.Max(sides, 0), [2], keepdims=0)
    area = op.ReduceProd(op.Sub(high, low), [1], keepdims=0)
    union = op.Sub(op.Add(op.Unsqueeze(area, [1]), area), shared)
    limit = iou_threshold if dtype == DataType.DOUBLE else float(_rounded_down(iou_threshold))
    overlapping = op.Greater(op.Div(shared, union), limit)
    indices = op.Range(0, op.tensor(count, DataType.INT64), 1)
    nothing = op.Expand(op.const(False), op.sizes([count]))

    def suppress(i: Tensor, going: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
        after = op.And(op.Gather(overlapping, i, axis=0), op.Greater(indices, i))
        return going, op.Or(gone, op.And(after, op.Not(op.Gather(gone, i, axis=0))))

    body = op.subgraph(suppress, [(DataType.INT64, []), (DataType.BOOL, []), (DataType.BOOL, [count])], name="suppress")
    gone = op.Loop(op.tensor(count, DataType.INT64), None, nothing, body=body)
    kept = op.Squeeze(op.NonZero(op.Not(gone)), [0])
    return op.Gather(order, kept, axis=0)
