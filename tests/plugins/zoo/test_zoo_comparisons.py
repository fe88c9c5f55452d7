"""Two runs are compared, and a page shows one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxport_zoo
import pytest
import typer
from onnxport_zoo.diff import Change, changes
from onnxport_zoo.page import write_page
from onnxport_zoo.results import RUN, Results, write_whole
from page_support import needs_browser, played
from typer.testing import CliRunner


def record(case: str, status: str = "passed", **facts: Any) -> dict[str, Any]:
    settings = {"model": case, "opset": None, "dtype": "", "runtime": "onnx", "options": {}, "verify": {}}
    told = {"case": case, "key": "1", "status": status, "message": "", "stage": "latency", "seconds": 1.5}
    return {**told, "settings": settings, "stages": {"capture": 0.5}, "digest": "aaaa", **facts}


def latency(median: float, spread: float = 1e-5, threads: int = 1) -> dict[str, Any]:
    return {"onnxruntime": {"median": median, "spread": spread}, "threads": threads}


def write_run(folder: Path, records: list[dict[str, Any]], cases: list[str] | None = None) -> Path:
    results = Results(folder)
    names = [each["case"] for each in records] if cases is None else cases
    write_whole(folder / RUN, {"zoo": "zoo.toml", "cases": names, "versions": {"torch": "2.14.1"}})
    for each in records:
        results.append(each)
    return folder


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "same": ({}, {}, []),
    "wrong": ({}, {"status": "wrong", "key": "2"}, ["wrong"]),
    "refused": ({}, {"status": "refused"}, ["failing"]),
    "crashed": ({}, {"status": "crashed"}, ["failing"]),
    "refused, and now wrong": ({"status": "refused"}, {"status": "wrong"}, ["wrong"]),
    "wrong, and now refused": ({"status": "wrong"}, {"status": "refused"}, ["changed"]),
    "fixed": ({"status": "timeout"}, {"status": "passed"}, ["fixed"]),
    "larger": ({"nodes": 10}, {"nodes": 11}, ["larger"]),
    "smaller": ({"nodes": 10}, {"nodes": 9}, ["smaller"]),
    "other bytes": ({}, {"digest": "bbbb"}, ["bytes"]),
    "other bytes of another version": ({}, {"digest": "bbbb", "key": "2"}, []),
    "slower": ({"latency": latency(1e-3)}, {"latency": latency(1.2e-3)}, ["slower"]),
    "slower by less than a tenth": ({"latency": latency(1e-3)}, {"latency": latency(1.09e-3)}, []),
    "slower by less than calls differ": ({"latency": latency(1e-3, 1e-4)}, {"latency": latency(1.3e-3, 1e-4)}, []),
    "slower by less than a clock tells": ({"latency": latency(1e-5, 0)}, {"latency": latency(2e-5, 0)}, []),
    "with other threads": ({"latency": latency(1e-3)}, {"latency": latency(2e-3, threads=2)}, []),
    "faster": ({"latency": latency(1.2e-3)}, {"latency": latency(1e-3)}, ["faster"]),
    "all at once": (
        {"nodes": 1, "latency": latency(1e-3)},
        {"nodes": 2, "latency": latency(2e-3), "digest": "bbbb"},
        ["slower", "larger", "bytes"],
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_changes(name: str, tmp_path: Path) -> None:
    before, after, kinds = PAIRS[name]
    old, new = write_run(tmp_path / "a", [record("m", **before)]), write_run(tmp_path / "b", [record("m", **after)])
    assert [change.kind for change in changes(old, new)] == kinds


def test_cases_that_come_and_go(tmp_path: Path) -> None:
    old = write_run(tmp_path / "a", [record("gone"), record("late"), record("stays", "wrong")])
    new = write_run(tmp_path / "b", [record("stays", "wrong"), record("new", "refused")], ["late", "stays", "new"])
    assert changes(old, new) == [
        Change("late", "missing", "passed"),
        Change("new", "added", after="refused"),
        Change("gone", "removed", "passed"),
    ]


@pytest.mark.parametrize(
    ("after", "fail_on", "code"),
    [
        ({"status": "wrong"}, ["regression"], 1),
        ({"status": "wrong"}, [], 0),
        ({"status": "wrong"}, ["slower", "wrong"], 1),
        ({"status": "wrong"}, ["slower"], 0),
        ({"nodes": 3}, ["regression"], 0),
        ({}, ["regression"], 0),
    ],
)
def test_exit_codes(after: dict[str, Any], fail_on: list[str], code: int, tmp_path: Path) -> None:
    old, new = write_run(tmp_path / "a", [record("m")]), write_run(tmp_path / "b", [record("m", **after)])
    app = typer.Typer()
    onnxport_zoo.onnxport_commands(app)
    app.command("other")(lambda: None)
    options = [part for kind in fail_on for part in ("--fail-on", kind)]
    done = CliRunner().invoke(app, ["zoo", "diff", str(old), str(new), "--json", *options])
    assert done.exit_code == code
    assert json.loads(done.stdout) == [change.as_dict() for change in changes(old, new)]
    shown = CliRunner().invoke(app, ["zoo", "diff", str(old), str(new), *options])
    assert shown.exit_code == code and ("wrong" in shown.stdout) == (after.get("status") == "wrong")


HOSTILE = "</script><img src=x onerror='document.title=1'>&amp;\u2028\x1b[31m"


@needs_browser
def test_the_page_filters_and_tells(tmp_path: Path) -> None:
    records = [
        record(
            "timm:a", nodes=12, bytes=2**20, operators={"Conv": 7, "Relu": 5}, latency=latency(1e-3), shapes=["example"]
        ),
        record("timm:b", "wrong", stage="verify", message=f"off by 3 {HOSTILE}", nodes=9, table="| a |", peak=2**30),
        record("torchvision:c", "crashed", stage="capture", message="It was ended by SIGSEGV.", output=HOSTILE),
        record(f"hostile:{HOSTILE}", "refused", stage="translate", operators_refused=["aten::strange"]),
    ]
    old = write_run(tmp_path / "old", [record("timm:b", nodes=10), record("timm:a", nodes=12, latency=latency(1e-3))])
    new = write_run(tmp_path / "new", records, [*(each["case"] for each in records), "late"])
    path = write_page(new, tmp_path / "page", old)
    assert path == tmp_path / "page" / "index.html"
    script = """
    const cases = () => all("#rows tr:not(.details)").map(row => row.dataset.case);
    const press = text => all("button").find(each => each.textContent.startsWith(text)).click();
    const pick = (select, value) => { $(select).value = value; $(select).dispatchEvent(new Event("change")); };
    const result = { all: cases(), title: document.title, facts: $("#facts").textContent, images: all("img").length };
    press("wrong 1"); result.wrong = cases(); press("wrong 1");
    search("conv relu"); result.conv = cases();
    search("nothing"); result.none = [cases(), $("#none").hidden]; search("");
    pick("#stage", "capture"); result.capture = cases(); pick("#stage", "");
    pick("#change", "worse"); result.worse = cases(); pick("#change", "");
    press("nodes"); result.most = cases(); press("nodes"); result.least = cases();
    press("timm:b"); result.details = $(".details").textContent; result.open = all(".details").length;
    press("timm:b"); result.closed = all(".details").length;
    result.count = $("#count").textContent;
    return result;
    """
    result = played(path.read_text("utf-8"), tmp_path, script)
    names = [each["case"] for each in records]
    a, b, c, hostile = names
    assert sorted(result["all"]) == sorted(names) and result["images"] == 0 and result["title"] == "new"
    assert "1 cases have no result yet" in result["facts"] and "torch 2.14.1" in result["facts"]
    assert result["wrong"] == [b] and result["conv"] == [a] and result["none"] == [[], False]
    assert result["capture"] == [c] and result["worse"] == [b]
    assert result["most"] == [a, b, hostile, c] and result["least"] == [b, a, hostile, c]
    assert "off by 3 </script>" in result["details"] and "10 → 9" in result["details"]
    assert (result["open"], result["closed"], result["count"]) == (1, 0, "4 of 4 cases")


def test_the_page_of_documentation(tmp_path: Path) -> None:
    told = {"example": {"file": 1.0, "ties": ["topk"]}}
    records = [
        record("timm:a", nodes=12, bytes=2_500_000, shapes=["example", "batch=5"], max_abs=1e-6, relative=2e-7),
        record("timm:b", "wrong", stage="verify", message=f"off by 3\n{HOSTILE}", nodes=9),
        record("torchvision:c", "rounding", stage="verify", message="off by 1", rounding=told),
    ]
    run = write_run(tmp_path / "run", records, ["timm:a", "timm:b", "torchvision:c", "torchvision:late"])
    path = write_page(run, tmp_path / "results.md")
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == "# Results of zoos" and "torch 2.14.1" in lines[2]
    assert "| resolver | cases | tried | passed | rounding | wrong |" in lines
    assert "| timm | 2 | 2 | 1 | 0 | 1 |" in lines and "| torchvision | 2 | 1 | 0 | 1 | 0 |" in lines
    (wrong,) = (line for line in lines if line.startswith("| timm:b | wrong | verify |"))
    assert "<img" not in wrong and "\x1b" not in wrong
    assert "| torchvision:c | rounding | verify | off by 1 (choices among equal values or steps: topk) |" in lines
    assert "| timm:a | passed | 12 | 2.5 | 2 | 1.0e-06 | 2.0e-07 |" in lines
