"""All models of torchvision: classification, segmentation, detection, video, flow, and quantized ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from onnxport_zoo.resolvers import Resolver

#: Height and width of images: models with positions of their own, or windows, take those that they were made for. The
#: others take any, and small ones are compared in a fraction of the time.
_SIZES = {"vit": 224, "maxvit": 224, "swin": 224, "inception": 299, "quantized_inception": 299}
_SMALL = 96
_FRAMES = {"s3d": (16, 224), "mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224), "swin3d": (8, 112)}
_RESIZED = {"min_size": 160, "max_size": 224}  # what detectors that resize their images resize them to


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
    if kind == "detection" and not name.startswith("ssd"):
        options |= _RESIZED
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    if name.startswith("ssdlite"):
        _spread(model)
    batch = {0: "batch"}
    if kind == "detection":
        image = torch.rand(3, 160, 192)
        return {"model": model, "args": ([image],), "dynamic_shapes": ([{1: "height", 2: "width"}],)}
    if kind == "video":
        frames, size = _of_prefix(_FRAMES, name, (16, 112))
        return {"model": model, "args": (torch.randn(2, 3, frames, size, size),), "dynamic_shapes": (batch,)}
    if kind == "optical_flow":
        images = (torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128))
        shapes = {"image1": batch, "image2": batch, "num_flow_updates": None}
        return {"model": model, "args": images, "kwargs": {"num_flow_updates": 4}, "dynamic_shapes": shapes}
    size = _of_prefix(_SIZES, name, _SMALL)
    return {"model": model, "args": (torch.randn(2, 3, size, size),), "dynamic_shapes": (batch,)}


def _spread(model: torch.nn.Module) -> None:
    """Draw weights that keep the size of what goes through them: it would vanish, and all scores would be equal."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _of_prefix(table: Mapping[str, Any], name: str, default: Any) -> Any:
    """What a table has for the beginning of a name."""
    return next((value for prefix, value in table.items() if name.startswith(prefix)), default)


resolver = Resolver(_names, _example, ("torchvision",))
