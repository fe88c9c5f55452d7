"""Vision towers that take images of different sizes: one file for any number of images, of any size."""

from __future__ import annotations

import itertools
from typing import Any

import onnxport
import onnxport_transformers
import pytest
import torch

pytest.importorskip("transformers.vision_utils")

from onnxport import Unsupported
from onnxport_transformers import small, towers
from transformers import vision_utils

GRIDS = [[[1, 4, 4]], [[2, 4, 8], [1, 8, 4]], [[1, 6, 10], [3, 2, 2], [1, 12, 4]]]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("merge", [1, 2])
def test_places_of_patches_are_those_of_the_loop(grid: list[list[int]], merge: int, temporal: bool) -> None:
    thw = torch.tensor(grid)
    expected = vision_utils.get_vision_position_ids(thw, merge, temporal)
    torch.testing.assert_close(towers.position_ids(thw, merge, temporal), expected)
    edges = torch.full((len(grid),), merge)
    torch.testing.assert_close(towers.position_ids(thw, edges, temporal), expected)


def test_each_image_may_merge_blocks_of_its_own_size() -> None:
    thw, merge = torch.tensor([[1, 4, 4], [2, 6, 6], [1, 4, 8]]), torch.tensor([2, 3, 1])
    expected = vision_utils.get_vision_position_ids(thw, merge)
    torch.testing.assert_close(towers.position_ids(thw, merge), expected)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("window", [2, 4, 8, 112])
def test_windows_are_those_of_the_loop(grid: list[list[int]], window: int) -> None:
    thw = torch.tensor(grid)
    order, ends = vision_utils.get_vision_window_index(thw, 2, window, 1)
    found, last = towers.window_index(thw, 2, window, 1)
    torch.testing.assert_close(found, order)
    torch.testing.assert_close(last, ends)


@pytest.mark.parametrize("name", ["position_ids", "window_index"])
def test_what_was_computed_before_is_taken(name: str) -> None:
    given = {"position_ids": torch.ones(2), "window_index": torch.ones(3), "cu_window_seqlens": torch.ones(4)}
    arguments = (torch.tensor([[1, 4, 4]]), 2) if name == "position_ids" else (torch.tensor([[1, 4, 4]]), 2, 4, 1)
    found: Any = getattr(towers, name)(*arguments, kwargs=given)
    found = found if isinstance(found, tuple) else (found,)
    assert [each.sum() for each in found] == [each.numel() for each in found] and len(given) < 3


def test_rows_see_those_of_their_piece() -> None:
    query, key, value = torch.randn(3, 1, 4, 9, 8)
    ends = torch.tensor([0, 2, 2, 6, 9], dtype=torch.int32)  # one piece is empty
    found, weights = towers.segments_attention(None, query, key, value, scaling=0.3, cu_seq_lens_q=ends)
    pieces = [
        torch.nn.functional.scaled_dot_product_attention(*(t[:, :, a:b] for t in (query, key, value)), scale=0.3)
        for a, b in itertools.pairwise(ends.tolist())
        if a < b
    ]
    torch.testing.assert_close(found, torch.cat(pieces, 2).transpose(1, 2))
    assert weights is None


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"s_aux": torch.zeros(4)},
        {"sliding_window": 3},
        {"softcap": 1.0},
        {"attention_mask": torch.ones(1, 1, 9, 9, dtype=torch.bool)},
        {"attention_mask": torch.ones(1, 9), "cu_seq_lens_q": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_attention_that_is_more_than_pieces_is_refused(options: dict[str, Any]) -> None:
    query = torch.randn(1, 4, 9, 8)
    arguments = {"cu_seq_lens_q": torch.tensor([0, 4, 9]), **options}
    with pytest.raises(Unsupported, match="by lengths"):
        towers.segments_attention(None, query, query, query, **arguments)


def test_one_piece_has_a_mask_of_its_own() -> None:
    query = torch.randn(2, 4, 5, 8)
    mask = torch.ones(2, 1, 5, 5).tril().bool()
    expected = torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
    found, _ = towers.segments_attention(None, query, query, query, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_other_models_have_nothing_replaced() -> None:
    assert towers.patches(torch.nn.Linear(2, 2)) == []
    assert towers.patches(small.small_model("llama").model) == []


@pytest.mark.parametrize("name", ["qwen2_vl_vision", pytest.param("qwen2_5_vl_vision", marks=pytest.mark.grid)])
def test_a_tower_is_one_file_for_any_images(name: str) -> None:
    built = small.small_model(name)
    (graph,) = built.graphs.values()
    before = built.model.config._attn_implementation
    program = onnxport.export(graph.model, **graph.options(), plugins=[onnxport_transformers], verbose=False)
    assert built.model.config._attn_implementation == before
    width = graph.kwargs["hidden_states"].shape[1]
    others = [
        ((), {"hidden_states": torch.randn(sum(t * h * w for t, h, w in grid), width), "grid_thw": torch.tensor(grid)})
        for grid in GRIDS[:2]
    ]
    others = [((), {**graph.kwargs, **kwargs}) for _, kwargs in others]
    result = onnxport.verify(program, graph.model, (), graph.kwargs, other_inputs=others)
    assert result.passed, result.table()
    assert sum(not each.skipped for each in result.comparisons) >= 3
