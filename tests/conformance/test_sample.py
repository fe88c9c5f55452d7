"""A sample of the grid in `make test`: each operator at one dtype or two, static or dynamic, the same each time."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import grid
import known
from cases import DTYPES, cases, has_dtype, name_of

pytestmark = pytest.mark.conformance

_ENTRIES = {name_of(entry): entry for entry in grid.operators()}
_SLOW_SECONDS = 20


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _number(*words: str) -> int:
    """A number that is the same in each process."""
    return zlib.crc32("/".join(words).encode())


def _chosen(name: str, entry: Any) -> list[tuple[str, str]]:
    """float32 (or the first dtype it takes) and one other dtype, of which one case is dynamic."""
    takes = [dtype for dtype in DTYPES if has_dtype(entry, dtype)]
    if not takes:
        return []
    number = _number(name)
    chosen = [takes[0]]
    if len(takes) > 1 and number % 2:
        chosen.append(takes[1 + number // 2 % (len(takes) - 1)])
    return [(dtype, ("static", "dynamic")[(number // 16 + i) % 2]) for i, dtype in enumerate(chosen)]


@pytest.mark.parametrize("name", sorted(_ENTRIES))
def test_operator(name: str) -> None:
    """A case passes, or is listed in known.csv and fails."""
    entry = _ENTRIES[name]
    results = {}
    for dtype, mode in _chosen(name, entry):
        case = list(cases(entry, dtype, grid.SAMPLES))[-1]
        outcome = grid.in_time(lambda: grid.run(case, mode == "dynamic"), _SLOW_SECONDS)  # noqa: B023
        results[(name, dtype, mode, case.index)] = outcome
    problems = known.differences(results)
    assert not problems, "\n".join(problems)


def test_known_list_is_sound() -> None:
    """Each row names an operator of the database, and a dtype and mode of the grid."""
    for row in known.read():
        assert row.op in _ENTRIES, row
        assert row.dtype in ("*", *DTYPES), row
        assert row.mode in ("*", "static", "dynamic"), row


def test_wrong_results_are_none_of_the_known() -> None:
    """A result that is wrong without an error is a bug, never a known limitation: the list says where some are left."""
    wrong = {row.op for row in known.read() if row.kind == "inexpressible" and "mismatch" in row.reason}
    assert not wrong
