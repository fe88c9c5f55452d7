"""What is said of a mask holds for every size: it is compared with the mask that eager torch computes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from onnxport_onnxruntime.masks import Reach, reach

Positions = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
CAUSAL, ALL, NOTHING = Reach(True, None, True), Reach(False, None, True), Reach()
LOWEST = torch.finfo(torch.float32).min


def positions(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of queries (S, 1) and keys (1, T): the last query is where the last key is."""
    s, t = q.shape[0], k.shape[0]
    return (torch.arange(s) + (t - s))[:, None], torch.arange(t)[None, :]


def by(compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Positions:
    return lambda q, k: compare(*positions(q, k))


MASKS: dict[str, tuple[Positions, Reach]] = {
    "le": (by(lambda q, k: k <= q), CAUSAL),
    "ge": (by(lambda q, k: q >= k), CAUSAL),
    "lt": (by(lambda q, k: k < q + 1), CAUSAL),
    "gt": (by(lambda q, k: q + 1 > k), CAUSAL),
    "difference": (by(lambda q, k: q - k >= 0), CAUSAL),
    "negated difference": (by(lambda q, k: k - q < 1), CAUSAL),
    "four axes": (by(lambda q, k: (k <= q)[None, None]), CAUSAL),
    "expanded": (by(lambda q, k: (k <= q)[None, None].expand(3, 2, -1, -1)), CAUSAL),
    "transposed": (by(lambda q, k: (k.T <= q.T).transpose(0, 1)), CAUSAL),
    "permuted": (by(lambda q, k: (k.T <= q.T)[None].permute(0, 2, 1)), CAUSAL),
    "and what holds": (by(lambda q, k: (k <= q) & (k >= 0) & (k < k.shape[1])), CAUSAL),
    "and ones": (by(lambda q, k: torch.ones((), dtype=torch.bool) & (k <= q)), CAUSAL),
    "product of bools": (by(lambda q, k: (k <= q) * (k >= 0)), CAUSAL),
    "start of a range": (
        lambda q, k: torch.arange(k.shape[0])[None] <= torch.arange(k.shape[0] - q.shape[0], k.shape[0])[:, None],
        CAUSAL,
    ),
    "slice of a larger one": (
        lambda q, k: torch.arange(k.shape[0] + 3)[3:][None] - 3 <= positions(q, k)[0],
        CAUSAL,
    ),
    "slice of a size that may be negative": (
        lambda q, k: (torch.arange(k.shape[0])[None] <= torch.arange(k.shape[0])[:, None])[k.shape[0] - q.shape[0] :],
        NOTHING,
    ),
    "added": (by(lambda q, k: torch.where(k <= q, 0.0, -float("inf"))), CAUSAL),
    "added, lowest": (by(lambda q, k: torch.where(k <= q, 0.0, LOWEST)[None, None]), CAUSAL),
    "window": (by(lambda q, k: (k <= q) & (k > q - 4)), Reach(True, 4, True)),
    "window, ge": (by(lambda q, k: (k <= q) & (k >= q - 4)), Reach(True, 5, True)),
    "two windows": (by(lambda q, k: (k <= q) & (k > q - 4) & (q - k < 2)), Reach(True, 2, True)),
    "all": (by(lambda q, k: (k >= 0).expand(q.shape[0], -1)), ALL),
    "queries alone": (by(lambda q, k: torch.arange(q.shape[0])[:, None] >= 0), ALL),
    "up to the last": (by(lambda q, k: k < k.shape[1]), ALL),
    "none added": (by(lambda q, k: torch.where(k >= 0, 0.0, LOWEST)), ALL),
    # what is no causal mask
    "strictly before": (by(lambda q, k: k < q), NOTHING),
    "one ahead": (by(lambda q, k: k <= q + 1), NOTHING),
    "behind": (by(lambda q, k: k >= q), NOTHING),
    "twice as far": (by(lambda q, k: k <= 2 * q), NOTHING),
    "every second": (lambda q, k: torch.arange(0, 2 * k.shape[0], 2)[None] <= positions(q, k)[0], NOTHING),
    "from the top left": (lambda q, k: torch.arange(k.shape[0])[None] <= torch.arange(q.shape[0])[:, None], NOTHING),
    "or": (by(lambda q, k: (k <= q) | (k == 0)), NOTHING),
    "not": (by(lambda q, k: ~(k <= q)), NOTHING),
    "equal": (by(lambda q, k: k == q), NOTHING),
    "window alone": (by(lambda q, k: k > q - 4), NOTHING),
    "window of none": (by(lambda q, k: (k <= q) & (k > q)), Reach(True)),
    "floats": (by(lambda q, k: k.float() <= q.float()), NOTHING),
    "added, a little": (by(lambda q, k: torch.where(k <= q, 0.0, -1e4)), NOTHING),
    "added, something": (by(lambda q, k: torch.where(k <= q, 1.0, -float("inf"))), NOTHING),
    "added, the other way": (by(lambda q, k: torch.where(k <= q, -float("inf"), 0.0)), NOTHING),
    "product of numbers": (by(lambda q, k: q * k >= 0), NOTHING),
    "first key only": (by(lambda q, k: (k <= 0).expand(q.shape[0], -1)), NOTHING),
    "some keys": (by(lambda q, k: (k < k.shape[1] - 1).expand(q.shape[0], -1)), NOTHING),
    "a length": (lambda q, k: (torch.arange(k.shape[0])[None] < k.sum().long()).expand(q.shape[0], -1), NOTHING),
    "a given one": (lambda q, k: (k > 0)[None] & (q[:, None] > -9), NOTHING),
    # a padding of the caller's beside it: the mask is read, but none looks ahead
    "and a given one": (lambda q, k: by(lambda i, j: j <= i)(q, k) & (k > 0)[None], Reach(True)),
    "and a window and a given one": (
        lambda q, k: by(lambda i, j: (j <= i) & (j > i - 3))(q, k) & (k > 0)[None],
        Reach(True),
    ),
    "added, and a given one": (
        lambda q, k: torch.where(by(lambda i, j: j <= i)(q, k) & (k > 0)[None], 0.0, -float("inf")),
        Reach(True),
    ),
    # where a row has no key, the lowest number means the mean of all values, those behind included
    "added lowest, and a given one": (
        lambda q, k: torch.where(by(lambda i, j: j <= i)(q, k) & (k > 0)[None], 0.0, LOWEST),
        NOTHING,
    ),
}


class Masked(torch.nn.Module):
    """Every mask as an output."""

    def forward(self, q: torch.Tensor, k: torch.Tensor) -> list[torch.Tensor]:
        return [function(q, k) for function, _ in MASKS.values()]


@functools.cache
def said(s: int, t: int, dynamic: bool) -> dict[str, Reach]:
    """What is said of every mask."""
    dims = ({0: torch.export.Dim("s", min=0)}, {0: torch.export.Dim("t", min=0)}) if dynamic else None
    program = torch.export.export(Masked(), (torch.randn(s), torch.randn(t)), dynamic_shapes=dims)
    nodes = list(program.graph.nodes)
    queries, keys = (node.meta["val"].shape[0] for node in nodes if node.op == "placeholder" and node.name in "qk")
    masks = dict(zip(MASKS, nodes[-1].args[0], strict=True))
    return {name: reach(mask, queries, keys) for name, mask in masks.items()}


def check(found: Reach, function: Positions, s: int, t: int) -> None:
    """What is said holds of the mask at these sizes."""
    mask = function(torch.randn(s), torch.randn(t))
    kept = (mask if mask.dtype is torch.bool else mask == 0).broadcast_to(*mask.shape[:-2], s, t)
    i, j = positions(torch.empty(s), torch.empty(t))
    if found.is_causal:
        assert not (kept & (j > i)).any()
    if found.is_whole:
        wanted = torch.ones(s, t, dtype=torch.bool)
        wanted &= (j <= i) if found.is_causal else True
        wanted &= (j > i - found.window) if found.window is not None else True
        assert (kept == wanted).all()


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_any_size(name: str) -> None:
    function, expected = MASKS[name]
    found = said(5, 9, True)[name]
    assert found == expected
    for s, t in [(5, 9), (6, 6), (2, 3), (1, 7), (1, 1), (3, 2), (0, 4), (0, 0)]:
        if (s, t) != (3, 2) or "slice" not in name:  # more queries than keys: it starts before the first
            check(found, function, s, t)


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_one_query(name: str) -> None:
    function, _ = MASKS[name]
    check(said(1, 7, False)[name], function, 1, 7)


def test_no_mask() -> None:
    assert reach(None, 3, 4) == ALL
    assert reach(None, 1, 4) == CAUSAL  # a single query has nothing behind it
