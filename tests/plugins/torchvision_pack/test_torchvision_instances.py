"""Masks and keypoints of detected instances, alone and as the ends of whole models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import expect_equal, export_and_compare, op_types, run_model
from torch.export import Dim
from torchvision.models.detection import KeypointRCNN, MaskRCNN, roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

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
    program = export_and_compare(Peaks(), heatmaps(count, dtype=dtype))
    assert "Loop" in op_types(program)
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


# ---- whole models


class Pyramid(torch.nn.Sequential):
    """Two levels of features of an image."""

    out_channels = 8

    def __init__(self) -> None:
        layers = ((3, 4), (8, 2))
        super().__init__(
            *(torch.nn.Sequential(torch.nn.Conv2d(n, 8, 3, s, 1), torch.nn.BatchNorm2d(8)) for n, s in layers)
        )

    def forward(self, x):
        features = {}
        for level, layer in enumerate(self):
            features[str(level)] = x = layer(x).relu()
        return features


def detector(kind: type[torch.nn.Module], part: str, **options: Any) -> torch.nn.Module:
    """A small model of random weights that detects something, with scores that differ."""
    backbone = Pyramid()
    with torch.no_grad():
        for _ in range(20):
            backbone(torch.randn(2, 3, 96, 128))
    sizes = {"min_size": 96, "max_size": 128, "rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20}
    model = kind(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2),
        box_head=TwoMLPHead(8 * 49, 32),
        box_predictor=FastRCNNPredictor(32, 3),
        box_detections_per_img=5,
        **{f"{part}_roi_pool": MultiScaleRoIAlign(["0", "1"], 7, 2)},
        **sizes,
        **options,
    )
    head, boxes = model.rpn.head, model.roi_heads.box_predictor
    with torch.no_grad():
        for layer, factor in ((head.bbox_pred, 4), (head.cls_logits, 20), (boxes.cls_score, 8), (boxes.bbox_pred, 5)):
            layer.weight.mul_(factor)
    return model.eval()


def mask_model(**options: Any) -> torch.nn.Module:
    heads = {"mask_head": MaskRCNNHeads(8, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 3)}
    return detector(MaskRCNN, "mask", **heads, **options)


def keypoint_model(**options: Any) -> torch.nn.Module:
    heads = {"keypoint_head": KeypointRCNNHeads(8, (8,)), "keypoint_predictor": KeypointRCNNPredictor(8, 4)}
    return detector(KeypointRCNN, "keypoint", **heads, **options)


MODELS = {"mask": mask_model, "keypoint": keypoint_model}


def test_whole_model():
    model = mask_model()
    other = ([torch.rand(3, 100, 120)],)
    # The weights are large, so that boxes differ by thousandths of a pixel, as eager float32 and float64 do.
    export_and_compare(model, ([torch.rand(3, 100, 120)],), other_args=other, rtol=1e-3, atol=2e-2)
    with torch.no_grad():
        (found,) = model(*other)
    assert len(found["scores"]) == 5 and found["scores"].unique().numel() == 5


@pytest.mark.parametrize("kind, options", [("keypoint", {"fixed_size": (128, 96)}), ("keypoint", {}), ("mask", {})])
def test_whole_model_of_any_image(kind, options):
    model = MODELS[kind](**options)
    shapes = {"images": [{1: Dim.DYNAMIC, 2: Dim.DYNAMIC}]}
    args, other = ([torch.rand(3, 100, 120)],), ([torch.rand(3, 60, 77)],)
    export_and_compare(model, args, dynamic_shapes=shapes, other_args=other, rtol=1e-3, atol=2e-2)
