"""Models of timm: ``timm:NAME`` for any, ``timm-families:FILE`` for a small one of each file of architectures."""

from __future__ import annotations

import re
from typing import Any

import torch

from onnxport_zoo.resolvers import Resolver

#: Parts of names that tell a size, the smallest first. What has none of them stands before "base".
_SIZES = (
    *("test", "zepto", "atto", "femto", "pico", "nano", "xxtiny", "tiny", "xxs", "xs", "t0", "b0", "s0", "s1", "050"),
    *(
        "small",
        "mini",
        "lite",
        "s",
        "",
        "medium",
        "m",
        "base",
        "b",
        "large",
        "l",
        "xlarge",
        "huge",
        "giant",
        "gigantic",
    ),
)
_SMALL = 128  # height and width for models that take any


def _names() -> list[str]:
    import timm

    return list(timm.list_models())


def _families() -> list[str]:
    import timm

    return list(timm.list_modules())


def _example(name: str) -> dict[str, Any]:
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    size = _input_size(model.pretrained_cfg)
    return {"model": model, "args": (torch.randn(2, *size),), "dynamic_shapes": ({0: "batch"},)}


def _input_size(configuration: Any) -> tuple[int, int, int]:
    """Channels, height and width: the least that the model is known to take, since that is compared in less time."""
    channels, *sides = configuration["input_size"]
    least = configuration.get("min_input_size")
    if least:
        return tuple(least)
    if configuration.get("fixed_input_size"):
        return channels, *sides
    return channels, *(min(side, max(_SMALL, side // 4)) for side in sides)


def small_one(family: str) -> str:
    """The smallest model of a file of architectures, as far as names tell: by the size that they say, and by length."""
    import timm

    return min(timm.list_models(module=family), key=_rank)


def _rank(name: str) -> tuple[int, int, int, str]:
    parts = re.split(r"[_\W]", name)
    size = min((_SIZES.index(part) for part in parts if part in _SIZES and part), default=_SIZES.index(""))
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return size, max(numbers, default=0), len(name), name


resolver = Resolver(_names, _example, ("timm",))
families = Resolver(_families, lambda family: _example(small_one(family)), ("timm",))
