"""An export that is called inside ``torch.autocast``: the capture sees the block in forward, where it can follow it.

torch 2.14 records a block that is entered in forward as a region with its device and dtype. Of one that is entered
before the capture it records the operators with their cast results and without the casts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia")


@contextmanager
def autocast_in_forward(model: torch.nn.Module) -> Iterator[None]:
    """While this is active, the caller's autocast is off, and the model's forward enters it."""
    regions = {device: torch.get_autocast_dtype(device) for device in _DEVICES if _is_enabled(device)}
    if not regions:
        yield
        return
    forward = model.forward

    @functools.wraps(forward)
    def with_autocast(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            raise RuntimeError(
                "The export is called inside torch.autocast, whose casts a strict capture of torch.export leaves out: "
                "call it outside of that block"
            )
        with ExitStack() as stack:
            for device, dtype in regions.items():
                stack.enter_context(torch.autocast(device, dtype))
            return forward(*args, **kwargs)

    for device in regions:
        torch.set_autocast_enabled(device, False)
    try:
        with mock.patch.object(model, "forward", with_autocast):
            yield
    finally:
        for device in regions:
            torch.set_autocast_enabled(device, True)


def _is_enabled(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
