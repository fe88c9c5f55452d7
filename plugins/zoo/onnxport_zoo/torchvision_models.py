"""All models of torchvision: classification, segmentation, detection, video, flow, and quantized ones."""

from __future__ import annotations

from typing import Any

import torch

from onnxport_zoo.resolvers import Resolver

#: Height and width of the images, where it isn't 224 by 224.
_SIZES = {"inception_v3": 299, "quantized_inception_v3": 299, "vit_h_14": 224}
_FRAMES = {"s3d": (16, 224), "mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224)}


def _names() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models())


def _example(name: str) -> dict[str, Any]:
    import torchvision

    kind = torchvision.models.get_model_builder(name).__module__.split(".")[2]
    options: dict[str, Any] = {"weights_backbone": None} if kind in ("detection", "segmentation") else {}
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": True}
    if kind == "quantization":
        options = {"quantize": True}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    batch = {0: "batch"}
    if kind == "detection":
        image = torch.rand(3, 256, 320)
        return {"model": model, "args": ([image],), "dynamic_shapes": ([{1: "height", 2: "width"}],)}
    if kind == "video":
        frames, size = _FRAMES.get(name, (16, 224 if name.startswith("swin3d") else 112))
        return {"model": model, "args": (torch.randn(2, 3, frames, size, size),), "dynamic_shapes": (batch,)}
    if kind == "optical_flow":
        images = (torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128))
        shapes = {"image1": batch, "image2": batch, "num_flow_updates": None}
        return {"model": model, "args": images, "kwargs": {"num_flow_updates": 4}, "dynamic_shapes": shapes}
    size = _SIZES.get(name, 224)
    return {"model": model, "args": (torch.randn(2, 3, size, size),), "dynamic_shapes": (batch,)}


resolver = Resolver(_names, _example, ("torchvision",))
