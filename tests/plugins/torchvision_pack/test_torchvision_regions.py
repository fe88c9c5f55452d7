"""Regions of interest and non-maximum suppression by the installed pack, found by its entry point."""

from __future__ import annotations

import onnxport
import pytest
import torch
from support import export_and_compare, flat_tensors, op_types, run_model
from torch.export import Dim
from torchvision import ops

DTYPES = [torch.float32, torch.float64]
OPSETS = [18, 22]  # onnxruntime has kernels of RoiAlign and MaxRoiPool at the first


def regions(count: int, images: int = 2, dtype: torch.dtype = torch.float32, grow: bool = True) -> torch.Tensor:
    """Rows (count, 5) around and beyond a feature map of about 24 pixels; quarters, so that products are exact."""
    start = torch.randint(-12, 88, (count, 2)) / 4
    extent = torch.randint(1 if grow else -8, 60, (count, 2)) / 4
    index = torch.randint(0, images, (count, 1)).to(start.dtype)
    return torch.cat([index, start, start + extent], 1).to(dtype)


def special_regions(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    rows = [[0, 5, 5, 5, 5], [1, -50, -50, -20, -20], [0, -3, -3, 60, 60], [0, 8, 3, 4, 8], [1, 20, 24, 21, 25]]
    return torch.tensor(rows, dtype=dtype)


def feature_map(images: int = 2, channels: int = 3, height: int = 12, width: int = 10, dtype=torch.float32):
    return torch.randn(images, channels, height, width).to(dtype)


# ---- roi_align


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0, -1])
def test_roi_align(opset, dtype, aligned, ratio):
    def align(x, rois):
        return ops.roi_align(x, rois, (3, 2), 0.3, ratio, aligned)

    rois = regions(7, dtype=dtype)
    program = export_and_compare(align, (feature_map(dtype=dtype), rois), opset_version=opset)
    assert ("RoiAlign" in op_types(program)) == (opset < 22)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("ratio", [3, 0])
def test_roi_align_dynamic(opset, ratio):
    class Align(torch.nn.Module):
        def forward(self, x, rois):
            return ops.roi_align(x, rois, 2, 0.5, ratio, True)

    shapes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "rois": {0: Dim.DYNAMIC}}
    program = export_and_compare(
        Align(),
        (feature_map(), regions(5)),
        dynamic_shapes=shapes,
        other_args=(feature_map(3, height=9, width=15), regions(8, 3)),
        opset_version=opset,
    )
    (empty,) = run_model(program, (feature_map(), regions(0)))
    assert empty.shape == (0, 3, 2, 2)


@pytest.mark.parametrize("opset", OPSETS)
def test_roi_align_special_regions(opset):
    for aligned in (True, False):
        args = (feature_map(), special_regions())
        export_and_compare(
            lambda x, rois, aligned=aligned: ops.roi_align(x, rois, 2, 1.0, 2, aligned), args, opset_version=opset
        )
    # Without extent, the adaptive samples are none.
    flat = special_regions()[:3]
    export_and_compare(
        lambda x, rois: ops.roi_align(x, rois, 2, 1.0, 0, True), (feature_map(), flat), opset_version=opset
    )


@pytest.mark.parametrize("opset", OPSETS)
def test_float16(opset):
    def pools(x, rois):
        return ops.roi_align(x, rois, 2, 0.5, 2), ops.roi_pool(x, rois, 2, 0.5), ops.ps_roi_pool(x, rois, 2, 0.5)

    args = (feature_map(channels=4, dtype=torch.float16), regions(4, dtype=torch.float16))
    export_and_compare(pools, args, opset_version=opset, atol=2e-2)


def test_one_pixel_image():
    args = (feature_map(height=1, width=1), regions(4) / 8 * torch.tensor([0, 1, 1, 1, 1]))
    export_and_compare(lambda x, rois: ops.roi_align(x, rois, 2, 1.0, 2, True), args, opset_version=22)


# ---- ps_roi_align


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [2, 0])
def test_ps_roi_align(dtype, ratio):
    class Align(torch.nn.Module):
        def forward(self, x, rois):
            return torch.ops.torchvision.ps_roi_align(x, rois, 0.5, 2, 3, ratio)

    shapes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "rois": {0: Dim.DYNAMIC}}
    program = export_and_compare(
        Align(),
        (feature_map(channels=12, dtype=dtype), regions(5, dtype=dtype, grow=ratio == 0)),
        dynamic_shapes=shapes,
        other_args=(feature_map(3, 12, 9, 15, dtype), regions(8, 3, dtype=dtype)),
    )
    empty, mapping = run_model(program, (feature_map(channels=12, dtype=dtype), regions(0, dtype=dtype)))
    assert empty.shape == mapping.shape == (0, 2, 2, 3)


@pytest.mark.parametrize("ratio", [2, 0])
def test_ps_roi_align_special_regions(ratio):
    # torchvision divides 0 by the number of samples where there are none: NaN
    args = (feature_map(channels=8), special_regions())
    export_and_compare(lambda x, rois: ops.ps_roi_align(x, rois, 2, 1.0, ratio), args)


# ---- pools


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_roi_pool(opset, dtype):
    class Pool(torch.nn.Module):
        def forward(self, x, rois):
            return ops.roi_pool(x, rois, (3, 2), 0.5)

    shapes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "rois": {0: Dim.DYNAMIC}}
    program = export_and_compare(
        Pool(),
        (feature_map(dtype=dtype), torch.cat([regions(6, dtype=dtype), special_regions(dtype)])),
        dynamic_shapes=shapes,
        other_args=(feature_map(3, height=9, width=15, dtype=dtype), regions(8, 3, dtype)),
        opset_version=opset,
    )
    assert ("MaxRoiPool" in op_types(program)) == (opset < 22 and dtype == torch.float32)
    (empty,) = run_model(program, (feature_map(dtype=dtype), regions(0, dtype=dtype)))
    assert empty.shape == (0, 3, 3, 2)


def test_roi_pool_with_argmax():
    class Pool(torch.nn.Module):
        def forward(self, x, rois):
            return torch.ops.torchvision.roi_pool(x, rois, 1.0, 2, 3)

    args = (feature_map(), torch.cat([regions(6), special_regions()]))
    program = export_and_compare(
        Pool(),
        args,
        dynamic_shapes={"x": {0: Dim.DYNAMIC}, "rois": {0: Dim.DYNAMIC}},
        other_args=(feature_map(3), regions(9, 3)),
    )
    values, places = run_model(program, (feature_map(), regions(0)))
    assert values.shape == places.shape == (0, 3, 2, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ps_roi_pool(dtype):
    class Pool(torch.nn.Module):
        def forward(self, x, rois):
            return torch.ops.torchvision.ps_roi_pool(x, rois, 0.5, 3, 2)

    shapes = {"x": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, "rois": {0: Dim.DYNAMIC}}
    export_and_compare(
        Pool(),
        (feature_map(channels=12, dtype=dtype), torch.cat([regions(6, dtype=dtype), special_regions(dtype)])),
        dynamic_shapes=shapes,
        other_args=(feature_map(3, 12, 9, 15, dtype), regions(8, 3, dtype)),
    )


def test_pooled_sizes_must_be_static():
    class Pool(torch.nn.Module):
        def forward(self, x, rois, like):
            return torch.ops.torchvision.roi_pool(x, rois, 0.5, like.shape[0], 1)[0]

    args = (feature_map(), regions(3), torch.zeros(3))
    with pytest.raises(onnxport.OnnxExporterError, match="static"):
        onnxport.export(Pool(), args, dynamic_shapes={"x": {}, "rois": {}, "like": {0: Dim.DYNAMIC}})


# ---- nms


def boxes_of(count: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    corner = torch.randint(0, 12, (count, 2))
    boxes = torch.cat([corner, corner + torch.randint(1, 10, (count, 2))], 1)
    return boxes.to(dtype), torch.randint(0, 6, (count,)).to(dtype) / 5  # many equal scores


class Nms(torch.nn.Module):
    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, boxes, scores):
        return ops.nms(boxes, scores, self.threshold)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.0, 1.0, 1.5, -0.5])
def test_nms(dtype, threshold):
    program = export_and_compare(
        Nms(threshold),
        boxes_of(30, dtype),
        dynamic_shapes={"boxes": {0: Dim.DYNAMIC}, "scores": {0: Dim.DYNAMIC}},
        other_args=boxes_of(60, dtype),
    )
    (empty,) = run_model(program, (torch.zeros(0, 4, dtype=dtype), torch.zeros(0, dtype=dtype)))
    assert empty.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_nms_at_the_threshold(dtype, tenths):
    # The second box has exactly this share of the first one's area: in float32 above or below 0.1, 0.2, ...
    boxes = torch.tensor([[0, 0, 10, 1], [0, 0, tenths, 1]], dtype=dtype)
    export_and_compare(Nms(tenths / 10), (boxes, torch.tensor([1, 0.5], dtype=dtype)))


def test_nms_static_and_degenerate():
    boxes = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 5], [1, 1, 1, 5.0], [0, 0, 4, 4], [0, 0, 4, 4]])
    program = export_and_compare(Nms(0.3), (boxes, torch.ones(6)))
    assert op_types(program).count("NonMaxSuppression") == 1


# ---- together


class Tail(torch.nn.Module):
    """The end of a two-stage detector: boxes of each class suppressed, their regions pooled and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = torch.nn.Linear(3 * 4, 5)

    def forward(self, features, boxes, scores, labels):
        keep = ops.batched_nms(boxes, scores, labels, 0.4)
        kept = boxes[keep]
        pooled = ops.roi_align(features, [kept], 2, 0.5, sampling_ratio=2, aligned=True)
        return kept, scores[keep], self.classify(pooled.flatten(1)).softmax(-1)


@pytest.mark.parametrize("opset", OPSETS)
def test_detection_tail(opset):
    def inputs(count):
        boxes, _ = boxes_of(count)
        return feature_map(1), boxes, torch.rand(count), torch.randint(0, 3, (count,))

    count = Dim("count", min=2, max=500)
    program = export_and_compare(
        Tail(),
        inputs(20),
        dynamic_shapes={"features": {}, "boxes": {0: count}, "scores": {0: count}, "labels": {0: count}},
        other_args=inputs(33),
        opset_version=opset,
    )
    assert "NonMaxSuppression" in op_types(program)
    assert len(flat_tensors(program(*inputs(2)))) == 3


class Confident(torch.nn.Module):
    """How many boxes come to the suppression depends on their scores."""

    def forward(self, boxes, scores, labels):
        chosen = torch.where(scores > 0.5)[0]
        return boxes[chosen][ops.batched_nms(boxes[chosen], scores[chosen], labels[chosen], 0.3)]


def test_batched_nms_of_any_number():
    plain = ops.batched_nms
    boxes, scores = boxes_of(40)
    labels = torch.randint(0, 3, (40,))
    program = export_and_compare(Confident(), (boxes, scores, labels), other_args=(boxes.flip(0), scores, labels))
    assert ops.batched_nms is plain and ops.boxes.batched_nms is plain
    (none,) = run_model(program, (boxes, torch.zeros(40), labels))
    assert none.shape == (0, 4)
