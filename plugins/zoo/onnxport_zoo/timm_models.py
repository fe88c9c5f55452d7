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


def _names() -> list[str]:
    import timm

    return list(timm.list_models())


def _families() -> list[str]:
    import timm

    return list(timm.list_modules())


def _example(name: str) -> dict[str, Any]:
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    configuration: Any = model.pretrained_cfg
    size = configuration["input_size"]
    return {"model": model, "args": (torch.randn(2, *size),), "dynamic_shapes": ({0: "batch"},)}


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
