"""The operators of torchvision, as an onnxport plugin: boxes (nms), regions of interest, deformable convolution."""

from __future__ import annotations

from onnxport import Translation, collect, hookimpl
from onnxport.kit import Replacement


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of the pack."""
    from onnxport_torchvision import boxes, deformable, instances, regions

    return collect(boxes, deformable, instances, regions)


@hookimpl
def onnxport_patches() -> list[Replacement]:
    """Detections of any number can be captured, with masks and keypoints, and transforms of images of any size."""
    from onnxport_torchvision.capture import sizes_of_any_image, suppression_for_any_number
    from onnxport_torchvision.image_sizes import detectors_for_any_image
    from onnxport_torchvision.instances import instances_of_any_number

    return [
        *suppression_for_any_number(),
        *instances_of_any_number(),
        *sizes_of_any_image(),
        *detectors_for_any_image(),
    ]
