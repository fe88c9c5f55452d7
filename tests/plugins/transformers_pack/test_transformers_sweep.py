"""A sample of the sweep over all model types (`make transformers`), and what its page tells."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

import transformers_sweep as sweep


@pytest.mark.parametrize(
    "name",
    ["gpt_neox", "resnet", *(pytest.param(n, marks=pytest.mark.grid) for n in ("t5", "clip", "falcon", "wav2vec2"))],
)
def test_a_model_type(name: str) -> None:
    found = sweep.examine(name)
    assert found["state"] == "equal", found
    assert found["shapes"] >= 2 and found["nodes"] and "batch_size" in " ".join(found["dynamic"])


def test_a_child_that_dies_or_takes_too_long_is_told() -> None:
    import os
    import time

    assert sweep.in_a_process(lambda: {"state": "equal"}, 20) == {"state": "equal"}
    assert sweep.in_a_process(lambda: os._exit(3), 20)["state"] == "died"
    assert sweep.in_a_process(lambda: time.sleep(30), 1)["state"] == "too slow"


def test_the_page_has_totals(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(
        '{"type": "a", "state": "refused", "task": "t", "seconds": 0.0, "why": "x | y"}\n'
        '{"type": "b", "state": "equal", "task": "t", "seconds": 1.5, "nodes": {"model": 7}, "dynamic": ["n"]}\n'
        '{"type": "c", "state": "not built", "task": "", "seconds": 0.0}\n'
        '{"type": "a", "state": "equal", "task": "t", "seconds": 2.0}\n'
        '{"type": "d", "state": "differs", "task": "t", "seconds": 2.0, "why": "by 2 | 3"}\n',
        "utf-8",
    )
    text = sweep.page(sweep.known(results), 9, "5.0")
    assert "4 of 9 types were tried. 3 of them build small" in text and "2 of these are equal (66.7 %)" in text
    assert "| b | t | equal | n | 1.5 | model 7 |  |" in text and "by 2 \\| 3" in text
