"""The operators of torchvision, as an onnxport plugin: boxes (nms), regions of interest, deformable convolution."""

from __future__ import annotations

from onnxport import Translation, collect, hookimpl


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of the pack."""
    from onnxport_torchvision import boxes, deformable, regions

    return collect(boxes, deformable, regions)
