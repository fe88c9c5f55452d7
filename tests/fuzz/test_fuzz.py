"""The short run of the fuzzer; the long one is `make fuzz`."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnxport
import pytest

from . import programs as fuzzed
from .programs import Input, Program, Setting, Verdict, blamed, generated, shrunk, verdicts
from .run import run

SETTING = Setting(other=9, dynamic="named", opset=None)


@pytest.mark.filterwarnings("ignore")
def test_random_programs(capsys: pytest.CaptureFixture[str]) -> None:
    counts = run(seed=7, start=0, count=48, shrink=False)
    assert not counts["wrong"], capsys.readouterr().out
    assert counts["run"] > 40, counts


@pytest.mark.filterwarnings("ignore")
def test_programs_are_the_same_for_a_seed() -> None:
    sizes = (6, 9)
    assert [generated(3, i, sizes) for i in range(20)] == [generated(3, i, sizes) for i in range(20)]
    assert [generated(3, i, sizes) for i in range(20)] != [generated(4, i, sizes) for i in range(20)]


def program(index: int, *lines: str) -> Program:
    return Program(index, (Input("a", "float32", ("n", 3), index),), lines, ("v1",))


def spoiled(programs: list[Program], setting: Setting) -> Any:
    """What the exporter might do wrong: every product is one too large."""
    lines = [tuple(line.replace("* 2", "* 2 + 1") for line in p.lines) for p in programs]
    return EXPORTED([dataclasses.replace(p, lines=new) for p, new in zip(programs, lines)], setting)


EXPORTED = fuzzed.exported


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_program_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzed, "exported", spoiled)
    right = program(0, "v1 = a + 1")
    wrong = program(1, "a = a.clone()", "v2 = a.mT", "v1 = a * 2", "v3 = v1[1:]")
    found = verdicts([right, wrong], SETTING)
    assert [v.result for v in found] == ["run", "wrong"]
    assert shrunk(found[1]).program.lines == ("v1 = a * 2",)


@pytest.mark.filterwarnings("ignore")
def test_a_refused_program_is_told_from_those_beside_it() -> None:
    batch = [program(0, "v1 = a + 1"), program(1, "v1 = a if a.sum() > 0 else a * 2"), program(2, "v1 = a * 2")]
    found: list[Verdict] = verdicts(batch, SETTING)
    assert [v.result for v in found] == ["run", "refused", "run"]
    assert "CaptureError" in found[1].cause


def test_an_error_names_its_program() -> None:
    batch = [program(0, "v1 = a + 1"), program(1, "v1 = a * 2")]
    assert blamed(batch, onnxport.CaptureError("at programs_0_2.py:4: v1 = a * 2")) == 1
    assert blamed(batch, onnxport.CaptureError("axis 0 of p1_a is always 6")) == 1
    assert blamed(batch, ValueError("something else")) is None
