"""The operator database as a zoo: its cases, and what records of runs say of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

pytest.importorskip("onnxport_zoo", reason="onnxport-zoo isn't installed")

import grid
import operator_zoo
from cases import cases, name_of
from grid import Plan
from onnxport_zoo.cases import read_zoo

pytestmark = pytest.mark.conformance


def test_a_case_measures_what_the_grid_does() -> None:
    settings = {"opset": None, "options": {"modes": ["static", "dynamic"], "samples": 2}}
    with torch.enable_grad():  # which ends what the case sets for its process
        result = json.loads(json.dumps(operator_zoo._perform("expand:float32", settings)))
    assert result["status"] == "passed"
    found = operator_zoo.outcomes([{**result, "start": 0}])
    entry = next(entry for entry in grid.operators() if name_of(entry) == "expand")
    places = [case.index for case in cases(entry, "float32", 2)]
    assert list(found) == [("expand", "float32", mode, place) for place in places for mode in ("static", "dynamic")]
    for case in cases(entry, "float32", 2):
        outcome = grid.run(case)
        measured = found["expand", "float32", "static", case.index]
        assert (measured.kind, measured.nodes, measured.translations) == ("pass", outcome.nodes, outcome.translations)


def test_the_cases_are_those_of_the_file() -> None:
    plan = Plan(("float32", "int64"), ("static", "dynamic"))
    whole = read_zoo(operator_zoo.HERE / "zoo.toml")
    assert len(whole) > 3000
    some = operator_zoo.zoo_of(["add", "nn.functional.relu"], plan)
    assert [case.name for case in some] == [
        *("operators:add:float32", "operators:add:int64"),
        *("operators:nn.functional.relu:float32", "operators:nn.functional.relu:int64"),
    ]
    by_name = {case.name: case for case in whole}
    assert all(by_name[case.name].settings() == case.settings() for case in some)
    (static,) = operator_zoo.zoo_of(["add"], Plan(("float32",), ("static",), 1, 18))
    assert static.name == "operators:add:float32 [opset 18] [static]"


def test_what_failed_or_is_missing_is_open() -> None:
    (case,) = operator_zoo.zoo_of(["add"], Plan(("float32",), ("static", "dynamic")))
    outcome = {"kind": "pass"}
    key = ["add", "float32"]
    passed = {"start": 1, "outcomes": [[*key, "static", 0, outcome], [*key, "dynamic", 0, {"kind": "frozen"}]]}
    failed = {"start": 2, "outcomes": [[*key, "static", 0, {"kind": "mismatch"}]]}
    crashed = {"start": 3, "settings": case.settings(), "status": "crashed", "message": "SIGSEGV"}
    half = {"start": 1, "outcomes": passed["outcomes"][:1]}
    for records, is_open in (([], True), ([half], True), ([passed], False), ([failed, passed], True)):
        assert operator_zoo._is_open(case, operator_zoo.outcomes(records)) is is_open
    found = operator_zoo.outcomes([passed, crashed])
    assert found["add", "float32", "static", -1].kind == "error" and operator_zoo._is_open(case, found)
