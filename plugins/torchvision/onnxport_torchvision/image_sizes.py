"""Detectors on images of any size: the sizes to which torchvision resizes and pads them.

torchvision 0.29 decides these in Python numbers, which torch.export would take from the example, or as expressions of
minima and maxima that its solver doesn't get through. While a model is captured, they are numbers of the graph.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from onnxport.kit import Replacement
from torch.nn import functional

Sizes = dict[Any, int]


def detectors_for_any_image() -> Iterator[Replacement]:
    """Replace what fixes the image's size in torchvision's detectors, while a model is captured."""
    examples: Sizes = {}
    replaced = (
        ("torchvision.models.detection.transform", "_resize_image_and_masks", _resizing),
        ("torchvision.models.detection.transform", "GeneralizedRCNNTransform.batch_images", _batching),
        ("torchvision.models.detection._utils", "_topk_min", _at_most),
        ("torchvision.ops.poolers", "_infer_scale", _inferring),
    )
    for module, path, wrapper in replaced:
        owner: Any = sys.modules.get(module)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part, None)
        if hasattr(owner, name):
            why = "it makes the size of an image a Python number"
            yield Replacement(owner, name, functools.partial(_with, wrapper, examples), why=why)


def _with(wrapper: Callable[[Any, Sizes], Any], examples: Sizes, original: Any) -> Any:
    return wrapper(original, examples)


def _is_symbolic(*sizes: Any) -> bool:
    return not torch.compiler.is_dynamo_compiling() and any(isinstance(size, torch.SymInt) for size in sizes)


def _example(size: Any, examples: Sizes) -> int:
    """The size in the example, from those of the sizes that the graph computes."""
    if not isinstance(size, torch.SymInt):
        return size
    node: Any = size.node
    return int(node.hint if node.has_hint() else node.expr.xreplace(examples))


def _computed(value: torch.Tensor, least: int, most: int, example: int, examples: Sizes) -> Any:
    """A size that is an element of a tensor, within bounds."""
    size: Any = value.item()
    torch._check(size >= least)
    torch._check(size <= most)
    examples[size.node.expr] = example
    return size


def _resizing(original: Callable[..., Any], examples: Sizes) -> Callable[..., Any]:
    def resize(image: Any, self_min_size: Any, self_max_size: Any, target: Any = None, fixed_size: Any = None) -> Any:
        height, width = image.shape[-2:]
        if not _is_symbolic(height, width) or target is not None or fixed_size is not None:
            return original(image, self_min_size, self_max_size, target, fixed_size)
        hints = [_example(size, examples) for size in (height, width)]
        scale = min(self_min_size / min(hints), self_max_size / max(hints))
        sides = torch.stack([torch.scalar_tensor(size, dtype=torch.float64) for size in (height, width)])
        ratio = torch.minimum(self_min_size / sides.amin(), self_max_size / sides.amax())
        whole = (sides * ratio).floor().to(torch.int64)
        sizes = [_computed(whole[i], 1, self_max_size, int(hints[i] * scale), examples) for i in (0, 1)]
        return functional.interpolate(image[None], size=sizes, mode="bilinear", align_corners=False)[0], None

    return resize


def _batching(original: Callable[..., Any], examples: Sizes) -> Callable[..., Any]:
    def batch_images(self: Any, images: Sequence[torch.Tensor], size_divisible: int = 32) -> torch.Tensor:
        if not _is_symbolic(*(size for image in images for size in image.shape[-2:])):
            return original(self, images, size_divisible)
        whole = []
        for axis in (-2, -1):
            sizes = [image.shape[axis] for image in images]
            largest = torch.stack([torch.scalar_tensor(size, dtype=torch.int64) for size in sizes]).amax()
            count = (largest + size_divisible - 1) // size_divisible
            example = -(-max(_example(size, examples) for size in sizes) // size_divisible)
            # the product is known to be divisible
            padded = size_divisible * _computed(count, 1, sys.maxsize // size_divisible, example, examples)
            for size in sizes:
                torch._check(padded - size >= 0)
            whole.append(padded)
        height, width = whole
        return torch.stack([functional.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in images])

    return batch_images


def _at_most(original: Callable[..., Any], examples: Sizes) -> Callable[..., Any]:
    def topk_min(input: torch.Tensor, orig_kval: int, axis: int) -> Any:
        size = input.shape[axis]
        return torch.sym_min(orig_kval, size) if _is_symbolic(size) else original(input, orig_kval, axis)

    return topk_min


def _inferring(original: Callable[..., Any], examples: Sizes) -> Callable[..., Any]:
    """A pooler infers its scales once, from the first image that it sees: in a capture, the example."""

    def infer_scale(feature: torch.Tensor, original_size: Sequence[Any]) -> Any:
        if not _is_symbolic(*feature.shape, *original_size):
            return original(feature, original_size)
        sizes = [_example(size, examples) for size in feature.shape[-2:]]
        return original(torch.empty(1, *sizes, device="meta"), [_example(size, examples) for size in original_size])

    return infer_scale
