"""Masks and keypoints of detected instances: what Mask R-CNN and Keypoint R-CNN compute one by one in Python.

torch.export can't follow torchvision's loops over detections, whose number depends on the scores. While a model is
captured, masks are pasted all at once, and keypoints are found by an operator of this package's own. As an operator
rather than in torch's terms, since each heatmap is resized to the size of its box: all at once, at the size of the
largest box, takes gigabytes; a loop in the graph takes no more than one box.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxport import DataType, Tensor, translation
from onnxport.authoring import Dim, iota
from onnxport.kit import Replacement

from onnxport_torchvision.regions import Row, each
from onnxport_torchvision.sampling import clamped, working_dtype

if TYPE_CHECKING:
    from onnxport import Builder

_HEADS = "torchvision.models.detection.roi_heads"
_library = torch.library.Library("onnxport_torchvision", "DEF")
_library.define("heatmap_peaks(Tensor maps, Tensor rois) -> (Tensor, Tensor)")


def _peaks(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from torchvision.models.detection import roi_heads

    points, scores = inspect.unwrap(roi_heads.heatmaps_to_keypoints)(maps, rois)
    return points.contiguous(), scores


def _peaks_shapes(maps: torch.Tensor, rois: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    shape = [rois.shape[0], maps.shape[1]]
    return maps.new_empty([*shape, 3], dtype=torch.float32), maps.new_empty(shape, dtype=torch.float32)


_library.impl("heatmap_peaks", _peaks, "CompositeExplicitAutograd")
torch.library.register_fake("onnxport_torchvision::heatmap_peaks", _peaks_shapes, lib=_library)


def instances_of_any_number() -> Iterator[Replacement]:
    """Replace ``paste_masks_in_image`` and ``heatmaps_to_keypoints`` while a model is captured."""
    functions: dict[str, Callable[..., Any]] = {
        "paste_masks_in_image": _pasted,
        "heatmaps_to_keypoints": torch.ops.onnxport_torchvision.heatmap_peaks,
    }
    # The transform of images has bound the first by its name.
    modules = [sys.modules.get(name) for name in (_HEADS, "torchvision.models.detection.transform")]
    for module in filter(None, modules):
        for name, function in functions.items():
            if hasattr(module, name):
                yield Replacement(module, name, _calling(function), why="it loops over the instances")


def _calling(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Any]]:
    """What gives a function of its own, which may have the original's name."""
    return lambda original: lambda *args, **kwargs: function(*args, **kwargs)


# ---- masks


def _pasted(masks: torch.Tensor, boxes: torch.Tensor, img_shape: tuple[int, int], padding: int = 1) -> torch.Tensor:
    """Masks (n, 1, m, m) resized to their boxes (n, 4) in an empty image: (n, 1, height, width).

    Bilinear resizing is a product with a matrix for each axis; rows of a matrix outside of the box are 0.
    """
    from torchvision.models.detection import roi_heads

    masks, scale = roi_heads.expand_masks(masks, padding=padding)
    boxes = roi_heads.expand_boxes(boxes, scale).to(torch.int64)
    height, width = img_shape
    rows = _shares(boxes[:, 1], boxes[:, 3], height, masks.shape[-2], masks.dtype)
    columns = _shares(boxes[:, 0], boxes[:, 2], width, masks.shape[-1], masks.dtype)
    return rows @ masks[:, :1] @ columns.transpose(-1, -2)


def _shares(first: torch.Tensor, last: torch.Tensor, size: int, pixels: int, dtype: torch.dtype) -> torch.Tensor:
    """What each pixel of the mask contributes to each of the image on one axis: (n, 1, size, pixels).

    As ``interpolate(mode="bilinear", align_corners=False)`` weighs them, from the first to the last pixel (n,) of each
    box, which belongs to it.
    """
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    extent = (last - first + 1).clamp(min=1)
    at = torch.arange(size, device=first.device) - first[:, None]
    ratio = pixels / extent.to(precise)
    source = ((at + 0.5) * ratio[:, None] - 0.5).clamp(0, pixels - 1)
    distance = source[:, :, None] - torch.arange(pixels, dtype=precise, device=first.device)
    inside = (at >= 0) & (at <= (last - first)[:, None])
    return torch.where(inside[:, :, None], (1 - distance.abs()).clamp(min=0), 0).to(dtype)[:, None]


# ---- keypoints


@translation("onnxport_torchvision::heatmap_peaks")
def heatmap_peaks(op: Builder, maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoints (k, n, 3) of x, y and 1, and scores (k, n), from heatmaps (k, n, h, w) and boxes (k, 4).

    Each heatmap is resized to its box, rounded up to whole pixels, by Keys' cubic; the first of the highest pixels is
    the keypoint. Resizing is a product with a matrix for each axis.
    """
    dtype = working_dtype(maps.dtype)
    values = op.cast(maps, dtype)
    corners = op.cast(rois, working_dtype(rois.dtype))
    starts = op.Slice(corners, [0], [2], [1])
    extents = op.Max(op.Sub(op.Slice(corners, [2], [4], [1]), starts), 1)
    whole = op.Ceil(extents)
    counts = op.cast(whole, DataType.INT64)
    points, height, width = list(maps.shape)[1:]

    def peak(row: Row) -> list[Tensor]:
        columns, rows = (op.Squeeze(op.Slice(row(counts), [axis], [axis + 1], [1]), [0, 1]) for axis in (0, 1))
        across = _cubic(op, width, columns, dtype)
        down = _cubic(op, height, rows, dtype)
        resized = op.MatMul(op.MatMul(down, row(values)), op.Transpose(across, perm=[1, 0]))
        flat = op.Reshape(resized, op.sizes([points, -1]))
        return [op.ArgMax(flat, axis=1, keepdims=0), op.ReduceMax(flat, [1], keepdims=0)]

    places, scores = each(op, rois.shape[0], peak, [points])
    columns = op.Slice(counts, [0], [1], [1])
    pixels = op.Concat(*(op.Unsqueeze(x, [2]) for x in (op.Mod(places, columns), op.Div(places, columns))), axis=2)
    ratio = op.cast(op.Div(extents, whole), DataType.FLOAT)
    scaled = op.Mul(op.Add(op.cast(pixels, DataType.FLOAT), 0.5), op.Unsqueeze(ratio, [1]))
    xy = op.Add(scaled, op.Unsqueeze(op.cast(starts, DataType.FLOAT), [1]))
    visible = op.Expand(op.const([1.0], DataType.FLOAT), op.sizes([rois.shape[0], points, 1]))
    return op.Concat(xy, visible, axis=2), op.cast(scores, DataType.FLOAT)


def _cubic(op: Builder, size: Dim, out: Tensor, dtype: DataType) -> Tensor:
    """The matrix (out, size) that resizes an axis as ``interpolate(mode="bicubic", align_corners=False)`` does.

    Keys' kernel with a = -0.75 in four taps (Keys 1981, Cubic convolution interpolation); taps beyond the border count
    for the pixel at it.
    """
    ratio = op.Div(op.cast(op.tensor(size, DataType.INT64), dtype), op.cast(out, dtype))
    source = op.Sub(op.Mul(op.Add(iota(op, out, dtype), 0.5), ratio), 0.5)
    low = op.Floor(source)
    part = op.Unsqueeze(op.Sub(source, low), [1])
    taps = op.const(np.array([[-1, 0, 1, 2]]), dtype)  # (1, 4)
    far = op.Abs(op.Sub(taps, part))  # (out, 4)
    a = -0.75
    near = op.Add(op.Mul(op.Mul(op.Sub(op.Mul(far, a + 2), a + 3), far), far), 1.0)
    outer = op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(far, 5.0), far), 8.0), far), 4.0), a)
    weights = op.Where(op.LessOrEqual(far, 1), near, outer)
    last = op.cast(op.tensor(size - 1, DataType.INT64), dtype)
    index = clamped(op, op.Add(op.Unsqueeze(low, [1]), taps), 0, last)
    chosen = op.Equal(op.Unsqueeze(index, [2]), iota(op, size, dtype))  # (out, 4, size)
    return op.ReduceSum(op.Where(chosen, op.Unsqueeze(weights, [2]), 0), [1], keepdims=0)
