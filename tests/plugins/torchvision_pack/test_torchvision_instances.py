"""Masks and keypoints of detected instances, alone and as the ends of whole models."""

from __future__ import annotations

import pytest
import torch
from support import expect_equal, export_and_compare, run_model
from torch.export import Dim
from torchvision.models.detection import roi_heads

COUNTS = [0, 1, 5]


def boxes_of(count: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Boxes (count, 4) within the image, some at its borders and some less than a pixel."""
    start = torch.rand(count, 2) * torch.tensor([width, height]) * 0.6
    extent = torch.rand(count, 2) * torch.tensor([width, height]) * 0.7
    boxes = torch.cat([start, start + extent], 1)
    boxes[:1] = torch.tensor([0.0, 0.0, width, height])
    boxes[1:2, 2:] = boxes[1:2, :2] + 0.3
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return boxes.to(dtype)


# ---- masks


class Paste(torch.nn.Module):
    def __init__(self, padding: int = 1) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, masks, boxes, image):
        return roi_heads.paste_masks_in_image(masks, boxes, (image.shape[-2], image.shape[-1]), self.padding)


def pasting(count: int, height: int, width: int, pixels: int = 28, dtype: torch.dtype = torch.float32):
    masks = torch.rand(count, 1, pixels, pixels, dtype=dtype)
    return masks, boxes_of(count, height, width, dtype), torch.zeros(3, height, width)


@pytest.mark.parametrize("count", COUNTS)
def test_paste_masks(count):
    plain = roi_heads.paste_masks_in_image
    export_and_compare(Paste(), pasting(count, 40, 57))
    assert roi_heads.paste_masks_in_image is plain


@pytest.mark.parametrize("padding", [1, 3])
def test_paste_masks_dynamic(padding):
    shapes = {"masks": {0: (count := Dim("count"))}, "boxes": {0: count}, "image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}}
    model, args = Paste(padding), pasting(5, 40, 57, 7)
    program = export_and_compare(model, args, dynamic_shapes=shapes, other_args=pasting(9, 70, 33, 7))
    for number in COUNTS:
        args = pasting(number, 25, 31, 7)
        expect_equal(run_model(program, args)[0], model(*args))


def test_paste_masks_of_doubles_and_one_pixel():
    export_and_compare(Paste(), pasting(4, 20, 20, 14, torch.float64))
    export_and_compare(Paste(), pasting(4, 20, 20, 1))


# ---- keypoints


class Peaks(torch.nn.Module):
    def forward(self, maps, rois):
        return roi_heads.heatmaps_to_keypoints(maps, rois)


def heatmaps(count: int, size: int = 14, keypoints: int = 3, dtype: torch.dtype = torch.float32):
    return torch.randn(count, keypoints, size, size, dtype=dtype), boxes_of(count, 40, 57, dtype)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keypoints(count, dtype):
    plain = roi_heads.heatmaps_to_keypoints
    export_and_compare(Peaks(), heatmaps(count, dtype=dtype))
    assert roi_heads.heatmaps_to_keypoints is plain


def test_keypoints_dynamic():
    count = Dim("count")
    shapes = {"maps": {0: count, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "rois": {0: count}}
    program = export_and_compare(Peaks(), heatmaps(5), dynamic_shapes=shapes, other_args=heatmaps(8, 11))
    for number in COUNTS:
        args = heatmaps(number, 9)
        for actual, expected in zip(run_model(program, args), Peaks()(*args)):
            expect_equal(actual, expected)


def test_the_first_of_equal_peaks():
    # A box of the heatmap's own size takes its values as they are.
    maps = torch.randint(0, 3, (4, 3, 8, 8)).float()
    rois = torch.tensor([[0.0, 0, 8, 8]]).expand(4, 4) + torch.arange(4.0)[:, None]
    export_and_compare(Peaks(), (maps, rois), rtol=0, atol=0)
