"""Vision towers that take images of different sizes as rows of patches, one behind the other.

How many patches an image has is a value (``grid_thw``), so a loop over the images would be unrolled, and a file would
have as many images as the example. While an export captures, such loops are arithmetic over all patches at once:

- attention in each image alone is one attention with a mask of blocks: patches see those with the same number of an
  image (``segments_attention``);
- places of patches in their images, and the order of windows, follow from the running numbers of patches.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import torch
from onnxport import Unsupported
from onnxport.kit import Replacement
from torch.nn import functional

ATTENTION = "onnxport_flash_segments"
"""The name of the attention; models give lengths to those that have ``flash`` in theirs."""
_LENGTHS = "cu_seqlens"


def patches(model: torch.nn.Module) -> list[Any]:
    """What is replaced in the files that a model's towers are in; nothing for models without such towers."""
    towers = [module for module in model.modules() if _takes_lengths(module)]
    files = {type(module).__module__ for module in model.modules()}
    found: list[Any] = [
        Replacement(file, name, lambda _, function=function: function, why="a loop over the images of a tower")
        for file in sorted(files)
        for name, function in _FUNCTIONS.items()
        if hasattr(sys.modules.get(file), name)
    ]
    if towers:
        found.append(_attention_of(towers))
    return found


def _takes_lengths(module: torch.nn.Module) -> bool:
    """Whether it is an attention in pieces whose ends are an argument."""
    if not hasattr(getattr(module, "config", None), "_attn_implementation"):
        return False
    return _LENGTHS in inspect.signature(type(module).forward).parameters and not hasattr(module, "attn")


@contextlib.contextmanager
def _attention_of(towers: list[Any]) -> Iterator[None]:
    """The attention of towers is ours."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, segments_attention)
    configs = {id(tower.config): tower.config for tower in towers}.values()
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = ATTENTION
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def segments_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    is_causal: bool | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in which a row sees the rows of its piece alone.

    Args:
        module: whether it is causal is asked where `is_causal` is None.
        query, key, value: of shape (1, heads, rows, width).
        attention_mask: has to be None where there are pieces, and of four axes elsewhere.
        scaling: of the products.
        cu_seq_lens_q: where pieces end, in rows, with a 0 before: (pieces + 1,). None: there is one piece.
        is_causal: is not supported.
        s_aux: sinks, which are not supported.
        options: of other attentions; windows and caps have to be None.

    Returns:
        (1, rows, heads, width), and no weights.

    Raises:
        Unsupported: it is what our attention doesn't compute.
    """
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    more = s_aux is not None or any(options.get(name) is not None for name in ("sliding_window", "softcap"))
    if causal or more or (attention_mask is not None and (cu_seq_lens_q is not None or attention_mask.dim() != 4)):
        raise Unsupported("an attention by lengths that is causal, or has sinks, a window, a cap or a mask")
    if cu_seq_lens_q is not None:
        piece = _pieces_of(cu_seq_lens_q, query.shape[2])
        attention_mask = (piece[:, None] == piece[None, :])[None, None]
    result = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return result.transpose(1, 2).contiguous(), None


def _pieces_of(ends: torch.Tensor, rows: int) -> torch.Tensor:
    """The number of the piece that each row is in."""
    return (ends[1:, None] <= torch.arange(rows, device=ends.device)[None, :]).sum(0)


# Places -----------------------------------------------------------------------------------------------------------


class _Patches:
    """For each patch of all images: its image, and where it is in it, in the order of blocks that are merged.

    Args:
        grid: (images, 3): how many frames, rows and columns of patches an image has.
        merge: how many rows and columns a block has, one number for all images or one for each.
    """

    def __init__(self, grid: torch.Tensor, merge: int | torch.Tensor) -> None:
        counts = grid.prod(1)
        image = torch.repeat_interleave(counts)
        starts = counts.cumsum(0) - counts
        self.image = image
        size = grid[image]
        edge = merge[image] if isinstance(merge, torch.Tensor) else merge
        frame = size[:, 1] * size[:, 2]
        number = torch.arange(image.shape[0], device=grid.device) - starts[image]
        self.frame, inner = number // frame, number % frame
        block, inside = inner // (edge * edge), inner % (edge * edge)
        columns = size[:, 2] // edge
        self.row = (block // columns) * edge + inside // edge
        self.column = (block % columns) * edge + inside % edge


def position_ids(
    grid_thw: torch.Tensor,
    spatial_merge_size: int | torch.Tensor,
    include_temporal: bool = False,
    kwargs: dict[str, Any] | None = None,
) -> torch.Tensor:
    """Rows and columns of patches, and frames before them if asked: (patches, 2) or (patches, 3)."""
    given = None if kwargs is None else kwargs.pop("position_ids", None)
    if given is not None:
        return given  # type: ignore[no-any-return]
    found = _Patches(grid_thw, spatial_merge_size)
    axes = [found.frame, found.row, found.column]
    return torch.stack(axes if include_temporal else axes[1:], 1)


def window_index(
    grid_thw: torch.Tensor,
    spatial_merge_size: int,
    window_size: int,
    patch_size: int,
    kwargs: dict[str, Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of merged blocks by windows, (blocks,), and where windows end, in patches, with a 0 before."""
    names = "window_index", "cu_window_seqlens"
    given = [None if kwargs is None else kwargs.pop(name, None) for name in names]
    if None not in given:
        return given[0], given[1]  # type: ignore[return-value]
    edge = window_size // spatial_merge_size // patch_size
    grid = torch.stack([grid_thw[:, 0], *(grid_thw[:, 1:] // spatial_merge_size).unbind(1)], 1)
    blocks = _Patches(grid, 1)
    windows = grid[:, 1:] // edge + 1  # as many in a column and a row, with those that have no blocks
    counts = grid[:, 0] * windows[:, 0] * windows[:, 1]
    first = (counts.cumsum(0) - counts)[blocks.image]
    high, wide = windows[blocks.image].unbind(1)
    window = first + (blocks.frame * high + blocks.row // edge) * wide + blocks.column // edge
    order = torch.argsort(window, stable=True)
    ordered = window[order]
    last = ordered != functional.pad(ordered[1:], (0, 1), value=-1)
    ends = (torch.nonzero(last)[:, 0] + 1) * spatial_merge_size**2
    return order, functional.pad(ends, (1, 0)).to(torch.int32)


def _no_longest(*_: Any, **__: Any) -> None:
    """The longest piece, which our attention doesn't ask for."""


_FUNCTIONS = {
    "get_vision_position_ids": position_ids,
    "get_vision_window_index": window_index,
    "get_max_seqlen": _no_longest,
}
