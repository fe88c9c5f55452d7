"""The upstream bugs that the exporter works around, or that ``known.csv`` gives as a reason, are still there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import known
import reproductions

_ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"reproductions\.(\w+)")


@pytest.mark.parametrize("name", reproductions.BUGS)
def test_it_is_still_there(name: str) -> None:
    bug = reproductions.BUGS[name]
    assert bug.is_there(), f"{name} is fixed upstream: the workaround in {bug.where} can go"


def test_each_names_the_file_that_works_around_it() -> None:
    for bug in reproductions.BUGS.values():
        assert re.search("onnxruntime|reproductions", (_ROOT / bug.where).read_text()), bug


def test_rows_of_the_class_onnxruntime_name_a_reproduction() -> None:
    for row in known.read():
        named = _NAMED.findall(row.reason)
        assert named or row.kind != "onnxruntime", row
        assert all(name in reproductions.BUGS for name in named), row
